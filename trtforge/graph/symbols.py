"""Sizes that are not known as numbers: polynomials over the names of dynamic dimensions.

Two sizes that are equal as polynomials are equal whatever the inputs; nothing is said of others.
"""

from collections.abc import Iterable, Mapping

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
        total = 0
        for names, factor in self.terms.items():
            for name in names:
                if name not in sizes:
                    return None
                factor *= sizes[name]
            total += factor
        return total

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


def _read(text: str) -> Size:
    terms: dict[_Monomial, int] = {}
    for part in text.split("+"):
        factor = 1
        names = []
        for index, piece in enumerate(part.split("*")):
            if index == 0 and piece.lstrip("-").isdigit():
                factor = int(piece)
            else:
                names.append(piece)
        terms[tuple(sorted(names))] = factor
    size = Size(terms)
    return size if size.text == text else Size({(text,): 1})


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
