"""Raising a model's operator set without changing what it computes.

Most operators only gain types and optional attributes from one version to the next; those nodes
stay as they are. The others are rewritten here, one function for each change. The converter of
the onnx package is not used: it drops metadata, functions and external data.
Source of every change: https://onnx.ai/onnx/operators/ (the "diff" pages of each operator).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from trtforge.errors import GraphError, Place
from trtforge.graph.external import ExternalFiles
from trtforge.graph.skeleton import EXTERNAL_THRESHOLD_BYTES, without_weights
from trtforge.graph.weights import Extent, graph_nodes, model_nodes, set_external, storage_bytes

_OLDEST = 7
"""Before opset 7 broadcasting was explicit; those changes are not known here."""

_UNFLAGGED_CHANGES = {"GroupNormalization": 21, "DFT": 20}
"""Operators that changed their meaning under the same signature, and the version of that."""


def raised(proto: ModelProto, files: ExternalFiles, version: int) -> ModelProto:
    """Return a copy of the model at opset `version`; see `Model.with_opset`.

    Raises:
        GraphError: TF0407, an operator changed in a way that cannot be expressed.
    """
    current = next((i.version for i in proto.opset_import if i.domain in ("", "ai.onnx")), 0)
    newest = onnx.defs.onnx_opset_version()
    if not current >= _OLDEST or version > newest:
        raise GraphError(
            "TF0407",
            f"cannot raise the model from opset {current} to {version}",
            f"opsets {_OLDEST} to {newest} are known; export the model with a newer opset",
        )
    result = ModelProto()
    result.CopyFrom(proto)
    raising = _Raising(proto, result, files, current, version)
    raising.rewrite(result.graph)
    for node in model_nodes(result):
        _refuse_changed(node, current, version)
    for imported in result.opset_import:
        if imported.domain in ("", "ai.onnx"):
            imported.version = version
    needed = helper.find_min_ir_version_for(result.opset_import, ignore_unknown=True)
    result.ir_version = max(result.ir_version, needed)
    return result


def _refuse_changed(node: NodeProto, current: int, version: int) -> None:
    if node.domain not in ("", "ai.onnx"):
        return
    why = _incompatibility(node, current, version)
    if why is not None:
        raise GraphError(
            "TF0407",
            f"cannot raise {node.op_type} from opset {current} to {version}: {why}",
            f"export the model with opset {version} or newer",
            Place(node=node.name or node.output[0]),
        )


def _incompatibility(node: NodeProto, current: int, version: int) -> str | None:
    try:
        new = onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:
        return "the operator is unknown"
    try:
        old = onnx.defs.get_schema(node.op_type, current, "")
    except onnx.defs.SchemaError:
        old = new  # put in by a rewrite
    if old.since_version == new.since_version:
        return None
    if new.deprecated:
        return "the operator was removed"
    changed = _UNFLAGGED_CHANGES.get(node.op_type, 0)
    if old.since_version < changed <= new.since_version:
        return f"its meaning changed in opset {changed}"
    present = {attribute.name for attribute in node.attribute}
    for name in present:
        if name not in new.attributes:
            return f"attribute '{name}' was removed"
    for name, attribute in new.attributes.items():
        if name in present:
            continue
        if attribute.required:
            return f"attribute '{name}' is now required"
        before = old.attributes.get(name)
        if before is not None and str(before.default_value) != str(attribute.default_value):
            return f"the default of '{name}' changed"
    if not new.min_input <= len(node.input) <= new.max_input:
        return "its inputs changed"
    if not new.min_output <= len(node.output) <= new.max_output:
        return "its outputs changed"
    if node.op_type == "BatchNormalization" and len(node.output) > 1 and old.since_version < 14:
        return "its training outputs changed"
    return None


class _Raising:
    """One raise: the model being rewritten, and what the rewrites need to know of it."""

    def __init__(
        self,
        source: ModelProto,
        result: ModelProto,
        files: ExternalFiles,
        current: int,
        version: int,
    ) -> None:
        self._source, self._result, self._files = source, result, files
        self._current, self._version = current, version
        self._names = {name for node in model_nodes(source) for name in (*node.input, *node.output)}
        self._names |= {tensor.name for tensor in source.graph.initializer}
        self._inferred: dict[str, tuple[int, int | None]] | None = None

    def rewrite(self, graph: GraphProto) -> None:
        """Rewrite the nodes of a graph and of its subgraphs."""
        nodes: list[NodeProto] = []
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    self.rewrite(attribute.g)
            nodes.extend(self._rewritten(node))
        if len(nodes) != len(graph.node):
            copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)

    def _rewritten(self, node: NodeProto) -> list[NodeProto]:
        nodes = [node]
        if node.domain not in ("", "ai.onnx"):
            return nodes
        for since, operators, change in _CHANGES:
            if node.op_type in operators and self._current < since <= self._version:
                nodes = change(self, node) or nodes
        return nodes

    def constant(self, node: NodeProto, role: str, values: np.ndarray) -> str:
        """Add an initializer for a node and return its name."""
        name = self.fresh(f"{node.output[0]}_{role}")
        self._result.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def fresh(self, base: str) -> str:
        """Return a tensor name that is not in use."""
        name, number = base, 0
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name

    def inferred(self, name: str) -> tuple[int, int | None]:
        """Return element type (0 if unknown) and rank (None if unknown) of a tensor."""
        if self._inferred is None:
            self._inferred = dict(_inferred_types(self._source, self._files))
        return self._inferred.get(name, (0, None))


def _inferred_types(
    proto: ModelProto, files: ExternalFiles
) -> Iterator[tuple[str, tuple[int, int | None]]]:
    light, moved = without_weights(
        proto, files, lambda tensor: storage_bytes(tensor) >= EXTERNAL_THRESHOLD_BYTES
    )
    for header, source in moved:
        set_external(header, Extent("not-read", 0, storage_bytes(source)))
    graph = onnx.shape_inference.infer_shapes(light).graph
    for tensor in graph.initializer:
        yield tensor.name, (tensor.data_type, len(tensor.dims))
    for body in _graphs(graph):
        for info in (*body.input, *body.value_info, *body.output):
            shaped = info.type.tensor_type.HasField("shape")
            rank = len(info.type.tensor_type.shape.dim) if shaped else None
            yield info.name, (info.type.tensor_type.elem_type, rank)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph_nodes(graph):
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g


def _take(node: NodeProto, name: str, default: Any = None) -> Any:
    """Remove an attribute from a node and return its value."""
    for index, attribute in enumerate(node.attribute):
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            del node.attribute[index]
            return value
    return default


def _has(node: NodeProto, name: str) -> bool:
    return any(attribute.name == name for attribute in node.attribute)


def _int64(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


def _float_like(raising: _Raising, name: str, value: float) -> np.ndarray:
    data_type = raising.inferred(name)[0] or onnx.TensorProto.FLOAT
    return np.asarray(value, dtype=helper.tensor_dtype_to_np_dtype(data_type))


def _axes_to_input(raising: _Raising, node: NodeProto) -> None:
    axes = _take(node, "axes")
    if axes is not None and len(node.input) == 1:
        node.input.append(raising.constant(node, "axes", _int64(axes)))


def _split_to_input(raising: _Raising, node: NodeProto) -> None:
    split = _take(node, "split")
    if split is not None and len(node.input) == 1:
        node.input.append(raising.constant(node, "split", _int64(split)))


def _split_count(raising: _Raising, node: NodeProto) -> None:
    del raising
    if len([name for name in node.input if name]) == 1 and not _has(node, "num_outputs"):
        node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))


def _clip_to_inputs(raising: _Raising, node: NodeProto) -> None:
    for role in ("min", "max"):
        bound = _take(node, role)
        value = None if bound is None else _float_like(raising, node.input[0], bound)
        node.input.append("" if value is None else raising.constant(node, role, value))


def _dropout_to_input(raising: _Raising, node: NodeProto) -> None:
    ratio = _take(node, "ratio", 0.5)
    node.input.append(raising.constant(node, "ratio", np.asarray(ratio, dtype=np.float32)))


def _pad_to_inputs(raising: _Raising, node: NodeProto) -> None:
    node.input.append(raising.constant(node, "pads", _int64(_take(node, "pads"))))
    value = _float_like(raising, node.input[0], _take(node, "value", 0.0))
    node.input.append(raising.constant(node, "value", value))


def _topk_to_input(raising: _Raising, node: NodeProto) -> None:
    node.input.append(raising.constant(node, "k", _int64([_take(node, "k")])))


def _slice_to_inputs(raising: _Raising, node: NodeProto) -> None:
    for role in ("starts", "ends", "axes"):
        values = _take(node, role)
        if values is not None:
            node.input.append(raising.constant(node, role, _int64(values)))


def _batchnorm_spatial(raising: _Raising, node: NodeProto) -> None:
    del raising
    if _take(node, "spatial", 1) != 1:
        node.attribute.append(helper.make_attribute("spatial", 0))  # refused later, by name


def _first_resize(raising: _Raising, node: NodeProto) -> None:
    if len(node.input) == 2:  # a rewritten Upsample has three
        _resize(raising, node)


def _resize(raising: _Raising, node: NodeProto) -> None:
    """Upsample and the first Resize: asymmetric coordinates, rounded down."""
    scales = _take(node, "scales")
    if scales is not None:
        node.input.append(raising.constant(node, "scales", np.asarray(scales, np.float32)))
    data, factors = node.input[0], node.input[1]
    mode = _take(node, "mode", b"nearest")
    del node.input[:]
    node.input.extend((data, "", factors))
    node.op_type = "Resize"
    for name, value in (
        ("mode", "linear" if mode == b"bilinear" else mode.decode()),
        ("coordinate_transformation_mode", "asymmetric"),
        ("nearest_mode", "floor"),
    ):
        node.attribute.append(helper.make_attribute(name, value))


def _grid_sample_mode(raising: _Raising, node: NodeProto) -> None:
    del raising
    mode = _take(node, "mode", b"bilinear").decode()
    new = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    node.attribute.append(helper.make_attribute("mode", new))


def _softmax_axis(raising: _Raising, node: NodeProto) -> list[NodeProto] | None:
    """Up to opset 12 the input was flattened to a matrix at `axis`; since 13 one axis is meant.

    The two agree on the last axis; otherwise the flattening is written out.
    """
    axis = _take(node, "axis", 1)
    rank = raising.inferred(node.input[0])[1]
    if axis == -1 or (rank is not None and axis % rank == rank - 1):
        node.attribute.append(helper.make_attribute("axis", -1))
        return None
    data, result = node.input[0], node.output[0]
    shape, flat, soft = (raising.fresh(f"{result}_{role}") for role in ("shape", "flat", "soft"))
    node.input[0], node.output[0] = flat, soft
    node.attribute.append(helper.make_attribute("axis", -1))
    return [
        helper.make_node("Shape", [data], [shape], name=raising.fresh(f"{node.name}/Shape")),
        helper.make_node(
            "Flatten", [data], [flat], name=raising.fresh(f"{node.name}/Flatten"), axis=axis
        ),
        node,
        helper.make_node(
            "Reshape", [soft, shape], [result], name=raising.fresh(f"{node.name}/Reshape")
        ),
    ]


_REDUCTIONS = frozenset(
    f"Reduce{kind}"
    for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)

_CHANGES: tuple[tuple[int, frozenset[str], Callable[[_Raising, NodeProto], Any]], ...] = (
    (9, frozenset({"BatchNormalization"}), _batchnorm_spatial),
    (10, frozenset({"Upsample"}), _resize),
    (10, frozenset({"TopK"}), _topk_to_input),
    (10, frozenset({"Slice"}), _slice_to_inputs),
    (11, frozenset({"Resize"}), _first_resize),
    (11, frozenset({"Clip"}), _clip_to_inputs),
    (11, frozenset({"Pad"}), _pad_to_inputs),
    (12, frozenset({"Dropout"}), _dropout_to_input),
    (13, frozenset({"ReduceSum", "Squeeze", "Unsqueeze"}), _axes_to_input),
    (13, frozenset({"Split"}), _split_to_input),
    (13, frozenset({"Softmax", "LogSoftmax", "Hardmax"}), _softmax_axis),
    (18, _REDUCTIONS, _axes_to_input),
    (18, frozenset({"Split"}), _split_count),
    (20, frozenset({"GridSample"}), _grid_sample_mode),
)
"""(opset, operators, what changed in that opset), in order of opsets."""
