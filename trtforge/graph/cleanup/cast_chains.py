"""Two Casts in a row become one where the one between loses nothing."""

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import node_label


class MergeCasts:
    """Merge Cast(Cast(x)).

    Matches: a Cast of a Cast (opset 6 on, https://onnx.ai/onnx/operators/onnx__Cast.html) whose
    type holds every value of x's type: x -> wider -> y is x -> y.
    Rewrites to: one Cast from x; to x itself where the last type is x's own; and to the first
    Cast where both go to the same type.
    Refuses when: the type between cannot hold every value of x (FP32 -> FP16 -> FP32 rounds, and
    int64 -> int32 cuts off), or x's type is not known.
    """

    name = "cast-chains"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Cast"):
            first = editor.producer(node.inputs[0], "Cast")
            if first is not None:
                _merge(editor, first, node)


def _merge(editor: Editor, first: gs.Node, node: gs.Node) -> None:
    source, label = first.inputs[0], node_label(first)
    between = editor.facts.numpy(int(first.attrs.get("to", 0)))
    target = editor.facts.numpy(int(node.attrs.get("to", 0)))
    dtype = editor.dtype(source)
    if between is None or target is None:
        return
    if between == target:
        editor.bypass_or_refuse(node, node.inputs[0], f"'{label}' gives that type already")
    elif dtype is None:
        editor.refuse(node, f"the type that '{label}' casts from is not known")
    elif not holds(between, dtype):
        editor.refuse(node, f"{between.name} between cannot hold every {dtype.name}")
    elif dtype == target:
        editor.bypass_or_refuse(
            node, source, f"it takes back what '{label}' does, which loses nothing"
        )
    else:
        editor.match(node, f"'{label}' before it loses nothing")
        editor.set_input(node, 0, source)


def holds(wide: "np.dtype[Any]", narrow: "np.dtype[Any]") -> bool:
    """Return whether every value of one type is a value of the other.

    Numpy calls int64 -> float64 safe, though it rounds above 2**53; here it is not. Of the types
    that numpy does not have only bfloat16 is known, the upper half of float32.
    """
    if wide == narrow:
        return True
    if narrow.name == "bfloat16":
        return wide.name in ("float32", "float64")
    if wide.name == "bfloat16":
        return narrow.name in ("bool", "int8", "uint8")
    if wide.kind not in "biuf" or narrow.kind not in "biuf":
        return False
    if wide.kind == "f" and narrow.kind in "iu" and narrow.itemsize == 8:
        return False
    return bool(np.can_cast(narrow, wide, "safe"))
