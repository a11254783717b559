"""What `trtforge calib apply` does: a calibration cache of any tool onto an ONNX file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.disk import check_outputs
from trtforge.errors import DataError, GraphError, Place, Problem
from trtforge.pipeline.events import Sink, Warned, ignore
from trtforge.pipeline.quantizing import QuantizeOptions, clean
from trtforge.pipeline.settings import Asked, sections
from trtforge.pipeline.steps import Steps, files_read
from trtforge.precision.cache_lint import Finding, lint_cache
from trtforge.precision.foreign import read_any

if TYPE_CHECKING:
    from trtforge.graph.model import Model
    from trtforge.precision.apply_cache import Applied
    from trtforge.precision.cache import CalibrationCache

_ABOUT_FIT = ("no-range", "another-model", "derived-range", "stale-graph")
"""Findings that `apply` reports in its own words."""


@dataclass(frozen=True)
class ApplyOptions:
    """How a cache is put onto a model.

    Attributes:
        asked: precision; its `reuse` is the cache.
        strict: a tensor without a range, or a range that cannot be right, is an error.
        optimize: clean up and fuse the graph first.
        cache: where to write the ranges under the model's names; None for nowhere.
    """

    asked: Asked
    strict: bool = False
    optimize: bool = True
    cache: Path | None = None


@dataclass(frozen=True)
class ApplyResult:
    """What became of a model and a cache.

    Attributes:
        output: the file written.
        format: of the cache, a key of `foreign.FORMATS`.
        applied: the model, and which range went where.
        suspicious: findings about the ranges that were taken.
        seconds: wall time of each step.
    """

    output: Path
    format: str
    applied: "Applied"
    suspicious: tuple[Finding, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        cache = self.applied.cache
        return {
            "output": str(self.output),
            "format": self.format,
            "origin": cache.origin,
            "method": cache.method,
            **self.applied.matching.as_json(),
            "left": [
                {"node": one.node, "op": one.op, "tensor": one.tensor} for one in self.applied.left
            ],
            "suspicious": [finding.as_json() for finding in self.suspicious],
            **self.applied.typed.as_json(),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def apply_file(
    source: Path, model: Path, out: Path, options: ApplyOptions, emit: Sink = ignore
) -> ApplyResult:
    """Quantize an ONNX file with the ranges of a cache.

    Args:
        source: the cache, of any format.
        model: the ONNX file, FP32.
        out: the file to write, whole or not at all; weights may go to a file beside it.
        options: types, and what is refused.
        emit: told what happens.

    Raises:
        DataError: the cache cannot be read, or is stale (TF0529).
        GraphError: the model is refused; not one tensor has a range (TF0558); strict, and
            something is missing or cannot be right (TF0555).
        RecipeError, UsageError: an option is wrong.
        MissingError: the output cannot be written.
    """
    precision, _ = sections(options.asked)
    check_outputs([out, options.cache], (*files_read(options.asked, model), source))
    from trtforge.graph.model import Model
    from trtforge.precision.apply_cache import apply_cache

    steps = Steps(emit)
    name, cache = read_any(source)
    original = Model.load(model)
    with steps.step("optimize"):
        cleaned = clean(original, QuantizeOptions(options.asked, options.optimize), steps).model
    _refuse_stale(cache, (cleaned, original), source, options, emit)
    with steps.step("quantize"):
        applied = apply_cache(cache, cleaned, precision, original)
        suspicious = _suspicious(cache, applied, cleaned, original)
        _refuse(applied, suspicious, source, strict=options.strict)
        applied.typed.model.save(out)
        if options.cache is not None:
            applied.cache.save(options.cache)
    for text in applied.typed.warnings:
        emit(Warned(text))
    return ApplyResult(out, name, applied, suspicious, steps.seconds)


def _refuse_stale(
    cache: "CalibrationCache",
    models: tuple["Model", "Model"],
    source: Path,
    options: ApplyOptions,
    emit: Sink,
) -> None:
    reasons = [cache.staleness(model.digest(), ()) for model in models]
    if not all(reasons):
        return
    why = "; ".join(reasons[0])
    if options.asked.allow_stale:
        emit(Warned(f"the calibration cache '{source.name}' is stale: {why}"))
        return
    raise DataError(
        "TF0529",
        f"the calibration cache '{source.name}' is stale: {why}",
        "calibrate again, or take it all the same with --allow-stale",
        Place(str(source)),
    )


def _suspicious(
    cache: "CalibrationCache", applied: "Applied", model: "Model", original: "Model"
) -> tuple[Finding, ...]:
    """What is wrong with the ranges that were taken, errors first."""
    from trtforge.precision.model_lint import lint_model

    taken = {source for match in applied.matching.matches for source in match.sources}
    found = (*lint_cache(cache), *lint_model(cache, applied.matching, model, original))
    kept = [
        one
        for one in dict.fromkeys(found)
        if one.severity != "note" and one.slug not in _ABOUT_FIT and one.tensor in taken
    ]
    return tuple(sorted(kept, key=lambda one: one.severity != "error"))


def _refuse(
    applied: "Applied", suspicious: tuple[Finding, ...], source: Path, *, strict: bool
) -> None:
    matching = applied.matching
    if matching.missing and not matching.matches:
        raise GraphError(
            "TF0558",
            f"'{source.name}' has a range for none of the model's {len(matching.missing)} tensors",
            f"it belongs to another model; the model needs '{matching.missing[0]}', the cache has "
            f"{_example(applied)}",
            Place(str(source)),
        )
    if not strict:
        return
    problems = [
        Problem(
            "TF0555",
            f"'{name}' has no range",
            "calibrate the model, or leave --strict out: its readers stay floats then",
            Place(str(source), node=name),
        )
        for name in matching.missing
    ]
    problems += [
        Problem("TF0555", one.message, "calibrate again", Place(str(source), node=one.tensor))
        for one in suspicious
        if one.severity == "error"
    ]
    if problems:
        raise GraphError.of(problems)


def _example(applied: "Applied") -> str:
    unused = applied.matching.unused
    return f"'{unused[0].name}'" if unused else "nothing"
