"""What is suspicious in a calibration cache, found without a model and without data.

Each rule has a slug under which its findings are reported; the table RULES says what they mean.
`cache_match.py` adds what a model tells.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from trtforge.precision.cache import CalibrationCache
from trtforge.precision.foreign.content import Content
from trtforge.precision.ranges import TensorRange
from trtforge.precision.trt_text import ALGORITHMS, TrtLine, header_line, scan_trt_text

Severity = Literal["error", "warning", "note"]

RULES: dict[str, tuple[Severity, str]] = {
    "header-malformed": ("error", "the first line is not TRT-<version>-<algorithm>"),
    "header-formula": ("error", "the version's digits follow the formula of TensorRT 9 and older"),
    "header-version": ("warning", "the version's digits are those of no TensorRT"),
    "header-algorithm": ("warning", "no calibrator of TensorRT has this name"),
    "malformed-line": ("error", "a line is not `<tensor>: <hex of a float32>`"),
    "duplicate-name": ("error", "a tensor stands twice"),
    "not-finite": ("error", "a scale is NaN or infinite"),
    "negative-scale": ("error", "a scale is negative"),
    "truncated": ("error", "the file ends in the middle of a line"),
    "no-tensors": ("error", "there is not one range"),
    "unpadded-hex": ("warning", "hex has fewer than 8 digits, which some readers refuse"),
    "zero-scale": ("warning", "calibration saw nothing but zeros: the tensor is dead"),
    "scale-is-amax": ("error", "the scale was written without dividing by 127"),
    "beyond-bound": ("warning", "the range is larger than the operator's results can be"),
    "beyond-observed": ("error", "the range is larger than anything observed"),
    "outlier": ("warning", "the range is more than 1000 times the median range"),
    "ranges-alike": ("warning", "all ranges are the same: placeholders rather than measurements"),
    "few-samples": ("warning", "fewer than 32 samples were seen"),
    "synthetic-data": ("warning", "the samples were made up"),
    "constant-tensor": ("warning", "the tensor never changed"),
    "heavy-clipping": ("warning", "more than 1 % of a tensor's values are clipped"),
    "said-by-cache": ("warning", "what the tool that wrote the cache, or its reader, said"),
    "stale-graph": ("error", "the cache was measured on another graph"),
    "another-model": ("error", "not one tensor of the model has a range"),
    "no-range": ("warning", "a tensor that INT8 needs has no range"),
    "derived-range": ("note", "a tensor's range is that of another one with the same values"),
    "name-unknown": ("warning", "the model has no such tensor"),
    "unnamed-layer": ("note", "TensorRT's own name of a layer that ONNX had no name for"),
    "fused-away": ("note", "the tensor disappears when the graph is cleaned up"),
    "not-needed": ("note", "the tensor is in the graph, but not quantized"),
}
"""Slug -> how bad it is, and what it means."""

FEW_SAMPLES = 32
MOST_CLIPPED = 0.01
FAR_OUT = 1000.0

_LOWEST_TEN = 100_000
_HEADER = re.compile(r"TRT-(\w+)-(\w+)", re.ASCII)
_BOUNDED = re.compile(
    r"(?:.*/)?(softmax|sigmoid|tanh)(?:_\d+)?(?:_output(?:_\d+)?)?(?::\d+)?", re.I
)
"""Names of results of functions whose magnitudes are at most 1: Sigmoid_output_0, softmax_2:0."""

_TOLERANCE = 1.05
"""Calibrators round amax to the edge of a histogram's bin."""


@dataclass(frozen=True)
class Finding:
    """One thing that is suspicious.

    Attributes:
        slug: a key of RULES.
        message: what was found, with names and numbers.
        tensor: the tensor concerned, "" for the cache as a whole.
        line: where in a text file; None elsewhere.
    """

    slug: str
    message: str
    tensor: str = ""
    line: int | None = None

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return RULES[self.slug][0]

    def as_json(self) -> dict[str, Any]:
        """Return the finding as plain JSON data."""
        return {
            "severity": self.severity,
            "rule": self.slug,
            "message": self.message,
            "tensor": self.tensor,
            "line": self.line,
        }


def lint_text(content: Content) -> tuple[Finding, ...]:
    """Judge a TensorRT table line by line, malformed ones included.

    Args:
        content: what begins with `TRT-` and is text.
    """
    text = content.text or ""
    lines = list(scan_trt_text(text))
    return (
        *lint_header(header_line(text)),
        *_truncated(text, lines),
        *(finding for line in lines for finding in _line_findings(line)),
        *_duplicates(lines),
    )


def lint_header(header: str) -> Iterator[Finding]:
    """Judge the first line of a TensorRT table."""
    match = _HEADER.fullmatch(header)
    if match is None:
        yield Finding(
            "header-malformed", f"'{header[:80]}' is not TRT-<version>-<algorithm>", "", 1
        )
        return
    digits, algorithm = match.groups()
    if not digits.isdigit():
        yield Finding("header-version", f"'{digits}' is not a number (Paddle writes 8XXX)", "", 1)
    elif 10_000 <= int(digits) < _LOWEST_TEN:
        major, rest = divmod(int(digits), 1000)
        minor, patch = divmod(rest, 100)
        right = major * 10_000 + rest
        yield Finding(
            "header-formula",
            f"TRT-{digits} would be TensorRT {major}.{minor}.{patch}, which writes TRT-{right} and "
            f"refuses this file (TAO's formula); TensorRT 10 counts major * 10000",
            "",
            1,
        )
    elif int(digits) < 2000:
        yield Finding("header-version", f"TRT-{digits} is older than any calibrator", "", 1)
    if algorithm not in ALGORITHMS:
        yield Finding("header-algorithm", f"TensorRT has no calibrator '{algorithm}'", "", 1)


def lint_cache(cache: CalibrationCache) -> tuple[Finding, ...]:
    """Judge the ranges and the provenance of a cache."""
    return tuple(_cache_findings(cache))


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The gravest severity that occurs; None without findings."""
    found = {finding.severity for finding in findings}
    return next((severity for severity in ("error", "warning", "note") if severity in found), None)


def clipped_share(found: TensorRange) -> float | None:
    """The share 0..1 of a tensor's values whose magnitude exceeds amax; None: not known.

    Bins that amax lies in are not counted, so it is a lower bound, off by one bin at most.
    """
    if found.amax >= found.observed_amax and found.runs:
        return 0.0
    if found.histogram is None:
        return None
    histogram = found.histogram.restore()
    total = int(histogram.counts.sum())
    first = math.ceil(found.amax / histogram.width)
    return int(histogram.counts[first:].sum()) / total if total else 0.0


def beyond(name: str, amax: float, bound: float, why: str) -> Finding | None:
    """Judge a range against the largest magnitude that its tensor can have.

    Args:
        name: the tensor.
        amax: its range.
        bound: > 0.
        why: where the bound comes from.
    """
    if amax <= bound * _TOLERANCE:
        return None
    if amax / 127 <= bound * _TOLERANCE and amax > bound * 8:
        return Finding(
            "scale-is-amax",
            f"amax of '{name}' would be {amax:g}, but {why} gives at most {bound:g}: its scale "
            f"{amax / 127:g} is an amax that was not divided by 127",
            name,
        )
    message = f"amax of '{name}' is {amax:g}, but {why} gives at most {bound:g}"
    return Finding("beyond-bound", message, name)


def _truncated(text: str, lines: list[TrtLine]) -> Iterator[Finding]:
    if text.endswith("\n") or not lines:
        return
    last = lines[-1]
    if last.scale is None or len(last.digits) < 8:
        message = f"the last line, '{last.text[-60:]}', has no end: the file was cut off"
        yield Finding("truncated", message, last.name, last.number)


def _line_findings(line: TrtLine) -> Iterator[Finding]:
    if line.scale is None:
        message = f"'{line.text[:80]}' is not '<tensor>: <hex of a float32>'"
        yield Finding("malformed-line", message, "", line.number)
        return
    name = line.name
    if not math.isfinite(line.scale):
        message = f"the scale of '{name}', 0x{line.digits}, is {line.scale}"
        yield Finding("not-finite", message, name, line.number)
    elif line.scale < 0:
        message = f"the scale of '{name}', 0x{line.digits}, is {line.scale:g}"
        yield Finding("negative-scale", message, name, line.number)
    if len(line.digits) < 8:
        message = f"the hex of '{name}' is '{line.digits}' and not '{line.digits.zfill(8)}'"
        yield Finding("unpadded-hex", message, name, line.number)


def _duplicates(lines: Iterable[TrtLine]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for line in lines:
        if line.scale is not None and line.name in first:
            message = f"'{line.name}' stands in line {first[line.name]} already"
            yield Finding("duplicate-name", message, line.name, line.number)
        first.setdefault(line.name, line.number)


def _cache_findings(cache: CalibrationCache) -> Iterator[Finding]:
    if not cache.ranges:
        yield Finding("no-tensors", "the cache has no tensors")
        return
    yield from (Finding("said-by-cache", text) for text in cache.warnings if not _ours(text))
    yield from _provenance(cache)
    for name, found in cache.ranges.items():
        yield from _range_findings(name, found, is_measured=cache.samples > 0)
    yield from _comparison(cache.ranges)


def _ours(warning: str) -> bool:
    """Whether a rule says the same as a warning of trtforge's calibration."""
    return warning.endswith("is the data representative?") or "synthetic samples" in warning


def _provenance(cache: CalibrationCache) -> Iterator[Finding]:
    if 0 < cache.samples < FEW_SAMPLES:
        yield Finding("few-samples", f"{cache.samples} samples were seen")
    if cache.is_synthetic:
        yield Finding("synthetic-data", "the ranges come from samples that were made up")


def _range_findings(name: str, found: TensorRange, *, is_measured: bool) -> Iterator[Finding]:
    if found.amax == 0:
        yield Finding("zero-scale", f"the range of '{name}' is 0", name)
        return
    if is_measured and found.amax > found.observed_amax * (1 + 2**-20):
        observed = f"{found.amax:g}, and {found.observed_amax:g} is all that was observed"
        yield Finding("beyond-observed", f"amax of '{name}' is {observed}", name)
    if is_measured and found.min == found.max:
        yield Finding("constant-tensor", f"'{name}' was {found.min:g} throughout", name)
    share = clipped_share(found)
    if share is not None and share > MOST_CLIPPED:
        message = f"{share:.1%} of the values of '{name}' are above its amax {found.amax:g}"
        yield Finding("heavy-clipping", message, name)
    bounded = _BOUNDED.fullmatch(name)
    if bounded is not None:
        finding = beyond(name, found.amax, 1.0, f"'{bounded[1]}' in its name")
        if finding is not None:
            yield finding


def _comparison(ranges: Mapping[str, TensorRange]) -> Iterator[Finding]:
    magnitudes = {name: found.amax for name, found in ranges.items() if found.amax > 0}
    if len(magnitudes) < 4:
        return
    value, count = Counter(magnitudes.values()).most_common(1)[0]
    if count == len(magnitudes):
        yield Finding("ranges-alike", f"amax is {value:g} in all {count} tensors")
        return
    middle = median(magnitudes.values())
    for name, amax in magnitudes.items():
        if amax > middle * FAR_OUT:
            message = f"amax of '{name}' is {amax:g}; the median of all is {middle:g}"
            yield Finding("outlier", message, name)
