"""`trtforge attest`: which types a model, a bundle or an engine really computes in."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtforge.cli.console import common_options, print_json, print_table, say
from trtforge.report.figures import count, percent, size

if TYPE_CHECKING:
    from trtforge.pipeline.attest import AttestResult
    from trtforge.pipeline.attest_views import View
    from trtforge.pipeline.attesting import Check

_MOST_SHOWN = 10


@click.command()
@click.argument("subject", metavar="PATH", type=click.Path(path_type=Path))
@click.option(
    "--require",
    multiple=True,
    metavar="'macs.int8>=0.8'",
    help="Fail (exit 5) when a share is less, or more, than this (repeatable).",
)
@click.option(
    "--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="A dynamic input's shape."
)
@click.option(
    "--backend",
    type=click.Choice(["tensorrt_rtx", "tensorrt"]),
    help="Whose parser reads an ONNX file, and what loads an engine.",
)
@click.option("--no-parse", is_flag=True, help="Count an ONNX file only; do not parse it.")
@click.option("--allow-host-code", is_flag=True, help="Let engines run code that they bring.")
@common_options
def attest(
    subject: Path,
    require: tuple[str, ...],
    shapes: tuple[str, ...],
    backend: str | None,
    no_parse: bool,
    allow_host_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Say which types PATH really computes in: shares of MACs, nodes, weights and activations.

    PATH is an ONNX file, a bundle, an engine, or a file of layer information: a bundle's
    layers.json, or what TensorRT's engine inspector writes. An ONNX file is counted, and parsed by
    TensorRT-RTX, which needs no GPU; an engine tells its own layers on a machine with one.

    A bundle is also judged by what its recipe asks for. Exit status 5: a share is missed, or what
    was parsed contradicts the ONNX; 3: nothing, or not all that is required, could be seen here.
    """
    from trtforge.pipeline.attest import AttestOptions, attest_path

    options = AttestOptions(shapes, require, backend, not no_parse, allow_host_code)
    result = attest_path(subject, options)
    if as_json:
        print_json("trtforge.attest/1", result.as_json())
    else:
        _show(result, quiet=quiet, verbose=verbose)
    return result.exit_status


def _show(result: "AttestResult", *, quiet: bool, verbose: bool) -> None:
    if not quiet:
        rows = [row for view in result.views for row in _rows(view, verbose)]
        if rows:
            print_table(("view", "type", "MACs", "nodes", "weights", "activations"), rows)
        if result.shapes or result.values:
            shapes = [f"{n} {'x'.join(map(str, s))}" for n, s in result.shapes.items()]
            shapes += [f"{name} = {list(values)}" for name, values in result.values.items()]
            say(f"counted at {', '.join(shapes)}")
        for view in result.views:
            if not view.attested:
                say(f"{view.name}: not_run: {view.reason}")
            elif view.reason:
                say(f"{view.name}: {view.reason}")
    for view in result.views:
        _show_contradictions(view, None if verbose else _MOST_SHOWN)
    for check in result.checks:
        if not quiet or check.verdict != "pass":
            say(_check_line(check))
    say(f"verdict: {result.verdict}")


def _rows(view: "View", verbose: bool) -> list[tuple[str, ...]]:
    amounts = {what: found for what, found in view.amounts.items() if found is not None}
    kinds = dict.fromkeys(kind for found in amounts.values() for kind in found)
    say_amount = {"macs": count, "nodes": count, "weights": size, "activations": size}
    rows = []
    for kind in kinds:
        cells = []
        for what in ("macs", "nodes", "weights", "activations"):
            if what not in amounts:
                cells.append("-")
                continue
            total, amount = sum(amounts[what].values()), amounts[what].get(kind, 0)
            cell = percent(amount / total) if amount else "0"
            cells.append(f"{cell} ({say_amount[what](amount)})" if verbose and amount else cell)
        rows.append((view.name, kind, *cells))
    return rows


def _show_contradictions(view: "View", most: int | None) -> None:
    shown = view.contradictions[:most]
    for one in shown:
        node = f"{one['op']} '{one['node']}'" if one["op"] else "the model"
        say(f"{view.name}: {node} is {one['onnx']} in the ONNX and {one['network']} here")
    if len(shown) < len(view.contradictions):
        say(f"... and {len(view.contradictions) - len(shown)} more (-v shows all)")


def _check_line(check: "Check") -> str:
    bounds = []
    if check.min is not None:
        bounds.append(f">= {check.min:.1%}")
    if check.max is not None:
        bounds.append(f"<= {check.max:.1%}")
    asked = " and ".join(bounds) or "> 0"
    share = "-" if check.share is None else f"{check.share:.1%}"
    reason = f" ({check.reason})" if check.reason and check.verdict != "pass" else ""
    return f"{check.view}: {check.what}.{check.type} {share} {asked}: {check.verdict}{reason}"
