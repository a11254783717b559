"""Two runners and tolerances give a ParityReport: pass, fail or not_run, never a silent pass.

Judged are the cases made of data (the data itself, and profile corners made of its rows); random
inputs are judged only where there is no data, but NaN, Inf, types and shapes are checked on every
case. All judged cases of an output together must meet its bounds, and every single corner too,
with a little slack (`tolerance.CASE_SLACK_DB`), so that thousands of good rows cannot hide one bad
shape.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from trtforge.engine.backend import Runner
from trtforge.errors import BuildError, GraphError
from trtforge.verify.cases import Case
from trtforge.verify.record import Array, OutputRecord
from trtforge.verify.tolerance import (
    OutputForm,
    bounds_for,
    check_bounds_fit,
    check_output_names,
    missed_accuracy,
    missed_bounds,
    missed_case_bounds,
    summary,
)
from trtforge.verify.types import (
    Accuracy,
    Bounds,
    Group,
    Metrics,
    OutputVerdict,
    ParityReport,
    Tolerances,
    Verdict,
)

OnCase = Callable[[Case], None]


@dataclass
class _Seen:
    """All that one comparison has seen."""

    outputs: dict[str, OutputRecord] = field(default_factory=dict)
    cases: dict[Group, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def judged(self) -> tuple[Group, ...]:
        groups: tuple[Group, ...] = (
            ("data", "corner") if "data" in self.cases else ("corner", "random")
        )
        return tuple(group for group in groups if group in self.cases)

    def add(
        self, case: Case, reference: Mapping[str, Array], candidate: Mapping[str, Array]
    ) -> None:
        self.cases[case.group] = self.cases.get(case.group, 0) + 1
        for name, expected in reference.items():
            record = self.outputs.setdefault(name, OutputRecord.of(name, expected))
            if name in candidate:
                record.add(case, expected, candidate[name])
            else:
                record.fail("the candidate has no such output")
                self._fail(f"the candidate has no output '{name}'")
        for name in candidate:
            if name not in reference:
                self._fail(f"the candidate has an output '{name}' that the reference has not")

    def _fail(self, failure: str) -> None:
        if failure not in self.failures:
            self.failures.append(failure)


def compare(
    reference: Runner,
    candidate: Runner,
    cases: Iterable[Case],
    tolerances: Tolerances,
    on_case: OnCase | None = None,
    *,
    turn_bytes: int | None = None,
) -> ParityReport:
    """Run both on every case and judge.

    Args:
        reference: what is right; entered and left here.
        candidate: what is judged; entered and left here.
        cases: used once, one at a time.
        tolerances: bounds by output.
        on_case: called before each case, to show progress.
        turn_bytes: None keeps both sides entered throughout. Otherwise they take turns, and
            never both are in memory: the reference runs on as many cases as fit, with their inputs
            and outputs, in so many bytes (on one at least), then the candidate on the same.

    Returns:
        The report; its verdict is not_run when there was no case, no output, or an output of which
        no finite value was judged.

    Raises:
        UsageError: a tolerance names an output that the model lacks, or a bound that no output can
            be judged by.
        DataError: labels are out of range of every output that has classes.
        ForgeError: what the runners raise.
    """
    seen = _Seen()
    asked = _Asked(reference, tolerances, on_case or (lambda case: None))
    if turn_bytes is None:
        with reference, candidate:
            for case in cases:
                with _named(case):
                    seen.add(case, asked.about(case), candidate.infer(case.feeds))
    else:
        for turn in _turns(asked, cases, turn_bytes):
            with candidate:
                while turn:
                    case, expected = turn.popleft()
                    with _named(case):
                        seen.add(case, expected, candidate.infer(case.feeds))
    return _report(seen, tolerances, reference.name, candidate.name)


@contextmanager
def _named(case: Case) -> Iterator[None]:
    """Say at which inputs something failed: a corner tells which profile is at fault."""
    try:
        yield
    except (BuildError, GraphError) as error:
        error.message = f"{error.message} (case: {case.name})"
        raise


@dataclass
class _Asked:
    """The reference, and what is to be done around each of its answers."""

    reference: Runner
    tolerances: Tolerances
    on_case: OnCase
    answered: bool = False

    def about(self, case: Case) -> Mapping[str, Array]:
        self.on_case(case)
        outputs = self.reference.infer(case.feeds)
        if not self.answered:
            check_output_names(self.tolerances, outputs)
            self.answered = True
        return outputs


_Turn = deque[tuple[Case, Mapping[str, Array]]]


def _turns(asked: _Asked, cases: Iterable[Case], turn_bytes: int) -> Iterator[_Turn]:
    """Yield cases with the reference's outputs; between them the reference is left."""
    rest = iter(cases)
    case = next(rest, None)
    while case is not None:
        turn: _Turn = deque()
        room = turn_bytes
        with asked.reference:
            while case is not None and (room > 0 or not turn):
                with _named(case):
                    outputs = asked.about(case)
                turn.append((case, outputs))
                room -= sum(array.nbytes for array in (*case.feeds.values(), *outputs.values()))
                case = next(rest, None)
        yield turn


def _report(seen: _Seen, tolerances: Tolerances, reference: str, candidate: str) -> ParityReport:
    if not seen.cases or not seen.outputs:
        what = "the reference has no outputs" if seen.cases else "there were no cases to compare on"
        return ParityReport.not_run(what, reference=reference, candidate=candidate)
    accuracies = _accuracies(seen)
    forms = {
        name: record.form(has_accuracy=name in accuracies) for name, record in seen.outputs.items()
    }
    comparable = [form for name, form in forms.items() if seen.outputs[name].groups]
    if comparable:
        check_bounds_fit(tolerances, comparable)
    outputs = {
        name: _judge(record, forms[name], seen.judged, tolerances, accuracies.get(name))
        for name, record in seen.outputs.items()
    }
    verdict, reason = _overall(outputs, seen.failures)
    return ParityReport(
        verdict=verdict,
        reason=reason,
        reference=reference,
        candidate=candidate,
        judged=seen.judged,
        cases=seen.cases,
        outputs=outputs,
        failures=tuple(seen.failures),
        accuracy=next(iter(accuracies.values()), None),
    )


def _accuracies(seen: _Seen) -> dict[str, Accuracy]:
    """Return accuracy by output: of those with class scores, else of those with class ids."""
    found = {
        name: accuracy
        for name, record in seen.outputs.items()
        if (accuracy := record.accuracy.result(name)) is not None
    }
    refusals = [record.accuracy.refusal for record in seen.outputs.values()]
    if not found and (refusal := next(filter(None, refusals), None)) is not None:
        raise refusal
    scores = {name: value for name, value in found.items() if seen.outputs[name].kind == "float"}
    return scores or found


def _judge(
    record: OutputRecord,
    form: OutputForm,
    judged: tuple[Group, ...],
    tolerances: Tolerances,
    accuracy: Accuracy | None,
) -> OutputVerdict:
    bounds, source = bounds_for(tolerances, form)
    seen = record.over(judged)
    metrics = seen.metrics()
    failures = list(record.failures)
    if not failures and metrics is not None and metrics.finite:
        failures += missed_bounds(bounds, metrics)
        for case in record.cases:
            if case.group in judged:
                missed = missed_case_bounds(bounds, case.metrics)
                failures += [f"{failure}, '{case.name}'" for failure in missed]
        shares = None if accuracy is None else (accuracy.reference, accuracy.candidate)
        failures += missed_accuracy(bounds, shares)
    reason = None
    if not failures:
        reason = _nothing_judged(metrics, bounds)
    verdict: Verdict = "fail" if failures else ("not_run" if reason else "pass")
    return OutputVerdict(
        verdict=verdict,
        reason=reason,
        dtype=record.dtype,
        metrics=metrics,
        tolerance=bounds,
        tolerance_source=source,
        failures=tuple(failures),
        groups={
            group: found
            for group, stats in record.groups.items()
            if (found := stats.metrics()) is not None
        },
        cases=tuple(record.cases),
        accuracy=accuracy,
        errors=seen.histogram(),
    )


def _nothing_judged(metrics: Metrics | None, bounds: Bounds) -> str | None:
    if metrics is None:
        return "it was empty in every judged case"
    if not metrics.finite:
        return "the reference has no finite value in any judged case"
    return None if bounds.given else "no bound fits it"


def _overall(
    outputs: Mapping[str, OutputVerdict], failures: list[str]
) -> tuple[Verdict, str | None]:
    if failures:
        return "fail", failures[0]
    verdicts = {verdict.verdict for verdict in outputs.values()}
    if "fail" in verdicts:
        return "fail", summary(outputs)
    for name, verdict in outputs.items():
        if verdict.verdict == "not_run":
            return "not_run", f"output '{name}' could not be judged: {verdict.reason}"
    return "pass", None
