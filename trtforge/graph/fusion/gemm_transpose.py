"""A matrix that is transposed for one product is transposed by that product."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion.linear import type_of_matrices
from trtforge.graph.layout import order_of
from trtforge.graph.nodes import node_label

_SWAPPED = (1, 0)


class FuseGemmTranspose:
    """Fuse Transpose + Gemm, and Transpose + MatMul of matrices.

    Matches: Gemm with an operand that a Transpose of two axes computes for it alone
    (https://onnx.ai/onnx/operators/onnx__Gemm.html, opset 1 on); MatMul of a matrix with such an
    operand (opset 11 on, from which on Gemm's C may be left out; BF16 opset 13).
    Rewrites to: Gemm of the operand as it is with transA or transB the other way round. Weights
    that others read as they are (a tied embedding) are so never copied.
    Refuses when: the transposed matrix is an output or read elsewhere.
    """

    name = "gemm-transpose"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Gemm", "MatMul"):
            turned = _turned(editor, node)
            if turned and (node.op == "Gemm" or type_of_matrices(editor, node) is not None):
                _absorb(editor, node, turned)


def _turned(editor: Editor, node: gs.Node) -> dict[int, gs.Node]:
    """Return the Transposes of matrices that a product reads, by operand."""
    found = {}
    for index in (0, 1):
        transpose = editor.producer(node.inputs[index], "Transpose")
        if transpose is not None and order_of(editor, transpose) == _SWAPPED:
            found[index] = transpose
    return found


def _absorb(editor: Editor, node: gs.Node, turned: dict[int, gs.Node]) -> None:
    for transpose in turned.values():
        result = transpose.outputs[0]
        if not editor.is_private(result):
            editor.refuse(node, f"'{result.name}' is used elsewhere too")
            return
    if node.op == "MatMul" and not _may_be_gemm(editor, node):
        return
    inputs, attrs = list(node.inputs), dict(node.attrs)
    for index, transpose in turned.items():
        name = ("transA", "transB")[index]
        inputs[index] = transpose.inputs[0]
        attrs[name] = None if attrs.get(name, 0) else 1
        editor.match(node, f"transposes what '{node_label(transpose)}' did")
    editor.replace(node, "Gemm", inputs, attrs)


def _may_be_gemm(editor: Editor, matmul: gs.Node) -> bool:
    dtype = type_of_matrices(editor, matmul)
    return editor.allows(matmul, 13 if dtype is not None and dtype.name == "bfloat16" else 11)
