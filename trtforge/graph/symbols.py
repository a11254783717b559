"""Sizes that are not known as numbers: polynomials over the names of dynamic dimensions.

Two sizes that are equal as polynomials are equal whatever the inputs; nothing is said of others.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from trtforge.graph.facts import Dim

_Monomial = tuple[str, ...]


class Size:
    """A size, as a polynomial with integer coefficients over names; every name is >= 0.

    Args:
        terms: coefficient of each product of names (sorted, with repetition; () is the constant).
    """

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: dict[_Monomial, int]) -> None:
        self.terms = {names: factor for names, factor in terms.items() if factor}
        self._hash: int | None = None

    @classmethod
    def of(cls, dim: int | str) -> "Size":
        """Make the size of a number, or of a name as `text` writes it."""
        if isinstance(dim, int):
            return cls({(): dim})
        return _parsed(dim)

    @property
    def number(self) -> int | None:
        """The size as a number, None when it depends on a name."""
        if not self.terms:
            return 0
        return self.terms.get(()) if len(self.terms) == 1 else None

    @property
    def dim(self) -> int | str:
        """The size as an entry of `Dims`: a number, or text that `of` reads."""
        number = self.number
        return number if number is not None else self.text

    @property
    def text(self) -> str:
        """The polynomial as text; equal sizes have equal texts."""
        parts = []
        for names, factor in sorted(self.terms.items()):
            parts.append("*".join((*(() if factor == 1 and names else (str(factor),)), *names)))
        return "+".join(parts) or "0"

    @property
    def is_never_negative(self) -> bool:
        """Whether the size is >= 0 whatever the names stand for."""
        return all(factor > 0 for factor in self.terms.values())

    @property
    def is_always_positive(self) -> bool:
        """Whether the size is >= 1 whatever the names stand for."""
        return self.is_never_negative and () in self.terms

    def at(self, sizes: Mapping[str, int]) -> int | None:
        """Return the size where the names stand for these numbers, None when one is missing."""
        whole = sizes.get(self.text)  # a dimension may be called "a*b" where nothing is called "a"
        if whole is not None:
            return whole
        total = 0
        for names, factor in self.terms.items():
            for name in names:
                value = sizes.get(name, _quotient_at(name, sizes))
                if value is None:
                    return None
                factor *= value
            total += factor
        return total

    def rounded_down(self, other: "Size") -> "Size":
        """Return self // other, as one name; both are assumed to be >= 0, and `other` not 0."""
        return Size({(f"({self.text})//({other.text})",): 1})

    def __add__(self, other: "Size") -> "Size":
        terms = dict(self.terms)
        for names, factor in other.terms.items():
            terms[names] = terms.get(names, 0) + factor
        return Size(terms)

    def __sub__(self, other: "Size") -> "Size":
        return self + Size({names: -factor for names, factor in other.terms.items()})

    def __mul__(self, other: "Size") -> "Size":
        terms: dict[_Monomial, int] = {}
        for names, factor in self.terms.items():
            for more, times in other.terms.items():
                product = tuple(sorted((*names, *more)))
                terms[product] = terms.get(product, 0) + factor * times
        return Size(terms)

    def divided(self, other: "Size") -> "Size | None":
        """Return self / other when that is exact for all sizes, None when it is not known."""
        if len(other.terms) != 1:
            return Size.of(1) if self == other else None
        (names, factor), *_ = other.terms.items()
        terms: dict[_Monomial, int] = {}
        for mine, times in self.terms.items():
            left = _without(mine, names)
            if left is None or times % factor:
                return None
            terms[left] = times // factor
        return Size(terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self.terms == other.terms

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash

    def __repr__(self) -> str:
        return f"Size({self.text})"


_cache: dict[str, Size] = {}


def _parsed(text: str) -> Size:
    """Read what `text` writes; any other text is taken for a name as a whole."""
    found = _cache.get(text)
    if found is None:
        found = _read(text)
        if len(_cache) > 4096:
            _cache.clear()
        _cache[text] = found
    return found


_NUMBER = re.compile(r"-?[0-9]{1,4000}")
"""A coefficient. Python converts no more than 4300 digits."""


def _read(text: str) -> Size:
    terms: dict[_Monomial, int] = {}
    for part in _split(text, "+"):
        factor = 1
        names = []
        for index, piece in enumerate(_split(part, "*")):
            if index == 0 and _NUMBER.fullmatch(piece):
                factor = int(piece)
            else:
                names.append(piece)
        terms[tuple(sorted(names))] = factor
    size = Size(terms)
    is_ours = size.text == text and all("" not in names for names in terms)
    return size if is_ours else Size({(text,): 1})


def _split(text: str, mark: str) -> Iterator[str]:
    """Divide a text at a mark, but not within parentheses: quotients and functions are names."""
    depth = start = 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == mark and depth == 0:
            yield text[start:index]
            start = index + 1
    yield text[start:]


def _quotient_at(name: str, sizes: Mapping[str, int]) -> int | None:
    """Compute a name that `Size.rounded_down` made; None for other names."""
    if not name.startswith("("):
        return None
    above, *rest = _split(name, "/")
    if len(rest) != 2 or rest[0] or not (above.endswith(")") and rest[1].endswith(")")):
        return None
    one, two = _parsed(above[1:-1]).at(sizes), _parsed(rest[1][1:-1]).at(sizes)
    return one // two if one is not None and two else None


def _without(names: _Monomial, taken: _Monomial) -> _Monomial | None:
    left = list(names)
    for name in taken:
        if name not in left:
            return None
        left.remove(name)
    return tuple(left)


def product(dims: Iterable[Dim]) -> Size | None:
    """Return how many elements a tensor of these dimensions has, None when one is unknown."""
    total = Size.of(1)
    for dim in dims:
        if dim is None:
            return None
        total = total * Size.of(dim)
    return total


def broadcast(first: tuple[Dim, ...], second: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """Return the dimensions of an elementwise result; both are assumed to be compatible.

    A number above 1 beside a name: the result has that number, or the model would not run. A
    name beside another name: one of them may be 1, so nothing is known.
    Source: https://github.com/onnx/onnx/blob/main/docs/Broadcasting.md
    """
    rank = max(len(first), len(second))
    one = (1,) * (rank - len(first)) + first
    two = (1,) * (rank - len(second)) + second
    return tuple(_wider(a, b) for a, b in zip(one, two, strict=True))


def _wider(a: Dim, b: Dim) -> Dim:
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    for dim in (a, b):
        if isinstance(dim, int):
            return dim
    return None
