"""Technique `refine-scales`: ranges of activations judged at the model's outputs."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.cast import quantized_only
from trtforge.precision.ranges import TensorRange
from trtforge.precision.streaming import DataSource
from trtforge.precision.techniques.job import TechniqueJob

Outputs = Mapping[str, Sequence[np.ndarray]]

_SAMPLES = 16
_MOST_TRIES = 4

_LEAST_GAIN = 0.05
"""Share of the noise at the outputs that must go away: so few samples tell no less apart."""

_WIDER = ((0.5, 1.0), (1.0, 1.0))
_NARROWER = ((0.0, 0.9), (0.0, 0.8))
"""Towards the largest magnitude seen by this exponent, and then times this share; the second is
tried where the first is better than none, and narrower ones where wider ones are not."""


class RefineScales:
    """Widen or narrow all activation ranges together, where the model's outputs profit.

    A range that a method chose by looking at one tensor (mse, entropy, percentile) clips its
    largest values. What that costs depends on the network: errors of clipped values all point the
    same way, and those of rounding average out. So whole networks are compared,
    with amax^(1-g) * observed^g * k in place of amax for a few g and k, and the one
    with the least squared error at the outputs is taken, errors' means left out: those are for
    `bias-correction`.
    """

    name = "refine-scales"

    def apply(self, job: TechniqueJob) -> None:
        """Change the ranges in `job.cache`.

        Raises:
            DataError: the cache lacks a tensor, or the source cannot give a sample.
            GraphError: ONNX Runtime refuses the model.
        """
        source = job.source
        if source is None or job.cache is None or job.precision.quantize != "int8":
            return
        size = source.static_batch or 1
        most = min(source.count, job.samples or source.count)
        stop = max(size, min(most, _SAMPLES) // size * size)
        exact = _outputs(job.model, source, stop)

        tries = 0

        def noise_of(cache: CalibrationCache) -> float:
            nonlocal tries
            tries += 1
            if job.on_progress is not None:
                job.on_progress(tries / _MOST_TRIES, f"{self.name}: try {tries}")
            quantized = quantized_only(job.model, cache, job.precision)[0]
            return _noise(exact, _outputs(quantized, source, stop))

        best, text = job.cache, "as calibrated"
        before = least = noise_of(best)
        for ways in (_WIDER, _NARROWER):
            for towards, share in ways:
                tried = _changed(job.cache, towards, share)
                noise = least if tried.ranges == best.ranges else noise_of(tried)
                if noise >= least * (1 - _LEAST_GAIN):
                    break
                best, least = tried, noise
                text = f"amax^{1 - towards:g} * observed^{towards:g} * {share:g}"
            if best is not job.cache:
                break
        gain = 10 * np.log10(before / least) if least > 0 else 0.0
        job.notes.append(f"{self.name}: ranges {text}, {gain:.1f} dB better at the outputs")
        job.cache = best


def _changed(cache: CalibrationCache, towards: float, share: float) -> CalibrationCache:
    return cache.model_copy(
        update={
            "ranges": {
                name: one.model_copy(update={"amax": _amax(one, towards, share)})
                for name, one in cache.ranges.items()
            }
        }
    )


def _amax(one: TensorRange, towards: float, share: float) -> float:
    if one.amax == 0:
        return 0.0
    wider = one.amax ** (1 - towards) * one.observed_amax**towards
    return float(min(wider * share, one.observed_amax))


def _outputs(model: Model, source: DataSource, stop: int) -> dict[str, list[np.ndarray]]:
    """The float outputs of the first samples, run by run."""
    session = Session(model)
    size = source.static_batch or 1
    found: dict[str, list[np.ndarray]] = {}
    for feeds in source.batches(size, stop):
        for name, values in session.run({one: feeds[one] for one in session.input_names}).items():
            if values.dtype.kind == "f":
                found.setdefault(name, []).append(values)
    return found


def _noise(exact: Outputs, other: Outputs) -> float:
    """Squared error over squared signal, both about their means over samples, outputs added."""
    total = 0.0
    for name, signals in exact.items():
        results = other.get(name, [])
        if [one.shape for one in signals] != [one.shape for one in results]:
            continue  # values decide the shape, and they changed
        wide = [one.astype(np.float64) for one in signals]
        errors = [result - signal for result, signal in zip(results, wide, strict=True)]
        signal = _scatter(wide)
        total += _scatter(errors) / signal if signal > 0 else 0.0
    return total


def _scatter(values: list[npt.NDArray[np.float64]]) -> float:
    if len({one.shape for one in values}) != 1 or len(values) < 3:
        return float(sum(np.vdot(one, one) for one in values))
    stacked = np.stack(values)
    centred = stacked - stacked.mean(axis=0)
    return float(np.vdot(centred, centred))
