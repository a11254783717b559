"""`trtforge calib`: calibration caches, trtforge's own and those of other tools."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtforge.cli.console import ProgressLines, common_options, print_json, print_table, say
from trtforge.errors import EXIT_OK, EXIT_PARITY
from trtforge.report.figures import percent

if TYPE_CHECKING:
    from trtforge.pipeline.applying import ApplyResult
    from trtforge.precision.cache_diff import CacheDifference
    from trtforge.precision.cache_lint import Finding

_MOST_ROWS = 20

_CACHE = click.Path(path_type=Path)
_OUTPUT = click.Path(path_type=Path, dir_okay=False)
_METHODS = ("minmax", "average", "percentile", "entropy", "mse")


@click.group()
def calib() -> None:
    """Show, lint, diff, merge, convert and apply calibration caches.

    CACHE may be trtforge's JSON, TensorRT's text (TRT-8601-EntropyCalibration2 ...), ONNX Runtime's
    calibration table (JSON, FlatBuffers or text), Model Optimizer's scales, or an ONNX file with
    Q/DQ. Which it is, is found from its content.
    """


@calib.command()
@click.argument("cache", metavar="CACHE", type=_CACHE)
@click.option(
    "--sort",
    type=click.Choice(("cache", "name", "amax", "clipped")),
    default="cache",
    show_default=True,
    help="The order: the cache's own, by name, or the largest first.",
)
@click.option("--filter", "pattern", default="*", metavar="GLOB", help="Only these tensors.")
@common_options
def show(cache: Path, sort: str, pattern: str, as_json: bool, quiet: bool, verbose: bool) -> None:
    """List a cache's tensors: min, max, amax, scale, and the share of values beyond amax.

    -q shows the table alone, -v also data, versions and digests.
    """
    from trtforge.pipeline.calib import show_cache
    from trtforge.precision.foreign import what_is

    shown = show_cache(cache, sort, pattern)
    if as_json:
        print_json("trtforge.calib-show/1", shown.as_json())
        return
    facts = shown.as_json()
    if not quiet:
        say(f"{what_is(shown.format)}: {facts['tensors']} tensors")
        facts["samples"] = facts["samples"] or "not known"
        for key in ("origin", "method", "grid", "options", "samples", "warnings"):
            _fact(key, facts[key])
        if verbose:
            for key in ("graph_digest", "data", "versions", "weight_scales"):
                _fact(key, facts[key])
    print_table(
        ("tensor", "min", "max", "amax", "scale", "clipped"),
        [
            (
                row["tensor"],
                *(_number(row[key]) for key in ("min", "max", "amax", "scale")),
                "-" if row["clipped"] is None else percent(row["clipped"]),
            )
            for row in shown.rows
        ],
    )


@calib.command()
@click.argument("cache", metavar="CACHE", type=_CACHE)
@click.argument("model", metavar="[MODEL]", required=False, type=_CACHE)
@click.option("--strict", is_flag=True, help="Exit 5 for warnings, too.")
@click.option(
    "--list-rules",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: _list_rules(ctx) if wanted else None,
    help="List the rules and exit.",
)
@common_options
def lint(
    cache: Path, model: Path | None, strict: bool, as_json: bool, quiet: bool, verbose: bool
) -> int:
    """Say what is suspicious in a cache; with MODEL also which names and ranges do not fit it.

    Exit 0 without errors, 5 with one. -q shows errors and warnings alone, -v every note.
    """
    from trtforge.pipeline.calib import lint_file
    from trtforge.precision.foreign import what_is

    result = lint_file(cache, model)
    if as_json:
        print_json("trtforge.calib-lint/1", result.as_json())
    else:
        most = None if verbose else _MOST_ROWS
        _say_findings(result.findings, most, notes=verbose)
        counts = Counter(finding.severity for finding in result.findings)
        said = ", ".join(f"{counts[kind]} {kind}s" for kind in ("error", "warning", "note"))
        if not quiet:
            say(f"{what_is(result.format)}, {result.tensors} tensors: {said}")
    return EXIT_PARITY if result.failed(strict=strict) else EXIT_OK


@calib.command()
@click.argument("before", metavar="A", type=_CACHE)
@click.argument("after", metavar="B", type=_CACHE)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=1e-6,
    show_default=True,
    metavar="T",
    help="Ranges whose ratio is within 1 +- T are the same.",
)
@click.option("--all", "show_all", is_flag=True, help=f"Show everything, not {_MOST_ROWS} rows.")
@click.option("--exit-code", is_flag=True, help="Exit 5 when they differ, 0 when they do not.")
@common_options
def diff(
    before: Path,
    after: Path,
    tolerance: float,
    show_all: bool,
    exit_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Show what changed from cache A to cache B, the largest change of a range first.

    They may be of different formats. -q shows the totals alone.
    """
    from trtforge.pipeline.calib import diff_files

    found = diff_files(before, after, tolerance)
    if as_json:
        document = {"before": str(before), "after": str(after), "identical": found.identical}
        print_json("trtforge.calib-diff/1", {**document, **found.as_json()})
    else:
        _say_difference(found, None if show_all or verbose else _MOST_ROWS, quiet=quiet)
    return EXIT_PARITY if exit_code and not found.identical else EXIT_OK


@calib.command()
@click.argument("shards", metavar="SHARD...", nargs=-1, required=True, type=_CACHE)
@click.option("-o", "--out", required=True, metavar="OUT.json", type=_OUTPUT)
@common_options
def merge(shards: tuple[Path, ...], out: Path, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Put caches of different samples together: bit for bit what one run would have given."""
    del verbose
    from trtforge.pipeline.calib import merge_files

    merged = merge_files(shards, out)
    if as_json:
        facts = {"samples": merged.samples, "tensors": len(merged.ranges), "method": merged.method}
        print_json("trtforge.calib-merge/1", {"output": str(out), **facts})
        return
    if not quiet:
        say(f"{len(merged.ranges)} tensors over {merged.samples} samples, {merged.method}")
    click.echo(str(out))


@calib.command()
@click.argument("cache", metavar="CACHE", type=_CACHE)
@click.option("-o", "--out", required=True, metavar="OUT", type=_OUTPUT)
@click.option(
    "--to",
    "target",
    type=click.Choice(("trtforge", "tensorrt", "onnxruntime", "modelopt")),
    help="Default: tensorrt for .calib, .cache and .txt, onnxruntime for .flatbuffers, else"
    " trtforge. For onnxruntime .json and .flatbuffers choose the form, else it is text.",
)
@click.option(
    "--method", type=click.Choice(_METHODS), help="Derive the ranges anew, from histograms."
)
@click.option(
    "--percentile",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="P",
    help="Of method percentile; default 99.99.",
)
@click.option("--trt-version", metavar="V", help="Whose header to write, such as 8.6.1 or 10.3.0.")
@common_options
def convert(
    cache: Path, out: Path, as_json: bool, quiet: bool, verbose: bool, **asked: Any
) -> None:
    """Write a cache in another format, or with another method's ranges."""
    from trtforge.pipeline.calib import ConvertOptions, convert_file

    if asked["percentile"] is not None and asked["method"] != "percentile":
        raise click.UsageError("--percentile is for --method percentile")
    del verbose
    written, found = convert_file(cache, out, ConvertOptions(**asked))
    if as_json:
        facts = {"format": written, "tensors": len(found.ranges), "method": found.method}
        document = {"output": str(out), **facts, "warnings": list(found.warnings)}
        print_json("trtforge.calib-convert/1", document)
        return
    for text in found.warnings:
        say(f"warning: {text}", err=True)
    if not quiet:
        say(f"{len(found.ranges)} tensors, {found.method}, as {written}")
    click.echo(str(out))


@calib.command()
@click.argument("cache", metavar="CACHE", type=_CACHE)
@click.argument("model", metavar="MODEL", type=_CACHE)
@click.option("-o", "--out", required=True, metavar="OUT.onnx", type=_OUTPUT)
@click.option(
    "--quantize",
    type=click.Choice(("int8", "fp8")),
    default="int8",
    show_default=True,
    help="What weights and activations become.",
)
@click.option(
    "--type",
    type=click.Choice(("fp32", "fp16", "bf16")),
    default="fp32",
    show_default=True,
    help="The type of everything else.",
)
@click.option("--keep", multiple=True, metavar="RULE", help="Leave nodes: op=Softmax, name='/h/*'.")
@click.option("--strict", is_flag=True, help="Refuse tensors without a range, and absurd ranges.")
@click.option("--allow-stale", is_flag=True, help="Take a cache of another graph.")
@click.option("--no-optimize", is_flag=True, help="Leave the graph as it is otherwise.")
@click.option(
    "--cache",
    "ranges",
    metavar="FILE",
    type=_OUTPUT,
    help="Also write the ranges as trtforge's cache, under MODEL's names.",
)
@common_options
def apply(
    cache: Path,
    model: Path,
    out: Path,
    ranges: Path | None,
    strict: bool,
    no_optimize: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **asked: Any,
) -> None:
    """Quantize MODEL with the ranges of a cache, whichever tool measured them. Writes OUT.onnx.

    Says which tensors were found under which names; what has no range stays a float, by name.
    """
    from trtforge.pipeline.applying import ApplyOptions, apply_file
    from trtforge.pipeline.settings import Asked

    show = ProgressLines(quiet=quiet or as_json, verbose=verbose)
    options = ApplyOptions(Asked(reuse=cache, **asked), strict, not no_optimize, ranges)
    try:
        result = apply_file(cache, model, out, options, show)
    finally:
        show.done()
    if as_json:
        print_json("trtforge.calib-apply/1", result.as_json())
        return
    if not quiet:
        _say_applied(result, None if verbose else _MOST_ROWS)
    click.echo(str(out))


def _list_rules(ctx: click.Context) -> None:
    from trtforge.precision.cache_lint import RULES

    print_table(("rule", "severity", "what it means"),
                [(slug, severity, text) for slug, (severity, text) in RULES.items()])  # fmt: skip
    ctx.exit()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _fact(key: str, value: Any) -> None:
    if not value:
        return
    if isinstance(value, dict):
        value = ", ".join(f"{name} {text}" for name, text in value.items())
    lines = value if isinstance(value, list) else [value]
    for line in lines:
        say(f"{key.replace('_', ' ')}: {line}")


def _say_findings(findings: "Sequence[Finding]", most: int | None, *, notes: bool) -> None:
    """One line per finding, at most so many of a rule."""
    said: Counter[str] = Counter()
    total = Counter(finding.slug for finding in findings)
    for finding in findings:
        if finding.severity == "note" and not notes:
            continue
        said[finding.slug] += 1
        if most is None or said[finding.slug] <= most:
            at = f"line {finding.line}: " if finding.line is not None else ""
            say(f"{finding.severity}[{finding.slug}]: {at}{finding.message}")
        elif said[finding.slug] == total[finding.slug]:
            say(f"  ... and {total[finding.slug] - most} more {finding.slug}")


def _say_difference(found: "CacheDifference", most: int | None, *, quiet: bool) -> None:
    if found.identical:
        say("no differences")
        return
    counts = f"{len(found.removed)} removed, {len(found.added)} added, {len(found.changed)} changed"
    if quiet:
        say(f"{counts}, {found.same} the same")
        return
    for what, (before, after) in found.facts.items():
        say(f"{what.replace('_', ' ')}: {_short(before)} -> {_short(after)}")
    for mark, names in (("-", found.removed), ("+", found.added)):
        for name in names[:most]:
            say(f"  {mark} {name}")
        _say_rest(len(names), most)
    if found.changed:
        rows = [
            (change.name, f"{change.before:.6g}", f"{change.after:.6g}", f"{change.ratio:.4g}")
            for change in found.changed[:most]
        ]
        print_table(("tensor", "amax of A", "amax of B", "ratio"), rows)
        _say_rest(len(found.changed), most)
    say(f"{counts}, {found.same} the same")


def _say_rest(count: int, most: int | None) -> None:
    if most is not None and count > most:
        say(f"  ... and {count - most} more")


def _short(value: Any) -> str:
    text = str(value) if value not in ("", {}) else "none"
    return text if len(text) <= 60 else f"{text[:59]}…"


def _say_applied(result: "ApplyResult", most: int | None) -> None:
    applied = result.applied
    matching = applied.matching
    ways = Counter(match.how for match in matching.matches)
    how = ", ".join(f"{count} by {way}" for way, count in ways.items())
    total = len(matching.matches) + len(matching.missing)
    say(f"ranges: {len(matching.matches)} of {total} tensors{f' ({how})' if how else ''}")
    others = [match for match in matching.matches if match.how != "name"]
    for match in others[:most]:
        say(f"  {match}")
    _say_rest(len(others), most)
    for one in applied.left[:most]:
        say(f"left a float: {one.op} '{one.node}': {one.reason}")
    _say_rest(len(applied.left), most)
    unused = Counter(one.slug for one in matching.unused)
    if unused:
        why = ", ".join(f"{count} {slug}" for slug, count in unused.items())
        say(f"not used: {len(matching.unused)} ranges ({why})")
    for finding in result.suspicious[:most]:
        say(f"suspicious[{finding.slug}]: {finding.message}")
    _say_rest(len(result.suspicious), most)
    decisions = applied.typed.quantize.decisions
    done = sum(one.action == "quantized" for one in decisions)
    say(f"quantized: {done} of {len(decisions)} places")
