"""`trtforge debug`: which nodes must be wider?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtforge.cli.commands.verify import show_layers
from trtforge.cli.console import ProgressLines, common_options, print_json, say

if TYPE_CHECKING:
    from trtforge.pipeline.debug import DebugResult


@click.command()
@click.argument("subject", metavar="MODEL|RECIPE|BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="The original; for a bundle, and for an ONNX file that is typed already.",
)
@click.option("--data", type=click.Path(path_type=Path), help=".npz with inputs.")
@click.option(
    "--tolerance", multiple=True, metavar="K=V", help="e.g. sqnr_db=30 or logits.max_abs=0.1."
)
@click.option(
    "--type",
    type=click.Choice(["fp16", "bf16"]),
    help="The narrow type.  [default: the recipe's; fp16 for an ONNX file]",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Use at most this many samples of the data.",
)
@click.option(
    "--evaluations",
    type=click.IntRange(2),
    default=40,
    show_default=True,
    help="Try at most this many typed graphs.",
)
@click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "tensorrt_rtx", "tensorrt"]),
    default="onnxruntime",
    show_default=True,
    help="Judge by emulation, or by engines that are built and run on the GPU here.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one value of the recipe; may be repeated.",
)
@click.option("--write", is_flag=True, help="Put the rules into the recipe, under precision.keep.")
@click.option(
    "--recipe",
    "into",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --write: the recipe; needed where the argument is none.",
)
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a report page."
)
@common_options
def debug(
    subject: Path,
    write: bool,
    into: Path | None,
    html: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> int:
    """Find the fewest nodes that must be wider for the typed graph to pass.

    Exit status: 0 parity holds, as it is or with the rules that are printed; 5 no set of nodes
    restores it, or none was found within --evaluations.
    """
    from trtforge.disk import check_outputs
    from trtforge.pipeline.debug import DEBUG_SCHEMA
    from trtforge.pipeline.debug import debug as find_culprits
    from trtforge.pipeline.debug_subject import DebugOptions

    target = _recipe(subject, into) if write else None
    _check(subject, into=into, write=write, overrides=options["overrides"])
    check_outputs([html], (subject, options["against"], options["data"], into))
    show = ProgressLines(quiet=quiet or as_json, verbose=verbose)
    try:
        result = find_culprits(subject, DebugOptions(**options), show, write=target)
    finally:
        show.done()
    if html is not None:
        _write_html(html, result)
    if as_json:
        print_json(DEBUG_SCHEMA, result.as_json())
    else:
        _show(result, quiet=quiet)
    return result.exit_status


def _check(subject: Path, *, into: Path | None, write: bool, overrides: tuple[str, ...]) -> None:
    """Refuse before the search what would come to nothing after it."""
    from trtforge.errors import UsageError

    if into is not None and not write:
        raise UsageError(
            "TF0766", "--recipe names the recipe that --write writes into", "add --write"
        )
    if overrides and subject.suffix.lower() == ".onnx":
        raise UsageError(
            "TF0767", "--set changes a recipe, and an ONNX file has none", "name the recipe instead"
        )


def _recipe(subject: Path, into: Path | None) -> Path:
    from trtforge.errors import UsageError

    if into is not None:
        return into
    if subject.suffix.lower() in (".yaml", ".yml"):
        return subject
    raise UsageError(
        "TF0766", "--write puts rules into a recipe, and none is named", "name it with --recipe"
    )


def _show(result: "DebugResult", *, quiet: bool) -> None:
    reason = f": {result.before.reason}" if result.before.reason else ""
    say(f"typed graph: {result.before.verdict}{reason}")
    if not quiet:
        show_layers(result.profile, 5)
    searched = f"{result.evaluations} evaluations, {result.candidates} nodes searched"
    if result.outcome == "nothing_to_do":
        say("nothing to find: parity holds as it is")
    elif result.outcome == "not_found":
        say(f"not found: parity fails with every node wide as well ({searched})")
        if result.after is not None and result.after.reason:
            say(f"every node wide: {result.after.reason}")
    elif result.outcome == "gave_up":
        say(f"not found within the limit ({searched}); raise --evaluations")
    else:
        needed = "each is needed" if result.outcome == "found" else "fewer may do: limit reached"
        say(f"found: {len(result.culprits)} nodes restore parity, {needed} ({searched})")
        say("keep:")
        for line in result.keep_lines():
            say(f"  {line}")
    if result.written is not None:
        say(f"written into {result.written}")


def _write_html(path: Path, result: "DebugResult") -> None:
    from trtforge.disk import write_text
    from trtforge.report.data import ReportData
    from trtforge.report.html import render_html

    facts = {
        "subject": str(result.subject),
        "outcome": result.outcome.replace("_", " "),
        "evaluations": str(result.evaluations),
        "keep": "; ".join(result.keep_lines()) or "none",
    }
    judged = result.before if result.exit_status or result.after is None else result.after
    data = ReportData(
        name=result.subject.name,
        facts=facts,
        graph_parity=judged.as_json(),
        layers=result.profile.as_json(),
        comparison_only=True,
    )
    write_text(path, render_html(data))
