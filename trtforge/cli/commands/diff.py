"""`trtforge diff`: what changed between two things of one kind."""

from pathlib import Path

import click

from trtforge.cli.console import common_options, print_json, say
from trtforge.errors import EXIT_OK, EXIT_PARITY

_MOST_ROWS = 20


@click.command()
@click.argument("before", metavar="A", type=click.Path(path_type=Path))
@click.argument("after", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--all", "show_all", is_flag=True, help=f"Show everything, not {_MOST_ROWS} rows a section."
)
@click.option("--exit-code", is_flag=True, help="Exit 5 when they differ, 0 when they do not.")
@common_options
def diff(
    before: Path,
    after: Path,
    show_all: bool,
    exit_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Show what changed from A to B: two ONNX files, two bundles, or the layers of two engines.

    Of ONNX files contract, operators, nodes and weights; of bundles what their manifests say, and
    the layers of each target; of layers (a layers.json, or what trtexec --exportLayerInfo wrote)
    types, fusion, memory, and time where NAME.profile.json (--exportProfile) lies beside NAME.json;
    of two such profiles the times.

    Nodes are matched by the tensors that they make, then by name; weights are compared byte by
    byte. Marks: - only in A, + only in B, ~ changed, > renamed. -q shows the totals alone, -v
    also digests and what nodes make.
    """
    from trtforge.pipeline.diff import DIFF_SCHEMA, diff_paths

    result = diff_paths(before, after)
    if as_json:
        print_json(DIFF_SCHEMA, result.as_json())
    elif result.identical:
        say("no differences")
    else:
        from trtforge.report.changes import sections

        for section in sections(result.as_json(), details=verbose):
            shown = [section.title] if quiet else section.lines(None if show_all else _MOST_ROWS)
            for line in shown:
                say(line)
    return EXIT_PARITY if exit_code and not result.identical else EXIT_OK
