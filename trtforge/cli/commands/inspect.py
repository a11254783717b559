"""`trtforge inspect`: what a file or a folder is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from trtforge.cli.console import common_options, print_json, print_table, say

_LONGEST_LIST = 12


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@common_options
def inspect(path: Path, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Say what PATH is: ONNX file, engine, bundle or calibration cache. Needs no GPU.

    The layers of an engine (layers.json, or what trtexec --exportLayerInfo or --exportProfile
    wrote) are shown as a table.
    """
    del quiet
    from trtforge.pipeline.inspect import inspect_path

    facts = inspect_path(path)
    if as_json:
        print_json("trtforge.inspect/1", facts)
        return
    rows = facts.pop("rows", []) if facts["kind"] == "engine layers" else []
    for line in _lines(facts, None if verbose else _LONGEST_LIST):
        say(line)
    _show_layers(rows if verbose else rows[:_LONGEST_LIST])
    if not verbose and len(rows) > _LONGEST_LIST:
        say(f"... and {len(rows) - _LONGEST_LIST} more (-v shows all)")


def _show_layers(rows: Sequence[Mapping[str, Any]]) -> None:
    from trtforge.report.figures import size

    if not rows:
        return
    header = ("type", "kind", "results", "weights", "ms", "layer")
    cells = (
        (
            row["type"],
            row["kind"] or "-",
            *(size(row[key]) if row[key] else "-" for key in ("bytes", "weights_bytes")),
            "-" if row["ms"] is None else f"{row['ms']:.3g}",
            row["name"],
        )
        for row in rows
    )
    print_table(header, cells)


def _lines(value: Mapping[str, Any], longest: int | None, indent: str = "") -> list[str]:
    """Return nested facts as indented lines; long lists are cut unless `longest` is None."""
    lines = []
    for name, fact in value.items():
        if isinstance(fact, Mapping) and fact:
            lines.append(f"{indent}{name}:")
            lines += _lines(fact, longest, indent + "  ")
        elif isinstance(fact, list) and fact:
            lines.append(f"{indent}{name}:")
            shown = fact if longest is None else fact[:longest]
            lines += [f"{indent}  {_one_line(item)}" for item in shown]
            if len(shown) < len(fact):
                lines.append(f"{indent}  ... and {len(fact) - len(shown)} more (-v shows all)")
        else:
            lines.append(f"{indent}{name}: {_one_line(fact)}")
    return lines


def _one_line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_one_line(fact)}" for name, fact in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(_one_line(item) for item in value) + "]"
    if value is None:
        return "none"
    return str(value)
