"""`trtforge inspect`: what a file or a folder is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from trtforge.cli.console import common_options, print_json, say

_LONGEST_LIST = 12


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@common_options
def inspect(path: Path, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Say what PATH is: ONNX file, engine, bundle or calibration cache. Needs no GPU."""
    del quiet
    from trtforge.pipeline.inspect import inspect_path

    facts = inspect_path(path)
    if as_json:
        print_json("trtforge.inspect/1", facts)
        return
    for line in _lines(facts, None if verbose else _LONGEST_LIST):
        say(line)


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
