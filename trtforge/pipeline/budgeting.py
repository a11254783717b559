"""A budget met: the search over mixes, kept on disk while it runs, and what it leaves behind."""

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trtforge.disk import writing
from trtforge.errors import BudgetError
from trtforge.pipeline.budget_samples import Trial
from trtforge.pipeline.measures import Measure, meets, shown
from trtforge.precision.budget import Search, Tried, with_rounding
from trtforge.precision.mixes import QUANTIZED, Mix, Mixes
from trtforge.precision.rounded import rounded
from trtforge.precision.sensitivity import SAMPLES, harms_at_outputs
from trtforge.precision.switches import LayeredModel

SCHEMA = "trtforge.budget/1"

Progress = Callable[[float | None, str], None]

MORE_ROUNDS = 3
"""How often the search goes on for more where other samples miss the bound."""

MOST_JUDGED = 8
"""How many mixes that were passed over are judged at most, those of the highest cost."""

_MOST_NOISE = 1e30


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked for.

    Attributes:
        mixes: the model and its mixes.
        measure: what is bounded.
        trial: the samples that mixes are run on.
        limit: how many mixes may be tried.
        log: the file that evaluations are kept in while the search runs; None for nowhere.
        margin: by how much the measure's score must exceed that of its bound.
        known: mixes that were tried already; they count.
    """

    mixes: Mixes
    measure: Measure
    trial: Trial
    limit: int
    log: Path | None = None
    margin: float = 0.0
    known: tuple[Tried, ...] = ()

    def is_met(self, value: float) -> bool:
        """Whether a value is within the bound, the margin taken off; NaN is not."""
        score = self.measure.score
        return score(value) >= score(self.measure.bound) + self.margin


@dataclass(frozen=True, eq=False)
class Answer:
    """What a search found.

    Attributes:
        question: what was asked for.
        mixes: the model and its mixes, with the noises that were measured.
        tried: all mixes that were run, the cheapest first.
        chosen: the cheapest that met the bound by the question's margin.
    """

    question: Question
    mixes: Mixes
    tried: tuple[Tried, ...]
    chosen: Tried

    def as_json(self) -> dict[str, Any]:
        """Return the Pareto table as plain JSON data.

        A value that is not finite is null, and so is the harm of layers where the cheapest mix met
        the bound, or FP32 missed it: then none was measured.
        """
        question, mixes = self.question, self.mixes
        units = zip(mixes.units, self.chosen.mix, strict=True)
        is_measured = mixes is not question.mixes
        return {
            "schema": SCHEMA,
            "measure": question.measure.name,
            "bound": question.measure.bound,
            "margin": question.margin,
            "reference_cost": 1.0,
            "evaluations": len(self.tried),
            "samples": question.trial.samples,
            "searched_on": question.trial.data.role,
            "points": [self._point(one) for one in self.tried],
            "layers": [
                {
                    "node": unit.node,
                    "op": unit.op,
                    "type": kind,
                    "harm": next(iter(unit.noises.values())) if is_measured else None,
                    "macs": unit.macs,
                }
                for unit, kind in units
            ],
            "rules": mixes.rule_lines(self.chosen.mix),
        }

    def lines(self) -> list[str]:
        """The table as text, the chosen mix marked."""
        return table(self.question, self.mixes, self.tried, self.chosen)

    def summary(self) -> str:
        """The chosen mix in one line."""
        one = self.chosen
        value = shown(self.question.measure, one.value)
        return (
            f"{value} at {one.cost:.1%} of the cost of FP32: {_counts(self.mixes, one.mix)}; "
            f"{len(self.tried)} mix{'es' * (len(self.tried) > 1)} tried on "
            f"{self.question.trial.samples} samples of "
            f"{self.question.trial.data.role}"
        )

    def _point(self, one: Tried) -> dict[str, Any]:
        return {
            "cost": one.cost,
            "value": one.value if math.isfinite(one.value) else None,
            "layers": self.mixes.counts(one.mix),
            "macs": self.mixes.macs(one.mix),
            "chosen": one is self.chosen,
            "meets": meets(self.question.measure, one.value),
        }


@dataclass(frozen=True, eq=False)
class Judge:
    """Samples that mixes are not searched on.

    Attributes:
        measure: what is bounded.
        trial: the samples.
        values: what was measured so far.
    """

    measure: Measure
    trial: Trial
    values: dict[Mix, float] = field(default_factory=dict)

    def value(self, mixes: Mixes, mix: Mix) -> float:
        """Measure a mix, once."""
        if mix not in self.values:
            self.values[mix] = self.trial.value(mixes.typed(mix).model, self.measure)
        return self.values[mix]


def hold_budget(
    question: Question, judge: Judge | None, tell: Progress
) -> tuple[Answer, float | None]:
    """Find the cheapest mix that meets a bound, on other samples as well where there are some.

    Ranges, biases and the choice itself are fitted to the samples of the search, so that a mix
    that just meets the bound there may just miss it elsewhere. Then the search goes on for more, by
    half as much again as was missing, evaluations counting on; and of all that were tried the
    cheapest is taken that meets the bound on both.

    Returns:
        The answer, and the value of its mix on the judge's samples: it misses the bound where that
        could not be helped. None without a judge.

    Raises:
        BudgetError, GraphError, DataError: as `meet_budget`.
    """
    answer = meet_budget(question, tell)
    if judge is None:
        return answer, None
    score = question.measure.score
    for _ in range(MORE_ROUNDS):
        value = judge.value(answer.mixes, answer.chosen.mix)
        missing = score(question.measure.bound) - score(value)
        if not 0 < missing < math.inf:
            break
        margin = answer.question.margin + 1.5 * missing
        try:
            answer = meet_budget(replace(question, margin=margin, known=answer.tried), tell)
        except BudgetError:
            break
    answer = _cheapest_on_both(answer, judge)
    return answer, judge.value(answer.mixes, answer.chosen.mix)


def _cheapest_on_both(answer: Answer, judge: Judge) -> Answer:
    """Look again at what was passed over on the way to more than was needed."""
    passed = [
        one
        for one in answer.tried
        if one.cost < answer.chosen.cost and meets(judge.measure, one.value)
    ]
    for one in passed[-MOST_JUDGED:]:
        if meets(judge.measure, judge.value(answer.mixes, one.mix)):
            return replace(answer, chosen=one)
    return answer


def meet_budget(question: Question, tell: Progress) -> Answer:
    """Find the cheapest mix that meets a bound.

    The cheapest mix goes first, then the one without quantization, and where that misses too, FP32
    everywhere. Only between one that misses and one that meets the bound the harm of each layer is
    measured, on a few of the samples. Each mix that counts is made as the typed graph and run on
    all of them.

    Args:
        question: the mixes, the measure, the samples.
        tell: told the fraction done (0..1, None: unknown) and a line of text.

    Raises:
        BudgetError: TF0560, no mix that was tried meets the bound.
        GraphError: the graph or a sample is refused.
        DataError: as the measure.
    """
    log = _Log(question.log)
    known = {one.mix: replace(one, meets=question.is_met(one.value)) for one in question.known}
    search = Search(_evaluator(question, log, tell), question.limit, known)
    mixes = question.mixes
    chosen = None
    if search.meets(mixes, mixes.narrowest()):
        chosen = search.best()
    elif search.meets(mixes, mixes.widest()):
        mixes = _with_quantization_noise(question, mixes, log, tell)
        chosen = search.run(mixes)
    else:
        wider = with_rounding(mixes, {})
        if wider.widest() != mixes.widest() and search.meets(wider, wider.widest()):
            wider = _with_quantization_noise(question, wider, log, tell)
            mixes = _with_rounding_noise(question, wider, log, tell)
            chosen = search.run(mixes)
    tried = tuple(sorted(search.tried.values(), key=lambda one: one.cost))
    if chosen is None:
        raise _not_met(question, mixes, tried)
    return Answer(question, mixes, tried, chosen)


def table(
    question: Question, mixes: Mixes, tried: tuple[Tried, ...], chosen: Tried | None = None
) -> list[str]:
    """Mixes as a table, one line each: cost, value, how many layers have which type."""
    lines = [f"{'cost':>7}  {question.measure.name:>18}  meets  layers"]
    for one in tried:
        mark = "  <- chosen" if one is chosen else ""
        value = shown(question.measure, one.value)
        meets_it = "yes" if meets(question.measure, one.value) else "no"
        lines.append(
            f"{one.cost:>7.2%}  {value:>18}  {meets_it:<5}  {_counts(mixes, one.mix)}{mark}"
        )
    return lines


def _not_met(question: Question, mixes: Mixes, tried: tuple[Tried, ...]) -> BudgetError:
    measure = question.measure
    scores = [measure.score(one.value) for one in tried]
    best = tried[max(range(len(tried)), key=lambda index: (_number(scores[index]), -index))]
    widest = mixes.widest()
    hint = "loosen the budget, or raise precision.budget.evaluations"
    if any(one.mix == widest for one in tried):
        hint = "loosen the budget: not even the widest types that may be used reach it"
    return BudgetError(
        "TF0560",
        f"no mix meets {measure.name} {measure.bound:g}: the best of {len(tried)} has "
        f"{shown(measure, best.value)} at {best.cost:.1%} of the cost of FP32 "
        f"({_counts(mixes, best.mix)})",
        hint,
        details="\n".join(
            [*table(question, mixes, tried), "", "the best mix:", *mixes.rule_lines(best.mix)]
        ),
    )


def _evaluator(
    question: Question, log: "_Log", tell: Progress
) -> Callable[[Mixes, Mix], tuple[float, bool]]:
    done, spent = len(question.known), 0.0

    def evaluate(mixes: Mixes, mix: Mix) -> tuple[float, bool]:
        nonlocal done, spent
        value = log.values.get(mix)
        done += 1
        if value is None:
            started = time.monotonic()
            value = question.trial.value(mixes.typed(mix).model, question.measure)
            log.add_value(mix, value)
            spent += time.monotonic() - started
        left = (question.limit - done) * spent / done
        tell(
            done / question.limit,
            f"mix {done} of at most {question.limit}: {shown(question.measure, value)} at "
            f"{mixes.cost(mix):.1%} of the cost of FP32, at most {left:.0f} s left",
        )
        return value, question.is_met(value)

    return evaluate


def _with_quantization_noise(
    question: Question, mixes: Mixes, log: "_Log", tell: Progress
) -> Mixes:
    layers = [unit for unit in mixes.units if unit.types[0] in QUANTIZED]
    if not layers:
        return mixes
    harms = log.harms.get("quantization")
    if harms is None:
        harms = _harms(question, mixes.layered(), tell)
        log.add_harms("quantization", harms)
    found = {}
    for unit in layers:
        found[unit.output] = {**unit.noises, unit.types[0]: harms.get(unit.output, 0.0)}
    return mixes.with_noises(found)


def _with_rounding_noise(question: Question, mixes: Mixes, log: "_Log", tell: Progress) -> Mixes:
    kind = mixes.precision.type
    outputs = {unit.output for unit in mixes.units if unit.base == kind}
    harms = log.harms.get("rounding")
    if harms is None:
        harms = _harms(question, rounded(mixes.model, outputs, kind), tell)
        log.add_harms("rounding", harms)
    return with_rounding(mixes, harms)


def _harms(question: Question, found: LayeredModel, tell: Progress) -> dict[str, float]:
    """Noise over signal at the model's outputs for the other form of each layer, by its output."""
    source = question.trial.data.source
    samples = min(max(SAMPLES, source.static_batch or 1), question.trial.samples)
    measured = harms_at_outputs(found, source, samples, tell)
    pairs = zip(found.layers, measured, strict=True)
    return {layer.output: min(10 ** (-max(sqnr, -300) / 10), _MOST_NOISE) for layer, sqnr in pairs}


@dataclass
class _Log:
    """What was measured so far, in a file that a killed search goes on from.

    One JSON document per line; a line that was cut off is what was being written.
    """

    path: Path | None
    values: dict[Mix, float] = field(default_factory=dict)
    harms: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is None or not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                if "mix" in entry:
                    self.values[tuple(entry["mix"])] = float(entry["value"])
                else:
                    self.harms[entry["harms"]] = {k: float(v) for k, v in entry["of"].items()}

    def add_value(self, mix: Mix, value: float) -> None:
        self.values[mix] = value
        self._write({"mix": mix, "value": value})

    def add_harms(self, name: str, harms: Mapping[str, float]) -> None:
        self.harms[name] = dict(harms)
        self._write({"harms": name, "of": harms})

    def _write(self, entry: dict[str, Any]) -> None:
        if self.path is None:
            return
        # It begins with a line end, so that what was cut off before is a line by itself.
        with writing(self.path, "the evaluations"), self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(entry)}")


def _counts(mixes: Mixes, mix: Mix) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in mixes.counts(mix).items()) or "no layers"


def _number(score: float) -> float:
    return -math.inf if math.isnan(score) else score
