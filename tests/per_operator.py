"""What a typed graph means, operator by operator: the model that emulation is held to.

Tensors are numpy arrays of the graph's own types (float16, ml_dtypes' bfloat16, ...). Add, Sub,
Mul, Div, Sqrt and Cast are numpy's; control flow and sequences are written out here; any other
operator runs alone, in FP32, as a model of one node. Whatever it gives is then rounded by numpy or
ml_dtypes to the type that the operator's schema declares. Nothing of trtforge.precision is used.
"""

from collections import ChainMap
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, defs, helper, numpy_helper

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.graph.weights import numpy_dtype, tensor_array

Env = MutableMapping[str, Any]

HALF, BRAIN = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
NARROW = (HALF, BRAIN)
INT4 = np.dtype(ml_dtypes.int4)
FP8 = {np.dtype(ml_dtypes.float8_e4m3fn): 448.0, np.dtype(ml_dtypes.float8_e5m2): 57344.0}
BASIC: dict[str, Callable[..., np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Sqrt": np.sqrt,
}
TYPE_ATTRIBUTES = ("dtype", "output_dtype", "precision", "stash_type", "softmax_precision")


class PerOperator:
    """Evaluates a typed model.

    Args:
        model: its local functions are written out by the onnx package.
        threads: threads within one operator, as in the run that it is compared with.
    """

    def __init__(self, model: Model, threads: int | None = None) -> None:
        if model.proto.functions:
            model = Model(onnx.inliner.inline_local_functions(model.proto), files=model.files)
        self._model = model
        self._threads = threads
        self._constants: set[int] = set()

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return every tensor of the main graph by name, constants and inputs included."""
        env: Env = ChainMap(dict(feeds))
        with np.errstate(all="ignore"):
            return dict(self._graph(self._model.proto.graph, env))

    def _graph(self, graph: GraphProto, env: Env) -> Env:
        for weight in graph.initializer:
            if weight.name not in env.maps[0]:  # type: ignore[attr-defined]
                env[weight.name] = tensor_array(weight, self._model.files)
                self._constants.add(id(env[weight.name]))
        for node in graph.node:
            results = self._node(node, env)
            env.update((n, v) for n, v in zip(node.output, results, strict=False) if n)
        return env

    def _body(self, body: GraphProto, env: Env, values: list[Any]) -> list[Any]:
        names = [value.name for value in body.input]
        inner = ChainMap(dict(zip(names, values, strict=True)), *env.maps)  # type: ignore[attr-defined]
        self._graph(body, inner)
        return [inner[value.name] for value in body.output]

    def _node(self, node: NodeProto, env: Env) -> list[Any]:
        inputs = [env[name] if name else None for name in node.input]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type in BASIC and inputs[0].dtype in (*NARROW, np.float32):
            wide = [value.astype(np.float32) for value in inputs]
            return [rounded(np.asarray(BASIC[node.op_type](*wide)), inputs[0].dtype)]
        special = getattr(self, f"_{node.op_type.lower()}", None)
        if special is not None:
            return list(special(inputs, attributes, env))
        return self._alone(node, inputs, attributes)

    # -- numpy's casts, control flow, sequences ------------------------------------------------

    def _cast(self, inputs: list[Any], attributes: dict[str, Any], env: Env) -> Iterator[Any]:
        yield _converted(inputs[0], numpy_dtype(attributes["to"]), attributes)

    def _castlike(self, inputs: list[Any], attributes: dict[str, Any], env: Env) -> Iterator[Any]:
        yield _converted(inputs[0], inputs[1].dtype, attributes)

    def _constant(self, inputs: list[Any], attributes: dict[str, Any], env: Env) -> Iterator[Any]:
        ((name, value),) = attributes.items()
        kind = np.float32 if "float" in name else np.int64
        yield numpy_helper.to_array(value) if name == "value" else np.asarray(value, kind)

    def _if(self, inputs: list[Any], attributes: dict[str, Any], env: Env) -> Iterator[Any]:
        yield from self._body(
            attributes["then_branch" if inputs[0].item() else "else_branch"], env, []
        )

    def _loop(self, inputs: list[Any], attributes: dict[str, Any], env: Env) -> Iterator[Any]:
        limit = np.inf if inputs[0] is None else inputs[0].item()
        goes_on = inputs[1] is None or inputs[1].item()
        state, step = list(inputs[2:]), 0
        scans: list[list[Any]] = []
        while goes_on and step < limit:
            given = [np.array(step, np.int64), np.array(True), *state]
            cond, *results = self._body(attributes["body"], env, given)
            goes_on, step = cond.item(), step + 1
            state = results[: len(state)]
            scans.append(results[len(state) :])
        yield from state
        yield from (np.stack(parts) for parts in zip(*scans, strict=True))

    def _scan(self, inputs: list[Any], attributes: dict[str, Any], env: Env) -> Iterator[Any]:
        count = len(inputs) - attributes["num_scan_inputs"]
        state, scanned = list(inputs[:count]), inputs[count:]
        scans: list[list[Any]] = []
        for step in range(len(scanned[0])):
            given = [*state, *(values[step] for values in scanned)]
            results = self._body(attributes["body"], env, given)
            state = results[:count]
            scans.append(results[count:])
        yield from state
        yield from (np.stack(parts) for parts in zip(*scans, strict=True))

    def _sequenceconstruct(
        self, inputs: list[Any], attributes: dict[str, Any], env: Env
    ) -> Iterator[Any]:
        yield list(inputs)

    def _sequenceempty(
        self, inputs: list[Any], attributes: dict[str, Any], env: Env
    ) -> Iterator[Any]:
        yield []

    def _sequenceinsert(
        self, inputs: list[Any], attributes: dict[str, Any], env: Env
    ) -> Iterator[Any]:
        sequence = list(inputs[0])
        place = inputs[2].item() if len(inputs) > 2 else len(sequence)
        sequence.insert(place, inputs[1])
        yield sequence

    def _sequenceat(self, inputs: list[Any], attributes: dict[str, Any], env: Env) -> Iterator[Any]:
        yield inputs[0][inputs[1].item()]

    def _concatfromsequence(
        self, inputs: list[Any], attributes: dict[str, Any], env: Env
    ) -> Iterator[Any]:
        yield np.concatenate(inputs[0], attributes["axis"])

    # -- one node alone --------------------------------------------------------------------------

    def _alone(
        self, node: NodeProto, inputs: list[Any], attributes: dict[str, Any]
    ) -> list[np.ndarray]:
        single = NodeProto()
        single.CopyFrom(node)
        _in_fp32(single)
        names = [f"i{index}" if value is not None else "" for index, value in enumerate(inputs)]
        del single.input[:]
        single.input.extend(names)
        weights, values, feeds = [], [], {}
        for name, value in zip(names, inputs, strict=True):
            if value is None:
                continue
            wide = np.asarray(value.astype(_held_in(value.dtype, node.op_type)))
            if id(value) in self._constants or wide.dtype.kind not in "biuf":
                weights.append(numpy_helper.from_array(wide, name))
            else:
                kind = helper.np_dtype_to_tensor_dtype(wide.dtype)
                values.append(helper.make_tensor_value_info(name, kind, wide.shape))
                feeds[name] = wide
        wanted = [name for name in node.output if name]
        results = [onnx.ValueInfoProto(name=name) for name in wanted]
        graph = helper.make_graph([single], "one", values, results, weights)
        proto = onnx.ModelProto(ir_version=self._model.proto.ir_version, graph=graph)
        proto.opset_import.extend(self._model.proto.opset_import)
        got = Session(Model(proto), threads=self._threads).run(feeds)
        kinds = self._declared(node, inputs, attributes)
        return [
            rounded(got[name], kinds[index]) if name else None  # type: ignore[misc]
            for index, name in enumerate(node.output)
        ]

    def _declared(
        self, node: NodeProto, inputs: list[Any], attributes: dict[str, Any]
    ) -> list[np.dtype[Any] | None]:
        """The types of a node's results; None for what ONNX Runtime gives."""
        if node.op_type == "DequantizeLinear":
            named = attributes.get("output_dtype")
            return [numpy_dtype(named) if named else inputs[1].dtype]
        if node.op_type == "QuantizeLinear":
            named = attributes.get("output_dtype")
            return [numpy_dtype(named) if named else inputs[2].dtype]
        if node.op_type == "ConstantOfShape":
            return [numpy_helper.to_array(attributes["value"]).dtype]
        if attributes.get("dtype"):
            return [numpy_dtype(attributes["dtype"])] * len(node.output)
        if node.op_type in ("EyeLike", "RandomNormalLike"):
            return [inputs[0].dtype]
        if node.op_type == "LayerNormalization":
            stash = numpy_dtype(attributes.get("stash_type", TensorProto.FLOAT))
            return [inputs[0].dtype, stash, stash]
        schema = defs.get_schema(node.op_type, self._model.opset, node.domain)
        bound: dict[str, np.dtype[Any]] = {}
        for index, value in enumerate(inputs):
            formal = schema.inputs[min(index, len(schema.inputs) - 1)]
            if value is not None:
                bound.setdefault(formal.type_str, value.dtype)
        formals = [schema.outputs[min(i, len(schema.outputs) - 1)] for i in range(len(node.output))]
        return [bound.get(formal.type_str) for formal in formals]


def _converted(value: np.ndarray, kind: np.dtype[Any], attributes: dict[str, Any]) -> np.ndarray:
    if kind in FP8 and attributes.get("saturate", 1):
        value = np.clip(value.astype(np.float32), -FP8[kind], FP8[kind])
    return rounded(value, kind)


def rounded(values: np.ndarray, kind: np.dtype[Any] | None) -> np.ndarray:
    """Convert to a type; what is wider than FP32 goes through FP32."""
    if kind is None or values.dtype == kind:
        return values
    if kind in FP8 and values.dtype == np.uint8:  # how ONNX Runtime hands FP8 over
        return values.view(kind)
    if kind in (*NARROW, *FP8):
        values = values.astype(np.float32)
    return values.astype(kind)


def _held_in(kind: np.dtype[Any], op: str) -> np.dtype[Any]:
    """What ONNX Runtime computes with; it moves neither FP8 nor INT4 everywhere."""
    if kind in NARROW:
        return np.dtype(np.float32)
    if op in ("QuantizeLinear", "DequantizeLinear"):
        return kind
    if kind in FP8:
        return np.dtype(np.float32)
    return np.dtype(np.int8) if kind == INT4 else kind


def _in_fp32(node: NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name in TYPE_ATTRIBUTES and attribute.i in (
            TensorProto.FLOAT16,
            TensorProto.BFLOAT16,
        ):
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("t"):
            values = numpy_helper.to_array(attribute.t)
            if values.dtype in NARROW:
                attribute.t.CopyFrom(numpy_helper.from_array(values.astype(np.float32)))


def same_bits(got: np.ndarray, expected: np.ndarray) -> bool:
    """Whether a tensor of the twin has the expected values: NaN where it has, all else bit by bit.

    Args:
        got: in FP32 where `expected` is FP16 or BF16, else in its type.
        expected: of the graph's own type.
    """
    if expected.dtype in (*NARROW, np.float32):
        if got.dtype != expected.dtype:
            expected = expected.astype(np.float32)
        if got.shape != expected.shape or got.dtype != expected.dtype:
            return False
        nan = np.isnan(expected)
        if not (np.isnan(got) == nan).all():
            return False
        got, expected = np.where(nan, 0, got), np.where(nan, 0, expected)
    if expected.dtype in FP8:
        expected = expected.view(np.uint8)
    return got.shape == expected.shape and got.tobytes() == expected.tobytes()
