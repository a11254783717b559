"""What depends on constants alone is computed once, here."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs
from onnx import ModelProto, helper, numpy_helper

from trtforge.errors import GraphError
from trtforge.graph.dialect import export_node
from trtforge.graph.edit import Editor
from trtforge.graph.evaluate import evaluate
from trtforge.graph.model import Model
from trtforge.graph.nodes import bodies, constant_bytes, constant_values, is_standard

if TYPE_CHECKING:
    from trtforge.graph.execute import Session

_NEVER = frozenset(
    {
        # Precision lives in these; a folded pair would be a plain FP32 weight.
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        # Another value each time.
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormalLike",
        "RandomUniformLike",
        # Bodies are left alone.
        "If",
        "Loop",
        "Scan",
        "SequenceMap",
    }
)

_FREE_GROWTH_BYTES = 1 << 20
"""A result above this size must not be bigger than what it is computed from and what goes with
it: a stored ConstantOfShape or Expand of 100 MB would cost the engine more than it saves, and a
transposed copy of an embedding that is used elsewhere too would be a second embedding."""

_AS_INPUT_BYTES = 1024
_MAX_TRIES = 8


class FoldConstants:
    """Compute nodes whose inputs are all constant.

    Matches: standard operators with constant inputs only, in chains of any length.
    Rewrites to: an initializer of the same name; the usual operators are computed by numpy, the
    others by ONNX Runtime without optimizations.
    Refuses when: the operator is random, has a body, or quantizes; the result is an output of
    the graph, or above 1 MiB and bigger than what goes because of it.

    Any operator of https://onnx.ai/onnx/operators/, at any opset.
    """

    name = "constant-folding"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        refused: dict[int, tuple[gs.Node, str]] = {}
        for node in editor.nodes():
            _fold_simple(editor, node, refused)
        for _ in range(_MAX_TRIES):
            group = _foldable(editor, refused)
            if not group.nodes:
                break
            values, objections = _evaluated(editor.graph, group)
            if not objections:
                _commit(editor, group, values)
                break
            refused.update((id(node), (node, why)) for node, why in objections)
        for node, why in refused.values():
            editor.refuse(node, why)


def _fold_simple(editor: Editor, node: gs.Node, refused: dict[int, tuple[gs.Node, str]]) -> None:
    """Fold one node by numpy, where numpy can."""
    if len(node.outputs) != 1 or node.op in _NEVER or not node.inputs:
        return
    if not all(isinstance(tensor, gs.Constant) or not tensor.name for tensor in node.inputs):
        return
    result = node.outputs[0]
    if not is_standard(node) or editor.is_kept(result):
        return
    arrays = [constant_values(tensor) if tensor.name else None for tensor in node.inputs]
    if any(a is None and t.name for a, t in zip(arrays, node.inputs, strict=True)):
        return  # sparse
    limit = max(_FREE_GROWTH_BYTES, _freed_bytes(editor, node))
    if node.op not in ("Shape", "Size") and _sure_bytes(node, arrays) > limit:
        refused[id(node)] = (node, _growth(result.name, _sure_bytes(node, arrays), limit))
        return
    value = evaluate(node.op, list(arrays), node.attrs)
    if value is None or value.nbytes > limit:
        return
    editor.match(node, "computed from constants")
    editor.replace_uses(result, gs.Constant(result.name, value))
    editor.remove(node)


def _freed_bytes(editor: Editor, node: gs.Node) -> int:
    """Bytes of the constants that nothing but this node reads: they go when it goes."""
    private = {id(t): t for t in node.inputs if t.name and editor.is_private(t)}
    return sum(constant_bytes(tensor) for tensor in private.values())


def _sure_bytes(node: gs.Node, arrays: list[np.ndarray | None]) -> int:
    """A lower bound of the result's size, known before it is computed; 0 when there is none."""
    if node.op in ("Transpose", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity"):
        return 0 if arrays[0] is None else int(arrays[0].nbytes)
    if node.op == "Expand" and arrays[0] is not None and arrays[1] is not None:
        return math.prod(int(dim) for dim in arrays[1].reshape(-1)) * int(arrays[0].itemsize)
    if node.op == "Range" and all(array is not None and array.size == 1 for array in arrays):
        start, stop, step = (array.item() for array in arrays if array is not None)
        return int(abs(stop - start) / abs(step) * 8) if step else 0
    return 0


def _growth(name: str, size: int, limit: int) -> str:
    return f"'{name}' would take {size} bytes, and it frees or may take only {limit}"


@dataclass
class _Group:
    """Nodes to be computed together.

    Attributes:
        nodes: in topological order.
        constants: what they read, by name.
        cone_bytes: for each computed tensor, the bytes of the constants behind it.
        frontier: computed tensors that other nodes read, with the node of each.
    """

    nodes: list[gs.Node] = field(default_factory=list)
    constants: dict[str, gs.Constant] = field(default_factory=dict)
    cone_bytes: dict[str, int] = field(default_factory=dict)
    frontier: list[tuple[gs.Node, gs.Tensor]] = field(default_factory=list)


def _foldable(editor: Editor, refused: dict[int, tuple[gs.Node, str]]) -> _Group:
    group = _Group()
    members: set[int] = set()
    for node in editor.nodes():
        if id(node) not in refused and _is_foldable(node, editor, group):
            members.add(id(node))
            group.nodes.append(node)
            for tensor in node.inputs:
                if isinstance(tensor, gs.Constant):
                    group.constants[tensor.name] = tensor
            cone = sum(_bytes_behind(tensor, group) for tensor in node.inputs)
            group.cone_bytes.update((tensor.name, cone) for tensor in node.outputs if tensor.name)
    for node in group.nodes:
        for tensor in node.outputs:
            if any(id(user) not in members for user in editor.users(tensor, len(tensor.outputs))):
                group.frontier.append((node, tensor))
    return group


def _is_foldable(node: gs.Node, editor: Editor, group: _Group) -> bool:
    if node.op in _NEVER or not is_standard(node) or any(True for _ in bodies(node)):
        return False
    given = [tensor for tensor in node.inputs if tensor.name]
    if not given or not all(_is_known(tensor, group) for tensor in given):
        return False
    used = any(editor.users(tensor, 1) for tensor in node.outputs)
    return used and not any(editor.is_kept(tensor) for tensor in node.outputs)


def _is_known(tensor: gs.Tensor, group: _Group) -> bool:
    if isinstance(tensor, gs.Constant):
        return hasattr(tensor.dtype, "kind") and tensor.dtype.kind in "biuf"
    return tensor.name in group.cone_bytes


def _bytes_behind(tensor: gs.Tensor, group: _Group) -> int:
    if isinstance(tensor, gs.Constant):
        return constant_bytes(tensor)
    return group.cone_bytes.get(tensor.name, 0)


_Values = dict[str, np.ndarray]
_Objections = list[tuple[gs.Node, str]]


def _evaluated(graph: gs.Graph, group: _Group) -> tuple[_Values, _Objections]:
    """Compute the frontier; what cannot or should not be stored comes back as objections."""
    objections = [(node, why) for node in group.nodes if (why := _too_big_a_fill(node)) is not None]
    if objections:
        return {}, objections
    try:
        values = _run(graph, group.nodes, group.constants, [t.name for _, t in group.frontier])
    except GraphError as error:
        return {}, _culprits(graph, group, error)
    for node, tensor in group.frontier:
        value = values[tensor.name]
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            objections.append((node, f"'{tensor.name}' is not a tensor of numbers"))
        elif value.nbytes > max(_FREE_GROWTH_BYTES, group.cone_bytes[tensor.name]):
            objections.append(
                (
                    node,
                    f"'{tensor.name}' would take {value.nbytes} bytes, and it is computed "
                    f"from {group.cone_bytes[tensor.name]}",
                )
            )
    return values, objections


def _too_big_a_fill(node: gs.Node) -> str | None:
    """Refuse a huge ConstantOfShape before it is made."""
    shape = constant_values(node.inputs[0]) if node.op == "ConstantOfShape" else None
    if shape is None:
        return None
    count = math.prod(int(dim) for dim in shape.reshape(-1))
    return f"it would fill {count} elements" if count > _FREE_GROWTH_BYTES else None


def _culprits(graph: gs.Graph, group: _Group, error: GraphError) -> _Objections:
    """Compute node by node to find those that ONNX Runtime cannot do."""
    known: dict[str, gs.Constant] = dict(group.constants)
    objections: _Objections = []
    for node in group.nodes:
        given = {t.name: known[t.name] for t in node.inputs if t.name in known}
        if any(tensor.name and tensor.name not in known for tensor in node.inputs):
            continue  # behind a node that failed
        try:
            names = [tensor.name for tensor in node.outputs if tensor.name]
            for name, value in _run(graph, [node], given, names).items():
                known[name] = gs.Constant(name, value)
        except (GraphError, ValueError) as failure:
            why = failure.message if isinstance(failure, GraphError) else "it is no tensor"
            objections.append((node, why))
    return objections or [(node, error.message) for node in group.nodes]


def _run(
    graph: gs.Graph, nodes: list[gs.Node], constants: dict[str, gs.Constant], outputs: list[str]
) -> _Values:
    proto = ModelProto(ir_version=max(graph.ir_version or 8, 8))
    for imported in graph.import_domains or ():
        version = graph.opset if imported.domain in ("", "ai.onnx") else imported.version
        proto.opset_import.add(domain=imported.domain, version=version)
    proto.graph.name = "constants"
    feeds = {}
    for name, constant in constants.items():
        values = constant_values(constant)
        if values is None:
            raise GraphError("TF0410", f"constant '{name}' is sparse")
        if values.nbytes < _AS_INPUT_BYTES:  # operators may want shapes and axes to be constant
            proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        else:
            data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
            proto.graph.input.append(helper.make_tensor_value_info(name, data_type, values.shape))
            feeds[name] = values
    for node in nodes:
        export_node(node, proto.graph.node.add())
    return _session(proto, outputs).run(feeds, outputs)


def _session(proto: ModelProto, outputs: list[str]) -> "Session":
    from trtforge.graph.execute import Session  # most models have nothing that needs a session

    return Session(Model(proto), outputs=outputs)


def _commit(editor: Editor, group: _Group, values: _Values) -> None:
    for _, tensor in group.frontier:
        editor.replace_uses(tensor, gs.Constant(tensor.name, values[tensor.name]))
    for node in group.nodes:
        editor.match(node, "computed from constants")
        editor.remove(node)
