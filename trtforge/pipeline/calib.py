"""What `trtforge calib` does with calibration caches alone: show, lint, diff, merge, convert."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.disk import check_outputs, write_bytes
from trtforge.errors import UsageError
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.cache_diff import CacheDifference, diff_caches
from trtforge.precision.cache_lint import (
    Finding,
    clipped_share,
    lint_cache,
    lint_header,
    lint_text,
    worst,
)
from trtforge.precision.foreign import FORMATS, detect, dump, read_any, read_detected
from trtforge.precision.foreign.content import read_content
from trtforge.precision.foreign.tensorrt import read_sound_lines
from trtforge.precision.ranges import TensorRange
from trtforge.precision.scales import LARGEST

if TYPE_CHECKING:
    from trtforge.graph.model import Model

SORTS = ("name", "amax", "clipped", "cache")

TARGETS = ("trtforge", "tensorrt", "onnxruntime", "modelopt")
"""What `calib convert` writes; the form of ONNX Runtime's follows from the output's name."""

_TARGET_OF_SUFFIX = {
    ".json": "trtforge",
    ".flatbuffers": "onnxruntime",
    ".calib": "tensorrt",
    ".cache": "tensorrt",
    ".txt": "tensorrt",
}


_LONG = {"ranges", "schema_name", "reshaping", "bias_shifts"}


@dataclass(frozen=True)
class Shown:
    """A calibration cache as a table.

    Attributes:
        format: a key of `foreign.FORMATS`.
        cache: the whole cache.
        rows: of the tensors that were asked for: name, min, max, amax, scale, clipped (share of
            the values beyond amax); None: not known.
    """

    format: str
    cache: CalibrationCache
    rows: tuple[dict[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data; histograms and vectors are left out."""
        cache = self.cache
        return {
            "format": self.format,
            **cache.model_dump(mode="json", by_alias=True, exclude=_LONG),
            "reshaping": {one.technique: len(one.groups) for one in cache.reshaping},
            "bias_shifts": len(cache.bias_shifts),
            "tensors": len(cache.ranges),
            "ranges": list(self.rows),
        }


@dataclass(frozen=True)
class LintResult:
    """What is suspicious in a cache.

    Attributes:
        path: the cache.
        format: a key of `foreign.FORMATS`.
        tensors: how many ranges it has.
        findings: the gravest first.
    """

    path: Path
    format: str
    tensors: int
    findings: tuple[Finding, ...]

    def failed(self, *, strict: bool) -> bool:
        """Whether there is an error, or, if strict, a warning."""
        return worst(self.findings) in (("error", "warning") if strict else ("error",))

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "path": str(self.path),
            "format": self.format,
            "tensors": self.tensors,
            "worst": worst(self.findings),
            "findings": [finding.as_json() for finding in self.findings],
        }


@dataclass(frozen=True)
class ConvertOptions:
    """How a cache is written.

    Attributes:
        target: one of TARGETS; None: what the output's name says, else trtforge.
        method: another calibration method to derive the ranges with; None: they stay.
        percentile: of method percentile.
        trt_version: the TensorRT whose header is written; None: the one it came with, or 10.3.0.
    """

    target: str | None = None
    method: str | None = None
    percentile: float | None = None
    trt_version: str | None = None


def show_cache(path: Path, sort: str = "cache", pattern: str = "*") -> Shown:
    """Read a cache of any format and put its tensors into a table.

    Args:
        path: the cache.
        sort: one of SORTS; amax and clipped put the largest first.
        pattern: glob on names.

    Raises:
        DataError, GraphError: it cannot be read.
    """
    name, cache = read_any(path)
    largest = LARGEST.get(cache.grid, LARGEST["int8"])
    rows: list[dict[str, Any]] = [
        {
            "tensor": tensor,
            "min": found.min if _is_observed(found) else None,
            "max": found.max if _is_observed(found) else None,
            "amax": found.amax,
            "scale": found.amax / largest,
            "clipped": clipped_share(found),
        }
        for tensor, found in cache.ranges.items()
        if fnmatchcase(tensor, pattern)
    ]
    if sort == "name":
        rows.sort(key=lambda row: row["tensor"])
    elif sort != "cache":
        rows.sort(key=lambda row: -1.0 if row[sort] is None else row[sort], reverse=True)
    return Shown(name, cache, tuple(rows))


def _is_observed(found: TensorRange) -> bool:
    """Whether min and max are more than the two ends of a scale."""
    return found.runs > 0 or not -found.min == found.max == found.amax


def lint_file(path: Path, model: Path | None = None) -> LintResult:
    """Judge a cache of any format.

    Args:
        path: the cache.
        model: the ONNX file that it is for; None: names are not judged.

    Raises:
        DataError, GraphError: the cache or the model cannot be read. What is wrong with single
            lines of TensorRT's text is a finding and not an error.
    """
    content = read_content(path)
    name = detect(content)
    findings: list[Finding] = []
    if name == "tensorrt":
        findings += lint_text(content)
        cache = read_sound_lines(content)
    else:
        cache = read_detected(name, content)
        if cache.origin.startswith("TRT-"):
            findings += lint_header(cache.origin)
    findings += lint_cache(cache)
    if model is not None:
        findings += _against_model(cache, model)
    order = ("error", "warning", "note")
    unique = sorted(dict.fromkeys(findings), key=lambda one: order.index(one.severity))
    return LintResult(path, name, len(cache.ranges), tuple(unique))


def diff_files(before: Path, after: Path, tolerance: float) -> CacheDifference:
    """Compare two caches of any formats; see `cache_diff.diff_caches`."""
    return diff_caches(read_any(before)[1], read_any(after)[1], tolerance)


def merge_files(shards: Sequence[Path], out: Path) -> CalibrationCache:
    """Put together what was measured on different samples; see `merging.merge`.

    Raises:
        DataError: a cache cannot be read, or they do not belong together (TF0527).
        MissingError: the output cannot be written.
    """
    from trtforge.precision.merging import merge

    check_outputs([out], shards)
    merged = merge([read_any(shard)[1] for shard in shards])
    merged.save(out)
    return merged


def convert_file(source: Path, out: Path, options: ConvertOptions) -> tuple[str, CalibrationCache]:
    """Read a cache of any format and write it in another.

    Returns:
        The format written, a key of `foreign.FORMATS`, and the ranges; their warnings say what
        the format cannot.

    Raises:
        DataError: it cannot be read, does not hold what the method needs (TF0528), or a name
            cannot stand in the other format.
        UsageError: the method or the version is none, or an option does not belong here.
        MissingError: the output cannot be written.
    """
    check_outputs([out], [source])
    target = options.target or _TARGET_OF_SUFFIX.get(out.suffix.lower(), "trtforge")
    if options.trt_version is not None and target not in ("tensorrt", "modelopt"):
        raise UsageError(
            "TF0557", f"--trt-version has no meaning for {target}", "it is for --to tensorrt"
        )
    _, cache = read_any(source)
    if options.method is not None:
        cache = _rederived(cache, options.method, options.percentile)
    written = _written_form(target, out)
    write_bytes(out, dump(cache, written, _header(cache, options.trt_version)))
    return written, cache if target == "trtforge" else _without_graph(cache)


def _without_graph(cache: CalibrationCache) -> CalibrationCache:
    """Warn of a cache whose ranges are not those of the user's model: no other format says so."""
    if not cache.reshaping:
        return cache
    names = " and ".join(one.technique for one in cache.reshaping)
    warning = (
        f"the ranges are those of the graph as {names} reshaped it: do not use them with another. "
        "Tensors have the same names in both; `techniques: none` measures the model itself"
    )
    return cache.model_copy(update={"warnings": (*cache.warnings, warning)})


def _rederived(cache: CalibrationCache, method: str, percentile: float | None) -> CalibrationCache:
    from trtforge.precision.merging import rederive

    try:
        return rederive(cache, method, {} if percentile is None else {"percentile": percentile})
    except ValueError as error:
        raise UsageError("TF0557", str(error), "see `trtforge calib convert --help`") from error


def _header(cache: CalibrationCache, version: str | None) -> str | None:
    """The header of a TensorRT table; a table that stays one keeps its own."""
    from trtforge.precision.trt_text import algorithm_of, header_of

    if version is not None:
        return header_of(algorithm_of(cache.method), version)
    kept = cache.origin.startswith("TRT-") and cache.origin.endswith(f"-{cache.method}")
    return cache.origin if kept else None


def _written_form(target: str, out: Path) -> str:
    if target != "onnxruntime":
        return target
    suffix = out.suffix.lower()
    form = {".json": "json", ".flatbuffers": "flatbuffers"}.get(suffix, "text")
    assert f"onnxruntime-{form}" in FORMATS
    return f"onnxruntime-{form}"


def _against_model(cache: CalibrationCache, path: Path) -> tuple[Finding, ...]:
    from trtforge.graph.model import Model
    from trtforge.precision.cache_match import match_ranges
    from trtforge.precision.model_lint import lint_model
    from trtforge.precision.quantize import candidate_tensors
    from trtforge.recipe.schema import Precision

    original = Model.load(path)
    model = cleaned_for_ranges(original)
    needed = candidate_tensors(model, Precision(quantize="int8"))
    return lint_model(cache, match_ranges(cache, needed, model, original), model, original)


def cleaned_for_ranges(original: "Model") -> "Model":
    """The graph whose tensors `calibrate`, `quantize` and `build` measure by default."""
    from trtforge.pipeline.quantizing import QuantizeOptions, clean
    from trtforge.pipeline.steps import Steps

    return clean(original, QuantizeOptions(), Steps()).model
