"""Reading Pad, and adding its padding to what an operator pads by itself."""

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values, node_label


@dataclass(frozen=True)
class Padding:
    """Constant padding of the spatial axes (all but the first two).

    Attributes:
        begin: per spatial axis, how much is put before; `end` likewise after.
        value: what is put there.
    """

    begin: tuple[int, ...]
    end: tuple[int, ...]
    value: float


def pad_before(editor: Editor, node: gs.Node) -> gs.Node | None:
    """Return the Pad that computes the first input of a node, if one does."""
    return editor.producer(node.inputs[0], "Pad")


def read_padding(editor: Editor, pad: gs.Node) -> Padding | str:
    """Return what a Pad puts around an image, or why that is not known or something else.

    Opset 1 has `paddings`, 2 to 10 `pads` and `value`; 11 on they are inputs, 18 on with `axes`.
    Source: https://onnx.ai/onnx/operators/onnx__Pad.html
    """
    if not editor.is_private(pad.outputs[0]):
        return f"the result of '{node_label(pad)}' is used elsewhere too"
    if pad.attrs.get("mode", "constant") != "constant":
        return f"'{node_label(pad)}' repeats the image ({pad.attrs['mode']})"
    pads, value = _attributes(pad) if editor.opset < 11 else _inputs(pad)
    if pads is None or value is None:
        return f"the padding of '{node_label(pad)}' is not constant"
    axes = _axes(pad, pads, editor)
    if axes is None:
        return f"the axes of '{node_label(pad)}' are not known"
    rank, where = axes
    begin, end = [0] * rank, [0] * rank
    for position, axis in enumerate(where):
        begin[axis], end[axis] = pads[position], pads[position + len(where)]
    if any(amount < 0 for amount in (*begin, *end)):
        return f"'{node_label(pad)}' cuts off"
    if any((*begin[:2], *end[:2])):
        return f"'{node_label(pad)}' pads the batch or the channels"
    return Padding(tuple(begin[2:]), tuple(end[2:]), value)


def own_pads(node: gs.Node, axes: int) -> tuple[int, ...] | str:
    """Return the `pads` of a convolution or a pool, or why they are not just numbers."""
    automatic = node.attrs.get("auto_pad", "NOTSET")
    if automatic == "VALID":
        return (0,) * (2 * axes)
    if automatic not in ("NOTSET", ""):
        return f"'{node_label(node)}' chooses its padding itself ({automatic})"
    return tuple(int(amount) for amount in node.attrs.get("pads", ())) or (0,) * (2 * axes)


def take_padding(editor: Editor, node: gs.Node, pad: gs.Node, pads: tuple[int, ...]) -> None:
    """Let a node read what the Pad reads, and pad by itself."""
    editor.match(pad, f"'{node_label(node)}' pads by itself")
    editor.set_attribute(node, "auto_pad", None)
    editor.set_attribute(node, "pads", list(pads))
    editor.set_input(node, 0, pad.inputs[0])
    editor.remove(pad)


def _attributes(pad: gs.Node) -> tuple[list[int] | None, float | None]:
    pads = pad.attrs.get("pads", pad.attrs.get("paddings"))
    value = float(pad.attrs.get("value", 0.0))
    return (None if pads is None else [int(amount) for amount in pads]), value


def _inputs(pad: gs.Node) -> tuple[list[int] | None, float | None]:
    pads = constant_values(pad.inputs[1])
    value: float | None = 0.0
    if len(pad.inputs) > 2 and not pad.inputs[2].is_empty():
        given = constant_values(pad.inputs[2])
        value = None if given is None or given.size != 1 else float(given.reshape(-1)[0])
    return (None if pads is None else [int(amount) for amount in pads.reshape(-1)]), value


def _axes(pad: gs.Node, pads: list[int], editor: Editor) -> tuple[int, list[int]] | None:
    """Return the rank of what is padded, and the axes that `pads` speaks of."""
    if len(pad.inputs) < 4 or pad.inputs[3].is_empty():
        return len(pads) // 2, list(range(len(pads) // 2))
    dims, axes = editor.dims(pad.inputs[0]), constant_values(pad.inputs[3])
    if dims is None or axes is None:
        return None
    return len(dims), [int(axis) % len(dims) for axis in axes.reshape(-1)]
