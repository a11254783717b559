"""Root-mean-square normalization that is spelled out becomes one operator."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion.layer_norm import scaled, trailing_shape, unscaled
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
    Refuses when: there is no scale that fits (as for layer-norm; the pass rms-norm-unscaled takes
    those), the axes are not the last ones or their sizes not known, epsilon is added outside
    the root, a value in between is an output or used elsewhere, or x is FP64.
    """

    name = "rms-norm"
    takes_unscaled = False

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Sqrt", "Pow"):
            found = spelled_norm(editor, node)
            if isinstance(found, NearMiss) and not found.is_centred:
                editor.refuse(node, f"this looks like RMSNormalization, but {found.reason}")
            elif isinstance(found, Spelled) and not found.is_centred:
                self._fuse(editor, node, found)

    def _fuse(self, editor: Editor, node: gs.Node, found: Spelled) -> None:
        shape = trailing_shape(editor, found)
        tail = shape if isinstance(shape, str) else scaled(editor, found, shape)
        if isinstance(shape, str) or isinstance(tail, str):
            editor.refuse(node, f"this looks like RMSNormalization, but {tail}")
            return
        tail = _without_bias(editor, tail)
        if tail.scale is None and not self.takes_unscaled:
            editor.refuse(node, unscaled(self.name, tail))
        elif editor.allows(tail.root, _OPSET):
            editor.match(tail.root, f"RMSNormalization of '{tail.source.name}'")
            scale = tail.scale or uniform(editor, tail, "scale", shape, 1.0)
            attributes = {"axis": -len(shape), "epsilon": found.epsilon}
            inputs = [tail.source, scale]
            editor.replace(tail.root, "RMSNormalization", inputs, attributes)


def _without_bias(editor: Editor, tail: Tail) -> Tail:
    """Leave an Add that follows outside: the operator has no bias."""
    if tail.bias is None:
        return tail
    below = next(filter(None, (editor.producer(tensor) for tensor in tail.root.inputs)))
    return Tail(below, tail.source, tail.scale, left=tail.left)
