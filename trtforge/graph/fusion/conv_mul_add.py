"""Per-channel multiplications and additions go into the convolution before them."""

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import linear
from trtforge.graph.fusion.following import fold_arithmetic


class FuseConvMulAdd:
    """Fuse a convolution with Mul, Add, Sub or Div by a constant per channel.

    Matches: Conv or ConvTranspose with constant weights whose result only one such node reads;
    the constant is a number or has one value per channel, e.g. (1, C, 1, 1) or (C, 1, 1)
    (https://onnx.ai/onnx/operators/onnx__Conv.html).
    Rewrites to: y * c as s = c; y / c as s = 1 / c; y + c as t = c; y - c as t = -c; c - y as
    s = -1, t = c; each folded into weights and bias.
    Refuses when: the constant varies along another axis or adds axes, or the convolution's result
    is an output or read elsewhere, or its weights or bias are not constant, or shared and over
    1 MiB.

    Any opset from 7 on.
    """

    name = "conv-mul-add"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        fold_arithmetic(editor, linear.CONVOLUTIONS)
