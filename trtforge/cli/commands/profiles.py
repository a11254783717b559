"""`trtforge profiles`: which optimization profiles recorded shapes ask for."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtforge.cli.console import common_options, print_json, print_table, say
from trtforge.report.figures import percent

if TYPE_CHECKING:
    from trtforge.pipeline.profiles import ProfilesResult

_TRACE = click.option(
    "--trace",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help='JSON lines such as {"ids": [1, 128]} or {"shapes": {...}, "values": {"k": [5]}}, or a '
    "folder of .npz files, one request each.",
)


@click.group()
def profiles() -> None:
    """Suggest and check optimization profiles, from shapes that were recorded."""


@profiles.command()
@click.argument("model", type=click.Path(path_type=Path))
@_TRACE
@click.option(
    "-k",
    "--count",
    type=click.IntRange(1, 8),
    help="How many profiles at most; default as many as are worth their kernels.",
)
@common_options
def suggest(
    model: Path, trace: Path, count: int | None, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Propose profiles for MODEL that cover every request, as lines for a recipe."""
    from trtforge.pipeline.profiles import suggest_profiles

    _show(suggest_profiles(model, trace, count), as_json=as_json, quiet=quiet, lines=True)


@profiles.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@_TRACE
@common_options
def check(recipe: Path, trace: Path, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Say how well RECIPE's profiles fit: coverage, gaps, overlap. Exit 5 when some are outside."""
    from trtforge.errors import EXIT_OK, EXIT_PARITY
    from trtforge.pipeline.profiles import check_profiles

    result = check_profiles(recipe, trace)
    _show(result, as_json=as_json, quiet=quiet, lines=False)
    return EXIT_OK if result.assessment.covered == 1 else EXIT_PARITY


def _show(result: "ProfilesResult", *, as_json: bool, quiet: bool, lines: bool) -> None:
    if as_json:
        print_json("trtforge.profiles/1", result.as_json())
        return
    if not quiet:
        _show_fit(result)
    elif not lines:
        _show_coverage(result)
    if lines:
        for line in result.recipe_lines():
            click.echo(line)


def _show_fit(result: "ProfilesResult") -> None:
    from trtforge.engine.backend import ValueTriple

    found = result.assessment
    deciding = {
        name
        for profile in result.profiles
        for name, triple in profile.items()
        if isinstance(triple, ValueTriple)
    }

    def shown(name: str, numbers: tuple[int, ...]) -> str:
        return str(list(numbers)) if name in deciding else "x".join(map(str, numbers))

    rows = []
    for index, (profile, use) in enumerate(zip(result.profiles, found.profiles, strict=True)):
        for name, triple in profile.items():
            share = percent(use.requests / max(found.requests, 1))
            bounds = (shown(name, numbers) for numbers in triple)
            rows.append((str(index), share, f"{use.distance:.2f}", name, *bounds))
    print_table(("profile", "requests", "distance", "input", "min", "opt", "max"), rows)
    _show_coverage(result)
    for shapes in found.uncovered:
        say("outside: " + ", ".join(f"{name} {shown(name, dims)}" for name, dims in shapes))
    for index, use in enumerate(found.profiles):
        for name, axis, low_end, high_end in use.gaps:
            part = "value" if name in deciding else "axis"
            where = f"profile {index}, '{name}', {part} {axis}"
            say(f"{where}: nothing between {low_end} and {high_end}")
    for first, second in found.overlaps:
        say(f"profiles {first} and {second} overlap: the first that fits is used")


def _show_coverage(result: "ProfilesResult") -> None:
    found = result.assessment
    say(
        f"{percent(found.covered)} of {found.requests} requests are covered; "
        f"mean distance from opt: {found.distance:.2f} doublings"
    )
