"""BatchNormalization goes into the weights of the linear operator after it."""

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import linear
from trtforge.graph.fusion.affine import of_batchnorm
from trtforge.graph.fusion.preceding import fold_before, linear_after


class FuseBatchNormBefore:
    """Fuse BatchNormalization + Conv, ConvTranspose, Gemm or MatMul.

    Matches: an inference-mode BatchNormalization with constant parameters whose result only one
    linear operator with constant weights reads, as its activations
    (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html, opset 7 on).
    Rewrites to: with s = scale / sqrt(var + epsilon) and t = B - s * mean, the operator with
    W' = W times s along its input features and b' = b + the sum over all but the output features
    of W times t. A MatMul of matrices becomes a Gemm.
    Refuses when: t is not zero and the convolution pads (the padding stays zero while the
    normalized values move) or is transposed (fewer weights meet at the borders), a MatMul has more
    than two axes, Gemm transposes its activations, or weights or bias are shared and over 1 MiB,
    or do not fit their type.
    """

    name = "batchnorm-before-linear"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for norm in editor.nodes("BatchNormalization"):
            node = linear_after(editor, norm.outputs[0])
            if node is not None:
                affine = of_batchnorm(editor, norm, linear.input_place(editor, node))
                fold_before(editor, norm, norm.inputs[0], affine)
