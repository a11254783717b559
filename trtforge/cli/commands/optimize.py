"""`trtforge optimize`: one ONNX file in, a smaller one that computes the same out."""

from pathlib import Path
from typing import Any

import click

from trtforge.cli.console import ProgressLines, common_options, print_json, print_table, say


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
@click.option("--drop", multiple=True, metavar="PASS", help="Leave this pass out (repeatable).")
@click.option(
    "--no-proof", is_flag=True, help="Skip the numerical comparison (the report says so)."
)
@click.option(
    "--explain", is_flag=True, help="Also list what matched, and what was refused and why."
)
@common_options
def optimize(
    source: Path,
    out: Path,
    shapes: tuple[str, ...],
    use: tuple[str, ...],
    drop: tuple[str, ...],
    no_proof: bool,
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
        OptimizeOptions(shapes, use, drop, prove=not no_proof),
        lambda text: show(StageProgress("optimize", None, text)),
    )
    show.done()
    if as_json:
        print_json("trtforge.optimize/1", {"output": str(out), **report})
        return
    if not quiet:
        _show(report, explain=explain)
    click.echo(str(out))


def _show(report: dict[str, Any], *, explain: bool) -> None:
    rows = [
        (
            row["name"],
            str(row["rewrites"]),
            f"rolled back: {row['reason']}" if row["rolled_back"] else "",
        )
        for row in report["passes"]
    ]
    print_table(("pass", "rewrites", "note"), rows)
    if explain:
        for row in report["passes"]:
            for note in row["notes"]:
                say(f"{row['name']}: {note['kind']} '{note['node']}': {note['reason']}")
    proof = report["proof"]
    reason = f": {proof['reason']}" if proof["reason"] else ""
    counts = f"{report['nodes_before']} -> {report['nodes_after']}"
    say(f"nodes: {counts}; proof {proof['verdict']}{reason}")
