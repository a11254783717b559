"""Passes over a graph: which there are, running them to a fixpoint, and proving the result.

A pass that turns out to change what the model computes is found, taken back and named.
To add one: a file under cleanup/ or fusion/, and a line in `PASSES`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Literal, Protocol

import onnx_graphsurgeon as gs

from trtforge.errors import GraphError, UsageError
from trtforge.graph.inputs import Shapes
from trtforge.graph.model import Model
from trtforge.graph.names import did_you_mean
from trtforge.graph.proof import Reference, reference_for
from trtforge.graph.report import Note, OptimizeReport, PassOutcome, PassResult, Proof
from trtforge.graph.weights import storage_bytes

__all__ = [
    "DEFAULT_PASSES",
    "PASSES",
    "Note",
    "OptimizeReport",
    "Optimized",
    "Pass",
    "PassRequest",
    "PassResult",
    "run_passes",
]

_CLEANUP, _FUSION = "trtforge.graph.cleanup", "trtforge.graph.fusion"

PASSES: dict[str, str] = {
    "constant-to-initializer": f"{_CLEANUP}.constant_to_initializer:ConstantToInitializer",
    "identity": f"{_CLEANUP}.identity:RemoveIdentity",
    "constant-folding": f"{_CLEANUP}.constant_folding:FoldConstants",
    "conv-batchnorm": f"{_FUSION}.conv_batchnorm:FuseConvBatchNorm",
    "conv-mul-add": f"{_FUSION}.conv_mul_add:FuseConvMulAdd",
    "dead-code": f"{_CLEANUP}.dead_code:RemoveDeadCode",
    "duplicate-initializers": f"{_CLEANUP}.duplicate_initializers:MergeDuplicates",
}

DEFAULT_PASSES: tuple[str, ...] = (
    "constant-to-initializer",
    "identity",
    "constant-folding",
    "conv-batchnorm",
    "conv-mul-add",
    "dead-code",
    "duplicate-initializers",  # last: fusions leave shared weights alone
)

_MAX_ROUNDS = 10


class Pass(Protocol):
    """One kind of rewrite; free of state, so that any prefix of a run can be repeated."""

    name: str

    def apply(self, graph: gs.Graph) -> PassResult:
        """Rewrite the graph in place and say what was done."""
        ...


@dataclass(frozen=True)
class PassRequest:
    """What to run, and where to prove it.

    Attributes:
        use: "default", "none", or names in the order in which they shall run.
        drop: names to leave out.
        shapes: the numerical proof runs at each of these; empty means the static shapes.
        seed: of the random inputs.
        prove: whether to compare with the original at all.
    """

    use: Literal["default", "none"] | tuple[str, ...] = "default"
    drop: tuple[str, ...] = ()
    shapes: tuple[Shapes, ...] = ()
    seed: int = 0
    prove: bool = True


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
    for name in (*names, *request.drop):
        if name not in PASSES:
            raise UsageError("TF0411", f"there is no pass '{name}'", did_you_mean(name, PASSES))
    return tuple(name for name in dict.fromkeys(names) if name not in request.drop)


def _pass_named(name: str) -> Pass:
    module, _, attribute = PASSES[name].partition(":")
    made: Pass = getattr(import_module(module), attribute)()
    return made


class _FaultyPassError(Exception):
    """A pass failed or told an untruth about itself."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name, self.reason = name, reason


@dataclass
class _Attempt:
    """One run of some passes: the model, what each pass did, and the steps that changed it."""

    model: Model
    outcomes: dict[str, PassOutcome]
    steps: list[str]
    rounds: int


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
        reference: Reference | None = None
        while True:
            attempt = self._attempt()
            if not attempt.steps:
                reason = "nothing was rewritten: the model is the original"
                return self._optimized(attempt, Proof("pass", reason))
            if not self._request.prove:
                return self._optimized(attempt, Proof("not_run", "not asked for"))
            if reference is None:
                found = reference_for(self._model, self._request.shapes, self._request.seed)
                if isinstance(found, Proof):
                    return self._optimized(attempt, found)
                reference = found
            self._tell(f"comparing with the original at {reference.cases} shapes")
            proof = reference.compare(attempt.model)
            if proof.verdict == "fail" and not reference.is_repeatable():
                proof = Proof("not_run", "the original gives other results each time it runs")
            if proof.verdict != "fail":
                return self._optimized(attempt, proof)
            guilty = self._guilty(attempt.steps, reference)
            if guilty is None:
                return self._given_up(proof)
            self._drop(guilty, f"it changes the result: {proof.reason}")

    def _attempt(self) -> _Attempt:
        while True:
            try:
                return self._fixpoint()
            except _FaultyPassError as fault:
                self._drop(fault.name, fault.reason)

    def _fixpoint(self) -> _Attempt:
        names = [name for name in self._names if name not in self._dropped]
        graph = self._model.to_graph()
        attempt = _Attempt(self._model, {name: PassOutcome(name) for name in names}, [], 0)
        while attempt.rounds < _MAX_ROUNDS:
            attempt.rounds += 1
            rewrites = 0
            for name in names:
                result = _applied(name, graph)
                attempt.outcomes[name] = attempt.outcomes[name].adding(result)
                if result.rewrites:
                    rewrites += result.rewrites
                    attempt.steps.append(name)
                    self._tell(f"{name}: {result.rewrites} rewrites")
            if not rewrites:
                break
        if attempt.steps:
            attempt.model = self._model.with_graph(graph)
        return attempt

    def _guilty(self, steps: list[str], reference: Reference) -> str | None:
        """Find the step at which the result goes wrong, by halving.

        Returns:
            The pass, or None when the model is wrong without any pass.
        """
        if not self._holds([], reference):
            return None
        good, bad = 0, len(steps)
        while bad - good > 1:
            middle = (good + bad) // 2
            if self._holds(steps[:middle], reference):
                good = middle
            else:
                bad = middle
        return steps[bad - 1]

    def _holds(self, steps: list[str], reference: Reference) -> bool:
        graph = self._model.to_graph()
        for name in steps:
            _applied(name, graph)
        try:
            return reference.compare(self._model.with_graph(graph)).verdict == "pass"
        except GraphError:
            return False

    def _drop(self, name: str, reason: str) -> None:
        self._tell(f"{name} is taken back: {reason}")
        self._dropped[name] = reason

    def _given_up(self, proof: Proof) -> Optimized:
        for name in self._names:
            self._dropped.setdefault(name, "the model cannot be edited without changing it")
        reason = f"the model is the original; editing alone changes it: {proof.reason}"
        return self._optimized(_Attempt(self._model, {}, [], 0), Proof("not_run", reason))

    def _optimized(self, attempt: _Attempt, proof: Proof) -> Optimized:
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
            initializer_bytes_before=sum(map(storage_bytes, before.initializer)),
            initializer_bytes_after=sum(map(storage_bytes, after.initializer)),
            rounds=attempt.rounds,
            passes=tuple(outcomes),
            proof=proof,
        )
        return Optimized(attempt.model, report)


def _applied(name: str, graph: gs.Graph) -> PassResult:
    before = _fingerprint(graph)
    try:
        result = _pass_named(name).apply(graph)
    except Exception as error:  # a fault in one pass must not cost the user the build
        raise _FaultyPassError(name, f"it failed: {type(error).__name__}: {error}") from error
    if not result.rewrites and _fingerprint(graph) != before:
        raise _FaultyPassError(name, "it changed the graph and reported no rewrite")
    return result


def _fingerprint(graph: gs.Graph) -> int:
    """Hash the wiring and which values the constants hold, in time linear in the graph."""
    parts: list[object] = [tuple(tensor.name for tensor in (*graph.inputs, *graph.outputs))]
    for node in graph.nodes:
        parts.append((node.op, node.domain, len(node.attrs)))
        parts.extend(tensor.name for tensor in node.outputs)
        for tensor in node.inputs:
            parts.append(tensor.name)
            if isinstance(tensor, gs.Constant):
                parts.append(id(tensor._values))
    return hash(tuple(parts))
