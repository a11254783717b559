"""Per-channel multiplications and additions go into the linear operator after them."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import linear
from trtforge.graph.fusion.affine import ARITHMETIC, constant_beside, keeps_shape, of_arithmetic
from trtforge.graph.fusion.preceding import fold_before, linear_after

_NORMALIZATIONS = (
    "InstanceNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "MeanVarianceNormalization",
    "LpNormalization",
)
_MOST_STEPS = 8


class FuseMulAddBefore:
    """Fuse Mul, Add, Sub or Div by a constant per channel + Conv, ConvTranspose, Gemm or MatMul.

    Matches: such a node (an image's (x - mean) / std, say) whose result only one linear operator
    with constant weights reads, as its activations; the constant is a number or has one value per
    input feature (https://onnx.ai/onnx/operators/onnx__Conv.html).
    Rewrites to: the operator with W' = W times s along its input features and b' = b + the sum
    over all but the output features of W times t, for s * x + t. A MatMul of matrices that gets a
    bias becomes a Gemm.
    Refuses when: the constant is not one value per feature or x may broadcast, there is something
    to add and the convolution pads (the padding stays zero) or is transposed, a MatMul that would
    get a bias has more than two axes, the node is the last step of a normalization (which has an
    operator of its own), or weights or bias are shared and over 1 MiB, or do not fit their type.

    Any opset from 7 on.
    """

    name = "mul-add-before-linear"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes(*ARITHMETIC):
            index = next((i for i in (0, 1) if constant_beside(node, i)), None)
            after = linear_after(editor, node.outputs[0])
            if index is None or after is None:
                continue
            place = linear.input_place(editor, after)
            if ends_normalization(editor, node, index):
                editor.refuse(node, "it is the last step of a normalization")
            elif not keeps_shape(editor, node, index, place):
                editor.refuse(node, f"it may broadcast '{node.inputs[index].name}'")
            else:
                fold_before(editor, node, node.inputs[index], of_arithmetic(node, index, place))


def ends_normalization(editor: Editor, node: gs.Node, index: int) -> bool:
    """Return whether what a node scales was normalized: divided by something computed."""
    tensor = node.inputs[index]
    for _ in range(_MOST_STEPS):
        producer = editor.producer(tensor)
        if producer is None:
            return False
        if producer.op in _NORMALIZATIONS:
            return True
        if producer.op in ("Reshape", "Cast"):
            tensor = producer.inputs[0]
            continue
        if producer.op not in ARITHMETIC:
            return False
        beside = next((i for i in (0, 1) if constant_beside(producer, i)), None)
        if beside is None:
            return producer.op in ("Mul", "Div")
        tensor = producer.inputs[beside]
    return True
