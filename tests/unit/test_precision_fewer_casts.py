"""The minimum cut behind the placement of casts, against all choices of small graphs."""

import random
import time
from itertools import chain, combinations

import pytest

from trtforge.precision.fewer_casts import EDGE, NARROW, WIDE, Net, Vertex, better_wide, cast_cost


def cost(vertices: list[Vertex], nets: list[Net], wide: set[int]) -> int:
    casts = 0
    for net in nets:
        kinds = {member in wide or member in (WIDE, EDGE) for member in net.members}
        casts += net.cost if len(kinds) == 2 else 0
    return casts + sum(vertices[index].cost for index in wide)


def subsets(count: int) -> list[set[int]]:
    sizes = range(count + 1)
    return [set(one) for one in chain(*(combinations(range(count), size) for size in sizes))]


@pytest.mark.parametrize("batch", range(4))
def test_no_choice_is_cheaper_and_none_of_the_same_cost_is_narrower(batch: int) -> None:
    chosen = 0
    for seed in range(250 * batch, 250 * (batch + 1)):
        draw = random.Random(seed)
        count = draw.randint(1, 6)
        vertices = [Vertex(draw.randint(1, 40), False) for _ in range(count)]
        ends = [*range(count), *range(count), WIDE, NARROW, EDGE]
        nets = [
            Net(draw.randint(1, 60), [draw.choice(ends) for _ in range(draw.randint(1, 4))])
            for _ in range(draw.randint(1, 9))
        ]
        nets += [Net(50, [0, WIDE]), Net(1, list(range(count)))]  # one group, which is judged
        wide = better_wide(vertices, nets)
        chosen += len(wide)
        costs = {frozenset(one): cost(vertices, nets, one) for one in subsets(count)}
        least = min(costs.values())
        assert costs[frozenset(wide)] == least
        assert len(wide) == min(len(one) for one, price in costs.items() if price == least)
    assert chosen > 100  # otherwise nothing would have been tried


def test_groups_that_touch_only_the_models_ends() -> None:
    arithmetic, mover = Vertex(1, False), Vertex(1, True)
    ends = [Net(100, [EDGE, 0]), Net(100, [0, 1]), Net(100, [1, EDGE])]
    assert better_wide([arithmetic, mover], ends) == set(), "it was asked to compute in the type"
    assert better_wide([mover, mover], ends) == {0, 1}, "it computes nothing"
    assert better_wide([arithmetic, mover], [*ends, Net(9, [0, WIDE])]) == {0, 1}


def test_casts_of_large_tensors_cost_more() -> None:
    assert cast_cost([1]) < cast_cost([1 << 20]) < cast_cost([None, 1 << 20])
    assert cast_cost(None) > cast_cost([])


def test_ten_thousand_nodes_take_seconds_at_most() -> None:
    draw = random.Random(0)
    vertices = [Vertex(8, False)] * 10_000
    nets = []
    for index in range(len(vertices) - 8):
        members = [index, index + 1, *([index + 7] if draw.random() < 0.3 else [])]
        members += [WIDE] if index % 10 == 0 else [NARROW] if index % 10 == 5 else []
        nets.append(Net(cast_cost((draw.choice([16, 1000, 100_000]),)), members))
    started = time.process_time()
    better_wide(vertices, nets)
    assert time.process_time() - started < 10
