"""Per-channel multiplications and additions go into the convolution before them."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor, constant_values, node_label
from trtforge.graph.fusion import convolution


class FuseConvMulAdd:
    """Fuse a convolution with Mul, Add, Sub or Div by a constant per channel.

    Matches: Conv or ConvTranspose with constant weights whose result only one such node reads;
    the constant is a number or has one value per channel, e.g. (1, C, 1, 1) or (C, 1, 1).
    Rewrites to: y * c as s = c; y / c as s = 1 / c; y + c as t = c; y - c as t = -c; c - y as
    s = -1, t = c; each folded into weights and bias.
    Refuses when: the constant varies along another axis or adds axes, or the convolution's result
    is an output or read elsewhere, or its weights or bias are shared or not constant.
    """

    name = "conv-mul-add"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Mul", "Add", "Sub", "Div"):
            for index in (0, 1):
                constant = constant_values(node.inputs[1 - index])
                conv = convolution.convolution_before(editor, node.inputs[index])
                if conv is None or constant is None or (node.op == "Div" and index == 1):
                    continue
                why = convolution.objection(editor, conv)
                why = why or _fused(editor, conv, constant, node.op, first=index == 0)
                if why is None:
                    editor.match(node, f"folded into '{node_label(conv)}'")
                    convolution.take_over(editor, conv, node)
                else:
                    editor.refuse(node, why)
                break


def _fused(
    editor: Editor, conv: gs.Node, constant: np.ndarray, op: str, *, first: bool
) -> str | None:
    channels = convolution.output_channels(conv)
    values = _per_channel(constant, len(conv.inputs[1].shape), channels)
    if values is None:
        return f"the constant of shape {list(constant.shape)} is not one value per channel"
    ones, zeros = np.ones(channels), np.zeros(channels)
    if op == "Mul":
        return convolution.fold(editor, conv, values, zeros)
    if op == "Div":
        with np.errstate(divide="ignore"):  # 1 / 0 is refused by `fold`
            return convolution.fold(editor, conv, 1.0 / values, zeros)
    if op == "Sub" and not first:
        return convolution.fold(editor, conv, -ones, values)
    return convolution.fold(editor, conv, ones, values if op == "Add" else -values)


def _per_channel(constant: np.ndarray, rank: int, channels: int) -> np.ndarray | None:
    """Return a constant as float64 (channels,) if it broadcasts along the channel axis only."""
    if constant.ndim > rank:
        return None
    aligned = (1,) * (rank - constant.ndim) + constant.shape
    along = aligned[1]
    if along not in (1, channels) or any(dim != 1 for i, dim in enumerate(aligned) if i != 1):
        return None
    return np.broadcast_to(constant.reshape(-1).astype(np.float64), (channels,))
