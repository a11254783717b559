"""Zeros around an image become the padding of the convolution that reads it."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import padding
from trtforge.graph.fusion.linear import CONVOLUTIONS
from trtforge.graph.fusion.padding import Padding
from trtforge.graph.nodes import node_label


class FusePadConv:
    """Fuse Pad + Conv, and Pad + ConvTranspose.

    Matches: a Pad with constant zeros, on spatial axes only, that only a convolution reads
    (https://onnx.ai/onnx/operators/onnx__Pad.html).
    Rewrites to: the Conv with pads' = pads + p. A ConvTranspose cuts `pads` off what it computes,
    and a zero in front of its input moves the result by one stride: pads' = pads - stride * p.
    Refuses when: it pads with another value, cuts off, repeats the image, or pads batch or
    channels; the padded image is an output or read elsewhere; the convolution chooses its padding
    itself (auto_pad SAME_*, output_shape), or a ConvTranspose cuts off less than the Pad adds.

    Pad from opset 2 on: pads as attribute, from 11 on as input.
    """

    name = "pad-conv"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for conv in editor.nodes(*CONVOLUTIONS):
            pad = padding.pad_before(editor, conv)
            if pad is None:
                continue
            added = padding.read_padding(editor, pad)
            pads = added if isinstance(added, str) else _pads(conv, added)
            if isinstance(pads, str):
                editor.refuse(pad, pads)
            else:
                padding.take_padding(editor, conv, pad, pads)


def _pads(conv: gs.Node, added: Padding) -> tuple[int, ...] | str:
    if added.value != 0:
        return f"it pads with {added.value:g}, '{node_label(conv)}' would with 0"
    own = padding.own_pads(conv, len(added.begin))
    if isinstance(own, str):
        return own
    both = (*added.begin, *added.end)
    if conv.op == "Conv":
        return tuple(one + other for one, other in zip(own, both, strict=True))
    if "output_shape" in conv.attrs:
        return f"'{node_label(conv)}' chooses its padding itself (output_shape)"
    strides = [int(s) for s in conv.attrs.get("strides", ())] or [1] * len(added.begin)
    left = tuple(o - s * p for o, s, p in zip(own, strides * 2, both, strict=True))
    if min(left) < 0:
        return f"'{node_label(conv)}' cuts off less than is padded"
    return left
