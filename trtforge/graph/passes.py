"""Passes over a graph: running them to a fixpoint, and proving the result.

A pass that turns out to change what the model computes is found, taken back and named. The table
of passes is in catalog.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from trtforge.errors import GraphError, UsageError
from trtforge.graph.catalog import DEFAULT_PASSES, PASSES
from trtforge.graph.edit import Editor
from trtforge.graph.inputs import Shapes
from trtforge.graph.memory import collector_paused
from trtforge.graph.model import Model
from trtforge.graph.names import did_you_mean
from trtforge.graph.report import Note, OptimizeReport, PassOutcome, PassResult, Proof
from trtforge.graph.weights import storage_bytes
from trtforge.graph.workshop import FaultyPassError, Known, Pass, Workshop, try_raise

if TYPE_CHECKING:
    from trtforge.graph.proof import Prover

__all__ = [
    "DEFAULT_OPSET_LIMIT",
    "DEFAULT_PASSES",
    "PASSES",
    "Editor",
    "Note",
    "OptimizeReport",
    "Optimized",
    "Pass",
    "PassRequest",
    "PassResult",
    "run_passes",
]

_MAX_ROUNDS = 20

DEFAULT_OPSET_LIMIT = 23
"""The newest operator set that passes may raise a model to unless told otherwise."""


@dataclass(frozen=True)
class PassRequest:
    """What to run, and where to prove it.

    Attributes:
        use: "default", "none", or names in the order in which they shall run.
        also: names of optional passes to run as well, each in its place.
        drop: names to leave out.
        shapes: the numerical proof runs at each of these; empty means the static shapes.
        seed: of the random inputs.
        prove: whether to compare with the original at all.
        opset_limit: the newest operator set that the targets take.
    """

    use: Literal["default", "none"] | tuple[str, ...] = "default"
    also: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    shapes: tuple[Shapes, ...] = ()
    seed: int = 0
    prove: bool = True
    opset_limit: int = DEFAULT_OPSET_LIMIT


@dataclass(frozen=True)
class Optimized:
    """A model and how it came about."""

    model: Model
    report: OptimizeReport


def run_passes(
    model: Model, request: PassRequest, on_progress: Callable[[str], None] | None = None
) -> Optimized:
    """Run passes until nothing changes, and prove that the model still computes the same.

    Args:
        model: the original; unchanged.
        request: which passes, and at which shapes to compare.
        on_progress: called with a line of text now and then.

    Returns:
        The rewritten model (the original itself when nothing was rewritten) and a report.

    Raises:
        UsageError: TF0411, an unknown pass.
        GraphError: TF0410, the model cannot be edited at all.
    """
    names = _chosen(request)
    tell = on_progress or (lambda line: None)
    run = _Run(model, names, request, tell)
    return run.complete()


def _chosen(request: PassRequest) -> tuple[str, ...]:
    use = request.use
    names = DEFAULT_PASSES if use == "default" else () if use == "none" else tuple(use)
    for name in (*names, *request.also, *request.drop):
        if name not in PASSES:
            raise UsageError("TF0411", f"there is no pass '{name}'", did_you_mean(name, PASSES))
    if request.also:
        wanted = {*names, *request.also}
        names = tuple(name for name in PASSES if name in wanted)
    return tuple(name for name in dict.fromkeys(names) if name not in request.drop)


_Step = str | int
"""What changed a model: a pass by its name, the operator set that it was raised to, or: """

_ROUND = 0
"""a round began, and sizes were followed through the graph again;"""

_REOPENED = -1
"""shape inference ran again."""


@dataclass
class _Attempt:
    """One run of some passes: the model, what each pass did, and the steps that changed it."""

    model: Model
    outcomes: dict[str, PassOutcome]
    known: Known = field(default_factory=dict)
    steps: list[_Step] = field(default_factory=list)
    rounds: int = 0


class _Run:
    def __init__(
        self,
        model: Model,
        names: tuple[str, ...],
        request: PassRequest,
        tell: Callable[[str], None],
    ) -> None:
        self._model, self._names, self._request, self._tell = model, names, request, tell
        self._dropped: dict[str, str] = {}

    def complete(self) -> Optimized:
        """Attempt, prove, drop the guilty pass, and so on until the proof holds."""
        prover: Prover | None = None
        while True:
            attempt = self._attempt()
            if not attempt.steps:
                reason = "nothing was rewritten: the model is the original"
                return self._optimized(attempt, Proof("pass", reason))
            if not self._request.prove:
                return self._optimized(attempt, Proof("not_run", "not asked for"))
            if not self._request.shapes and any(s.is_dynamic for s in self._model.contract.inputs):
                reason = "the model has dynamic dimensions and no shapes are given"
                return self._optimized(attempt, Proof("not_run", reason))
            prover = prover or self._prover()
            self._tell(f"comparing with the original at {prover.cases} shapes")
            proof = prover.compare(attempt.model, attempt.known)
            if proof.verdict == "fail" and not prover.is_repeatable():
                proof = Proof("not_run", "the original gives other results each time it runs")
            if proof.verdict != "fail":
                return self._optimized(attempt, proof)
            guilty = self._guilty(attempt.steps, prover)
            if guilty is None:
                return self._given_up(proof)
            self._drop(guilty, f"it changes the result: {proof.reason}")

    def _prover(self) -> "Prover":
        from trtforge.graph.proof import Prover  # loads ONNX Runtime

        return Prover(self._model, self._request.shapes, self._request.seed)

    def _attempt(self) -> _Attempt:
        while True:
            try:
                with collector_paused():
                    return self._fixpoint()
            except FaultyPassError as fault:
                self._drop(fault.name, fault.reason)

    def _fixpoint(self) -> _Attempt:
        names = [name for name in self._names if name not in self._dropped]
        workshop = Workshop(self._model, self._request.opset_limit)
        attempt = _Attempt(self._model, {name: PassOutcome(name) for name in names})
        impossible: dict[int, str] = {}
        while attempt.rounds < _MAX_ROUNDS and names:
            attempt.rounds += 1
            rewrites = self._round(workshop, names, attempt)
            if self._raised(workshop, attempt, impossible) or rewrites:
                continue
            if not workshop.reopen():
                break
            attempt.steps.append(_REOPENED)
        for version, places in workshop.wanted_opsets().items():
            why = impossible.get(version, f"at most {workshop.limit} is asked for")
            for name, node in places:
                note = Note("refused", node, f"this needs opset {version}: {why}")
                attempt.outcomes[name] = attempt.outcomes[name].noting(note)
        if attempt.steps:
            attempt.model, attempt.known = workshop.model(), workshop.known()
        workshop.close()
        return attempt

    def _round(self, workshop: Workshop, names: list[str], attempt: _Attempt) -> int:
        """Apply every pass once; return the number of rewrites."""
        workshop.begin_round()
        attempt.steps.append(_ROUND)
        rewrites = 0
        for name in names:
            applied = workshop.apply(name)
            attempt.outcomes[name] = attempt.outcomes[name].adding(
                applied.result,
                nodes=applied.nodes,
                bytes=applied.bytes,
                seconds=applied.seconds,
            )
            if applied.result.rewrites:
                rewrites += applied.result.rewrites
                attempt.steps.append(name)
                self._tell(f"{name}: {applied.result.rewrites} rewrites")
        if not rewrites:
            attempt.steps.pop()
        return rewrites

    def _raised(self, workshop: Workshop, attempt: _Attempt, impossible: dict[int, str]) -> bool:
        """Raise the model to the newest operator set that a pass waits for, where that goes.

        Returns:
            Whether there is something new for the passes: another operator set, or that there
            will be none to wait for.
        """
        wanted = [version for version in workshop.wanted_opsets() if version <= workshop.limit]
        for version in sorted(wanted, reverse=True):
            why = try_raise(workshop, version)
            if why is None:
                attempt.steps.append(version)
                self._tell(f"the model is raised to opset {version}")
                return True
            impossible[version] = why
            workshop.limit = version - 1
        return bool(wanted)

    def _guilty(self, steps: list[_Step], prover: "Prover") -> str | None:
        """Find the step at which the result goes wrong, by halving.

        Returns:
            The pass, or None when the model is wrong without any pass. Where raising the
            operator set is to blame, the pass that first needed it.
        """
        if not self._holds([], prover):
            return None
        good, bad = 0, len(steps)
        while bad - good > 1:
            middle = (good + bad) // 2
            if self._holds(steps[:middle], prover):
                good = middle
            else:
                bad = middle
        return next((step for step in steps[bad - 1 :] if isinstance(step, str)), None)

    def _holds(self, steps: list[_Step], prover: "Prover") -> bool:
        workshop = Workshop(self._model, self._request.opset_limit)
        try:
            for step in steps:
                if isinstance(step, str):
                    workshop.apply(step)
                elif step == _ROUND:
                    workshop.begin_round()
                elif step == _REOPENED:
                    workshop.reopen()
                else:
                    workshop.raise_opset(step)
            model = workshop.model() if steps else self._model.with_graph(self._model.to_graph())
            known = workshop.known()
            workshop.close()
            return prover.compare(model, known).verdict == "pass"
        except GraphError:
            return False

    def _drop(self, name: str, reason: str) -> None:
        self._tell(f"{name} is taken back: {reason}")
        self._dropped[name] = reason

    def _given_up(self, proof: Proof) -> Optimized:
        for name in self._names:
            self._dropped.setdefault(name, "the model cannot be edited without changing it")
        reason = f"the model is the original; editing alone changes it: {proof.reason}"
        return self._optimized(_Attempt(self._model, {}), Proof("not_run", reason))

    def _optimized(self, attempt: _Attempt, proof: Proof) -> Optimized:
        self._model.files.release()  # what was looked at need not stay in memory
        outcomes = []
        for name in self._names:
            outcome = attempt.outcomes.get(name, PassOutcome(name))
            if name in self._dropped:
                outcome = replace(outcome, rolled_back=True, reason=self._dropped[name])
            outcomes.append(outcome)
        before, after = self._model.proto.graph, attempt.model.proto.graph
        report = OptimizeReport(
            nodes_before=len(before.node),
            nodes_after=len(after.node),
            opset_before=self._model.opset,
            opset_after=attempt.model.opset,
            initializer_bytes_before=sum(map(storage_bytes, before.initializer)),
            initializer_bytes_after=sum(map(storage_bytes, after.initializer)),
            rounds=attempt.rounds,
            passes=tuple(outcomes),
            proof=proof,
        )
        return Optimized(attempt.model, report)
