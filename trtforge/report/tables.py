"""Report parts as plain rows of text, for the terminal and for the page alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trtforge.report.data import Json, verdict_of
from trtforge.report.figures import (
    count,
    decibel,
    number,
    percent,
    plain,
    points,
    seconds,
    shape,
    size,
)

GROUPS = ("data", "corner", "random")
"""Groups of cases, in the order in which they are shown."""

VERDICT_TEXT = {"pass": "✓ pass", "fail": "✗ fail", "not_run": "○ not run"}
"""Verdicts are told apart by sign and word, never by colour alone."""

_BOUND_TEXT = {
    "sqnr_db": ("SQNR ≥", decibel),
    "cosine": ("cosine ≥", plain),
    "max_abs": ("max abs ≤", plain),
    "max_rel": ("max rel ≤", plain),
    "top1_agreement": ("top-1 ≥", percent),
    "top5_agreement": ("top-5 ≥", percent),
    "exact_agreement": ("equal ≥", percent),
    "accuracy_drop": ("accuracy drop ≤", points),
}


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        columns: headings.
        rows: as many cells as columns each.
        numeric: indices of the columns that are set flush right.
        names: indices of the columns with names of nodes and tensors.
        rest: what is said below of the rows that are not shown; empty when all are.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    names: frozenset[int] = frozenset({0})
    rest: str = ""


def cut(table: Table, most: int, total: int | None = None, where: str = "") -> Table:
    """Return a table of at most so many rows, which says how many it leaves out.

    Args:
        table: all rows, or the first of them.
        most: how many to keep.
        total: how many there are; None: as many as the table has.
        where: the file in the bundle that has all of them; empty for none.
    """
    kept = table.rows[:most]
    left = (len(table.rows) if total is None else total) - len(kept)
    if left <= 0:
        return table
    told = f"… and {count(left)} more" + (f": {where} has them all" if where else "")
    return replace(table, rows=kept, rest=told)


def verdict_text(verdict: str) -> str:
    """Return "✓ pass", "✗ fail" or "○ not run"."""
    return VERDICT_TEXT.get(verdict, VERDICT_TEXT["fail"])


def outputs_table(parity: Json) -> Table:
    """Return the metrics and bounds of each output of a parity report."""
    rows = tuple(
        (
            str(name),
            verdict_text(verdict_of(output)),
            *_metric_cells(output.get("metrics")),
            bounds_text(output.get("tolerance") or {}),
        )
        for name, output in (parity.get("outputs") or {}).items()
    )
    columns = ("output", "verdict", *_METRIC_COLUMNS, "asked")
    return Table(columns, rows, frozenset(range(2, 2 + len(_METRIC_COLUMNS))))


def cases_table(output: Json, judged: Sequence[str]) -> Table:
    """Return the metrics of one output by group of cases and by single corner or random case.

    Args:
        output: one output of a parity report.
        judged: the groups that the verdict rests on; the others are marked.
    """
    groups = tuple(
        (f"all {group}{_unjudged(group, judged)}", *_metric_cells(output["groups"][group]))
        for group in GROUPS
        if group in (output.get("groups") or {})
    )
    cases = tuple(
        (
            f"{case.get('name')}{_unjudged(case.get('group'), judged)}",
            *_metric_cells(case.get("metrics")),
        )
        for case in output.get("cases") or ()
    )
    return Table(
        ("cases", *_METRIC_COLUMNS), groups + cases, frozenset(range(1, 1 + len(_METRIC_COLUMNS)))
    )


_METRIC_COLUMNS = ("SQNR", "cosine", "max abs", "max rel", "top-1", "top-5", "equal")


def _unjudged(group: Any, judged: Sequence[str]) -> str:
    return "" if group in judged else " (not judged)"


def _metric_cells(metrics: Any) -> tuple[str, ...]:
    if not isinstance(metrics, Mapping):
        return ("-",) * len(_METRIC_COLUMNS)
    return (
        decibel(metrics.get("sqnr_db")),
        plain(metrics.get("cosine"), 6),
        plain(metrics.get("max_abs"), 3),
        plain(metrics.get("max_rel"), 3),
        percent(metrics.get("top1_agreement")),
        percent(metrics.get("top5_agreement")),
        percent(metrics.get("exact_agreement")),
    )


def bounds_text(bounds: Json) -> str:
    """Return bounds as one line: "SQNR ≥ 20.0 dB, top-1 ≥ 99 %"."""
    parts = [
        f"{said} {say(bounds[name])}"
        for name, (said, say) in _BOUND_TEXT.items()
        if bounds.get(name) is not None
    ]
    return ", ".join(parts) or "-"


def cases_text(parity: Json) -> str | None:
    """Return how many cases there were and which were judged; None when there were none."""
    cases = parity.get("cases") or {}
    if not cases:
        return None
    counted = ", ".join(f"{cases[group]} {group}" for group in GROUPS if group in cases)
    return f"judged on {' and '.join(parity.get('judged') or ())} cases ({counted})"


def accuracy_text(parity: Json) -> str | None:
    """Return one sentence on top-1 accuracy, None where none was measured."""
    accuracy = parity.get("accuracy")
    if not isinstance(accuracy, Mapping):
        return None
    before, after = number(accuracy.get("reference")), number(accuracy.get("candidate"))
    if before is None or after is None:
        return None
    change = f"{(after - before) * 100:+.2f}".replace("-", "−")
    return (
        f"Top-1 accuracy on {count(accuracy.get('samples'))} labelled samples: "
        f"{percent(before)} reference, {percent(after)} candidate ({change} points)."
    )


def passes_table(optimize: Json) -> Table:
    """Return what each graph pass did: rewrites, refusals, and whether it was rolled back.

    Passes that found nothing are left out; see `idle_passes`.
    """
    rows = []
    for entry in optimize.get("passes") or ():
        if _is_idle(entry):
            continue
        refused = [note for note in entry.get("notes") or () if note.get("kind") == "refused"]
        state = "applied" if entry.get("rewrites") else "every match refused"
        if entry.get("rolled_back"):
            state = f"rolled back: {entry.get('reason') or 'it changed the numbers'}"
        rows.append(
            (str(entry.get("name")), count(entry.get("rewrites")), count(len(refused)), state)
        )
    return Table(("pass", "rewrites", "refused", "state"), tuple(rows), frozenset({1, 2}))


def idle_passes(optimize: Json) -> tuple[str, ...]:
    """Return the names of the passes that matched nothing."""
    return tuple(
        str(entry.get("name")) for entry in optimize.get("passes") or () if _is_idle(entry)
    )


def _is_idle(entry: Json) -> bool:
    return not (entry.get("rewrites") or entry.get("rolled_back") or entry.get("notes"))


def refusals_table(optimize: Json) -> Table:
    """Return every match that a pass refused, and why."""
    rows = tuple(
        (str(entry.get("name")), str(note.get("node")), str(note.get("reason")))
        for entry in optimize.get("passes") or ()
        for note in entry.get("notes") or ()
        if note.get("kind") == "refused"
    )
    return Table(("pass", "node", "refused because"), rows, names=frozenset({0, 1}))


def checks_table(attest: Json) -> Table:
    """Return what was attested: the share found, and the bounds that were asked for."""
    rows: tuple[tuple[str, ...], ...] = tuple(
        (
            check_name(check),
            percent(check.get("share")),
            asked_text(check),
            verdict_text(verdict_of(check)),
            str(check.get("reason") or ""),
        )
        for check in attest.get("checks") or ()
    )
    columns: tuple[str, ...] = ("share", "found", "asked", "verdict", "reason")
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], tuple(row[:-1] for row in rows)
    return Table(columns, rows, frozenset({1}), frozenset())


def check_name(check: Json) -> str:
    """Return what an attested share is of: "MACs in int8", "weight bytes in fp16"."""
    what, view = str(check.get("what")), str(check.get("view") or "typed ONNX")
    beyond = "" if view == "typed ONNX" else f" ({view})"
    what, kind = _ATTESTED.get(what, what), check.get("type")
    return f"quantized {what}{beyond}" if kind == "quantized" else f"{what} in {kind}{beyond}"


_ATTESTED = {"macs": "MACs", "weights": "weight bytes", "activations": "activation bytes"}


def asked_text(check: Json) -> str:
    """Return the bounds on an attested share: "≥ 80 %"; a type that is asked for must be there."""
    bounds = ((sign, check.get(key)) for sign, key in (("≥", "min"), ("≤", "max")))
    told = [f"{sign} {percent(bound)}" for sign, bound in bounds if bound is not None]
    return ", ".join(told) or "> 0 %"


def contract_table(contract: Json) -> Table:
    """Return the model's inputs and outputs."""
    rows = tuple(
        (kind, str(spec.get("name")), str(spec.get("dtype")), shape(spec.get("dims")))
        for kind, key in (("input", "inputs"), ("output", "outputs"))
        for spec in contract.get(key) or ()
    )
    return Table(("", "name", "type", "shape"), rows, names=frozenset({1}))


def profiles_table(profiles: Sequence[Json]) -> Table:
    """Return the optimization profiles, one row per profile and input."""
    rows = tuple(
        (str(index), str(name), *(_bound(dims, key) for key in ("min", "opt", "max")))
        for index, profile in enumerate(profiles)
        for name, dims in profile.items()
    )
    return Table(("profile", "input", "min", "opt", "max"), rows, names=frozenset({1}))


def _bound(dims: Json, key: str) -> str:
    """A shape, or values that decide shapes."""
    if dims.get("values"):
        return f"values {', '.join(map(str, dims.get(key) or ()))}"
    return shape(dims.get(key))


def targets_table(targets: Sequence[Json]) -> Table:
    """Return the targets and their engines."""
    rows = tuple(
        (
            str(target.get("name")),
            f"{target.get('backend', '-')} {target.get('version') or ''}".strip(),
            _gpus(target),
            size(target.get("engine_bytes")) if target.get("engine_bytes") else "no engine",
            size(target.get("activation_memory_bytes")),
            str(target.get("engine_sha256") or "-").removeprefix("sha256:")[:12],
        )
        for target in targets
    )
    columns = ("target", "backend", "GPUs", "engine", "activations", "sha256")
    return Table(columns, rows, frozenset({3, 4}))


def _gpus(target: Json) -> str:
    named = ", ".join(target.get("compute_capabilities") or ())
    return named or ("library's default" if target.get("engine_bytes") else "-")


def timings_table(timings: Mapping[str, float]) -> Table:
    """Return how long each stage took."""
    rows = tuple((name, seconds(value)) for name, value in timings.items())
    return Table(("stage", "time"), rows, frozenset({1}))
