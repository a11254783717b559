"""Additions of constants in a row become one, and so do multiplications."""

import math
from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import node_label
from trtforge.graph.pattern import made_by, with_constant
from trtforge.graph.rounding import is_float, precision_of, smallest_normal

_SUMS, _PRODUCTS = ("Add", "Sub"), ("Mul", "Div")

_FREE_ELEMENTS = 4096
"""A merged constant may have this many elements, or as many as the bigger of the two."""


class _Step(NamedTuple):
    """One node as a map of its computed input x.

    Attributes:
        power: x is taken as it is (1), or turned round: -x in a sum, 1 / x in a product (-1).
        values: what is then added, or multiplied by; float64.
        divides: a product by 1 / values, written as a Div.
    """

    power: int
    values: np.ndarray
    divides: bool


class MergeConstantArithmetic:
    """Merge Add, Sub with Add, Sub, and Mul, Div with Mul, Div, by constants.

    Matches: two such nodes in a row, each with one constant operand, the first read only by the
    second (https://onnx.ai/onnx/operators/onnx__Mul.html and its kin, opset 7 on).
    Rewrites to: one node, s x + a or x c or x / c or c / x, its constant computed in float64 and
    rounded once; (x c) / d becomes x (c / d), and (x / c) / d becomes x / (c d).
    Refuses when: the constant would be much bigger than both; a factor would overflow, or lose
    digits below the smallest normal number; two big addends cancel
    (x + 1.5 * 2^23 - 1.5 * 2^23 rounds x to an integer, and is meant so); integers are divided or
    would leave their range; or the first result is an output or read elsewhere.
    """

    name = "constant-arithmetic"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        if editor.is_to_be_raised:
            return
        for group in (_SUMS, _PRODUCTS):
            for node in editor.nodes(*group):
                split = with_constant(node)
                first = None if split is None else editor.producer(split[0], *group)
                inner = None if first is None else with_constant(first)
                if split is None or first is None or inner is None:
                    continue
                if made_by(editor, split[0], *group) is None:
                    editor.refuse(node, f"the result of '{node_label(first)}' is read elsewhere")
                    continue
                why = _merge(editor, first, node, is_sum=group is _SUMS)
                if why is not None:
                    editor.refuse(node, why)


def _merge(editor: Editor, first: gs.Node, node: gs.Node, *, is_sum: bool) -> str | None:
    dtype = editor.dtype(node.outputs[0])
    inner, outer = with_constant(first), with_constant(node)
    if dtype is None or inner is None or outer is None:
        return "its type is not known"
    if dtype.kind not in "iu" and not is_float(dtype):
        return f"it computes in {dtype.name}"
    if dtype.kind in "iu" and "Div" in (first.op, node.op):
        return "a division of integers rounds"
    if not _stays_small(inner[1], outer[1]):
        return "the merged constant would be much bigger than both"
    one, two = _step(first, inner), _step(node, outer)
    power = one.power * two.power
    if is_sum:
        with np.errstate(all="ignore"):  # what is not finite is refused
            values = np.asarray(two.power * one.values + two.values)
        why = _unsound_sum(one.values, two.values, values, dtype)
    else:
        product, power = _product(one, two)
        values = np.asarray(product)  # of Python's integers numpy makes no array by itself
        why = _unsound_product(one.values, two.values, values, dtype)
    if why is not None:
        return why
    editor.match(node, f"one constant does what '{node_label(first)}' and it do")
    divides = one.divides and two.divides
    _write(editor, node, inner[0], _Step(power, values.astype(dtype), divides), is_sum)
    return None


def _stays_small(one: np.ndarray, two: np.ndarray) -> bool:
    try:
        size = math.prod(np.broadcast_shapes(one.shape, two.shape))
    except ValueError:
        return False
    return size <= max(one.size, two.size, _FREE_ELEMENTS)


def _step(node: gs.Node, split: tuple[gs.Tensor, np.ndarray, int]) -> _Step:
    values, is_first = _wide(split[1]), split[2] == 0
    if node.op == "Add":
        return _Step(1, values, divides=False)
    if node.op == "Sub":
        return _Step(-1, values, divides=False) if is_first else _Step(1, -values, divides=False)
    if node.op == "Div" and not is_first:
        return _Step(1, values, divides=True)
    return _Step(-1 if node.op == "Div" else 1, values, divides=False)


def _wide(values: np.ndarray) -> np.ndarray:
    exact = np.object_ if values.dtype.kind in "iu" and values.dtype.itemsize == 8 else np.float64
    return values.astype(exact)


def _product(one: _Step, two: _Step) -> tuple[np.ndarray, int]:
    """Multiply (x c, x / c or c / x) by (d, 1 / d), or divide d by it."""
    with np.errstate(all="ignore"):
        if one.divides and two.divides:
            return one.values * two.values, 1
        if two.power == 1:  # y d or y / d
            left = 1.0 / one.values if one.divides else one.values
            return (left / two.values if two.divides else left * two.values), one.power
        # d / (x c) = (d / c) / x; d / (x / c) = (d c) / x; d / (c / x) = x (d / c)
        if one.divides:
            return two.values * one.values, -1
        return two.values / one.values, -one.power


def _unsound_sum(
    one: np.ndarray, two: np.ndarray, total: np.ndarray, dtype: "np.dtype[Any]"
) -> str | None:
    if not _fits(total, dtype):
        return f"the merged constant does not fit in {dtype.name}"
    if dtype.kind in "iu":
        return None
    bigger = np.maximum(np.abs(one), np.abs(two))
    cancels = (np.abs(total) < bigger / 2) & (bigger >= precision_of(dtype) ** -0.5)
    return "big addends cancel: that rounds, and may be meant" if cancels.any() else None


def _unsound_product(
    one: np.ndarray, two: np.ndarray, total: np.ndarray, dtype: "np.dtype[Any]"
) -> str | None:
    if not _fits(total, dtype):
        return f"the merged constant does not fit in {dtype.name}"
    if dtype.kind in "iu":
        return None
    with np.errstate(all="ignore"):
        rounded = np.abs(total.astype(dtype).astype(np.float64))
    if ((rounded < smallest_normal(dtype)) & (one != 0) & (two != 0)).any():
        return f"the merged constant is too small for {dtype.name}"
    return None


def _fits(values: np.ndarray, dtype: "np.dtype[Any]") -> bool:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return all(limits.min <= int(value) <= limits.max for value in values.reshape(-1))
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.astype(dtype)).all())


def _write(editor: Editor, node: gs.Node, source: gs.Tensor, step: _Step, is_sum: bool) -> None:
    constant = editor.constant(f"{node.outputs[0].name}_constant", np.asarray(step.values))
    if step.power == -1:
        editor.replace(node, "Sub" if is_sum else "Div", [constant, source])
    elif is_sum:
        editor.replace(node, "Add", [source, constant])
    else:
        editor.replace(node, "Div" if step.divides else "Mul", [source, constant])
