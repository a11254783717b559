"""`trtforge calibrate`: the calibration cache of a recipe or a model, without building anything."""

from pathlib import Path
from typing import Any

import click

from trtforge.cli.console import ProgressLines, common_options, print_json
from trtforge.cli.measuring_options import calibration_options, precision_options

_OF_RECIPES = ("overrides", "force")


@click.command()
@click.argument("subject", metavar="RECIPE_OR_MODEL", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Of a recipe: folder for the cache and its TensorRT text form; default calibration. "
    "Of a model: the cache; default cache.json.",
)
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change a recipe's value.")
@click.option("--force", is_flag=True, help="A recipe: measure again, whatever the store holds.")
@calibration_options
@precision_options
@click.option(
    "--shard", metavar="K/N", help="Measure the K-th of N parts of the samples, K from 1."
)
@click.option(
    "--tensors",
    type=click.Choice(("quantized", "all")),
    default="quantized",
    show_default=True,
    help="Those that quantization needs, or every float tensor.",
)
@click.option("--no-optimize", is_flag=True, help="Measure the graph as it is.")
@common_options
def calibrate(
    subject: Path,
    out: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Measure activation ranges and write the calibration cache.

    RECIPE_OR_MODEL is a recipe, which says all else, or an ONNX file with --data and more.
    """
    show = ProgressLines(quiet=quiet or as_json, verbose=verbose)
    ctx = click.get_current_context()
    written_down = click.core.ParameterSource.COMMANDLINE
    given = [name for name in options if ctx.get_parameter_source(name) is written_down]
    is_model = subject.suffix.lower() == ".onnx"
    wrong = [name for name in given if (name in _OF_RECIPES) == is_model]
    if wrong:
        raise click.UsageError(_not_for(wrong[0], is_model=is_model), ctx)
    try:
        written = (_model if is_model else _recipe)(subject, out, options, show)
    finally:
        show.done()
    if as_json:
        print_json("trtforge.calibrate/1", {"files": [str(path) for path in written]})
        return
    for path in written:
        click.echo(str(path))


def _recipe(
    recipe: Path, out: Path | None, options: dict[str, Any], show: ProgressLines
) -> tuple[Path, ...]:
    from trtforge.pipeline.run import BuildOptions, calibrate_recipe

    folder = out or Path("calibration")
    build = BuildOptions(out=folder, overrides=options["overrides"], force=options["force"])
    return calibrate_recipe(recipe, build, show)


def _model(
    model: Path, out: Path | None, options: dict[str, Any], show: ProgressLines
) -> tuple[Path, ...]:
    from trtforge.pipeline.measuring import MeasureOptions, calibrate_model, shard_of
    from trtforge.pipeline.settings import Asked

    file = out or Path("cache.json")
    own = (*_OF_RECIPES, "shard", "tensors", "no_optimize")
    asked = Asked(**{name: value for name, value in options.items() if name not in own})
    shard = shard_of(options["shard"])
    measure = MeasureOptions(asked, options["tensors"], shard, not options["no_optimize"])
    calibrate_model(model, file, measure, show)
    return (file,)


def _not_for(name: str, *, is_model: bool) -> str:
    option = {"overrides": "set", "shapes": "shape"}.get(name, name.replace("_", "-"))
    if is_model:
        return f"--{option} is for recipes, and this is a model"
    return f"--{option} is for models; a recipe says it itself, or --set changes it"
