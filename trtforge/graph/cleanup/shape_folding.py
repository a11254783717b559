"""Chains of shape arithmetic: computed where dimensions are known, shortened where they are not."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dims
from trtforge.graph.shape_values import Value, value_of
from trtforge.graph.shapes import reshaped
from trtforge.graph.symbols import Size

_FIRST_WITH_SLICED_SHAPE = 15
"""Shape has `start` and `end` since opset 15. Source: https://onnx.ai/onnx/operators/onnx__Shape.html"""

_ARITHMETIC = (
    "Shape",
    "Size",
    "Gather",
    "Slice",
    "Concat",
    "Unsqueeze",
    "Squeeze",
    "Reshape",
    "Cast",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Equal",
    "Where",
    "Not",
    "Less",
    "Greater",
    "Max",
    "Min",
    "ConstantOfShape",
    "Expand",
    "ReduceProd",
    "Range",
)


class FoldShapes:
    """Fold what is computed from dimensions.

    Matches and rewrites to:
        a small integer tensor whose values follow from known dimensions: a constant;
        Reshape whose target has at most one unknown entry, or unknown entries that are the
        input's own dimensions: a constant target with -1 or 0
        (https://onnx.ai/onnx/operators/onnx__Reshape.html);
        two tensors of equal sizes, symbolically: one tensor;
        a longer way to some consecutive dimensions of one tensor: one Shape (opset 15 on).
    Refuses when: the tensor is an output, or a target that is already constant would say less.
    """

    name = "shape-folding"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        known = _Known(editor)
        for node in editor.nodes(*_ARITHMETIC):
            result = node.outputs[0]
            value = value_of(result)
            if value is None or editor.is_kept(result) or not editor.users(result, 1):
                continue
            if value.numbers is not None:
                _to_constant(editor, node, value.numbers, value.rank)
            elif None not in value.elements:
                known.visit(node, value)
        for node in editor.nodes("Reshape"):
            _fix_target(editor, node)


def _to_constant(editor: Editor, node: gs.Node, numbers: tuple[int, ...], rank: int) -> None:
    result = node.outputs[0]
    dtype = editor.dtype(result)
    if dtype is None or dtype.kind not in "biu":
        return
    values = np.asarray(numbers, dtype).reshape((len(numbers),) if rank else ())
    editor.match(node, f"'{result.name}' is always {values.tolist()}")
    editor.replace_uses(result, gs.Constant(result.name, values))
    editor.remove(node)


def _fix_target(editor: Editor, node: gs.Node) -> None:
    target = node.inputs[1] if len(node.inputs) > 1 else None
    if target is None or isinstance(target, gs.Constant) or node.attrs.get("allowzero", 0):
        return
    value = value_of(target)
    if value is None or value.rank != 1:
        return
    fixed = _fixed(editor.dims(node.inputs[0]), value)
    if fixed is None:
        return
    editor.match(node, f"the target is written as {fixed}")
    constant = editor.constant(f"{node.outputs[0].name}_shape", np.asarray(fixed, np.int64))
    editor.set_input(node, 1, constant)


def _fixed(source: Dims | None, target: Value) -> list[int] | None:
    """Write a target without unknown entries, or return None.

    An entry that is the input's dimension on the same axis is 0; one more may be -1. A 0 that is
    meant as a number has no place beside a -1.
    """
    wanted = reshaped(source, target, allow_zero=False)
    fixed: list[int] = []
    free = None
    for axis, (size, dim) in enumerate(zip(target.elements, wanted, strict=True)):
        number = None if size is None else size.number
        if number is not None and number != -1:
            fixed.append(number)
        elif isinstance(dim, int):
            if dim == 0:
                return None
            fixed.append(dim)
        elif source is not None and axis < len(source) and dim is not None and source[axis] == dim:
            fixed.append(0)
        elif free is None:
            free = axis
            fixed.append(-1)
        else:
            return None
    return None if 0 in fixed and -1 in fixed else fixed


class _Known:
    """Sizes that were met before, and the first tensor that holds each."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._first: dict[object, gs.Tensor] = {}

    def visit(self, node: gs.Node, value: Value) -> None:
        editor, result = self._editor, node.outputs[0]
        dtype = editor.dtype(result)
        key = (value, None if dtype is None else dtype.name)
        first = self._first.setdefault(key, result)
        if first is not result:
            editor.match(node, f"'{result.name}' is '{first.name}'")
            editor.replace_uses(result, first)
            editor.remove(node)
        elif node.op != "Shape" and value.rank == 1 and dtype == np.dtype(np.int64):
            self._shorten(node, value)

    def _shorten(self, node: gs.Node, value: Value) -> None:
        """Read consecutive dimensions off one of the tensors that they come from."""
        editor = self._editor
        if editor.opset < _FIRST_WITH_SLICED_SHAPE:
            return
        for source in _shaped_tensors(editor, node):
            dims = editor.dims(source)
            start = None if dims is None else _position(dims, value)
            if dims is None or start is None:
                continue
            end = start + len(value.elements)
            attrs = {"start": start or None, "end": None if end == len(dims) else end}
            editor.match(node, f"these are dimensions {start} to {end - 1} of '{source.name}'")
            editor.replace(node, "Shape", [source], attrs)
            return


def _shaped_tensors(editor: Editor, node: gs.Node) -> list[gs.Tensor]:
    """The tensors whose Shape leads to a node, near ones first."""
    found: list[gs.Tensor] = []
    queue, seen = [node], {id(node)}
    while queue and len(seen) < 64:
        current = queue.pop(0)
        if current.op == "Shape":
            found.append(current.inputs[0])
            continue
        for tensor in current.inputs:
            producer = editor.producer(tensor)
            if producer is not None and id(producer) not in seen:
                seen.add(id(producer))
                queue.append(producer)
    return found


def _position(dims: Dims, value: Value) -> int | None:
    length = len(value.elements)
    for start in range(len(dims) - length + 1):
        part = dims[start : start + length]
        sizes = [None if dim is None else Size.of(dim) for dim in part]
        if sizes == list(value.elements):
            return start
    return None
