"""`trtforge quantize`: one ONNX file in, a quantized one out."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtforge.cli.console import ProgressLines, common_options, print_json, print_table, say
from trtforge.cli.measuring_options import calibration_options, precision_options
from trtforge.report.figures import percent, size

if TYPE_CHECKING:
    from trtforge.pipeline.quantizing import QuantizeResult

_NAME = re.compile(r"'[^']*'")


@click.command()
@click.argument("source", metavar="MODEL", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="OUT.onnx",
    type=click.Path(path_type=Path, dir_okay=False),
)
@calibration_options
@precision_options
@click.option(
    "--force",
    multiple=True,
    metavar="RULE",
    help="Nodes that are of a type whatever their ranges: as --keep, with :fp16 (repeatable).",
)
@click.option(
    "--io-types",
    type=click.Choice(("keep", "convert")),
    default="keep",
    show_default=True,
    help="Types of the model's inputs and outputs.",
)
@click.option(
    "--budget",
    metavar="KEY=VALUE,...",
    help="Choose the cheapest mix of INT8, FP16 and FP32 (of what --quantize and --type name, where"
    " given) that still reaches this on the samples: sqnr_db=42, top1_drop=0.5, or"
    " metric=file.py:function,at_least=0.9; with evaluations=N, of at most N mixes tried.",
)
@click.option(
    "--held-out",
    metavar="DATA.npz",
    type=click.Path(path_type=Path),
    help="Other samples, that the mix which --budget chooses is judged on.",
)
@click.option(
    "--reuse",
    metavar="CACHE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take a calibration cache in place of measuring.",
)
@click.option(
    "--allow-stale", is_flag=True, help="Take it even where it belongs to another graph or data."
)
@click.option(
    "--cache",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the calibration cache.",
)
@click.option("--no-optimize", is_flag=True, help="Leave the graph as it is otherwise.")
@click.option(
    "--prove", is_flag=True, help="Prove in ONNX Runtime that the clean-up changed nothing."
)
@click.option(
    "--explain", is_flag=True, help="Also say for each place what was done there, and why."
)
@click.option(
    "--sensitivity", is_flag=True, help="Also rank the layers by the harm quantizing them does."
)
@click.option(
    "--list-techniques",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: _list_techniques(ctx) if wanted else None,
    help="List the techniques for accuracy and exit.",
)
@common_options
def quantize(
    source: Path,
    out: Path,
    cache: Path | None,
    no_optimize: bool,
    prove: bool,
    explain: bool,
    sensitivity: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **asked: Any,
) -> None:
    """Quantize MODEL with ranges measured on data; clean its graph up before. Writes OUT.onnx."""
    from trtforge.pipeline.quantizing import QuantizeOptions, quantize_file
    from trtforge.pipeline.settings import Asked

    show = ProgressLines(quiet=quiet or as_json, verbose=verbose)
    if asked["budget"] is not None and not _is_given("type"):
        asked["type"] = "auto"
    options = QuantizeOptions(Asked(**asked), not no_optimize, prove, cache, sensitivity)
    try:
        result = quantize_file(source, out, options, show)
    finally:
        show.done()
    if as_json:
        print_json("trtforge.quantize/1", result.as_json())
        return
    if not quiet:
        _show(result, explain=explain)
    click.echo(str(out))


def _is_given(option: str) -> bool:
    found = click.get_current_context().get_parameter_source(option)
    return found is not click.core.ParameterSource.DEFAULT


def _list_techniques(ctx: click.Context) -> None:
    from trtforge.pipeline.quantizing import list_techniques

    rows = [
        (row["name"], row["runs"], ", ".join(row["default_for"]) or "-", row["does"])
        for row in list_techniques()
    ]
    print_table(("technique", "runs", "default for", "what it does"), rows)
    ctx.exit()


def _show(result: "QuantizeResult", *, explain: bool) -> None:
    report = result.typed.quantize
    if explain:
        looked_at = report.explained or report.decisions
        rows = [(d.action, d.op, d.node or d.tensor or "-", d.reason) for d in looked_at]
        casts = [(d.type, d.op, d.node or "-", d.reason) for d in result.typed.cast.decisions]
        print_table(("what", "operator", "node", "why"), [*rows, *casts])
    for text in result.techniques:
        say(f"technique: {text}")
    done = Counter(d.op for d in report.decisions if d.action == "quantized")
    say(f"quantized: {done.total()} of {len(report.decisions)} places{_counted(done)}")
    for line in _left(result):
        say(line)
    before, after = result.sizes["before"], result.sizes["after"]
    share = after["weights_bytes"] / max(before["weights_bytes"], 1)
    say(
        f"weights: {size(before['weights_bytes'])} -> {size(after['weights_bytes'])} "
        f"({percent(round(share, 3))}); nodes: {before['nodes']} -> {after['nodes']}"
    )
    if result.budget is not None:
        rules = result.budget.rule_lines() if explain else []
        for line in (*result.budget.lines(), *rules):
            say(line)
    if result.sensitivity is not None:
        for line in (*result.sensitivity.lines(), *result.sensitivity.keep_rules(3)):
            say(line)


def _left(result: "QuantizeResult") -> Iterator[str]:
    """Say what was left in floats; of reasons that differ in names alone, the first."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in result.typed.quantize.decisions:
        if one.action == "kept":
            reason = _why_left(one.reason, result)
            found.setdefault((one.op, _NAME.sub("", reason)), []).append(reason)
    for (op, _), reasons in found.items():
        others = len(set(reasons)) - 1
        like_it = f" (and {others} like it)" if others else ""
        yield f"left: {len(reasons)} {op}: {reasons[0]}{like_it}"


def _why_left(reason: str, result: "QuantizeResult") -> str:
    """One reason for all rules that a budget came to; --explain shows them."""
    is_rule = result.budget is not None and reason.startswith("keep rule ")
    return "keep rules, as the budget chose or as you asked" if is_rule else reason


def _counted(done: Counter[str]) -> str:
    found = ", ".join(f"{count} {op}" for op, count in done.most_common())
    return f" ({found})" if found else ""
