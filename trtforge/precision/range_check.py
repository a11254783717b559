"""The cast model emulated on samples beside FP32; what the ranges did not foretell is repaired.

Ranges tell what a single tensor loses. They cannot tell what a difference of two nearly equal
tensors loses, or a Softmax of large scores: only a run shows that. Where an output comes out bad,
the operators at which the error jumps are found, and they, or what they read, stay wider.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from trtforge.graph.execute import Feeds, Session
from trtforge.graph.model import Model
from trtforge.precision.cast import typed
from trtforge.precision.emulate import emulate
from trtforge.precision.float_ranges import FloatRanges, measure
from trtforge.precision.range_judgement import Chains, judge
from trtforge.precision.streaming import DataSource, Progress
from trtforge.precision.typeinfo import element_types
from trtforge.recipe.schema import Precision

ENOUGH_DB: Mapping[str, float] = {"fp16": 40.0, "bf16": 22.0}
"""Outputs that come as close as this need no repair: networks with nothing wrong in them reach 41
to 65 dB in FP16, and BF16 has three bits less, 18 dB."""

_JUMP_DB = 12.0
"""An operator that loses more than this between what it reads and what it writes is to blame."""

_NO_LOSS_DB = 75.0
"""What a tensor has at most whose values were rounded to FP16 once."""

_ROUNDS = 3
_RUNS = 2
_AT_ONCE = 64
"""Tensors that are compared together."""

_NUMPY: Mapping[str, Any] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}

_Floats = npt.NDArray[np.float32]


def ranges_for_types(
    model: Model,
    source: DataSource,
    precision: Precision,
    samples: int | None = None,
    on_progress: Progress | None = None,
) -> FloatRanges:
    """Measure a model's float tensors, judge them for the wanted type, and check by emulation.

    Args:
        model: the FP32 model that will be cast.
        source: samples that match the model's inputs.
        precision: its type is fp16 or bf16.
        samples: how many to measure; None for `float_ranges.SAMPLES`.
        on_progress: told the fraction measured (0..1) and a line of text.

    Raises:
        DataError: there are fewer samples than asked for (TF0523).
        GraphError: ONNX Runtime refuses the model or the emulated one.
    """
    measured = measure(model, source, samples, on_progress)
    judged = judge(model, measured, precision.type)
    found = check(model, source, precision, judged, on_progress)
    if not judged.small_masks or _is_close(found, precision):
        return found
    judged = judge(model, measured, precision.type, shrinks_masks=False)
    other = check(model, source, precision, judged, on_progress)
    return max(found, other, key=lambda one: -math.inf if one.sqnr_db is None else one.sqnr_db)


def _is_close(ranges: FloatRanges, precision: Precision) -> bool:
    return ranges.sqnr_db is None or ranges.sqnr_db >= ENOUGH_DB[precision.type]


def check(
    model: Model,
    source: DataSource,
    precision: Precision,
    ranges: FloatRanges,
    on_progress: Progress | None = None,
) -> FloatRanges:
    """Cast by the ranges, emulate, and add what must stay wider besides.

    At most three times: cast, run two samples, look for jumps of the error.

    Args:
        model: the FP32 model that the ranges were measured on.
        source: samples that match the model's inputs.
        precision: what the recipe asks for; nothing is quantized here.
        ranges: measured and judged.
        on_progress: told 1, as all is measured, and a line of text.

    Returns:
        The ranges with further entries in `wide_values` and `wide_results`, and with `sqnr_db` of
        the worst output.

    Raises:
        GraphError: ONNX Runtime refuses the model or the emulated one.
    """
    plain = precision.model_copy(update={"quantize": "none", "io_types": "keep"})
    feeds = _feeds(source)
    floats = _float_tensors(model)
    reference = _outputs(Session(model), feeds, floats)
    best = ranges
    for attempt in range(_ROUNDS + 1):
        if on_progress is not None:
            on_progress(1.0, "emulating the cast model" + (" again" if attempt else ""))
        candidate = emulate(typed(model, None, plain, ranges).model)
        worst = min(_sqnrs(reference, _outputs(Session(candidate), feeds, floats)), default=None)
        ranges = replace(ranges, sqnr_db=worst)
        if best.sqnr_db is None or (worst is not None and worst > best.sqnr_db + 1):
            best = ranges
        if _is_close(ranges, precision) or attempt == _ROUNDS:
            break
        blamed = _Profile(model, candidate, feeds[0], precision.type).blamed(ranges)
        if blamed is None:
            break
        ranges = blamed
    return best


def sqnr_db(reference: _Floats, candidate: _Floats) -> float:
    """Signal-to-quantization-noise ratio in dB over the values that are finite in the reference.

    +inf when they are identical, -inf where the candidate is not finite.
    """
    finite = np.isfinite(reference)
    signal = reference[finite].astype(np.float64)
    noise = candidate[finite].astype(np.float64) - signal
    power = float(noise @ noise)
    if not math.isfinite(power):
        return -math.inf
    if power == 0:
        return math.inf
    energy = float(signal @ signal)
    return 10 * math.log10(energy / power) if energy else -math.inf


def _feeds(source: DataSource) -> list[Feeds]:
    size = source.static_batch or 1
    stop = min(_RUNS, max(source.count // size, 1)) * size
    return list(source.batches(size, stop, 0))


def _float_tensors(model: Model) -> frozenset[str]:
    types = element_types(model.proto)
    wide = (TensorProto.FLOAT, TensorProto.DOUBLE)
    return frozenset(name for name, kind in types.items() if kind in wide)


def _outputs(session: Session, feeds: Sequence[Feeds], floats: frozenset[str]) -> list[_Floats]:
    """The float outputs of each run."""
    wanted = [name for name in session.output_names if name in floats]
    return [
        np.asarray(value, np.float32)
        for one in feeds
        for value in (session.run(one, wanted).values() if wanted else ())
    ]


def _sqnrs(reference: Sequence[_Floats], candidate: Sequence[_Floats]) -> Iterator[float]:
    for expected, found in zip(reference, candidate, strict=True):
        if expected.size:
            yield sqnr_db(expected, found)


@dataclass(frozen=True)
class _Loss:
    """One tensor: how close it comes, and how close it could at best.

    Attributes:
        whole_db: of the emulated tensor.
        own_db: of the reference's values, rounded.
    """

    whole_db: float
    own_db: float


class _Profile:
    """Where in a model the error of its emulated form comes from."""

    def __init__(self, model: Model, candidate: Model, feeds: Feeds, wanted: str) -> None:
        self._chains = Chains(model.proto)
        self._wanted = wanted
        self._losses = self._measured(model, candidate, feeds)

    def _measured(self, model: Model, candidate: Model, feeds: Feeds) -> dict[str, _Loss]:
        floats = _float_tensors(model) & _float_tensors(candidate)
        made = {name for node in candidate.proto.graph.node for name in node.output}
        names = [n for node in self._chains.nodes for n in node.output if n in floats & made]
        sessions = [Session(one, outputs=names) for one in (model, candidate)]
        losses: dict[str, _Loss] = {}
        pending = names
        while pending:  # all at once would hold every activation of the model, twice
            part, pending = pending[:_AT_ONCE], pending[_AT_ONCE:]
            values = [session.run(feeds, part) for session in sessions]
            for name in part:
                exact, found = (np.asarray(one[name], np.float32) for one in values)
                with np.errstate(over="ignore"):
                    rounded = exact.astype(_NUMPY[self._wanted]).astype(np.float32)
                losses[name] = _Loss(sqnr_db(exact, found), sqnr_db(exact, rounded))
        return losses

    def blamed(self, ranges: FloatRanges) -> FloatRanges | None:
        """The ranges with what must stay wider as well; None where nothing stands out."""
        values, results = dict(ranges.wide_values), dict(ranges.wide_results)
        for node in self._chains.nodes:
            loss = self._losses.get(node.output[0])
            if loss is None or loss.whole_db >= ENOUGH_DB[self._wanted]:
                continue
            inputs = self._chains.variables(node)
            before = min(
                (self._losses[name].whole_db for name in inputs if name in self._losses),
                default=math.inf,
            )
            if before == -math.inf or min(before, _NO_LOSS_DB) - loss.whole_db < _JUMP_DB:
                continue
            said = f"emulation on samples: {node.op_type} gives {_db(loss.whole_db)}"
            if loss.own_db < loss.whole_db + _JUMP_DB:
                values.setdefault(node.output[0], f"{said}, as its values do not fit")
                continue
            reason = f"{said}, as it amplifies the rounding of what it reads"
            results.setdefault(node.output[0], reason)
            self._widen(inputs, reason, results)
        if values == ranges.wide_values and results == ranges.wide_results:
            return None
        return replace(ranges, wide_values=values, wide_results=results)

    def _widen(self, inputs: Sequence[str], reason: str, results: dict[str, str]) -> None:
        """Compute what a node reads wide: cheap operators first, then what is behind them."""
        chain = [name for one in inputs for name in self._chains.back(one)]
        if all(name in results for name in chain):
            chain = list(inputs)
            for name in list(inputs):
                maker = self._chains.made_by(name)
                chain += self._chains.variables(maker) if maker is not None else []
        for name in chain:
            results.setdefault(name, reason)


def _db(value: float) -> str:
    return "values that are not finite" if value == -math.inf else f"{value:.0f} dB"
