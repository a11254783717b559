"""Laws of merging: any grouping, any order, any sharding gives the same cache, bit for bit."""

from functools import lru_cache
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from precision_samples import SHAPES, Samples, net, samples_for

from trtforge.errors import DataError
from trtforge.graph.inputs import random_feeds
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.merging import merge, rederive
from trtforge.precision.observers import METHODS, method
from trtforge.precision.observers.histogram import Histogram
from trtforge.precision.quantize import candidate_tensors
from trtforge.precision.ranges import DataUse, TensorRange
from trtforge.precision.state import TensorState
from trtforge.recipe.schema import Precision

floats = st.floats(-(2.0**127), 2.0**127, width=32)
runs = st.lists(st.lists(floats, min_size=1, max_size=20), min_size=1, max_size=12)


def state_of(parts: list[list[float]]) -> TensorState:
    state = TensorState(histogram=Histogram())
    for part in parts:
        assert state.update(np.array(part, np.float32))
    state.settle()
    return state


def cache_of(name: str, first: int, parts: list[list[float]]) -> CalibrationCache:
    """As calibration makes it from some samples of one tensor."""
    chosen = method(name)
    state = state_of(parts)
    return merge(
        [
            CalibrationCache(
                method=name,
                options=dict(chosen.options),
                samples=len(parts),
                graph_digest="sha256:graph",
                data=(DataUse(digest="sha256:data", spans=((first, first + len(parts)),)),),
                versions={"numpy": "2"},
                ranges={"x": TensorRange.of(state, chosen.amax(state))},
            )
        ]
    )


@st.composite
def shards(draw: st.DrawFn) -> tuple[list[list[float]], list[tuple[int, list[list[float]]]]]:
    """Runs, and the same runs in 1..5 shards."""
    parts = draw(runs)
    cuts = draw(st.sets(st.integers(1, max(len(parts) - 1, 1)), max_size=4))
    ends = sorted({0, *cuts, len(parts)})
    pieces = [(a, parts[a:b]) for a, b in pairwise(ends)]
    return parts, pieces


@settings(max_examples=60, deadline=None)
@given(shards(), st.sampled_from(sorted(METHODS)), st.randoms())
def test_any_sharding_in_any_order_and_grouping_is_one_run(
    split: tuple[list[list[float]], list[tuple[int, list[list[float]]]]],
    name: str,
    random: Random,
) -> None:
    parts, pieces = split
    whole = cache_of(name, 0, parts).as_text()
    caches = [cache_of(name, first, piece) for first, piece in pieces]
    assert merge(caches).as_text() == whole
    while len(caches) > 1:  # two at random, until one is left
        random.shuffle(caches)
        caches.append(merge([caches.pop(), caches.pop()]))
    assert caches[0].as_text() == whole


@settings(max_examples=60, deadline=None)
@given(runs, st.randoms())
def test_a_state_is_a_function_of_the_multiset_of_runs(
    parts: list[list[float]], random: Random
) -> None:
    one = TensorRange.of(state_of(parts), 0.0)
    random.shuffle(parts)
    assert TensorRange.of(state_of(parts), 0.0).model_dump_json() == one.model_dump_json()


@settings(max_examples=40, deadline=None)
@given(runs, st.sampled_from(sorted(METHODS)), st.sampled_from(["entropy", "percentile", "mse"]))
def test_another_method_from_a_cache_is_that_method(
    parts: list[list[float]], name: str, measured: str
) -> None:
    derived = rederive(cache_of(measured, 0, parts), name)
    assert derived.ranges["x"].amax == method(name).amax(state_of(parts))
    assert derived.options == method(name).options
    back = rederive(derived, measured)
    assert back.as_text() == cache_of(measured, 0, parts).as_text()


# --- real networks


NETS = {"cnn": (24, 3, 16, 16), "transformer": (24, 12), "control_flow": (24, 8, 8, 8)}


@lru_cache
def data_of(name: str) -> Samples:
    model = net(name)
    one = random_feeds(model, SHAPES[name], seed=3)
    count = NETS[name][0]
    feeds = {
        key: np.concatenate([random_feeds(model, SHAPES[name], seed)[key] for seed in range(12)])
        for key in one
    }
    return samples_for(model, {key: values[:count] for key, values in feeds.items()})


def measured(name: str, how: str, shard: tuple[int, int], block: int) -> CalibrationCache:
    source = data_of(name)
    if source.static_batch is None:
        inner = source.batches
        limited = Samples(source.arrays)
        limited.batches = lambda batch, limit=None, start=0: inner(  # type: ignore[method-assign]
            min(batch, block), limit, start
        )
        source = limited
    names = candidate_tensors(net(name), Precision(quantize="int8"))
    return calibrate(net(name), source, CalibrationRequest(names, how, shard=shard))


@pytest.mark.parametrize("how", ["minmax", "average", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("name", NETS)
def test_reads_of_1_7_and_64_and_1_or_4_shards_give_one_cache(name: str, how: str) -> None:
    whole = measured(name, how, (0, 1), 64)
    assert measured(name, how, (0, 1), 1).as_text() == whole.as_text()
    assert measured(name, how, (0, 1), 7).as_text() == whole.as_text()
    parts = [measured(name, how, (index, 4), 7) for index in (2, 0, 3, 1)]
    assert merge(parts).as_text() == whole.as_text()


# --- refusals


def test_samples_seen_twice_are_named() -> None:
    one, two = cache_of("minmax", 0, [[1.0]] * 5), cache_of("minmax", 3, [[2.0]] * 4)
    for caches in ([one, two], [two, one], [one, one]):
        with pytest.raises(DataError) as caught:
            merge(caches)
        assert caught.value.code == "TF0527"
    with pytest.raises(DataError, match=r"samples 0\.\.4 and 3\.\.6 of 'sha256:data' overlap"):
        merge([one, two])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"graph_digest": "sha256:b"}, "graph digest"),
        ({"method": "average"}, "method"),
        ({"grid": "fp8"}, "grid"),
        ({"options": {"x": 1}}, "options"),
        ({"ranges": {}}, "only one of them has tensor 'x'"),
        ({"weight_scales": {"w": (1.0,)}}, "techniques"),
        ({"ranges": {"x": TensorRange(min=0, max=1, amax=1)}}, "not what was seen"),
    ],
)
def test_caches_that_do_not_belong_together(change: dict[str, object], what: str) -> None:
    one, two = cache_of("minmax", 0, [[1.0]]), cache_of("minmax", 1, [[2.0]])
    for caches in ([one, two.model_copy(update=change)], [one.model_copy(update=change), two]):
        with pytest.raises(DataError) as caught:
            merge(caches)
        assert caught.value.code == "TF0527"
        assert what in caught.value.message


def test_nothing_and_foreign_methods_do_not_merge() -> None:
    with pytest.raises(DataError, match="there are none"):
        merge([])
    foreign = cache_of("minmax", 0, [[1.0]]).model_copy(update={"method": "IInt8Legacy"})
    with pytest.raises(DataError, match="IInt8Legacy"):
        merge([foreign])


def test_spans_data_versions_and_notes_are_put_together() -> None:
    one, two = cache_of("minmax", 0, [[1.0]] * 2), cache_of("minmax", 6, [[2.0]])
    other = DataUse(digest="sha256:a", source="b.npz", spans=((0, 9),), synthetic=True)
    two = two.model_copy(
        update={"data": (*two.data, other), "versions": {"numpy": "3"}, "warnings": ("split",)}
    )
    both = merge([two, one])
    assert [use.digest for use in both.data] == ["sha256:a", "sha256:data"]
    assert both.data[1].spans == ((0, 2), (6, 7))
    assert both.versions == {"numpy": "2, 3"}
    assert both.is_synthetic
    assert both.samples == 3
    assert both.warnings == ("split",)  # and no longer: constant throughout


def test_what_was_not_recorded_cannot_be_derived() -> None:
    state = TensorState()
    state.update(np.float32([1.0, 2.0]))
    bare = cache_of("minmax", 0, [[1.0]]).model_copy(
        update={"ranges": {"x": TensorRange.of(state, 2.0)}}
    )
    assert rederive(bare, "average").ranges["x"].amax == 2.0
    with pytest.raises(DataError, match="no histogram of 'x'") as caught:
        rederive(bare, "entropy")
    assert caught.value.code == "TF0528"
    converted = bare.model_copy(update={"ranges": {"x": TensorRange(min=0, max=1, amax=1)}})
    with pytest.raises(DataError, match="no record of what was seen"):
        rederive(converted, "minmax")
    with pytest.raises(ValueError, match="unknown calibration method"):
        rederive(bare, "max")
