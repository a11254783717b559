"""A Gemm that is fed and read through Reshapes becomes a MatMul, which takes any rank."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values, node_label
from trtforge.graph.pattern import is_read_only_by, only_reader


class UnwrapGemm:
    """Write Reshape, Gemm, Reshape as MatMul and Add.

    Matches: y = Reshape(Gemm(Reshape(x), W, b)) with alpha = beta = 1, no transA, W constant,
    b absent or one row, where x is (..., K) and y is (..., N) with the same leading dimensions
    (https://onnx.ai/onnx/operators/onnx__Gemm.html). Rows are independent in a product with W, so
    it does not matter how they are laid out.
    Rewrites to: MatMul(x, W) + b, W transposed where transB says so
    (https://onnx.ai/onnx/operators/onnx__MatMul.html): a node less, and no dimensions to compute.
    Refuses when: a result between is read elsewhere, the leading dimensions are not known to be
    equal, or W would be kept twice.

    Gemm from opset 7 on.
    """

    name = "gemm-between-reshapes"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Gemm"):
            before = editor.producer(node.inputs[0], "Reshape")
            after = only_reader(editor, node.outputs[0])
            if before is None or after is None or after.op != "Reshape":
                continue
            if after.inputs[0] is not node.outputs[0]:
                continue  # it is the target of that Reshape
            why = _objection(editor, before, node, after)
            if why is not None:
                editor.refuse(node, why)
                continue
            editor.match(node, f"'{node_label(before)}' and '{node_label(after)}' are not needed")
            _write(editor, before.inputs[0], node, after)


def _objection(editor: Editor, before: gs.Node, node: gs.Node, after: gs.Node) -> str | None:
    source, weight, attrs = before.inputs[0], node.inputs[1], node.attrs
    if attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0 or attrs.get("transA", 0):
        return "it scales, or turns its first input round"
    if not isinstance(weight, gs.Constant) or len(weight.shape) != 2:
        return "its weights are not constant"
    inner, outer = weight.shape[::-1] if attrs.get("transB", 0) else weight.shape
    if attrs.get("transB", 0) and not editor.is_private(weight):
        return f"'{weight.name}' is shared, and would be kept twice"
    given, result = editor.dims(source), editor.dims(after.outputs[0])
    if given is None or result is None or len(given) < 2 or None in given[:-1]:
        return "the dimensions around it are not known"
    if given[:-1] != result[:-1] or given[-1] != inner or result[-1] != outer:
        return "the Reshapes do more than to lay the rows out"
    if len(node.inputs) > 2 and node.inputs[2].name:
        bias = editor.dims(node.inputs[2])
        if bias is None or any(dim != 1 for dim in bias[:-1]):
            return "its bias is not one row"
    if not is_read_only_by(editor, node.inputs[0], "Gemm"):
        return f"the result of '{node_label(before)}' is read by other nodes, too"
    return None


def _write(editor: Editor, source: gs.Tensor, node: gs.Node, after: gs.Node) -> None:
    weight, result = node.inputs[1], after.outputs[0]
    if node.attrs.get("transB", 0):
        values = constant_values(weight)
        assert values is not None  # constant, says `_objection`
        weight = editor.constant(f"{weight.name}_transposed", np.ascontiguousarray(values.T))
    if len(node.inputs) < 3 or not node.inputs[2].name:
        editor.replace(after, "MatMul", [source, weight]).name = node.name
    else:
        product = editor.variable(
            f"{result.name}_product", editor.dtype(result), editor.dims(result)
        )
        editor.add("MatMul", [source, weight], [product], node, name=node.name)
        editor.replace(after, "Add", [product, node.inputs[2]])
    editor.remove(node)
