"""The values of small integer tensors that are computed from dimensions: what shapes are made of.

Each is a vector (or a scalar) of sizes; an entry that nothing is known of is None.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values
from trtforge.graph.symbols import Size, product

MAX_ELEMENTS = 64
"""Vectors above this length are no shapes; their values are left to constant folding."""


class Value(NamedTuple):
    """What a tensor of rank 0 or 1 holds; booleans are 0 and 1."""

    elements: tuple[Size | None, ...]
    rank: int

    @property
    def numbers(self) -> tuple[int, ...] | None:
        """The elements as numbers, None unless all are."""
        found = [None if size is None else size.number for size in self.elements]
        return tuple(n for n in found if n is not None) if None not in found else None


_Inputs = Sequence[Value | None]
_Rule = Callable[[Editor, gs.Node, _Inputs], Value | None]


def value_of(tensor: gs.Tensor) -> Value | None:
    """Return what is known of a tensor's values; constants are read here."""
    known: Value | None = getattr(tensor, "value", None)
    if known is None and isinstance(tensor, gs.Constant):
        known = _constant(tensor)
        tensor.value = known
    return known


def _constant(tensor: gs.Constant) -> Value | None:
    dtype = tensor.dtype
    if getattr(dtype, "kind", "") not in "ib" or len(tensor.shape) > 1:
        return None
    if tensor.shape and tensor.shape[0] > MAX_ELEMENTS:
        return None
    values = constant_values(tensor)
    if values is None:
        return None
    return Value(tuple(Size.of(int(v)) for v in values.reshape(-1)), values.ndim)


def computed(editor: Editor, node: gs.Node) -> Value | None:
    """Return what a node computes, as far as that follows from dimensions and constants."""
    rule = _RULES.get(node.op)
    if rule is None or not node.outputs:
        return None
    value = rule(editor, node, [value_of(tensor) for tensor in node.inputs])
    dtype = editor.dtype(node.outputs[0])
    if value is None or dtype is None or dtype.kind not in "iu":
        return value
    limits = np.iinfo(dtype)
    return Value(
        tuple(_within(size, int(limits.min), int(limits.max)) for size in value.elements),
        value.rank,
    )


def _within(size: Size | None, least: int, most: int) -> Size | None:
    """Forget a number that the type cannot hold: it wraps around, unlike a `Size`."""
    number = None if size is None else size.number
    return None if number is not None and not least <= number <= most else size


def _numbers(values: _Inputs, index: int) -> tuple[int, ...] | None:
    value = values[index] if index < len(values) else None
    return value.numbers if value is not None else None


def _shape(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    dims = editor.dims(node.inputs[0])
    if dims is None or len(dims) > MAX_ELEMENTS:
        return None
    chosen = dims[node.attrs.get("start", 0) : node.attrs.get("end", len(dims))]
    return Value(tuple(None if dim is None else Size.of(dim) for dim in chosen), 1)


def _size(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    dims = editor.dims(node.inputs[0])
    total = None if dims is None else product(dims)
    return None if total is None else Value((total,), 0)


def _gather(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    data, where = values[0], _numbers(values, 1)
    if data is None or data.rank != 1 or where is None or node.attrs.get("axis", 0) not in (0, -1):
        return None
    count = len(data.elements)
    if any(not -count <= index < count for index in where):
        return None
    index_value = values[1]
    assert index_value is not None
    return Value(tuple(data.elements[index] for index in where), index_value.rank)


def _slice(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    data = values[0]
    if data is None or data.rank != 1 or len(node.inputs) < 3:
        return None
    parts = [_numbers(values, index) for index in (1, 2)]
    steps = _numbers(values, 4) if len(node.inputs) > 4 and node.inputs[4].name else (1,)
    if None in parts or steps is None or any(part is None or len(part) != 1 for part in parts):
        return None
    (start,), (end,) = (part for part in parts if part is not None)
    step, count = steps[0], len(data.elements)
    if step == 0:
        return None
    if step < 0:  # Python's slices and ONNX's agree but for the clamping of negative steps
        start = min(max(start + count if start < 0 else start, 0), count - 1)
        end = end + count if end < 0 else end
        picked = range(start, max(min(end, count), -1), step)
    else:
        picked = range(*slice(start, end, step).indices(count))
    return Value(tuple(data.elements[index] for index in picked), 1)


def _concat(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    elements: list[Size | None] = []
    for tensor, value in zip(node.inputs, values, strict=True):
        if value is not None and value.rank == 1:
            elements.extend(value.elements)
            continue
        dims = editor.dims(tensor)  # a vector of unknown values, but of known length
        if dims is None or len(dims) != 1 or not isinstance(dims[0], int):
            return None
        elements.extend([None] * dims[0])
    return Value(tuple(elements), 1) if len(elements) <= MAX_ELEMENTS else None


def _to_vector(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    value = values[0]
    axes = node.attrs["axes"] if "axes" in node.attrs else _numbers(values, 1)
    if value is None or value.rank != 0 or axes is None or len(axes) != 1:
        return None
    return Value(value.elements, 1)


def _to_scalar(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    value = values[0]
    return Value(value.elements, 0) if value is not None and len(value.elements) == 1 else None


def _reshape(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    value, target = values[0], values[1] if len(values) > 1 else None
    if value is None or target is None or len(target.elements) > 1:
        return None
    return Value(value.elements, len(target.elements))


def _same(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    return values[0]


def _cast(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    target = editor.facts.numpy(int(node.attrs.get("to", 0)))
    value = values[0]
    if value is None or target is None:
        return None
    if target.kind == "b":
        numbers = value.numbers
        return None if numbers is None else _integers([n != 0 for n in numbers], value.rank)
    return value if target in (np.dtype(np.int64), np.dtype(np.int32)) else None


def _integers(values: Sequence[int], rank: int) -> Value:
    return Value(tuple(Size.of(int(value)) for value in values), rank)


def _elementwise(operation: Callable[..., Size | None]) -> _Rule:
    def rule(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
        if not all(value is not None for value in values):
            return None
        given = [value for value in values if value is not None]
        length = max((len(value.elements) for value in given), default=0)
        if any(len(value.elements) not in (1, length) for value in given):
            return None
        columns = [
            value.elements * length if len(value.elements) == 1 and length != 1 else value.elements
            for value in given
        ]
        elements = tuple(operation(*row) for row in zip(*columns, strict=True))
        return Value(elements, max(value.rank for value in given))

    return rule


def _known(operation: Callable[[Size, Size], Size | None]) -> Callable[..., Size | None]:
    def guarded(a: Size | None, b: Size | None) -> Size | None:
        return None if a is None or b is None else operation(a, b)

    return guarded


def _quotient(a: Size, b: Size) -> Size | None:
    if b.number == 0:
        return None
    one, two = a.number, b.number
    if one is not None and two is not None:
        return Size.of(int(np.trunc(one / two))) if abs(one) < 2**52 else None
    exact = a.divided(b)
    if exact is not None:
        return exact
    if a.is_never_negative and b.is_never_negative:
        return a.rounded_down(b)
    return None


def _equal(a: Size, b: Size) -> Size | None:
    if a == b:
        return Size.of(1)
    difference = a - b
    if difference.number is not None or difference.is_always_positive:
        return Size.of(0)
    return Size.of(0) if (b - a).is_always_positive else None


def _numeric(operation: Callable[..., Any]) -> Callable[..., Size | None]:
    def guarded(*sizes: Size | None) -> Size | None:
        numbers = [None if size is None else size.number for size in sizes]
        return None if None in numbers else Size.of(int(operation(*numbers)))

    return guarded


def _chosen(condition: Size | None, yes: Size | None, no: Size | None) -> Size | None:
    if yes is not None and yes == no:
        return yes
    number = None if condition is None else condition.number
    return None if number is None else yes if number else no


def _filled(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    shape = _numbers(values, 0)
    fill = node.attrs.get("value")
    array = constant_values(fill) if fill is not None else np.zeros(1, np.float32)
    if shape is None or len(shape) > 1 or array is None or array.dtype.kind not in "ib":
        return None
    count = shape[0] if shape else 1
    if not 0 <= count <= MAX_ELEMENTS:
        return None
    return _integers([int(array.reshape(-1)[0])] * count, len(shape))


def _expanded(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    value, shape = values[0], _numbers(values, 1)
    if value is None or shape is None or len(shape) > 1:
        return None
    count = shape[0] if shape else 1
    if len(value.elements) != 1:
        return value if count in (1, len(value.elements)) else None
    return Value(value.elements * count, max(value.rank, len(shape))) if count <= 64 else None


def _product(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    value = values[0]
    if value is None or value.rank != 1 or None in value.elements:
        return None
    if node.attrs.get("noop_with_empty_axes", 0) and not (
        "axes" in node.attrs or _numbers(values, 1)
    ):
        return None
    total = Size.of(1)
    for size in value.elements:
        assert size is not None
        total = total * size
    return Value((total,), 1 if node.attrs.get("keepdims", 1) else 0)


def _range(editor: Editor, node: gs.Node, values: _Inputs) -> Value | None:
    bounds = [_numbers(values, index) for index in range(3)]
    if any(bound is None or len(bound) != 1 for bound in bounds):
        return None
    start, stop, step = (bound[0] for bound in bounds if bound is not None)
    if step == 0 or len(range(start, stop, step)) > MAX_ELEMENTS:
        return None
    return _integers(list(range(start, stop, step)), 1)


_RULES: dict[str, _Rule] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _to_vector,
    "Squeeze": _to_scalar,
    "Reshape": _reshape,
    "Identity": _same,
    "Cast": _cast,
    "Add": _elementwise(_known(lambda a, b: a + b)),
    "Sub": _elementwise(_known(lambda a, b: a - b)),
    "Mul": _elementwise(_known(lambda a, b: a * b)),
    "Div": _elementwise(_known(_quotient)),
    "Equal": _elementwise(_known(_equal)),
    "Where": _elementwise(_chosen),
    "Not": _elementwise(_numeric(lambda a: not a)),
    "Less": _elementwise(_numeric(lambda a, b: a < b)),
    "Greater": _elementwise(_numeric(lambda a, b: a > b)),
    "Max": _elementwise(_numeric(lambda *all_: max(all_))),
    "Min": _elementwise(_numeric(lambda *all_: min(all_))),
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "ReduceProd": _product,
    "Range": _range,
}
"""What each operator does to sizes. Source: https://onnx.ai/onnx/operators/, any opset from 7."""
