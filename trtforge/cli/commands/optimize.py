"""`trtforge optimize`: one ONNX file in, a smaller one that computes the same out."""

from pathlib import Path
from typing import Any

import click

from trtforge.cli.console import (
    ProgressLines,
    common_options,
    print_json,
    print_table,
    say,
)
from trtforge.report.figures import decibel, size


@click.command()
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="OUT.onnx",
    type=click.Path(path_type=Path, dir_okay=False),
)
@click.option(
    "--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="A dynamic input's shape."
)
@click.option("--use", multiple=True, metavar="PASS", help="Run these passes only (repeatable).")
@click.option("--also", multiple=True, metavar="PASS", help="Run this optional pass as well.")
@click.option("--drop", multiple=True, metavar="PASS", help="Leave this pass out (repeatable).")
@click.option(
    "--no-proof", is_flag=True, help="Skip the numerical comparison (the report says so)."
)
@click.option(
    "--strict",
    is_flag=True,
    help="Fail (exit 5) when a pass had to be taken back or the result is not proven.",
)
@click.option(
    "--opset-limit",
    type=click.IntRange(7),
    metavar="N",
    help="Newest operator set that fusions may raise the model to.",
)
@click.option(
    "--explain", is_flag=True, help="Also list what matched, and what was refused and why."
)
@click.option(
    "--passes",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: _list_passes(ctx) if wanted else None,
    help="List all passes and exit.",
)
@common_options
def optimize(
    source: Path,
    out: Path,
    shapes: tuple[str, ...],
    use: tuple[str, ...],
    also: tuple[str, ...],
    drop: tuple[str, ...],
    no_proof: bool,
    strict: bool,
    opset_limit: int | None,
    explain: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Clean up and fuse the graph of IN.onnx, prove it numerically, write OUT.onnx."""
    from trtforge.pipeline.events import StageProgress
    from trtforge.pipeline.rooms import OptimizeOptions, optimize_file

    show = ProgressLines(quiet=quiet or as_json, verbose=verbose)
    report = optimize_file(
        source,
        out,
        OptimizeOptions(
            shapes,
            use,
            also,
            drop,
            prove=not no_proof,
            strict=strict,
            opset_limit=opset_limit,
        ),
        lambda text: show(StageProgress("optimize", None, text)),
    )
    show.done()
    if as_json:
        print_json("trtforge.optimize/1", {"output": str(out), **report})
        return
    if not quiet:
        _show(report, explain=explain)
    click.echo(str(out))


def _list_passes(ctx: click.Context) -> None:
    from trtforge.pipeline.rooms import list_passes

    rows = [
        (row["name"], "" if row["default"] else "optional", row["does"]) for row in list_passes()
    ]
    print_table(("pass", "", "what it does"), rows)
    ctx.exit()


def _show(report: dict[str, Any], *, explain: bool) -> None:
    passes = report["passes"]
    idle = [row["name"] for row in passes if not row["rewrites"] and not row["rolled_back"]]
    rows = [_row(row) for row in passes if explain or row["name"] not in idle]
    if rows:
        print_table(("pass", "rewrites", "nodes", "bytes", "time", "note"), rows)
    if idle and not explain:
        say(f"{len(idle)} other passes found nothing (--explain says more)")
    if explain:
        _explain(passes)
    proof = report["proof"]
    said = [part for part in (proof["reason"], proof["scope"]) if part]
    opsets = [report["opset_before"], report["opset_after"]]
    raised = "" if opsets[0] == opsets[1] else f"; opset {opsets[0]} -> {opsets[1]}"
    sizes = [report["initializer_bytes_before"], report["initializer_bytes_after"]]
    say(
        f"nodes: {report['nodes_before']} -> {report['nodes_after']}; "
        f"weights: {size(sizes[0])} -> {size(sizes[1])}{raised}"
    )
    measured = (
        ""
        if not proof["cases"]
        else f", {decibel(proof['min_sqnr_db'])} on {proof['cases']} sets of inputs"
    )
    for problem in report["unsupported"]:
        subject = f"{problem['operator']} '{problem['node']}'".strip()
        say(f"TensorRT does not take {subject}: {problem['reason']}; {problem['remedy']}")
    say(f"proof: {proof['verdict']}{measured}{': ' if said else ''}{'; '.join(said)}")


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    note = f"taken back: {row['reason']}" if row["rolled_back"] else ""
    sign = "-" if row["bytes"] < 0 else "+"
    growth = f"{sign}{size(abs(row['bytes']))}" if row["bytes"] else "0"
    return (
        row["name"],
        str(row["rewrites"]),
        f"{row['nodes']:+d}" if row["nodes"] else "0",
        growth,
        f"{row['seconds'] * 1000:.0f} ms",
        note,
    )


def _explain(passes: list[dict[str, Any]]) -> None:
    for row in passes:
        for note in row["notes"]:
            say(f"{row['name']}: {note['kind']} '{note['node']}': {note['reason']}")
