"""`trtforge init`: a commented recipe for a model."""

import shlex
from pathlib import Path

import click

from trtforge.cli.console import common_options, print_json, say


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    metavar="RECIPE.yaml",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the recipe here; default the model's name, in this folder.",
)
@click.option(
    "--data",
    metavar="DATA",
    type=click.Path(path_type=Path),
    help="Samples of the inputs, for calibration and verification (.npz, a folder, ...).",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(("tensorrt_rtx", "tensorrt", "onnxruntime")),
    help="A target for this one (repeatable); default tensorrt_rtx and onnxruntime.",
)
@click.option("--name", help="The recipe's name; default the model's.")
@click.option("--force", is_flag=True, help="Overwrite the recipe.")
@common_options
def init(
    model: Path,
    out: Path | None,
    data: Path | None,
    backends: tuple[str, ...],
    name: str | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Write a commented recipe for the ONNX file MODEL and print its path.

    It can be built as it is: shapes to begin with for dynamic inputs, FP16, a TensorRT-RTX engine.
    Comments tell what was found in the model and what to change.
    """
    del verbose
    from trtforge.pipeline.init import InitOptions
    from trtforge.pipeline.init import init as write_recipe

    chosen = {"backends": backends} if backends else {}
    result = write_recipe(model, InitOptions(out, data, name=name, force=force, **chosen))
    if as_json:
        print_json("trtforge.init/1", result.as_json())
        return
    if not quiet:
        for note in result.notes:
            say(f"note: {note}", err=True)
        say(f"build it: trtforge build {shlex.quote(str(result.path))}", err=True)
    click.echo(str(result.path))
