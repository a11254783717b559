"""Normalizations over the last axes, layer and root-mean-square norms, become one node."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion.scale_bias import Tail, fitted, narrowed, uniform, with_scale
from trtforge.graph.fusion.spelled_norm import NearMiss, Spelled, spelled_norm, trailing_axis


class FuseTrailingNorm:
    """What the passes of this kind do; each says which operator it is that they write.

    Attributes:
        operator: its name.
        opset: since which it is there.
        is_centred: whether it subtracts the mean; then it also has a bias.
        takes_unscaled: whether to write it with a scale of ones where there is none.
    """

    name = ""
    operator = ""
    opset = 0
    is_centred = True
    takes_unscaled = False

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Sqrt", "Pow"):
            found = spelled_norm(editor, node)
            if found is None or found.is_centred != self.is_centred:
                continue
            if isinstance(found, NearMiss):
                editor.refuse(node, f"this looks like {self.operator}, but {found.reason}")
            else:
                self._fuse(editor, node, found)

    def _fuse(self, editor: Editor, node: gs.Node, found: Spelled) -> None:
        shape = _trailing_shape(editor, found)
        tail = shape if isinstance(shape, str) else _scaled(editor, found, shape)
        if isinstance(shape, str) or isinstance(tail, str):
            editor.refuse(node, f"this looks like {self.operator}, but {tail}")
            return
        if not self.is_centred:
            tail = _without_bias(editor, tail)
        if tail.scale is None and not self.takes_unscaled:
            editor.refuse(node, _unscaled(self.name, tail))
        elif editor.allows(tail.root, self.opset):
            editor.match(tail.root, f"{self.operator} of '{tail.source.name}'")
            scale = tail.scale or uniform(editor, tail, "scale", shape, 1.0)
            inputs = [tail.source, scale, *([tail.bias] if tail.bias is not None else [])]
            attributes = {"axis": -len(shape), "epsilon": found.epsilon}
            editor.replace(tail.root, self.operator, inputs, attributes)


def _unscaled(name: str, tail: Tail) -> str:
    """Return why a normalization without a scale stays as it is."""
    why = tail.left or "there is no constant scale"
    return f"{why}: with a scale of ones engines are larger (the pass {name}-unscaled does it)"


def _trailing_shape(editor: Editor, found: Spelled) -> tuple[int, ...] | str:
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


def _scaled(editor: Editor, found: Spelled, shape: tuple[int, ...]) -> Tail | str:
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


def _without_bias(editor: Editor, tail: Tail) -> Tail:
    """Leave an Add that follows outside: the operator has no bias."""
    if tail.bias is None:
        return tail
    below = next(filter(None, (editor.producer(tensor) for tensor in tail.root.inputs)))
    return Tail(below, tail.source, tail.scale, left=tail.left)
