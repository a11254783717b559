"""Sizes as polynomials over names: they compute as numbers do, and survive being written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtforge.graph.facts import Dim
from trtforge.graph.symbols import Size, broadcast, product

NAMES = ("N", "seq_len", "s72 + 1", "Min(512, s53)", "a.b", "x/y", "?", "(u+v)//(2)", "été")
"""As exporters call dimensions; each stands for one number, whatever it looks like."""

SIZES = st.dictionaries(
    st.lists(st.sampled_from(NAMES), max_size=3).map(lambda names: tuple(sorted(names))),
    st.integers(-9, 9),
    max_size=4,
).map(Size)
PLAIN = st.dictionaries(
    st.lists(st.sampled_from(["N", "M", "K"]), max_size=3).map(lambda n: tuple(sorted(n))),
    st.integers(-9, 9),
    max_size=4,
).map(Size)
PLACES = st.fixed_dictionaries({name: st.integers(0, 7) for name in NAMES})


def at(size: Size, place: dict[str, int]) -> int:
    value = size.at(place)
    assert value is not None
    return value


@given(SIZES, SIZES, PLACES)
def test_arithmetic_is_that_of_numbers(a: Size, b: Size, place: dict[str, int]) -> None:
    assert at(a + b, place) == at(a, place) + at(b, place)
    assert at(a - b, place) == at(a, place) - at(b, place)
    assert at(a * b, place) == at(a, place) * at(b, place)


@given(SIZES, SIZES, SIZES)
def test_laws_of_a_ring(a: Size, b: Size, c: Size) -> None:
    zero, one = Size.of(0), Size.of(1)
    assert a + b == b + a
    assert a * b == b * a
    assert (a + b) + c == a + (b + c)
    assert (a * b) * c == a * (b * c)
    assert a * (b + c) == a * b + a * c
    assert a + zero == a * one == a
    assert a - a == a * zero == zero
    assert hash(a + b) == hash(b + a)


@given(SIZES, PLACES)
def test_signs_hold_everywhere(size: Size, place: dict[str, int]) -> None:
    if size.is_never_negative:
        assert at(size, place) >= 0
    if size.is_always_positive:
        assert at(size, place) >= 1
    if size.number is not None:
        assert at(size, place) == size.number


@given(SIZES, SIZES, PLACES)
def test_quotients_are_exact(a: Size, b: Size, place: dict[str, int]) -> None:
    found = a.divided(b)
    if found is not None:
        assert at(found, place) * at(b, place) == at(a, place)


@given(SIZES, st.sampled_from(NAMES), st.integers(1, 9))
def test_a_multiple_can_be_divided_again(a: Size, name: str, factor: int) -> None:
    b = Size.of(factor) * Size({(name,): 1})
    assert (a * b).divided(b) == a


@given(PLAIN)
def test_what_is_written_can_be_read(size: Size) -> None:
    assert Size.of(size.dim) == Size.of(size.text) == size


@given(SIZES, SIZES)
def test_equal_texts_mean_equal_sizes(a: Size, b: Size) -> None:
    assert (a.text == b.text) == (a == b)


@pytest.mark.parametrize(
    "name", [*NAMES, "a+", "+", "*", "--1", "²", "007", "b*a", "N*2", "-N", "a*", "*a"]
)
def test_odd_names_are_one_name(name: str) -> None:
    size = Size.of(name)
    assert size.terms == {(name,): 1}
    assert size.text == name
    assert size.dim == name
    assert size.number is None
    assert size.at({name: 5}) == 5
    assert size.at({}) is None


@pytest.mark.parametrize(
    ("text", "at_3_and_4"),
    [("a*b", 12), ("2*a", 6), ("1+a", 4), ("-1+a", 2), ("3*a*a+a*b", 39), ("(1+a)//(b)", 1)],
)
def test_what_an_exporter_may_have_written_as_we_do(text: str, at_3_and_4: int) -> None:
    size = Size.of(text)
    assert size.at({"a": 3, "b": 4}) == at_3_and_4
    assert size.text == text
    assert size.at({text: 7}) == 7  # where it is the name of a dimension of its own


def test_quotients_that_are_rounded_down() -> None:
    n, m = Size.of("N"), Size.of("M")
    half = (n + Size.of(1)).rounded_down(Size.of(2))
    assert Size.of(half.text) == half
    assert Size.of((half * m + n).text) == half * m + n
    assert [half.at({"N": size}) for size in (1, 2, 6)] == [1, 1, 3]
    nested = (half * m).rounded_down(half + Size.of(1))
    assert nested.at({"N": 5, "M": 4}) == 3 * 4 // 4
    assert nested.at({"N": 5}) is None
    assert half != n.rounded_down(Size.of(2))
    assert n.rounded_down(m).at({"N": 5, "M": 0}) is None


@pytest.mark.parametrize(
    "name", ["(a", "(a)", "(a)//", "(a)//(b", "(a)/(b)", "(a)//(b)//(c)", "()//()"]
)
def test_names_that_look_like_quotients(name: str) -> None:
    assert Size.of(name).at({"a": 4, "b": 2, "c": 1}) is None


def test_division_that_is_not_exact_is_unknown() -> None:
    n, two = Size.of("N"), Size.of(2)
    assert n.divided(two) is None
    assert (n + two).divided(two) is None
    assert (n * two).divided(n + two) is None
    assert (n + two).divided(n + two) == Size.of(1)
    assert n.divided(Size.of("M")) is None
    assert n.divided(Size.of(0)) is None


def test_products_of_dimensions() -> None:
    assert product((2, "N", 3, "N")) == Size({("N", "N"): 6})
    assert product(()) == Size.of(1)
    assert product((2, None)) is None
    assert product((0, "N")) == Size.of(0)


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ((2, 3), (3,), (2, 3)),
        ((2, 1), (1, 3), (2, 3)),
        ((), ("N", 2), ("N", 2)),
        (("N",), (1,), ("N",)),
        (("N",), ("N",), ("N",)),
        (("N",), (4,), (4,)),  # N is 1 or 4
        ((0,), (1,), (0,)),
        (("N",), (0,), (0,)),
        (("N",), ("M",), (None,)),  # either may be 1
        ((None,), (1,), (None,)),
        ((None,), (7,), (7,)),
        ((None,), ("N",), (None,)),
    ],
)
def test_broadcast(
    first: tuple[Dim, ...], second: tuple[Dim, ...], result: tuple[Dim, ...]
) -> None:
    assert broadcast(first, second) == result
    assert broadcast(second, first) == result
