"""Root-mean-square normalization that is spelled out becomes one operator."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion.layer_norm import described, scaled, trailing_shape
from trtforge.graph.fusion.scale_bias import Tail, uniform
from trtforge.graph.fusion.spelled_norm import NearMiss, Spelled, spelled_norm

_OPSET = 23


class FuseRmsNorm:
    """Fuse the nodes of an RMSNormalization.

    Matches: x / sqrt(mean(x^2) + epsilon), then, where it is there, * scale, in all spellings of
    spelled_norm.py; mean over the last axis or the last few. As in layer-norm, the casts around it
    go in: x to FP32 before, n back to the type of x before it meets the scale.
    Rewrites to: RMSNormalization
    (https://onnx.ai/onnx/operators/onnx__RMSNormalization.html, opset 23).
    Refuses when: the axes are not the last ones or their sizes not known, epsilon is added outside
    the root, a value in between is an output or used elsewhere, or x is FP64.
    """

    name = "rms-norm"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Sqrt", "Pow"):
            found = spelled_norm(editor, node)
            if isinstance(found, NearMiss) and not found.is_centred:
                editor.refuse(node, f"this looks like RMSNormalization, but {found.reason}")
            elif isinstance(found, Spelled) and not found.is_centred:
                _fuse(editor, node, found)


def _fuse(editor: Editor, node: gs.Node, found: Spelled) -> None:
    shape = trailing_shape(editor, found)
    tail = scaled(editor, found, shape) if not isinstance(shape, str) else shape
    if isinstance(shape, str) or isinstance(tail, str):
        editor.refuse(node, f"this looks like RMSNormalization, but {tail}")
        return
    root = tail.root
    if tail.bias is not None:  # the operator has none: the Add stays
        lower = next(t for t in root.inputs if editor.producer(t) is not None)
        tail = Tail(editor.producer(lower), tail.source, tail.scale)
    if editor.allows(tail.root, _OPSET):
        editor.match(tail.root, described("RMSNormalization", tail))
        scale = tail.scale or uniform(editor, tail, "scale", shape, 1.0)
        attributes = {"axis": -len(shape), "epsilon": found.epsilon}
        editor.replace(tail.root, "RMSNormalization", [tail.source, scale], attributes)
