"""`trtforge migrate`: a recipe from the command line of another tool."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtforge.cli.console import common_options, print_json, print_table, say
from trtforge.errors import UsageError

if TYPE_CHECKING:
    from trtforge.pipeline.migrate import Migration


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "-o",
    "--out",
    metavar="RECIPE.yaml",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the recipe here, a calibration cache that was named converted beside it.",
)
@click.option("--name", help="The recipe's name; default the model's.")
@click.option(
    "--backend",
    type=click.Choice(("tensorrt", "tensorrt_rtx")),
    help="Build with this one; default the tool's own.",
)
@click.option("--data", metavar="DATA", help="Calibration data, which a command does not name.")
@click.option("--partial", is_flag=True, help="Write the recipe even where flags are refused.")
@common_options
def migrate(
    command: tuple[str, ...],
    out: Path | None,
    name: str | None,
    backend: str | None,
    data: str | None,
    partial: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Turn COMMAND into a recipe and say of every flag what became of it.

    COMMAND is a command line in quotes: 'trtexec --onnx=model.onnx --fp16', 'polygraphy convert
    model.onnx --fp16 -o model.plan', or the path of a TAO spec (.yaml, .json). A flag that nothing
    does here is refused with the reason (exit 2), unless --partial is given.
    """
    from trtforge.pipeline.migrate import MigrateOptions
    from trtforge.pipeline.migrate import migrate as migrate_command

    if len(command) > 1:  # some of its flags are ours as well, and would be lost to it
        raise UsageError(
            "TF0120",
            "the command is not in quotes",
            "write: trtforge migrate 'trtexec --onnx=model.onnx --fp16' -o model.yaml",
        )
    options = MigrateOptions(out, name, backend, data, partial)
    result = migrate_command(command[0], options)
    if as_json:
        print_json("trtforge.migrate/1", result.as_json())
        return
    if out is None:  # nothing but the recipe, which says in comments what became of the flags
        click.echo(result.text, nl=False)
    elif not quiet:
        _show(result)
    for path in result.written:
        click.echo(str(path))


def _show(result: "Migration") -> None:
    rows = [(one.flag, one.action, one.where or "-", one.why or "-") for one in result.findings]
    print_table(("flag", "what", "where", "why"), rows)
    if result.refused:
        say(f"{len(result.refused)} flags are not in the recipe")
