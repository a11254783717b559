"""`trtforge cast`: one ONNX file in, a strongly typed FP16 or BF16 one out."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtforge.cli.console import ProgressLines, common_options, print_json, print_table, say
from trtforge.report.figures import percent, size

if TYPE_CHECKING:
    from trtforge.pipeline.casting import CastResult

_RULE = "op=Softmax, name='/head/*' or path='loop/*'"


@click.command()
@click.argument("source", metavar="MODEL", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="OUT.onnx",
    type=click.Path(path_type=Path, dir_okay=False),
)
@click.option(
    "--type",
    type=click.Choice(("fp16", "bf16")),
    default="fp16",
    show_default=True,
    help="The type that nodes compute in where it can hold their values.",
)
@click.option(
    "--data",
    metavar="DATA",
    help="Samples to measure ranges on, as `trtforge quantize` takes them; without, what may"
    " overflow stays FP32.",
)
@click.option("--synthetic", is_flag=True, help="Random samples, to try things out with.")
@click.option("--samples", type=click.IntRange(1), metavar="N", help="Use the first N; default 4.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=1x3x224x224",
    help="A dynamic input's shape (repeatable).",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="RULE",
    help=f"Leave nodes FP32: {_RULE} (repeatable).",
)
@click.option(
    "--force",
    multiple=True,
    metavar="RULE",
    help="Cast nodes whatever their ranges say: as --keep (repeatable).",
)
@click.option(
    "--io-types",
    type=click.Choice(("keep", "convert")),
    default="keep",
    show_default=True,
    help="Types of the model's inputs and outputs.",
)
@click.option("--no-optimize", is_flag=True, help="Leave the graph as it is otherwise.")
@click.option("--explain", is_flag=True, help="Also say of each node that stays wide, why.")
@common_options
def cast(
    source: Path,
    out: Path,
    no_optimize: bool,
    explain: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **asked: Any,
) -> None:
    """Cast MODEL to FP16 or BF16, by ranges measured on data where there is some.

    What overflows, vanishes or loses its meaning in the narrow type stays FP32, with the reason.
    Writes OUT.onnx; the model's graph is cleaned up and fused before.
    """
    from trtforge.pipeline.casting import CastOptions, cast_file
    from trtforge.pipeline.settings import Asked

    show = ProgressLines(quiet=quiet or as_json, verbose=verbose)
    options = CastOptions(Asked(quantize="none", **asked), not no_optimize)
    try:
        result = cast_file(source, out, options, show)
    finally:
        show.done()
    if as_json:
        print_json("trtforge.cast/1", result.as_json())
        return
    if not quiet:
        _show(result, explain=explain)
    click.echo(str(out))


def _show(result: "CastResult", *, explain: bool) -> None:
    from trtforge.pipeline.casting import ranges_summary

    report = result.typed.cast
    if explain:
        rows = [(d.type, d.op, d.node or "-", d.reason) for d in report.decisions]
        print_table(("type", "operator", "node", "why"), rows)
    if result.ranges is None:
        say("ranges: none were measured, so what may overflow stays wide; --data FILE tells")
    else:
        say(f"ranges: {ranges_summary(result.ranges)}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.nodes.items())
    say(f"nodes: {kinds or 'none are FP32, so none was cast'}; casts added: {report.casts_added}")
    wide = Counter(d.op for d in report.decisions)
    if wide:
        say(f"stayed wide: {', '.join(f'{count} {op}' for op, count in wide.most_common())}")
    before, after = (result.sizes[when]["weights_bytes"] for when in ("before", "after"))
    share = percent(round(after / max(before, 1), 3))
    say(f"weights: {size(before)} -> {size(after)} ({share})")
