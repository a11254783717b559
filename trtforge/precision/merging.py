"""Calibration caches from calibration caches: shards put together, another method without a run.

Merging is commutative and associative to the last bit, because everything in a cache is derived
from states that are (`state.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from trtforge.errors import DataError, Place
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.observers import Method, Options, method
from trtforge.precision.ranges import DataUse, TensorRange
from trtforge.precision.state import TensorState, warnings_of

Span = tuple[int, int]


def merge(caches: Sequence[CalibrationCache]) -> CalibrationCache:
    """Put together what was measured on different samples.

    Args:
        caches: at least one; of the same graph, method, grid, options and tensors.

    Returns:
        The cache that one run over all the samples would have given.

    Raises:
        DataError: TF0527, the caches do not belong together, two have seen the same sample, or
            one does not hold what was seen (it was converted, or techniques have changed it).
    """
    if not caches:
        raise _unmergeable("there are none", "give at least one cache")
    first = caches[0]
    for cache in caches:
        _check_same(first, cache)
        _check_whole(cache)
    chosen = _method_of(first)
    seen = [_states(cache) for cache in caches]
    kept = {text for cache, states in zip(caches, seen, strict=True)
            for text in set(cache.warnings) - set(_warnings(states, chosen))}  # fmt: skip
    states = {name: _merged([each[name] for each in seen]) for name in first.ranges}
    return first.model_copy(
        update={
            "samples": sum(cache.samples for cache in caches),
            "data": _joined_uses(use for cache in caches for use in cache.data),
            "versions": _joined_versions([cache.versions for cache in caches]),
            "warnings": (*sorted(kept), *_warnings(states, chosen)),
            "ranges": _ranges(states, chosen),
            # Of one graph: they differ only where an older version wrote one of them.
            "reshaping": max((cache.reshaping for cache in caches), key=len),
        }
    )


def rederive(
    cache: CalibrationCache, name: str, options: Options | None = None, grid: str | None = None
) -> CalibrationCache:
    """The same measurement judged by another method, without running the model again.

    Args:
        cache: with histograms, unless the method needs none.
        name: a key of `observers.METHODS`.
        options: settings of the method; defaults for those not given.
        grid: int8 or fp8; None: the cache's own.

    Raises:
        DataError: TF0528, the cache does not hold what the method needs.
        ValueError: there is no such method, or it has no such setting.
    """
    chosen = method(name, grid or cache.grid, options)
    states = _states(cache)
    for tensor, state in states.items():
        if not state.runs or (chosen.needs_histogram and state.histogram is None):
            what = "histogram" if state.runs else "record of what was seen"
            raise DataError(
                "TF0528",
                f"method {name} cannot be derived from the cache: it has no {what} of '{tensor}'",
                "calibrate with method entropy, percentile or mse: their caches serve all methods",
                Place(node=tensor),
            )
    kept = set(cache.warnings) - set(_warnings(states, _method_of(cache)))
    return cache.model_copy(
        update={
            "method": chosen.name,
            "grid": chosen.grid,
            "options": dict(chosen.options),
            "warnings": (*sorted(kept), *_warnings(states, chosen)),
            "ranges": _ranges(states, chosen),
        }
    )


def _check_same(first: CalibrationCache, other: CalibrationCache) -> None:
    for what in ("graph_digest", "method", "grid", "options"):
        one, two = getattr(first, what), getattr(other, what)
        if one != two:
            raise _unmergeable(
                f"their {what.replace('_', ' ')} differs: {one!r} and {two!r}",
                "calibrate all shards with the same model and recipe",
            )
    for name in sorted(first.ranges.keys() ^ other.ranges.keys()):
        raise _unmergeable(
            f"only one of them has tensor '{name}'",
            "calibrate all shards with the same model and recipe",
        )


def _check_whole(cache: CalibrationCache) -> None:
    if cache.weight_scales or cache.bias_shifts:
        raise _unmergeable(
            "techniques have fixed scales of weights or shifts of biases in one of them",
            "merge the caches of the shards first, then apply the techniques",
        )
    for name, found in cache.ranges.items():
        if not found.runs:
            raise _unmergeable(
                f"one holds only the range of '{name}' and not what was seen",
                "it was converted, or an older version wrote it; calibrate again",
            )


def _method_of(cache: CalibrationCache) -> Method:
    try:
        return method(cache.method, cache.grid, cache.options)
    except ValueError as error:
        raise _unmergeable(str(error), "only caches that trtforge measured merge") from error


def _states(cache: CalibrationCache) -> dict[str, TensorState]:
    return {name: found.state() for name, found in cache.ranges.items()}


def _merged(states: Iterable[TensorState]) -> TensorState:
    whole, *others = states
    for other in others:
        whole.merge(other)
    return whole


def _warnings(states: Mapping[str, TensorState], chosen: Method) -> tuple[str, ...]:
    return warnings_of(states, judges_histograms=chosen.needs_histogram)


def _ranges(states: Mapping[str, TensorState], chosen: Method) -> dict[str, TensorRange]:
    return {name: TensorRange.of(state, chosen.amax(state)) for name, state in states.items()}


def _joined_uses(uses: Iterable[DataUse]) -> tuple[DataUse, ...]:
    by_digest: dict[str, list[DataUse]] = {}
    for use in uses:
        by_digest.setdefault(use.digest, []).append(use)
    return tuple(_joined_use(by_digest[digest]) for digest in sorted(by_digest))


def _joined_use(uses: Sequence[DataUse]) -> DataUse:
    """What was seen of one set of data; of two descriptions the first in the alphabet."""
    spans = sorted(span for use in uses for span in use.spans)
    _check_apart(spans, uses[0])
    joined: list[Span] = []
    for first, last in spans:
        if joined and first == joined[-1][1]:
            first = joined.pop()[0]
        joined.append((first, last))
    return uses[0].model_copy(
        update={
            "source": min(use.source for use in uses),
            "spans": tuple(joined),
            "synthetic": any(use.synthetic for use in uses),
        }
    )


def _check_apart(spans: Sequence[Span], use: DataUse) -> None:
    for one, two in pairwise(spans):
        if two[0] < one[1]:
            raise _unmergeable(
                f"samples {one[0]}..{one[1] - 1} and {two[0]}..{two[1] - 1} of "
                f"'{use.source or use.digest}' overlap",
                "each sample must be in one shard only",
            )


def _joined_versions(versions: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Per library its version, or all of them with commas between."""
    found: dict[str, set[str]] = {}
    for each in versions:
        for library, text in each.items():
            found.setdefault(library, set()).update(text.split(", "))
    return {library: ", ".join(sorted(texts)) for library, texts in found.items()}


def _unmergeable(why: str, hint: str) -> DataError:
    return DataError("TF0527", f"the calibration caches cannot be merged: {why}", hint)
