"""`trtforge build`: the whole way from recipes to bundles."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtforge.cli.console import (
    ProgressLines,
    common_options,
    error_document,
    print_json,
    say,
    show_error,
)
from trtforge.errors import EXIT_OK, ForgeError

if TYPE_CHECKING:
    from trtforge.pipeline.run import BuildOptions


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
    engine fails, the others are still built and stored. When a recipe fails, the others are still
    built; the exit status is that of the first, in the order given, that failed.
    """
    from trtforge.pipeline.run import BuildOptions

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
    run = _Recipes(options, show, as_json=as_json, quiet=quiet)
    if len(recipes) == 1:
        run.build(recipes[0])
    else:
        run.build_all(recipes)
    if as_json:
        print_json("trtforge.build/1", {"builds": run.documents})
    return run.status


class _Recipes:
    """The recipes of one command line, each to its own end, and what is shown of them."""

    def __init__(
        self, options: "BuildOptions", show: ProgressLines, *, as_json: bool, quiet: bool
    ) -> None:
        self._options = options
        self._show = show
        self._as_json = as_json
        self._quiet = quiet
        self.documents: list[dict[str, Any]] = []
        self.status = EXIT_OK

    def build(self, recipe: Path) -> None:
        """Build one and show its bundle."""
        from trtforge.pipeline.run import build_recipe

        try:
            result = build_recipe(recipe, self._options, self._show)
        finally:
            self._show.done()
        self.documents.append({"recipe": str(recipe), **result.as_json()})
        if self._as_json:
            return
        if not self._quiet:
            for line in result.verdict_lines():
                say(line, err=True)
        click.echo(str(result.bundle))

    def build_all(self, recipes: Sequence[Path]) -> None:
        """Build one after the other, whatever becomes of those before."""
        failed = []
        for recipe in recipes:
            if not (self._quiet or self._as_json):
                say(f"{recipe}:", err=True)
            try:
                self.build(recipe)
            except ForgeError as error:
                failed.append(str(recipe))
                self.status = self.status or error.exit_status
                document = error_document(error.problems, error.exit_status, error.details)
                self.documents.append({"recipe": str(recipe), "error": document})
                if not self._as_json:
                    show_error(error, as_json=False)
        if failed:
            say(f"{len(failed)} of {len(recipes)} recipes failed: {', '.join(failed)}", err=True)
