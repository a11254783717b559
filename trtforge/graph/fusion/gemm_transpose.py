"""A matrix that is transposed for one product is transposed by that product."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor, node_label


class FuseGemmTranspose:
    """Fuse Transpose + Gemm, and Transpose + MatMul of matrices.

    Matches: Gemm with an operand that a Transpose of two axes computes for it alone; MatMul of a
    matrix with such an operand (https://onnx.ai/onnx/operators/onnx__Gemm.html, opset 7 on; a
    MatMul needs opset 11, from which on Gemm's C may be left out, and BF16 opset 13).
    Rewrites to: Gemm of the operand as it is with transA or transB the other way round. Weights
    that others read as they are (a tied embedding) are so never copied.
    Refuses when: the transposed matrix is an output or read elsewhere.
    """

    name = "gemm-transpose"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        if editor.opset < 7:
            return
        for node in editor.nodes("Gemm", "MatMul"):
            turned = {index: found for index in (0, 1) if (found := _turned(editor, node, index))}
            if not turned or (node.op == "MatMul" and not _is_gemm(editor, node)):
                continue
            shared = [found for found in turned.values() if not editor.is_private(found.outputs[0])]
            if shared:
                name = shared[0].outputs[0].name
                editor.refuse(node, f"'{name}' is used elsewhere too")
                continue
            for transpose in turned.values():
                editor.match(node, f"transposes what '{node_label(transpose)}' did")
            _rewrite(editor, node, turned)


def _turned(editor: Editor, node: gs.Node, index: int) -> gs.Node | None:
    transpose = editor.producer(node.inputs[index], "Transpose")
    if transpose is None:
        return None
    dims = editor.dims(transpose.inputs[0])
    axes = transpose.attrs.get("perm")
    if axes is None:
        return transpose if dims is not None and len(dims) == 2 else None
    return transpose if [int(axis) for axis in axes] == [1, 0] else None


def _is_gemm(editor: Editor, matmul: gs.Node) -> bool:
    """Return whether a MatMul multiplies matrices of floats that are not empty."""
    dims = [editor.dims(tensor) for tensor in matmul.inputs]
    dtype = editor.dtype(matmul.inputs[0]) or editor.dtype(matmul.inputs[1])
    if dtype is None or any(shape is None or len(shape) != 2 or 0 in shape for shape in dims):
        return False
    if dtype.name not in ("float16", "float32", "float64", "bfloat16"):
        return False
    return editor.allows(matmul, 13 if dtype.name == "bfloat16" else 11)


def _rewrite(editor: Editor, node: gs.Node, turned: dict[int, gs.Node]) -> None:
    inputs = list(node.inputs)
    attrs = dict(node.attrs)
    for index, transpose in turned.items():
        name = ("transA", "transB")[index]
        inputs[index] = transpose.inputs[0]
        attrs[name] = None if attrs.get(name, 0) else 1
    editor.replace(node, "Gemm", inputs, attrs)
