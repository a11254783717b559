"""Formulas in a few tensors, read from nodes however an exporter has spelled them.

0.5 * x * (1 + e), x * (0.5 * e + 0.5) and (x / 2) * (e + 1) are one polynomial in x and e. So an
activation is recognized by its terms, and not by the order of its nodes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import is_standard
from trtforge.graph.pattern import only_reader, rank_of, scalar

ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Neg", "Pow")

Exponents = tuple[int, ...]
"""One exponent per variable."""

Terms = dict[Exponents, float]
"""A polynomial: exponents -> coefficient."""

_MAX_DEGREE = 4
_MAX_STEPS = 6
_WRITTEN_DIGITS = 2e-5
"""Relative; exporters write 1.4142 for the square root of 2, which is off by 1e-5."""


def tolerance(editor: Editor, tensor: gs.Tensor) -> float:
    """Return how far, relatively, a constant beside a tensor may be from the true value."""
    dtype = editor.dtype(tensor)
    if dtype is None or dtype.itemsize >= 4:
        return _WRITTEN_DIGITS
    return 2.0**-10 if dtype == np.float16 else 2.0**-7  # FP16 has 11 significant bits, BF16 8


def agrees(found: float, wanted: float, relative: float) -> bool:
    """Return whether a constant is what it should be."""
    return abs(found - wanted) <= relative * abs(wanted)


@dataclass(frozen=True)
class Affine:
    """tensor = scale * source + offset."""

    source: gs.Tensor
    scale: float
    offset: float


def affine(editor: Editor, tensor: gs.Tensor) -> Affine:
    """Read a tensor as a * x + b, going down as long as only this formula reads what it passes."""
    scale, offset, rank = 1.0, 0.0, rank_of(editor, tensor)
    while editor.is_private(tensor):
        node = editor.producer(tensor, "Add", "Sub", "Mul", "Div", "Neg")
        step = _affine_step(node, rank) if node is not None else None
        if step is None:
            break
        # scale * (a * x + b) + offset
        scale, offset, tensor = scale * step.scale, scale * step.offset + offset, step.source
    return Affine(tensor, scale, offset)


def _affine_step(node: gs.Node, rank: int | None) -> Affine | None:
    if node.op == "Neg":
        return Affine(node.inputs[0], -1.0, 0.0)
    for index in (1, 0):
        value = scalar(node.inputs[index])
        source = node.inputs[1 - index]
        if value is None or isinstance(source, gs.Constant):
            continue
        if not _broadcasts_into(node.inputs[index], rank):
            return None
        if node.op == "Add":
            return Affine(source, 1.0, value)
        if node.op == "Sub":
            return Affine(source, 1.0, -value) if index == 1 else Affine(source, -1.0, value)
        if node.op == "Mul":
            return Affine(source, value, 0.0)
        return Affine(source, 1.0 / value, 0.0) if index == 1 and value else None
    return None


def _broadcasts_into(constant: gs.Tensor, rank: int | None) -> bool:
    """Return whether a constant of one element leaves the shape of what it meets as it is."""
    own = len(constant.shape)
    return own == 0 or (rank is not None and own <= rank)


def polynomial(editor: Editor, node: gs.Node, variables: tuple[gs.Tensor, ...]) -> Terms | None:
    """Expand what a node computes into a polynomial of the given tensors.

    Returns:
        None when anything else than these tensors and numbers goes into it, when a result on the
        way is read elsewhere, or when a number's shape would change the result's.
    """
    rank = rank_of(editor, variables[0])

    def of_tensor(tensor: gs.Tensor) -> Terms | None:
        for index, variable in enumerate(variables):
            if tensor is variable:
                return {tuple(int(index == i) for i in range(len(variables))): 1.0}
        value = scalar(tensor)
        if value is not None:
            return {(0,) * len(variables): value} if _broadcasts_into(tensor, rank) else None
        producer = editor.producer(tensor, *ARITHMETIC)
        return of_node(producer) if producer is not None and editor.is_private(tensor) else None

    def of_node(inner: gs.Node) -> Terms | None:
        operands = [of_tensor(tensor) for tensor in inner.inputs]
        known = [operand for operand in operands if operand is not None]
        return _combined(inner.op, known) if len(known) == len(operands) else None

    return of_node(node)


def _combined(op: str, operands: list[Terms]) -> Terms | None:
    if op == "Neg":
        return _times(operands[0], -1.0)
    left, right = operands
    if op == "Add":
        return _sum(left, right)
    if op == "Sub":
        return _sum(left, _times(right, -1.0))
    if op == "Mul":
        return _product(left, right)
    number = _number(right)
    if number is None:
        return None
    if op == "Div":
        return _times(left, 1.0 / number) if number else None
    if number not in range(1, _MAX_DEGREE + 1):
        return None
    power: Terms | None = left
    for _ in range(int(number) - 1):
        power = _product(power, left) if power is not None else None
    return power


def _number(terms: Terms) -> float | None:
    return next(iter(terms.values())) if len(terms) == 1 and not any(next(iter(terms))) else None


def _times(terms: Terms, factor: float) -> Terms:
    return {exponents: value * factor for exponents, value in terms.items()}


def _sum(left: Terms, right: Terms) -> Terms:
    result = dict(left)
    for exponents, value in right.items():
        result[exponents] = result.get(exponents, 0.0) + value
    return result


def _product(left: Terms, right: Terms) -> Terms | None:
    result: Terms = {}
    for one, first in left.items():
        for two, second in right.items():
            exponents = tuple(a + b for a, b in zip(one, two, strict=True))
            if sum(exponents) > _MAX_DEGREE:
                return None
            result[exponents] = result.get(exponents, 0.0) + first * second
    return result


def differs(found: Terms, wanted: Mapping[Exponents, float], relative: float) -> str | None:
    """Return which coefficient is not the wanted one; "" when it is another formula altogether."""
    present = {exponents: value for exponents, value in found.items() if value}
    if set(present) != set(wanted):
        return ""
    for exponents, value in wanted.items():
        if not agrees(present[exponents], value, relative):
            return f"a coefficient is {present[exponents]:.7g}, not {value:.7g}"
    return None


def upward(editor: Editor, tensor: gs.Tensor) -> Iterator[gs.Node]:
    """Yield the arithmetic nodes above a tensor, as long as each is the only reader of the last."""
    for _ in range(_MAX_STEPS):
        node = only_reader(editor, tensor)
        if node is None or node.op not in ARITHMETIC or not is_standard(node):
            return
        yield node
        tensor = node.outputs[0]


def product_root(
    editor: Editor, source: gs.Tensor, factor: gs.Tensor, wanted: Mapping[Exponents, float]
) -> tuple[gs.Node | None, str | None]:
    """Find the node above `factor` that computes the wanted polynomial of source and factor.

    Args:
        editor: of the graph.
        source: the first variable.
        factor: the second one, which nothing outside the formula may read.
        wanted: (power of source, power of factor) -> coefficient.

    Returns:
        The node, or None and, when only a coefficient is wrong, why.
    """
    why: str | None = None
    for node in upward(editor, factor):
        terms = polynomial(editor, node, (source, factor))
        if terms is None:
            continue
        found = differs(terms, wanted, tolerance(editor, source))
        if found is None:
            return node, None
        why = found or why
    return None, why


def only_variable(editor: Editor, tensor: gs.Tensor) -> gs.Tensor | None:
    """Return the one tensor, numbers aside, that a formula of its own computes `tensor` from."""
    found: dict[int, gs.Tensor] = {}
    pending = [tensor]
    while pending and len(found) < 2:
        current = pending.pop()
        if scalar(current) is not None:
            continue
        node = editor.producer(current, *ARITHMETIC) if editor.is_private(current) else None
        if node is None:
            found[id(current)] = current
        else:
            pending.extend(node.inputs)
    return next(iter(found.values())) if len(found) == 1 else None
