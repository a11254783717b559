"""The front of mixes and the search along it, against brute force over all mixes."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from precision_samples import net, ranges

from trtforge.precision.budget import Search, with_rounding
from trtforge.precision.front import STATES, front
from trtforge.precision.mixes import Mix, Mixes, Unit
from trtforge.recipe.schema import Precision

WORKS = st.lists(st.integers(1, 1000), min_size=1, max_size=7)
NOISES = st.floats(0, 1, allow_nan=False).map(lambda x: round(x, 6))


def mixes(
    works: list[int], noises: list[float], kinds: tuple[str, ...] = ("int8", "fp16")
) -> Mixes:
    """Layers of some work each, whose first type brings a noise and whose others bring none."""
    units = [
        Unit(
            f"n{i}",
            "Conv",
            f"t{i}",
            work,
            work,
            "fp16",
            {kinds[0]: noise} | dict.fromkeys(kinds[1:], 0.0),
        )
        for i, (work, noise) in enumerate(zip(works, noises, strict=True))
    ]
    return Mixes(
        net("cnn"), ranges("cnn"), Precision(type="fp16", quantize="int8"), tuple(units), {}
    )


def all_mixes(space: Mixes) -> list[Mix]:
    return list(itertools.product(*(unit.types for unit in space.units)))


def searched(
    space: Mixes, noise: Callable[[Mix], float], bound: float, limit: int = 200
) -> tuple[Search, float | None]:
    search = Search(lambda _, mix: (noise(mix), noise(mix) <= bound), limit)
    found = search.run(space)
    return search, None if found is None else found.cost


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 50), NOISES), min_size=1, max_size=3),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None)
def test_the_front_is_what_no_combination_beats(options: list[list[tuple[int, float]]]) -> None:
    everything = []
    for chosen in itertools.product(*(range(len(pairs)) for pairs in options)):
        pairs = [options[unit][index] for unit, index in enumerate(chosen)]
        everything.append((sum(c for c, _ in pairs), math.fsum(n for _, n in pairs)))
    found = []
    for row in front(options):
        pairs = [options[unit][index] for unit, index in enumerate(row)]
        found.append((sum(c for c, _ in pairs), math.fsum(n for _, n in pairs)))
    assert [cost for cost, _ in found] == sorted(cost for cost, _ in found)
    for cost, noise in everything:
        least = min(n for c, n in found if c <= cost)
        assert least <= noise + 1e-9


def test_a_front_of_hundreds_of_units_stays_small_and_keeps_its_ends() -> None:
    options = [[(1.0 + i % 7, 1e-3 * (1 + i % 11)), (2.0 + 2 * (i % 7), 0.0)] for i in range(300)]
    found = front(options)
    assert 100 < len(found) <= STATES
    assert found[0] == (0,) * 300
    assert found[-1] == (1,) * 300


def test_noise_without_bounds_is_worse_than_any_other() -> None:
    assert front([[(1.0, math.inf), (2.0, 5.0)], [(1.0, 0.5), (2.0, 0.0)]]) == [
        (0, 0),
        (1, 0),
        (1, 1),
    ]


@given(WORKS, st.data())
@settings(max_examples=60, deadline=None)
def test_where_noises_add_up_the_cheapest_mix_of_all_is_found(
    works: list[int], data: st.DataObject
) -> None:
    noises = data.draw(st.lists(NOISES, min_size=len(works), max_size=len(works)))
    bound = data.draw(st.floats(0, sum(noises) + 0.1))
    space = mixes(works, noises)
    search, cost = searched(space, space.noise, bound)
    brute = min(space.cost(mix) for mix in all_mixes(space) if space.noise(mix) <= bound)
    assert cost == pytest.approx(brute)
    assert len(search.tried) <= 2 + math.ceil(math.log2(2 ** len(works))) + 8 + 8


@given(WORKS, st.data())
@settings(max_examples=40, deadline=None)
def test_a_tighter_bound_never_gives_a_cheaper_mix(works: list[int], data: st.DataObject) -> None:
    noises = data.draw(st.lists(NOISES, min_size=len(works), max_size=len(works)))
    space = mixes(works, noises)
    bounds = sorted(data.draw(st.lists(st.floats(0, 3), min_size=2, max_size=5)))
    costs = [searched(space, space.noise, bound)[1] for bound in bounds]
    assert all(cost is not None for cost in costs)
    assert costs == sorted(costs, reverse=True)


def test_what_is_chosen_was_tried_and_met_the_bound_though_noises_do_not_add_up() -> None:
    space = mixes([100, 90, 80, 10, 5], [0.1, 0.2, 0.05, 0.3, 0.01])

    def noise(mix: Mix) -> float:  # two neighbours that are both quantized harm thrice as much
        pairs = sum(a == b == "int8" for a, b in itertools.pairwise(mix))
        return space.noise(mix) * (1 + 2 * pairs)

    search, cost = searched(space, noise, 0.2)
    assert cost == min(one.cost for one in search.tried.values() if one.meets)
    assert all(one.meets == (noise(one.mix) <= 0.2) for one in search.tried.values())
    brute = min(space.cost(mix) for mix in all_mixes(space) if noise(mix) <= 0.2)
    assert cost is not None
    assert cost <= brute * 1.05


def test_cheaper_neighbours_are_found_where_promises_were_too_dark() -> None:
    """The estimate says that only the first fits; together they harm less than they promise."""
    space = mixes([100, 60, 50], [0.10, 0.08, 0.08])
    _, cost = searched(space, lambda mix: 0.6 * space.noise(mix), 0.12)
    assert cost == pytest.approx(space.cost(("int8", "int8", "fp16")))


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_no_more_mixes_are_tried_than_allowed(limit: int) -> None:
    space = mixes([100, 90, 80, 10, 5], [0.1, 0.2, 0.05, 0.3, 0.01])
    search, cost = searched(space, space.noise, 0.2, limit)
    assert len(search.tried) == limit
    assert (cost is None) == (limit == 1)
    if limit == 2:  # the widest was seen to meet it, nothing else yet
        assert cost == space.cost(space.widest())


def test_where_not_even_the_widest_will_do_nothing_is_chosen() -> None:
    space = mixes([3, 2], [0.1, 0.2])
    search, cost = searched(space, lambda mix: space.noise(mix) + 1, 0.5)
    assert cost is None
    assert set(search.tried) == {space.narrowest(), space.widest()}


def test_a_layer_that_did_no_harm_by_itself_is_not_trusted_either() -> None:
    space = mixes([3, 2], [0.1, 0.0])
    _, cost = searched(space, lambda mix: 1.0 if mix[1] == "int8" else 0.0, 0.5)
    assert cost == space.cost(("fp16", "fp16"))


def test_with_rounding_nodes_may_be_wider_than_the_base() -> None:
    space = mixes([3, 2], [0.1, 0.2])
    space = replace(
        space, units=(*space.units, Unit("n", "Relu", "x", 0, 1, "fp32", {"fp32": 0.0}))
    )
    wide = with_rounding(space, {"t0": 0.01, "t1": 0.02})
    assert [unit.types for unit in wide.units] == [("int8", "fp16", "fp32")] * 2 + [("fp32",)]
    assert wide.noise(("fp16", "fp16", "fp32")) == pytest.approx(0.03)
    assert wide.noise(wide.widest()) == 0
    _, cost = searched(wide, wide.noise, 0.025)
    assert cost == wide.cost(("fp32", "fp16", "fp32")) or cost == wide.cost(
        ("fp16", "fp32", "fp32")
    )
