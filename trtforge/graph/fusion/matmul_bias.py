"""The product of two matrices and a bias is one Gemm."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor, node_label
from trtforge.graph.facts import Dims
from trtforge.graph.pattern import arms

_FLOATS = ("float16", "float32", "float64")


class FuseMatMulBias:
    """Fuse MatMul + Add of a bias, for matrices, to Gemm.

    Matches: MatMul of two tensors that are known to have two axes, whose result only an Add with
    a bias reads: a number, or one value per column, as a constant or computed
    (https://onnx.ai/onnx/operators/onnx__Gemm.html, opset 7 on; BF16 from 13 on).
    Rewrites to: x W + b is Gemm(x, W, b); the weights are not touched.
    Refuses when: the bias is a whole matrix or may be (that is a residual), or the product is an
    output or read elsewhere.
    """

    name = "matmul-bias"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for add in editor.nodes("Add"):
            if add.attrs:  # broadcasting as before opset 7
                continue
            for matmul, bias in arms(editor, add, "MatMul"):
                dims = _matrices(editor, matmul)
                if dims is None:
                    continue
                why = _objection(editor, matmul, bias, dims)
                if why is None:
                    editor.match(add, f"'{node_label(matmul)}' and its bias are a Gemm")
                    editor.replace(add, "Gemm", [*matmul.inputs, bias])
                else:
                    editor.refuse(add, why)
                break


def _matrices(editor: Editor, matmul: gs.Node) -> tuple[Dims, Dims] | None:
    """Return the dimensions of both operands if they are matrices of floats, and not empty."""
    first, second = (editor.dims(tensor) for tensor in matmul.inputs)
    dtype = editor.dtype(matmul.inputs[0]) or editor.dtype(matmul.inputs[1])
    if first is None or second is None or len(first) != 2 or len(second) != 2 or dtype is None:
        return None
    if dtype.name not in (*_FLOATS, "bfloat16") or first[1] == 0 or second[0] == 0:
        return None
    if editor.opset < (7 if dtype.name in _FLOATS else 13):
        return None
    return first, second


def _objection(
    editor: Editor, matmul: gs.Node, bias: gs.Tensor, dims: tuple[Dims, Dims]
) -> str | None:
    if not editor.is_private(matmul.outputs[0]):
        return f"the result of '{node_label(matmul)}' is used elsewhere too"
    shape, columns = editor.dims(bias), dims[1][1]
    if shape is None or len(shape) > 2:
        return f"'{bias.name}' is not known to be one value per column"
    rows, along = (1, 1, *shape)[-2:]
    if rows != 1 or (along != 1 and (along is None or along != columns)):
        return f"'{bias.name}' is not one value per column"
    return None
