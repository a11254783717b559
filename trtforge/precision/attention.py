"""Attention whose mask does not fit the wanted type is spelled out before types are placed.

A mask of -3.4e38 keeps the whole operator FP32, products included, and TensorRT-RTX 1.7 does not
build an FP32 Attention with a mask in a network that has FP16 as well ("element type (half)
differs"). Spelled out, only mask and softmax stay FP32, as in a model that never was fused.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from trtforge.graph.model import Model
from trtforge.precision.constants import editable_graph
from trtforge.precision.hazards import RangeHazards
from trtforge.precision.masks import shrink_masks
from trtforge.precision.names import Names
from trtforge.precision.rules import kept_by
from trtforge.precision.typeinfo import infer
from trtforge.recipe.schema import Precision

_MASK = 3
_HEADS_FIRST, _TRANSPOSED, _SWAP_LAST = [0, 2, 1, 3], [0, 2, 3, 1], [0, 1, 3, 2]

_Shapes = Mapping[str, tuple[int | None, ...]]


def without_wide_masks(
    model: Model, precision: Precision, observed: Mapping[str, float] | None = None
) -> Model:
    """Spell out every Attention that a float mask would keep FP32.

    Attention, ONNX operator since opset 23: https://onnx.ai/onnx/operators/onnx__Attention.html

    Args:
        model: an FP32 model.
        precision: the wanted type and the keep rules; what a rule names is left alone.
        observed: largest magnitude that calibration saw, per tensor.

    Returns:
        The model itself when it has no such node. Nodes with a cache, a soft cap, `is_causal`
        beside the mask, further outputs, or heads of unknown number or size stay as they are.
    """
    masked = [n for n in model.proto.graph.node if n.op_type == "Attention" and len(n.input) > 3]
    if precision.type == "fp32" or not masked:
        return model
    shapes, types = _known(model)
    graph = editable_graph(model)
    shrink_masks(graph, observed)
    names = Names(graph)
    hazards = RangeHazards(precision.type, observed or {})
    nodes: list[gs.Node] = []
    for node in graph.nodes:
        reason = hazards.visit(node)
        wants = reason is not None and node.op == "Attention" and not node.domain
        if wants and types.get(_mask_name(node)) == TensorProto.FLOAT:
            wants = kept_by(node, precision.keep) is None
            spelled = _Spelling(node, shapes, names).nodes() if wants else []
            nodes.extend(spelled or [node])
        else:
            nodes.append(node)
    if len(nodes) == len(graph.nodes):
        return model
    graph.nodes.clear()
    graph.nodes.extend(nodes)
    return model.with_graph(graph)


def _mask_name(node: gs.Node) -> str:
    return str(node.inputs[_MASK].name) if len(node.inputs) > _MASK else ""


def _known(model: Model) -> tuple[_Shapes, Mapping[str, int]]:
    graph = infer(model.proto).graph
    shapes: dict[str, tuple[int | None, ...]] = {}
    types: dict[str, int] = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        types[value.name] = tensor.elem_type
        if tensor.HasField("shape"):
            dims = tensor.shape.dim
            shapes[value.name] = tuple(d.dim_value if d.dim_value > 0 else None for d in dims)
    types |= {weight.name: weight.data_type for weight in model.proto.graph.initializer}
    return shapes, types


class _Spelling:
    """The nodes that compute what one Attention computes."""

    def __init__(self, node: gs.Node, shapes: _Shapes, names: Names) -> None:
        self._node, self._names = node, names
        self._made: list[gs.Node] = []
        self._is_flat = "q_num_heads" in node.attrs
        query, key = (shapes.get(tensor.name, ()) for tensor in node.inputs[:2])
        if self._is_flat:
            self._heads: int | None = int(node.attrs["q_num_heads"])
            self._shared: int | None = int(node.attrs.get("kv_num_heads", 0)) or None
            width = query[2] if len(query) == 3 else None
            self._size = width // self._heads if width is not None and self._heads else None
        else:
            known = len(query) == 4 and len(key) == 4
            self._heads = query[1] if known else None
            self._shared = key[1] if known else None
            self._size = query[3] if known else None
        self._value_size = (shapes.get(node.inputs[2].name) or (None,))[-1]

    def nodes(self) -> list[gs.Node]:
        """Return them, in order; none when the node cannot be spelled out."""
        node = self._node
        scale = node.attrs.get("scale")
        if scale is None and self._size is not None:
            scale = 1 / math.sqrt(self._size)
        if scale is None or not self._heads or not self._shared or self._is_special():
            return []
        if self._heads % self._shared or not (self._is_flat or (self._size and self._value_size)):
            return []
        query, key, value, mask = node.inputs[:4]
        query = self._add("Mul", self._apart(query, self._heads, _HEADS_FIRST), _scalar(scale))
        keys = self._repeated(key, self._size, _TRANSPOSED)
        scores = self._add("MatMul", query, keys if self._is_flat else self._turned(keys))
        weights = self._add("Softmax", self._add("Add", scores, mask), axis=-1)
        result = self._add("MatMul", weights, self._repeated(value, self._value_size, _HEADS_FIRST))
        if self._is_flat:
            joined = self._add("Transpose", result, perm=_HEADS_FIRST)
            self._add("Reshape", joined, np.array([0, 0, -1], np.int64))
        self._take_over(node)
        return self._made

    def _is_special(self) -> bool:
        attrs, node = self._node.attrs, self._node
        has_cache = any(tensor.name for tensor in node.inputs[_MASK + 1 :])
        has_more = any(tensor.name for tensor in node.outputs[1:])
        return bool(has_cache or has_more or attrs.get("is_causal") or attrs.get("softcap"))

    def _apart(self, tensor: gs.Tensor, heads: int, perm: Sequence[int]) -> gs.Tensor:
        if not self._is_flat:
            return tensor
        apart = self._add("Reshape", tensor, np.array([0, 0, heads, -1], np.int64))
        return self._add("Transpose", apart, perm=list(perm))

    def _repeated(self, tensor: gs.Tensor, size: int | None, perm: Sequence[int]) -> gs.Tensor:
        """Say each head of keys or values as often as queries share it."""
        assert self._heads
        assert self._shared
        repeats = self._heads // self._shared
        if repeats == 1:
            return self._apart(tensor, self._heads, perm)
        axis, shape = (3, [0, 0, self._heads, -1]) if self._is_flat else (2, [0, self._heads, -1])
        if self._is_flat:
            sides = np.array([0, 0, self._shared, -1], np.int64)
            tensor = self._add("Reshape", tensor, sides)
        else:
            shape.append(size or -1)
        times = np.ones(5, np.int64)
        times[axis] = repeats
        thin = self._add("Unsqueeze", tensor, np.array([axis], np.int64))
        merged = self._add("Reshape", self._add("Expand", thin, times), np.array(shape, np.int64))
        return self._add("Transpose", merged, perm=list(perm)) if self._is_flat else merged

    def _turned(self, keys: gs.Tensor) -> gs.Tensor:
        return self._add("Transpose", keys, perm=_SWAP_LAST)

    def _add(self, op: str, *inputs: gs.Tensor | np.ndarray, **attrs: Any) -> gs.Tensor:
        base = self._node.outputs[0].name
        given = [
            gs.Constant(self._names.fresh(f"{base}_{op}_operand"), one)
            if isinstance(one, np.ndarray)
            else one
            for one in inputs
        ]
        result = gs.Variable(self._names.fresh(f"{base}_{op}"))
        name = self._names.fresh_node(f"{self._node.name or base}_{op}")
        self._made.append(gs.Node(op, name, attrs, given, [result]))
        return result

    def _take_over(self, node: gs.Node) -> None:
        result = node.outputs[0]
        node.outputs.clear()
        node.inputs.clear()
        last = self._made[-1]
        last.outputs.clear()
        last.outputs.append(result)


def _scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)
