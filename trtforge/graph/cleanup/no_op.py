"""Nodes that compute what they are given."""

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dim
from trtforge.graph.layout import is_identity, order_of
from trtforge.graph.nodes import constant_values
from trtforge.graph.pattern import reduction_axes, scalar


class RemoveNoOps:
    """Remove nodes whose result is one of their inputs, whatever the values.

    Matches: Cast to the type that it is given; Reshape, Flatten, Expand, Tile, Slice (step 1),
    Resize to the dimensions that are there; Transpose that moves nothing; Squeeze or Unsqueeze of
    no axes; Pad by nothing; Concat, Sum, Mean, Max, Min of one tensor; Split into one; pooling
    with windows of one element; reductions over axes of one element; x + 0, x - 0, x * 1, x / 1,
    x ^ 1; And with true, Or with false; Where by a constant; Clip without bounds.
    Rewrites to: nothing; readers of the result read the input.
    Refuses when: an output of the graph would become an input, a constant or a second name of
    another output; a broadcast would be lost.
    """

    name = "no-op"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes(*_RULES):
            source = _RULES[node.op](editor, node)
            if source is None or _other_outputs_used(editor, node):
                continue
            editor.bypass_or_refuse(node, source, f"{node.op} gives back '{source.name}'")


def _other_outputs_used(editor: Editor, node: gs.Node) -> bool:
    return any(
        tensor.name and (editor.is_kept(tensor) or editor.users(tensor, 1))
        for tensor in node.outputs[1:]
    )


def _same_dims(editor: Editor, node: gs.Node, index: int = 0) -> gs.Tensor | None:
    """The input, when the result has its dimensions, each of them known."""
    source = node.inputs[index]
    given, made = editor.dims(source), editor.dims(node.outputs[0])
    return source if given is not None and given == made and None not in given else None


def _cast(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    given = editor.dtype(node.inputs[0])
    same = given is not None and given == editor.facts.numpy(int(node.attrs.get("to", 0)))
    return node.inputs[0] if same else None


def _transpose(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    order = order_of(editor, node)
    return node.inputs[0] if order is not None and is_identity(order) else None


def _slice(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    if len(node.inputs) > 4 and node.inputs[4].name:
        steps = constant_values(node.inputs[4])
        if steps is None or (steps != 1).any():
            return None
    return _same_dims(editor, node)


def _axes_absent(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    """No axes; Squeeze must have known dimensions, as ONNX Runtime takes no axes for all of one."""
    if reduction_axes(node) != ():
        return None
    dims = editor.dims(node.inputs[0])
    if node.op == "Squeeze" and (dims is None or not all(_is_above_one(dim) for dim in dims)):
        return None
    return node.inputs[0]


def _is_above_one(dim: Dim) -> bool:
    return isinstance(dim, int) and dim != 1


def _pad(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    if len(node.inputs) > 1:
        pads = constant_values(node.inputs[1])
    else:
        pads = np.asarray(node.attrs.get("pads", [1]))
    return node.inputs[0] if pads is not None and not pads.any() else None


def _single(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _split(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    return node.inputs[0] if len(node.outputs) == 1 else None


def _tile(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    repeats = node.inputs[1]
    if isinstance(repeats, gs.Constant) and _all_equal(repeats, 1.0):
        return node.inputs[0]
    return _same_dims(editor, node)


_MOVING = ("tf_crop_and_resize", "tf_half_pixel_for_nn")
"""Coordinates that are not the same again where nothing is scaled."""


def _resize(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    """To the dimensions that are there, by sizes or by factors of one.

    A factor of 1.2 makes 4 of 4, too, and samples elsewhere.
    """
    if node.attrs.get("coordinate_transformation_mode", "half_pixel") in _MOVING:
        return None
    first = 2 if node.op == "Resize" and editor.opset > 10 else 1
    scales = node.attrs.get("scales")
    for tensor in node.inputs[first : first + 1]:
        if tensor.name and not isinstance(tensor, gs.Constant):
            return None
        scales = constant_values(tensor)
    if scales is not None and len(scales):  # none at all is how opset 11 leaves them out
        return node.inputs[0] if all(scale == 1.0 for scale in scales) else None
    return _same_dims(editor, node)


def _pool(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    """Windows, strides and dilations of one, and no padding."""
    for attribute, neutral in (("kernel_shape", 1), ("strides", 1), ("pads", 0)):
        if any(value != neutral for value in node.attrs.get(attribute, ())):
            return None
    return _same_dims(editor, node)


def _reduction(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    """Every axis that is reduced has one element; those that keep their place keep the shape."""
    axes = reduction_axes(node)
    if not axes:
        empty = axes == () or len(node.inputs) < 2 or not node.inputs[1].name
        if empty and node.attrs.get("noop_with_empty_axes", 0) and node.op != "ReduceSumSquare":
            return node.inputs[0]
        return None
    dims = editor.dims(node.inputs[0])
    if dims is None or any(dims[axis] != 1 for axis in axes):
        return None
    return _same_dims(editor, node)


def _global_pool(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    dims = editor.dims(node.inputs[0])
    return node.inputs[0] if dims is not None and all(dim == 1 for dim in dims[2:]) else None


def _neutral(value: float, *, either: bool) -> Callable[[Editor, gs.Node], gs.Tensor | None]:
    def rule(editor: Editor, node: gs.Node) -> gs.Tensor | None:
        for index in (1, 0) if either else (1,):
            constant = node.inputs[index]
            if isinstance(constant, gs.Constant) and _all_equal(constant, value):
                return _same_dims(editor, node, 1 - index)
        return None

    return rule


_MOST_COMPARED = 1 << 16


def _all_equal(constant: gs.Constant, value: float) -> bool:
    found = scalar(constant)
    if found is not None:
        return found == value
    if np.prod(constant.shape, dtype=np.int64) > _MOST_COMPARED:
        return False
    values = constant_values(constant)
    return values is not None and values.dtype.kind in "biuf" and bool((values == value).all())


def _where(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    for value, index in ((1.0, 1), (0.0, 2)):
        condition = node.inputs[0]
        if isinstance(condition, gs.Constant) and _all_equal(condition, value):
            return _same_dims(editor, node, index)
    return _same_dims(editor, node, 1) if node.inputs[1] is node.inputs[2] else None


def _clip(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    bounds = [tensor for tensor in node.inputs[1:] if tensor.name]
    return None if bounds or "min" in node.attrs or "max" in node.attrs else node.inputs[0]


def _block(editor: Editor, node: gs.Node) -> gs.Tensor | None:
    return node.inputs[0] if node.attrs.get("blocksize") == 1 else None


_RULES: dict[str, Callable[[Editor, gs.Node], gs.Tensor | None]] = {
    "Add": _neutral(0.0, either=True),
    "And": _neutral(1.0, either=True),
    "AveragePool": _pool,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _single,
    "DepthToSpace": _block,
    "Div": _neutral(1.0, either=False),
    "Expand": _same_dims,
    "Flatten": _same_dims,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "Max": _single,
    "MaxPool": _pool,
    "Mean": _single,
    "Min": _single,
    "Mul": _neutral(1.0, either=True),
    "Or": _neutral(0.0, either=True),
    "Pad": _pad,
    "Pow": _neutral(1.0, either=False),
    "ReduceMax": _reduction,
    "ReduceMean": _reduction,
    "ReduceMin": _reduction,
    "ReduceProd": _reduction,
    "ReduceSum": _reduction,
    "Reshape": _same_dims,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _block,
    "Split": _split,
    "Squeeze": _axes_absent,
    "Sub": _neutral(0.0, either=False),
    "Sum": _single,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _axes_absent,
    "Upsample": _resize,
    "Where": _where,
}
"""What hands on which input. Source: https://onnx.ai/onnx/operators/, any opset from 7."""
