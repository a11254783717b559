"""What is put around an image becomes the padding of the pool that reads it."""

import math

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import padding
from trtforge.graph.fusion.padding import Padding
from trtforge.graph.nodes import is_standard, node_label
from trtforge.graph.pattern import scalar

_NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp", "Sqrt")


class FusePadPool:
    """Fuse Pad + MaxPool, and Pad + AveragePool.

    Matches: a Pad with a constant, on spatial axes only, that only the pool reads
    (https://onnx.ai/onnx/operators/onnx__MaxPool.html,
    https://onnx.ai/onnx/operators/onnx__AveragePool.html, opset 7 on).
    Rewrites to: the pool with pads' = pads + p. MaxPool pads with -inf: the value must be that, or
    the lowest of the type, or not above anything that the image holds (zeros after a Relu).
    AveragePool pads with zeros that count: count_include_pad is 1 then.
    Refuses when: the value is another one, it cuts off, repeats the image, or pads batch or
    channels; the padded image is an output or read elsewhere; the pool chooses its padding itself
    (auto_pad SAME_*), rounds up (ceil_mode), or a window could lie outside the image; MaxPool's
    indices are used, which count in the padded image; AveragePool pads already with zeros that do
    not count.
    """

    name = "pad-pool"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for pool in editor.nodes("MaxPool", "AveragePool"):
            pad = padding.pad_before(editor, pool)
            if pad is None:
                continue
            added = padding.read_padding(editor, pad)
            pads = added if isinstance(added, str) else _pads(editor, pool, pad, added)
            if isinstance(pads, str):
                editor.refuse(pad, pads)
                continue
            if pool.op == "AveragePool":
                editor.set_attribute(pool, "count_include_pad", 1)
            padding.take_padding(editor, pool, pad, pads)


def _pads(editor: Editor, pool: gs.Node, pad: gs.Node, added: Padding) -> tuple[int, ...] | str:
    label = node_label(pool)
    if pool.attrs.get("ceil_mode", 0):
        return f"'{label}' rounds up"
    own = padding.own_pads(pool, len(added.begin))
    if isinstance(own, str):
        return own
    if pool.op == "MaxPool":
        why = _max_objection(editor, pool, pad, added.value)
    else:
        why = _average_objection(editor, pool, added.value, pads=any(own))
    if why is not None:
        return why
    both = tuple(o + p for o, p in zip(own, (*added.begin, *added.end), strict=True))
    kernel = [int(size) for size in pool.attrs["kernel_shape"]]
    if any(amount >= size for amount, size in zip(both, kernel * 2, strict=True)):
        return f"a window of '{label}' could lie outside the image"
    return both


def _max_objection(editor: Editor, pool: gs.Node, pad: gs.Node, value: float) -> str | None:
    label = node_label(pool)
    for indices in pool.outputs[1:]:
        if indices.name and (editor.users(indices, 1) or editor.is_kept(indices)):
            return f"the indices of '{label}' count in the padded image"
    if any(int(step) != 1 for step in pool.attrs.get("dilations", ())):
        return f"'{label}' has dilations: a window could lie outside the image"
    dtype = editor.dtype(pad.inputs[0])
    if value == -math.inf or (value <= 0 and _is_never_negative(editor, pad.inputs[0])):
        return None
    if dtype is not None and dtype.kind == "f" and value <= float(np.finfo(dtype).min):
        return None
    return f"it pads with {value:g}, '{label}' would with -inf"


def _average_objection(editor: Editor, pool: gs.Node, value: float, *, pads: bool) -> str | None:
    label = node_label(pool)
    if value != 0:
        return f"it pads with {value:g}, '{label}' would with 0"
    if editor.opset < 7:
        return f"'{label}' cannot count padding before opset 7"
    if any(int(step) != 1 for step in pool.attrs.get("dilations", ())):
        return f"'{label}' has dilations: a window could lie outside the image"
    if pads and not pool.attrs.get("count_include_pad", 0):
        return f"'{label}' pads with zeros that do not count"
    return None


def _is_never_negative(editor: Editor, tensor: gs.Tensor) -> bool:
    """Return whether a tensor is known to hold nothing below zero."""
    node = editor.producer(tensor)
    if node is None or not is_standard(node):
        return False
    if node.op in _NEVER_NEGATIVE:
        return True
    if node.op != "Clip":
        return False
    least = node.attrs.get("min")
    if least is None and len(node.inputs) > 1 and not node.inputs[1].is_empty():
        least = scalar(node.inputs[1])
    return least is not None and float(least) >= 0
