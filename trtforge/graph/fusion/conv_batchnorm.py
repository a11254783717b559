"""BatchNormalization goes into the weights of the convolution before it."""

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import linear
from trtforge.graph.fusion.following import fold_batchnorms


class FuseConvBatchNorm:
    """Fuse Conv + BatchNormalization, and ConvTranspose + BatchNormalization.

    Matches: a convolution (any group, any number of axes, with bias or without) with constant
    weights whose result only an inference-mode BatchNormalization with constant parameters reads
    (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html, opset 7 on).
    Rewrites to: the convolution with W' = s * W and b' = s * (b - mean) + B, where
    s = scale / sqrt(var + epsilon); weights and bias keep their names unless they are shared, the
    result has the name of the normalized one.
    Refuses when: the convolution's result is an output or read elsewhere, its weights or bias are
    not constant, or shared and over 1 MiB, the normalization trains, or W' does not fit its type.
    """

    name = "conv-batchnorm"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        fold_batchnorms(editor, linear.CONVOLUTIONS)
