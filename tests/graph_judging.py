"""How a rewritten model is judged: valid, the same contract, nothing taken back, equal numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from trtforge.errors import GraphError
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.graph.weights import is_external, model_tensors, tensor_array

Arrays = dict[str, Any]

RANDOM_OPS = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)

_LAST_PLAIN_TYPE = TensorProto.UINT64
"""Types behind it (but for complex numbers) are not numpy's own, and travel as float32."""

_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)

_TOLERANCES = {
    "float64": 1e-5,  # a rewrite may hold its constants in float32
    "float32": 2e-4,
    "float16": 1e-2,
    "bfloat16": 6e-2,
    "complex64": 2e-4,
    "complex128": 1e-5,
}
"""By type, relative to the largest value of the output: room for sums in another order."""


class WrongError(AssertionError):
    """The optimizer broke a model; the message says how."""


@dataclass(frozen=True)
class Judged:
    """A model that came out valid: what it was, what it became, and how many rewrites."""

    before: Model
    after: Model
    rewrites: int

    @property
    def is_untouched(self) -> bool:
        """Whether nothing at all changed."""
        return _bytes(self.before.proto) == _bytes(self.after.proto)


def through_the_gate(proto: ModelProto, folder: Path) -> Model:
    """Write a model and load it as a user would.

    Raises:
        ForgeError: the gate refuses it.
    """
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return Model.load(path)


def judged(model: Model) -> Judged:
    """Optimize a model, twice, and check all that can be checked without running it.

    Raises:
        WrongError: the original was written to, a pass was taken back, the contract changed, the
            checker refuses the result, or a second run finds something to do.
    """
    original = _bytes(model.proto)
    result = run_passes(model, PassRequest(prove=False))
    if _bytes(model.proto) != original:
        raise WrongError("the original was changed in place")
    for outcome in result.report.passes:
        if outcome.rolled_back:
            raise WrongError(f"pass {outcome.name} was taken back: {outcome.reason}")
    if result.model.contract != model.contract:
        raise WrongError(f"contract {result.model.contract} is not {model.contract}")
    _check_valid(model, result.model)
    again = run_passes(result.model, PassRequest(prove=False))
    left = {o.name: o.rewrites for o in again.report.passes if o.rewrites or o.rolled_back}
    if left:
        raise WrongError(f"a second run still rewrites: {left}")
    return Judged(model, result.model, sum(outcome.rewrites for outcome in result.report.passes))


def _bytes(proto: ModelProto) -> bytes:
    return bytes(proto.SerializeToString(deterministic=True))


def _check_valid(before: Model, after: Model) -> None:
    """Run the full checker; what it holds against the original too is no fault of ours."""
    try:
        onnx.checker.check_model(self_contained(after), full_check=True)
    except Exception as error:
        try:
            onnx.checker.check_model(self_contained(before), full_check=True)
        except Exception:
            onnx.checker.check_model(self_contained(after))
            return
        raise WrongError(f"the checker refuses the result: {error}") from error


def self_contained(model: Model) -> ModelProto:
    """Return a model's protobuf with the weights that are held beside it in their places."""
    if not any(map(is_external, model_tensors(model.proto))):
        return model.proto
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in model_tensors(proto):
        if is_external(tensor):
            values = numpy_helper.from_array(tensor_array(tensor, model.files), tensor.name)
            tensor.CopyFrom(values)
    return proto


def compared(case: Judged, feeds: Sequence[Arrays]) -> tuple[str, str]:
    """Run both models on the same inputs.

    Returns:
        How they were compared, and why not better: "equal" in ONNX Runtime, "reference" in ONNX's
        own evaluator, "random" in types and shapes alone, "untouched" when nothing can run them
        but they are the same to the byte, "not_run".

    Raises:
        WrongError: they differ, or what ran before does not run any more.
    """
    random = _ops(case.before.proto.graph) & RANDOM_OPS
    if random and not _ops(case.after.proto.graph) & RANDOM_OPS:
        raise WrongError(f"{random} were computed beforehand")
    is_random = bool(random)
    try:
        expected = in_onnxruntime(case.before, feeds)
    except GraphError as error:
        return _compared_elsewhere(case, feeds, error.message, is_random=is_random)
    try:
        found = in_onnxruntime(case.after, feeds)
    except GraphError as error:
        raise WrongError(f"ONNX Runtime ran it before, and now: {error.message}") from error
    return _verdict("equal", "", expected, found, is_random)


def _compared_elsewhere(
    case: Judged, feeds: Sequence[Arrays], reason: str, *, is_random: bool
) -> tuple[str, str]:
    try:
        expected = _in_reference(case.before, feeds)
    except Exception as error:  # the evaluator raises whatever its numpy code does
        why = f"{reason}; reference: {type(error).__name__}: {error}"
        return ("untouched" if case.is_untouched else "not_run"), why
    try:
        found = _in_reference(case.after, feeds)
    except Exception as error:  # the same; it also lacks old versions of some operators
        try:
            found = in_onnxruntime(case.after, feeds)
        except GraphError as other:
            raise WrongError(f"nothing runs the result: {error}; {other.message}") from error
    return _verdict("reference", reason, expected, found, is_random)


def _verdict(
    how: str, why: str, expected: list[Arrays], found: list[Arrays], is_random: bool
) -> tuple[str, str]:
    for one, two in zip(expected, found, strict=True):
        check_equal(one, two, values=not is_random)
    return ("random" if is_random else how), why


def in_onnxruntime(model: Model, feeds: Sequence[Arrays]) -> list[Arrays]:
    """Run a model as written, on one thread; types that numpy lacks come and go as float32.

    Raises:
        GraphError: ONNX Runtime cannot.
    """
    widened = _widened(model)
    session = Session(widened, threads=1)
    names = [info.name for info in widened.proto.graph.output]
    results = []
    for case in feeds:
        given = {
            name if name in session.input_names else f"{name}{_WIDE}": _plain(value)
            for name, value in case.items()
        }
        found = session.run(given, names)
        results.append({name.removesuffix(_WIDE): value for name, value in found.items()})
    return results


_WIDE = "/as_float32"


def _array(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _plain(value: Any) -> Any:
    array = _array(value)
    if isinstance(array, np.ndarray) and array.dtype.isbuiltin != 1 and not array.dtype.hasobject:
        return array.astype(np.float32)
    return array


def _widened(model: Model) -> Model:
    """Put a Cast behind every input, and before every output, of a type that numpy lacks."""
    graph = model.proto.graph
    fed = {spec.name for spec in model.contract.inputs}
    odd_inputs = [info.name for info in graph.input if _is_odd(info) and info.name in fed]
    odd_outputs = [info.name for info in graph.output if _is_odd(info)]
    if not odd_inputs and not odd_outputs:
        return model
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    nodes = list(model.proto.graph.node)
    for info in proto.graph.input:
        if info.name in odd_inputs:
            to = info.type.tensor_type.elem_type
            nodes.insert(0, helper.make_node("Cast", [info.name + _WIDE], [info.name], to=to))
            info.name += _WIDE
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    for info in proto.graph.output:
        if info.name in odd_outputs:
            wide = info.name + _WIDE
            nodes.append(helper.make_node("Cast", [info.name], [wide], to=TensorProto.FLOAT))
            info.name = wide
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return Model(proto, files=model.files)


def _is_odd(info: ValueInfoProto) -> bool:
    kind = info.type.tensor_type.elem_type
    return kind > _LAST_PLAIN_TYPE and kind not in _COMPLEX


def _in_reference(model: Model, feeds: Sequence[Arrays]) -> list[Arrays]:
    names = [info.name for info in model.proto.graph.output]
    evaluator = ReferenceEvaluator(self_contained(model))
    results = []
    with np.errstate(all="ignore"):
        for case in feeds:
            given = {name: _array(value) for name, value in case.items()}
            values = evaluator.run(names, given)
            results.append(dict(zip(names, values, strict=True)))
    return results


def check_equal(expected: Arrays, found: Arrays, *, values: bool = True) -> None:
    """Compare the outputs of two models.

    Args:
        expected: the original's.
        found: the result's.
        values: False compares types and shapes alone.

    Raises:
        WrongError: a name, a type, a shape or a value differs.
    """
    if list(expected) != list(found):
        raise WrongError(f"outputs {list(found)} are not {list(expected)}")
    for name, reference in expected.items():
        why = _difference(np.asarray(reference), np.asarray(found[name]), values)
        if why is not None:
            raise WrongError(f"output '{name}': {why}")


def _difference(expected: np.ndarray, found: np.ndarray, values: bool) -> str | None:
    if expected.shape != found.shape:
        return f"shape {found.shape} is not {expected.shape}"
    if expected.dtype != found.dtype and not (expected.dtype.hasobject or found.dtype.hasobject):
        return f"type {found.dtype} is not {expected.dtype}"
    if not values:
        return None
    tolerance = _TOLERANCES.get(expected.dtype.name)
    if tolerance is None:  # also the eight-bit floats: they come from casts alone
        same = np.asarray(expected == found) | np.asarray(expected != expected)
        wrong = expected.size - int(np.count_nonzero(same))
        return f"{wrong} of {expected.size} values differ" if wrong else None
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    one, two = expected.astype(wide), found.astype(wide)
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], two[~finite], equal_nan=True):
        return "the values that are not finite differ"
    if not finite.any():
        return None
    error = float(np.abs(one[finite] - two[finite]).max())
    scale = max(float(np.abs(one[finite]).max()), 1e-6)
    if error <= tolerance * scale:
        return None
    return f"largest error {error:.3g} at a scale of {scale:.3g}"


def _ops(graph: GraphProto) -> set[str]:
    found = set()
    for node in graph.node:
        found.add(node.op_type)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= _ops(attribute.g)
    return found
