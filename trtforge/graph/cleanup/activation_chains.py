"""An elementwise operator that undoes, repeats or bounds what the one before did."""

from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import is_standard, node_label
from trtforge.graph.pattern import made_by, scalar

_UNDONE = frozenset({"Neg", "Not", "BitwiseNot"})
_REPEATED = frozenset({"Abs", "Relu", "Sign", "Floor", "Ceil", "Round"})
_BOUNDING = ("Relu", "Clip")

_NEVER_NEGATIVE = frozenset({"Abs", "Relu", "Sigmoid", "Softmax", "Exp", "Sqrt", "Softplus"})

_BOUNDS_AS_INPUTS = 11
"""Clip takes its bounds as inputs since this opset.

Source: https://onnx.ai/onnx/operators/onnx__Clip.html
"""


class MergeActivations:
    """Merge two elementwise operators of one input.

    Matches and rewrites to:
        Neg(Neg(x)), Not(Not(x)), BitwiseNot(BitwiseNot(x)): x (exact, the sign of NaN included);
        Abs, Relu, Sign, Floor, Ceil or Round of itself: the first alone (each is idempotent);
        Relu or Abs of Abs, Relu, Sigmoid, Softmax, Exp, Sqrt or Softplus: the first alone;
        Abs(Neg(x)): Abs(x);
        Clip or Relu of Clip or Relu, as min(max(min(max(x, a), b), c), d) =
        min(max(x, max(a, c)), min(max(b, c), d)): one Clip, or Relu where that is what is left
        (https://onnx.ai/onnx/operators/onnx__Clip.html).
    Refuses when: bounds are computed, the inner result of a Clip or Relu is read elsewhere (the
    node would stay), or an output would lose its name. Reciprocal(Reciprocal(x)) rounds twice,
    and is no near miss.
    """

    name = "activation-chains"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        if editor.is_to_be_raised:
            return
        for node in editor.nodes(*_UNDONE, *_REPEATED, "Clip"):
            first = editor.producer(node.inputs[0])
            if first is not None and is_standard(first):
                _merge(editor, first, node)


def _merge(editor: Editor, first: gs.Node, node: gs.Node) -> None:
    label = node_label(first)
    if node.op in _UNDONE and first.op == node.op:
        editor.bypass_or_refuse(node, first.inputs[0], f"it takes back what '{label}' does")
    elif node.op in _REPEATED and first.op == node.op:
        editor.bypass_or_refuse(node, node.inputs[0], f"'{label}' did it already")
    elif node.op in ("Relu", "Abs") and first.op in _NEVER_NEGATIVE:
        editor.bypass_or_refuse(node, node.inputs[0], f"'{label}' gives nothing negative")
    elif node.op == "Abs" and first.op == "Neg":
        editor.match(node, f"the sign that '{label}' changes does not matter")
        editor.set_input(node, 0, first.inputs[0])
    elif node.op in _BOUNDING and first.op in _BOUNDING:
        _merge_bounds(editor, first, node)


class _Bounds(NamedTuple):
    low: float
    high: float


def _merge_bounds(editor: Editor, first: gs.Node, node: gs.Node) -> None:
    label, dtype = node_label(first), editor.dtype(node.outputs[0])
    one, two = _bounds(editor, first), _bounds(editor, node)
    if one is None or two is None:
        editor.refuse(node, f"the bounds of '{label}' or its own are computed")
        return
    if dtype is None or dtype.kind != "f":
        return
    high = min(max(one.high, two.low), two.high)
    merged = _Bounds(min(max(one.low, two.low), high), high)  # crossed bounds give `high` anyway
    if merged == one:
        editor.bypass_or_refuse(node, node.inputs[0], f"'{label}' bounds it already")
    elif made_by(editor, node.inputs[0], *_BOUNDING) is None:
        editor.refuse(node, f"the result of '{label}' is read elsewhere, too")
    elif merged == _Bounds(0.0, np.inf):
        editor.match(node, f"one Relu bounds as '{label}' and it do")
        editor.replace(node, "Relu", [first.inputs[0]])
    else:
        editor.match(node, f"one Clip bounds as '{label}' and it do")
        _clip(editor, node, first.inputs[0], merged, dtype)


def _clip(
    editor: Editor, node: gs.Node, source: gs.Tensor, bounds: _Bounds, dtype: "np.dtype[np.generic]"
) -> None:
    if editor.opset < _BOUNDS_AS_INPUTS:
        names = ("min", "max")
        given = {n: float(b) for n, b in zip(names, bounds, strict=True) if np.isfinite(b)}
        editor.replace(node, "Clip", [source], given)
        return
    base = node.outputs[0].name
    inputs: list[gs.Tensor] = [source]
    for name, bound in zip(("min", "max"), bounds, strict=True):
        if np.isfinite(bound):
            inputs.append(editor.constant(f"{base}_{name}", np.asarray(bound, dtype)))
        elif name == "min":
            inputs.append(gs.Variable.empty())
    editor.replace(node, "Clip", inputs)


def _bounds(editor: Editor, node: gs.Node) -> _Bounds | None:
    if node.op == "Relu":
        return _Bounds(0.0, np.inf)
    if editor.opset < _BOUNDS_AS_INPUTS:
        low, high = node.attrs.get("min", -np.inf), node.attrs.get("max", np.inf)
        return _Bounds(float(low), float(high))
    found = []
    for index, absent in ((1, -np.inf), (2, np.inf)):
        given = len(node.inputs) > index and bool(node.inputs[index].name)
        value = scalar(node.inputs[index]) if given else absent
        if value is None or np.isnan(value):
            return None
        found.append(float(value))
    return _Bounds(found[0], found[1])
