"""`trtforge build`: the whole way from recipes to bundles."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtforge.cli.console import (
    ProgressLines,
    common_options,
    error_document,
    print_json,
    say,
)
from trtforge.errors import EXIT_OK, ForgeError

if TYPE_CHECKING:
    from trtforge.pipeline.run import BuildResult


@click.command()
@click.argument("recipes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--target", "targets", multiple=True, help="Build this target only (repeatable).")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change one recipe value.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bundles"),
    show_default=True,
    help="Folder that the bundles go to.",
)
@click.option("--force", is_flag=True, help="Run every stage, whatever the store holds.")
@click.option(
    "--strict",
    is_flag=True,
    help="Fail (exit 5) when a graph pass had to be taken back or the graph is not proven.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Engines built at once.",
)
@click.option(
    "--memory-mib",
    type=click.IntRange(min=1),
    help="Memory that engines built at once may take together, by estimate; default: what is free.",
)
@common_options
def build(
    recipes: tuple[Path, ...],
    targets: tuple[str, ...],
    overrides: tuple[str, ...],
    out: Path,
    force: bool,
    strict: bool,
    jobs: int,
    memory_mib: int | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Build each RECIPE into a verified bundle and print the bundle's path.

    Nothing is shipped whose parity or attestation failed (exit 5); its report is kept. When an
    engine fails, the others are still built and stored.
    """
    from trtforge.pipeline.run import BuildOptions, build_recipe

    show = ProgressLines(quiet=quiet or as_json, verbose=verbose)
    if strict:
        overrides = (*overrides, "passes.strict=true")
    options = BuildOptions(
        out=out,
        targets=targets,
        overrides=overrides,
        force=force,
        jobs=jobs,
        memory_mib=memory_mib,
    )
    results: list[BuildResult] = []
    for recipe in recipes:
        try:
            result = build_recipe(recipe, options, show)
        except ForgeError as error:
            if not (as_json and results):
                raise
            # One document, and what is already built is not lost from it.
            document = error_document(error.problems, error.exit_status, error.details)
            built = [result.as_json() for result in results]
            print_json("trtforge.build/1", {"builds": built, "error": document})
            return error.exit_status
        results.append(result)
        if not as_json:
            if not quiet:
                for line in result.verdict_lines():
                    say(line, err=True)
            click.echo(str(result.bundle))
    if as_json:
        print_json("trtforge.build/1", {"builds": [result.as_json() for result in results]})
    return EXIT_OK
