"""`trtforge debug`: the fewest nodes that must be wider for a typed graph to be the same function.

Each evaluation types the graph anew with some nodes kept wide, and judges it: exactly what a build
makes of these keep rules, no model of it.
"""

import re
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

from trtforge.errors import EXIT_OK, EXIT_PARITY, Place, UsageError
from trtforge.pipeline.debug_subject import DebugOptions, Subject, subject_of
from trtforge.pipeline.events import Sink, ignore
from trtforge.pipeline.steps import Steps
from trtforge.pipeline.trial import Trials
from trtforge.recipe.edit import add_keep_rules, rule_text
from trtforge.recipe.precision import KeepRule
from trtforge.verify.bisect import Minimal, Outcome, minimal_set
from trtforge.verify.layers import LayerProfile
from trtforge.verify.types import ParityReport

DEBUG_SCHEMA = "trtforge.debug/1"


@dataclass(frozen=True)
class Culprit:
    """A node that must be wider.

    Attributes:
        node: its name, or that of its first output.
        op: its operator.
        why: what the error profile shows there.
    """

    node: str
    op: str
    why: str


@dataclass(frozen=True)
class DebugResult:
    """What was found.

    Attributes:
        subject: as it was named.
        outcome: see `bisect.Minimal`.
        culprits: the nodes, in graph order.
        rules: what a recipe's `keep` needs; they were judged as they stand here.
        evaluations: typed graphs that were judged.
        candidates: nodes among which they were searched.
        before: the verdict on the graph as it is typed.
        after: the verdict with the rules, or with every node wide where that does not help either;
            None where there are no rules.
        profile: the error of every tensor as the graph is typed.
        written: the recipe that has the rules now; None where none was asked for.
        seconds: wall time of each step.
    """

    subject: Path
    outcome: Outcome
    culprits: tuple[Culprit, ...]
    rules: tuple[KeepRule, ...]
    evaluations: int
    candidates: int
    before: ParityReport
    after: ParityReport | None
    profile: LayerProfile
    written: Path | None
    seconds: dict[str, float]

    @property
    def exit_status(self) -> int:
        """0 when parity holds, as it is or with the rules; 5 when it cannot be restored."""
        return EXIT_PARITY if self.outcome in ("not_found", "gave_up") else EXIT_OK

    def keep_lines(self) -> list[str]:
        """Return the lines to paste under `keep:`, each with the reason behind it."""
        why = {escape(one.node): f"  # {one.op}: {one.why}" for one in self.culprits}
        return [f"- {rule_text(rule)}{why.get(rule.name or '', '')}" for rule in self.rules]

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON data."""
        return {
            "subject": str(self.subject),
            "outcome": self.outcome,
            "culprits": [vars(one) for one in self.culprits],
            "keep": [rule.model_dump(mode="json", exclude_none=True) for rule in self.rules],
            "evaluations": self.evaluations,
            "candidates": self.candidates,
            "before": self.before.as_json(),
            "after": None if self.after is None else self.after.as_json(),
            "layers": self.profile.as_json(),
            "written": None if self.written is None else str(self.written),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def debug(
    path: Path,
    options: DebugOptions | None = None,
    emit: Sink = ignore,
    *,
    write: Path | None = None,
) -> DebugResult:
    """Find the smallest set of nodes whose widening restores parity.

    Args:
        path: an ONNX file, a recipe or a bundle.
        options: data, bounds, types, limits.
        emit: told what happens.
        write: a recipe whose `precision.keep` gets the rules.

    Raises:
        UsageError, RecipeError, DataError, GraphError: what `subject_of` raises; TF0764, nothing
            could be judged.
        RecipeError: the rules cannot be written into the recipe; nothing is written then.
        MissingError: engines are to be run, and there is no GPU here.
    """
    options = options or DebugOptions()
    known = write.read_bytes() if write is not None and write.is_file() else b""
    if write is not None and not known:
        raise UsageError(
            "TF0765",
            f"there is no recipe '{write}' to write rules into",
            "name one that is there with --recipe, or leave --write out",
            Place(str(write)),
        )
    result = replace(examine(subject_of(path, options, emit), options, emit), subject=path)
    if write is None or not result.rules:
        return result
    add_keep_rules(write, result.rules, known)
    return replace(result, written=write)


def examine(subject: Subject, options: DebugOptions, emit: Sink = ignore) -> DebugResult:
    """Search a subject that is prepared already; see `debug`."""
    steps = Steps(emit)
    with Trials(subject, options.backend) as trials:
        with steps.step("parity"):
            before = trials.report(frozenset())
            steps.note = before.verdict
        if before.verdict == "not_run":
            raise UsageError(
                "TF0764",
                f"nothing could be judged: {before.reason}",
                "give it what it lacks; `trtforge doctor` says what this machine lacks",
            )
        with steps.step("profile"):
            profile = trials.profile(frozenset())
        with steps.step("search"):
            found = _search(trials, profile, options.evaluations, steps)
            steps.note = f"{found.outcome}, {trials.evaluations} evaluations"
        return DebugResult(
            subject=subject.question.reference,
            outcome=found.outcome,
            culprits=_culprits(trials, found, profile),
            rules=_rules(trials, found),
            evaluations=trials.evaluations,
            candidates=len(trials.candidates),
            before=before,
            after=_after(trials, found),
            profile=profile,
            written=None,
            seconds=steps.seconds,
        )


def _search(trials: Trials, profile: LayerProfile, budget: int, steps: Steps) -> Minimal[str]:
    def test(widened: frozenset[str]) -> bool:
        steps.tell(None, f"evaluation {trials.evaluations + 1}: {len(widened)} nodes wide")
        return trials.report(widened).verdict == "pass"

    ordered = _by_suspicion(trials.candidates, profile)
    return minimal_set(
        ordered, test, suspects=lambda tried: _suspects(trials, tried), budget=budget
    )


def _by_suspicion(candidates: dict[str, str], profile: LayerProfile) -> list[str]:
    """Sort nodes by how much is lost there; where NaN or Inf comes from, before all others."""
    lost = {drop.node: drop.drop_db for drop in profile.drops}
    return sorted(candidates, key=lambda name: -lost.get(name, 0.0))


def _suspects(trials: Trials, tried: frozenset[str]) -> list[str]:
    """Return the nodes that a failure points at.

    A node that is wide and loses all the same amplifies what was rounded before it, as a difference
    of two large numbers does: what feeds it must be wide too.

    Otherwise it is where that began which went wrong most: NaN and Inf, else the largest jumps. (A
    node that divides by a variance that was lost upstream gives Inf, and it is upstream that
    something must be wide.)
    """
    profile = trials.profile(tried)
    for jump in profile.jumps:
        feeding = trials.feeding(jump.node, tried) if jump.node in tried else []
        if feeding:
            return feeding
    jumps = [jump for jump in profile.jumps if jump.node not in tried]
    effects = [jump for jump in jumps if jump.is_nonfinite]
    if not effects:
        largest = max((jump.drop_db for jump in jumps), default=0.0)
        effects = [jump for jump in jumps if jump.drop_db >= largest / 2]
    causes = {node for effect in effects for node in (*effect.after, effect.node)}
    begin = [
        jump.node
        for jump in jumps
        if jump.node in causes and not jump.after & {one.node for one in jumps}
    ]
    return _with_alike(begin, trials.candidates, tried)


def _with_alike(
    suspects: list[str], candidates: dict[str, str], tried: frozenset[str]
) -> list[str]:
    """Add the nodes of the other layers, where the same node of an earlier layer was suspect.

    NaN hides what comes behind it, so each layer of a transformer would take a round of its own.
    """
    before = {pattern for name in tried for pattern in _patterns(name)}
    repeated = {pattern for name in suspects for pattern in _patterns(name)} & before
    alike = [name for name in candidates if repeated & _patterns(name) and name not in tried]
    return list(dict.fromkeys([*suspects, *alike]))


def _patterns(name: str) -> set[str]:
    """A name with any one of its numbers left open: layers.#/Add_2, layers.1/Add_#."""
    numbers = re.finditer(r"\d+", name)
    return {f"{name[: one.start()]}#{name[one.end() :]}" for one in numbers}


def _after(trials: Trials, found: Minimal[str]) -> ParityReport | None:
    if found.outcome == "not_found":
        return trials.report(frozenset(trials.candidates))
    return trials.report(frozenset(found.items)) if found.items else None


def _rules(trials: Trials, found: Minimal[str]) -> tuple[KeepRule, ...]:
    return tuple(rule for name in trials.in_graph_order(found.items) for rule in trials.rules(name))


def _culprits(trials: Trials, found: Minimal[str], profile: LayerProfile) -> tuple[Culprit, ...]:
    drops = {drop.node: drop for drop in profile.drops}
    culprits = []
    for name in trials.in_graph_order(found.items):
        drop = drops.get(name)
        why = "what is wide before it is rounded here again"
        if drop is not None and drop.is_nonfinite:
            why = "NaN or Inf"
        elif drop is not None:
            why = f"{drop.from_db:.0f} dB -> {drop.to_db:.0f} dB"
        culprits.append(Culprit(name, trials.candidates[name], why))
    return tuple(culprits)
