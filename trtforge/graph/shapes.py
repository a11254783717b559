"""Dimensions beyond what onnx infers: sizes are followed through arithmetic and broadcasting.

One walk over the nodes in order; the results are kept at the tensors, for `Editor.dims` and
`shape_values.value_of`.
"""

from collections.abc import Callable

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dim, Dims
from trtforge.graph.nodes import in_onnx_domain
from trtforge.graph.shape_values import Value, computed, value_of
from trtforge.graph.symbols import Size, broadcast, product

_SAME = frozenset(
    """Abs Acos Asin Atan Cast Ceil Celu Clip Cos CumSum Dropout Elu Erf Exp Floor Gelu HardSigmoid
    HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Log
    LogSoftmax LpNormalization Mish Neg Not PRelu RMSNormalization Reciprocal Relu Round Selu
    Sigmoid Sign Sin Softmax Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu
    QuantizeLinear DequantizeLinear ScatterElements ScatterND GroupNormalization
    BatchNormalization RotaryEmbedding""".split()  # noqa: SIM905
)
_BROADCAST = frozenset(
    """Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or Pow Sub
    Sum Where Xor BitwiseAnd BitwiseOr BitwiseXor""".split()  # noqa: SIM905
)
"""Operators whose result has the dimensions of the first input, and of all inputs broadcast."""


def walk(editor: Editor) -> None:
    """Learn dimensions and values of all tensors of one graph, in the order of its nodes."""
    for node in editor.nodes():
        if not in_onnx_domain(node, node.op) or not node.outputs:
            continue
        try:
            _learn(editor, node)
        except (ValueError, IndexError, KeyError, ZeroDivisionError):
            continue  # malformed, as an axis that is not there: what runs it says so


def _learn(editor: Editor, node: gs.Node) -> None:
    if node.op == "Split":
        _learn_split(editor, node)
        return
    result = node.outputs[0]
    result.value = computed(editor, node)
    known = editor.dims(result)
    if known is not None and all(isinstance(dim, int) for dim in known):
        return
    found = _dims(editor, node)
    if found is not None:
        editor.facts.refine(result, found)
    elif result.value is not None:
        value: Value = result.value
        editor.facts.refine(result, (len(value.elements),) if value.rank else ())


def _dims(editor: Editor, node: gs.Node) -> Dims | None:
    if node.op in _SAME:
        return editor.dims(node.inputs[0])
    if node.op in _BROADCAST:
        total: Dims = ()
        for tensor in node.inputs:
            dims = editor.dims(tensor)
            if dims is None:
                return None
            total = broadcast(total, dims)
        return total
    rule = _RULES.get(node.op)
    return rule(editor, node) if rule is not None else None


def _learn_split(editor: Editor, node: gs.Node) -> None:
    dims = editor.dims(node.inputs[0])
    if dims is None:
        return
    axis = int(node.attrs.get("axis", 0)) % len(dims)
    parts = _parts(node, dims[axis])
    for index, tensor in enumerate(node.outputs):
        part = parts[index] if parts is not None and index < len(parts) else None
        editor.facts.refine(tensor, (*dims[:axis], part, *dims[axis + 1 :]))


def _parts(node: gs.Node, whole: Dim) -> tuple[int, ...] | None:
    """The lengths that Split gives: said by an attribute or input, or equal, the last shorter."""
    if "split" in node.attrs:
        return tuple(node.attrs["split"])
    if len(node.inputs) > 1 and node.inputs[1].name:
        value = value_of(node.inputs[1])
        return None if value is None else value.numbers
    if not isinstance(whole, int):
        return None
    count = len(node.outputs)
    each = -(-whole // count)
    return (*[each] * (count - 1), whole - each * (count - 1))


def _sizes(value: Value | None) -> Dims | None:
    if value is None:
        return None
    return tuple(_plain(size) for size in value.elements)


def _plain(size: Size | None) -> Dim:
    if size is None or not size.is_never_negative:
        return None
    return size.dim


def _reshape(editor: Editor, node: gs.Node) -> Dims | None:
    target = value_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if target is None or target.rank != 1:
        return None
    return reshaped(editor.dims(node.inputs[0]), target, bool(node.attrs.get("allowzero", 0)))


def reshaped(source: Dims | None, target: Value, allow_zero: bool) -> Dims:
    """Return the dimensions that Reshape gives.

    Args:
        source: the input's dimensions.
        target: the shape that is asked for.
        allow_zero: whether 0 means 0, and not the input's dimension.

    Source: https://onnx.ai/onnx/operators/onnx__Reshape.html
    """
    dims: list[Dim] = []
    inferred = None
    for axis, size in enumerate(target.elements):
        number = None if size is None else size.number
        if number == -1:
            inferred = axis
            dims.append(1)
        elif number == 0 and not allow_zero:
            dims.append(source[axis] if source is not None and axis < len(source) else None)
        else:
            dims.append(_plain(size))
    if inferred is not None:
        dims[inferred] = _rest(source, dims)
    elif source is not None and dims.count(None) == 1:
        axis = dims.index(None)
        dims[axis] = 1
        dims[axis] = _rest(source, dims)
    return tuple(dims)


def _rest(source: Dims | None, others: list[Dim]) -> Dim:
    total = None if source is None else product(source)
    taken = product(others)
    if total is None or taken is None or taken.number == 0:
        return None
    return _plain(total.divided(taken))


def _expand(editor: Editor, node: gs.Node) -> Dims | None:
    source, shape = editor.dims(node.inputs[0]), _sizes(value_of(node.inputs[1]))
    return None if source is None or shape is None else broadcast(source, shape)


def _filled(editor: Editor, node: gs.Node) -> Dims | None:
    return _sizes(value_of(node.inputs[0]))


def _transpose(editor: Editor, node: gs.Node) -> Dims | None:
    dims = editor.dims(node.inputs[0])
    if dims is None:
        return None
    order = node.attrs.get("perm", range(len(dims))[::-1])
    return tuple(dims[axis] for axis in order)


def _concat(editor: Editor, node: gs.Node) -> Dims | None:
    given = [editor.dims(tensor) for tensor in node.inputs]
    known = [dims for dims in given if dims is not None]
    if len(known) != len(given) or len({len(dims) for dims in known}) != 1:
        return None
    axis = int(node.attrs["axis"]) % len(known[0])
    result: list[Dim] = []
    for index, column in enumerate(zip(*known, strict=True)):
        if index != axis:
            numbers = [dim for dim in column if isinstance(dim, int)]
            result.append(numbers[0] if numbers else next((d for d in column if d), None))
        elif None in column:
            result.append(None)
        else:
            total = Size.of(0)
            for dim in column:
                assert dim is not None
                total = total + Size.of(dim)
            result.append(total.dim)
    return tuple(result)


def _gather(editor: Editor, node: gs.Node) -> Dims | None:
    data, where = editor.dims(node.inputs[0]), editor.dims(node.inputs[1])
    if data is None or where is None or not data:
        return None
    axis = int(node.attrs.get("axis", 0)) % len(data)
    return (*data[:axis], *where, *data[axis + 1 :])


def _matmul(editor: Editor, node: gs.Node) -> Dims | None:
    a, b = editor.dims(node.inputs[0]), editor.dims(node.inputs[1])
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return None
    return (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])


def _gemm(editor: Editor, node: gs.Node) -> Dims | None:
    a, b = editor.dims(node.inputs[0]), editor.dims(node.inputs[1])
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    rows = a[1] if node.attrs.get("transA", 0) else a[0]
    return (rows, b[0] if node.attrs.get("transB", 0) else b[1])


def _axes(editor: Editor, node: gs.Node) -> tuple[int, ...] | None:
    if "axes" in node.attrs:
        return tuple(node.attrs["axes"])
    value = value_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if value is None else value.numbers


def _unsqueeze(editor: Editor, node: gs.Node) -> Dims | None:
    dims, axes = editor.dims(node.inputs[0]), _axes(editor, node)
    if dims is None or axes is None:
        return None
    rank = len(dims) + len(axes)
    places = {axis % rank for axis in axes}
    if len(places) != len(axes):
        return None
    rest = iter(dims)
    return tuple(1 if axis in places else next(rest) for axis in range(rank))


def _squeeze(editor: Editor, node: gs.Node) -> Dims | None:
    dims, axes = editor.dims(node.inputs[0]), _axes(editor, node)
    if dims is None or axes is None:
        return None
    if not axes:  # to ONNX none at all, to ONNX Runtime all of one element
        return None
    gone = {axis % len(dims) for axis in axes}
    return tuple(dim for axis, dim in enumerate(dims) if axis not in gone)


def _reduced(editor: Editor, node: gs.Node) -> Dims | None:
    dims = editor.dims(node.inputs[0])
    if dims is None:
        return None
    has_axes = "axes" in node.attrs or (len(node.inputs) > 1 and node.inputs[1].name)
    axes = _axes(editor, node) if has_axes else ()
    if axes is None or (not axes and node.attrs.get("noop_with_empty_axes", 0)):
        return None if axes is None else dims
    gone = {axis % len(dims) for axis in axes} if axes else set(range(len(dims)))
    if node.attrs.get("keepdims", 1):
        return tuple(1 if axis in gone else dim for axis, dim in enumerate(dims))
    return tuple(dim for axis, dim in enumerate(dims) if axis not in gone)


def _slice(editor: Editor, node: gs.Node) -> Dims | None:
    """Slices by constants with step 1; another dimension than the sliced ones stays."""
    dims = editor.dims(node.inputs[0])
    parts = [value_of(tensor) for tensor in node.inputs[1:5] if tensor.name]
    if dims is None or len(parts) != len(node.inputs) - 1 or len(parts) < 2 or None in parts:
        return None
    starts, ends, *rest = (part.elements for part in parts if part is not None)
    axes = rest[0] if rest else tuple(Size.of(axis) for axis in range(len(starts)))
    steps = rest[1] if len(rest) > 1 else (Size.of(1),) * len(starts)
    result = list(dims)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis is None or axis.number is None:
            return None
        index = axis.number % len(dims)
        sliced = None if step is None or step.number != 1 else _sliced(dims[index], start, end)
        result[index] = sliced
    return tuple(result)


def _sliced(dim: Dim, start: Size | None, end: Size | None) -> Dim:
    if dim is None or start is None or end is None:
        return None
    whole = Size.of(dim)
    size, first, last = whole.number, start.number, end.number
    if size is not None and first is not None and last is not None:
        return len(range(*slice(first, last).indices(size)))
    if first == 0 and (end == whole or (last is not None and last >= 2**31 - 1)):
        return dim
    return None


def _range(editor: Editor, node: gs.Node) -> Dims | None:
    bounds = [value_of(tensor) for tensor in node.inputs]
    sizes = [None if b is None or len(b.elements) != 1 else b.elements[0] for b in bounds]
    start, stop, step = sizes
    if start is None or stop is None or step is None or step.number != 1:
        return None
    return (_plain(stop - start),)


def _shape(editor: Editor, node: gs.Node) -> Dims | None:
    dims = editor.dims(node.inputs[0])
    if dims is None:
        return None
    return (len(dims[node.attrs.get("start", 0) : node.attrs.get("end", len(dims))]),)


_REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]

_RULES: dict[str, Callable[[Editor, gs.Node], Dims | None]] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _filled,
    "Transpose": _transpose,
    "Concat": _concat,
    "Gather": _gather,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Range": _range,
    "Shape": _shape,
    **{f"Reduce{kind}": _reduced for kind in _REDUCTIONS},
}
