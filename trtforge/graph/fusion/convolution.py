"""Folding a per-channel scale and shift into a convolution before it.

With y = conv(x, W) + b, the map s * y + t (s, t per output channel) is
conv(x, s * W) + (s * b + t), computed in float64 and rounded once to the type of W.
"""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor, constant_values, in_onnx_domain, node_label

CONVOLUTIONS = ("Conv", "ConvTranspose")


def convolution_before(editor: Editor, tensor: gs.Tensor) -> gs.Node | None:
    """Return the Conv or ConvTranspose that computes a tensor, if one does."""
    node = editor.producer(tensor)
    return node if node is not None and in_onnx_domain(node, *CONVOLUTIONS) else None


def objection(editor: Editor, conv: gs.Node) -> str | None:
    """Return why nothing can be folded into a convolution, or None."""
    label, result = node_label(conv), conv.outputs[0]
    if editor.is_kept(result):
        return f"the result of '{label}' is an output"
    if not editor.is_private(result):
        return f"the result of '{label}' is used elsewhere too"
    for role, tensor in zip(("weights", "bias"), conv.inputs[1:3], strict=False):
        if tensor.is_empty():
            continue
        values = constant_values(tensor)
        if values is None:
            return f"the {role} of '{label}' are not constant"
        if values.dtype.kind != "f":
            return f"the {role} of '{label}' are {values.dtype.name}"
        if not editor.is_private(tensor):
            return f"the {role} of '{label}' ('{tensor.name}') are shared"
    return None


def output_channels(conv: gs.Node) -> int:
    """Return how many channels a convolution computes.

    W is (C_out, C_in / group, ...) for Conv, (C_in, C_out / group, ...) for ConvTranspose.
    Source: https://onnx.ai/onnx/operators/onnx__ConvTranspose.html
    """
    shape = conv.inputs[1].shape
    if conv.op == "Conv":
        return int(shape[0])
    return int(shape[1]) * int(conv.attrs.get("group", 1))


def fold(editor: Editor, conv: gs.Node, scale: np.ndarray, shift: np.ndarray) -> str | None:
    """Fold s * y + t into a convolution to which there is no `objection`.

    Args:
        editor: of the graph.
        conv: the convolution.
        scale: s, float64, shape (output channels,).
        shift: t, likewise.

    Returns:
        None when done; otherwise why it was not, and nothing has changed.
    """
    weight = constant_values(conv.inputs[1])
    assert weight is not None  # said by `objection`
    has_bias = len(conv.inputs) > 2 and not conv.inputs[2].is_empty()
    bias = constant_values(conv.inputs[2]) if has_bias else None
    old_bias = 0.0 if bias is None else bias.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        new_weight = (weight * _along_weight(conv, scale, weight)).astype(weight.dtype)
        new_bias = (old_bias * scale + shift).astype(weight.dtype)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return f"the folded weights do not fit in {weight.dtype.name}"
    editor.set_input(conv, 1, gs.Constant(conv.inputs[1].name, new_weight))
    if has_bias:
        editor.set_input(conv, 2, gs.Constant(conv.inputs[2].name, new_bias))
    elif new_bias.any():
        if len(conv.inputs) > 2:
            conv.inputs.pop()
        name = f"{conv.inputs[1].name}_bias"
        editor.set_input(conv, 2, editor.constant(name, new_bias))
    return None


def _along_weight(conv: gs.Node, scale: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Lay a factor per output channel out so that it multiplies W."""
    kernel = (1,) * (weight.ndim - 2)
    if conv.op == "Conv":
        return scale.reshape(-1, 1, *kernel)
    group = int(conv.attrs.get("group", 1))
    per_group = scale.reshape(group, 1, -1)
    inputs_per_group = weight.shape[0] // group
    by_input = np.broadcast_to(per_group, (group, inputs_per_group, per_group.shape[2]))
    return by_input.reshape(weight.shape[0], weight.shape[1], *kernel)


def take_over(editor: Editor, conv: gs.Node, follower: gs.Node) -> None:
    """Let a convolution compute what the node after it computed, under that node's name."""
    editor.set_output(conv, 0, follower.outputs[0])
    editor.remove(follower)
