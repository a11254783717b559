"""Instance normalization that is spelled out becomes one operator."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion.scale_bias import narrowed, uniform, with_scale
from trtforge.graph.fusion.spelled_norm import Spelled, spelled_norm, trailing_axis

_OPSET = 6


class FuseInstanceNorm:
    """Fuse the nodes of an InstanceNormalization.

    Matches: (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) over all axes of x after the
    channels, in all spellings of spelled_norm.py, and scale and bias with one value per channel,
    (C, 1, 1) for images; without scale, x of four axes and more.
    Rewrites to: InstanceNormalization
    (https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html, opset 6).
    Refuses when: as layer-norm does; what does not fit here is left to that pass, which says why.
    """

    name = "instance-norm"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Sqrt", "Pow"):
            found = spelled_norm(editor, node)
            if isinstance(found, Spelled) and found.is_centred:
                _fuse(editor, found)


def _fuse(editor: Editor, found: Spelled) -> None:
    dims = editor.dims(found.source)
    if dims is None or len(dims) < 3 or trailing_axis(editor, found) != 2 - len(dims):
        return
    channels, spatial = dims[1], len(dims) - 2
    if not isinstance(channels, int) or found.factor is not None or found.shift is not None:
        return
    shape = (channels,)
    tail = with_scale(editor, narrowed(editor, found.root, found.source), shape, behind=spatial)
    if tail.scale is None and (tail.left is not None or spatial < 2):
        return
    if editor.allows(tail.root, _OPSET):
        editor.match(tail.root, f"InstanceNormalization of '{tail.source.name}'")
        scale = tail.scale or uniform(editor, tail, "scale", shape, 1.0)
        bias = tail.bias or uniform(editor, tail, "bias", shape, 0.0)
        inputs: list[gs.Tensor] = [tail.source, scale, bias]
        attributes = {"epsilon": found.epsilon}
        editor.replace(tail.root, "InstanceNormalization", inputs, attributes)
