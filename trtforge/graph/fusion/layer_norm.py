"""Layer normalization that is spelled out becomes one operator."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion.scale_bias import Tail, fitted, narrowed, uniform, with_scale
from trtforge.graph.fusion.spelled_norm import NearMiss, Spelled, spelled_norm, trailing_axis

_OPSET = 17


class FuseLayerNorm:
    """Fuse the nodes of a LayerNormalization.

    Matches: (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon), then, where they are there,
    * scale + bias, in all spellings of spelled_norm.py, TensorFlow's multiplied-out one too; mean
    over the last axis or the last few. A Cast of x to FP32 before and the Cast of n back after it
    go in as well: the operator computes its statistics in FP32 (stash_type 1) and multiplies by
    the scale in the type of x, as those nodes do.
    Rewrites to: LayerNormalization
    (https://onnx.ai/onnx/operators/onnx__LayerNormalization.html, opset 17). A scale that varies
    along other axes than the normalized ones stays outside, as does what is added then.
    Refuses when: there is no scale that fits (the operator needs one, and engines with a scale of
    ones are larger, docs/fusions.md; the pass layer-norm-unscaled does it), the axes are not the
    last ones or their sizes not known, epsilon is added outside the root, the variance is an
    unbiased one, a value in between is an output or used elsewhere, or x is FP64, which the
    operator would compute in FP32.
    """

    name = "layer-norm"
    takes_unscaled = False

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Sqrt", "Pow"):
            found = spelled_norm(editor, node)
            if isinstance(found, NearMiss) and found.is_centred:
                editor.refuse(node, f"this looks like LayerNormalization, but {found.reason}")
            elif isinstance(found, Spelled) and found.is_centred:
                self._fuse(editor, node, found)

    def _fuse(self, editor: Editor, node: gs.Node, found: Spelled) -> None:
        shape = trailing_shape(editor, found)
        tail = shape if isinstance(shape, str) else scaled(editor, found, shape)
        if isinstance(shape, str) or isinstance(tail, str):
            editor.refuse(node, f"this looks like LayerNormalization, but {tail}")
        elif tail.scale is None and not self.takes_unscaled:
            editor.refuse(node, unscaled(self.name, tail))
        elif editor.allows(tail.root, _OPSET):
            editor.match(tail.root, f"LayerNormalization of '{tail.source.name}'")
            scale = tail.scale or uniform(editor, tail, "scale", shape, 1.0)
            inputs = [tail.source, scale, *([tail.bias] if tail.bias is not None else [])]
            attributes = {"axis": -len(shape), "epsilon": found.epsilon}
            editor.replace(tail.root, "LayerNormalization", inputs, attributes)


def unscaled(name: str, tail: Tail) -> str:
    """Return why a normalization without a scale stays as it is."""
    why = tail.left or "there is no constant scale"
    return f"{why}: with a scale of ones engines are larger (the pass {name}-unscaled does it)"


def trailing_shape(editor: Editor, found: Spelled) -> tuple[int, ...] | str:
    """Return the sizes of the normalized axes, which must be the last ones; else why not."""
    first = trailing_axis(editor, found)
    if first is None:
        return f"its axes {list(found.axes)} are not the last ones"
    dims = editor.dims(found.source)
    shape = dims[first:] if dims is not None else (None,)
    sizes = tuple(dim for dim in shape if isinstance(dim, int))
    if len(sizes) != len(shape):
        return f"the sizes of its axes {list(found.axes)} are not known"
    return sizes


def scaled(editor: Editor, found: Spelled, shape: tuple[int, ...]) -> Tail | str:
    """Return the normalization's end with the scale and the bias that fit; else why not."""
    if found.factor is None and found.shift is None:
        tail = narrowed(editor, found.root, found.source)
        return with_scale(editor, tail, shape)
    rank = len(editor.dims(found.source) or ())
    given = (found.factor, found.shift)
    fitting = [
        fitted(editor, t, shape) if t is not None and len(t.shape or ()) <= rank else None
        for t in given
    ]
    if any(one is None for one, tensor in zip(fitting, given, strict=True) if tensor is not None):
        return f"its scale or bias is not constant, or has not one value for each of {list(shape)}"
    tail = Tail(found.root, found.source, *fitting)
    return with_scale(editor, tail, shape) if found.shift is None else tail
