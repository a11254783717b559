"""BatchNormalization goes into the weights of the convolution before it."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor, constant_values, node_label
from trtforge.graph.fusion import convolution

_DEFAULT_EPSILON = 1e-5


class FuseConvBatchNorm:
    """Fuse Conv + BatchNormalization, and ConvTranspose + BatchNormalization.

    Matches: a convolution (any group, any number of axes, with bias or without) with constant
    weights whose result only an inference-mode BatchNormalization with constant parameters reads
    (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html, opset 7 on).
    Rewrites to: the convolution with W' = s * W and b' = s * (b - mean) + B, where
    s = scale / sqrt(var + epsilon); weights and bias keep their names, the result has the name of
    the normalized one.
    Refuses when: the convolution's result is an output or read elsewhere, its weights or bias are
    shared or not constant, the normalization trains, or W' does not fit its type.
    """

    name = "conv-batchnorm"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for norm in editor.nodes("BatchNormalization"):
            conv = convolution.convolution_before(editor, norm.inputs[0])
            if conv is None:
                continue
            why = _training(norm, editor, editor.opset) or convolution.objection(editor, conv)
            why = why or _fused(editor, conv, norm)
            if why is None:
                editor.match(norm, f"folded into '{node_label(conv)}'")
                convolution.take_over(editor, conv, norm)
            else:
                editor.refuse(norm, why)


def _training(norm: gs.Node, editor: Editor, opset: int) -> str | None:
    if norm.attrs.get("training_mode", 0) or (opset < 7 and not norm.attrs.get("is_test", 0)):
        return "the normalization is in training mode"
    if norm.attrs.get("spatial", 1) != 1:
        return "the normalization is per activation, not per channel"
    for extra in norm.outputs[1:]:
        if extra.name and (editor.users(extra, 1) or editor.is_kept(extra)):
            return f"its statistics ('{extra.name}') are used"
    return None


def _fused(editor: Editor, conv: gs.Node, norm: gs.Node) -> str | None:
    channels = convolution.output_channels(conv)
    parameters = []
    for role, tensor in zip(("scale", "B", "mean", "var"), norm.inputs[1:5], strict=True):
        values = constant_values(tensor)
        if values is None:
            return f"{role} ('{tensor.name}') is not constant"
        if values.shape != (channels,):
            return f"{role} has shape {list(values.shape)}, the convolution {channels} channels"
        parameters.append(values.astype(np.float64))
    scale, shift, mean, variance = parameters
    divisor = variance + float(norm.attrs.get("epsilon", _DEFAULT_EPSILON))
    if not (divisor > 0).all():
        return "a variance is negative"
    factor = scale / np.sqrt(divisor)
    return convolution.fold(editor, conv, factor, shift - mean * factor)
