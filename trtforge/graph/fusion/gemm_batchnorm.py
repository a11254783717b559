"""BatchNormalization goes into the weights of the matrix product before it."""

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import linear
from trtforge.graph.fusion.following import fold_batchnorms


class FuseGemmBatchNorm:
    """Fuse Gemm + BatchNormalization, and MatMul + BatchNormalization, on matrices.

    Matches: Gemm (any alpha, beta, transA, transB) or MatMul with constant weights whose result,
    of shape (N, D), only an inference-mode BatchNormalization with constant parameters reads
    (https://onnx.ai/onnx/operators/onnx__Gemm.html, opset 7 on).
    Rewrites to: the Gemm with W' = alpha * s * W and b' = s * (beta * b - mean) + B, where
    s = scale / sqrt(var + epsilon); alpha and beta become 1. A MatMul becomes a Gemm.
    Refuses when: the product's result is an output or read elsewhere or has other than two axes,
    weights or bias are not constant, or shared and over 1 MiB, the bias differs from row to row,
    the normalization trains, or W' does not fit its type.
    """

    name = "gemm-batchnorm"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        fold_batchnorms(editor, linear.MATRIX_PRODUCTS)
