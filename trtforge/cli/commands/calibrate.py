"""`trtforge calibrate`: the calibration cache of a recipe, without building anything."""

from pathlib import Path

import click

from trtforge.cli.console import ProgressLines, common_options, print_json


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change one recipe value.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("calibration"),
    show_default=True,
    help="Folder for the cache and its TensorRT text form.",
)
@click.option("--force", is_flag=True, help="Measure again, whatever the store holds.")
@common_options
def calibrate(
    recipe: Path,
    overrides: tuple[str, ...],
    out: Path,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Measure the activation ranges of RECIPE and write the calibration cache."""
    from trtforge.pipeline.run import BuildOptions, calibrate_recipe

    show = ProgressLines(quiet=quiet or as_json, verbose=verbose)
    options = BuildOptions(out=out, overrides=overrides, force=force)
    written = calibrate_recipe(recipe, options, show)
    if as_json:
        print_json("trtforge.calibrate/1", {"files": [str(path) for path in written]})
        return
    for path in written:
        click.echo(str(path))
