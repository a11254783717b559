"""`trtforge plan`: what a build would do, and why each stage hits or misses the store."""

from dataclasses import asdict
from pathlib import Path

import click

from trtforge.cli.console import ProgressLines, common_options, print_json, print_table


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--target", "targets", multiple=True, help="Plan this target only (repeatable).")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change one recipe value.")
@common_options
def plan(
    recipe: Path,
    targets: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Say for each stage of RECIPE whether the store has its result, and why not if not."""
    from trtforge.pipeline.plan import plan as plan_job
    from trtforge.pipeline.run import BuildOptions, job_of

    show = ProgressLines(quiet=quiet, verbose=verbose)
    options = BuildOptions(targets=targets, overrides=overrides)
    stages = plan_job(job_of(recipe, options, show))
    if as_json:
        print_json("trtforge.plan/1", {"stages": [asdict(stage) for stage in stages]})
        return
    header = ("stage", "would", "why", "key") if verbose else ("stage", "would", "why")
    rows = [(stage.name, stage.outcome, stage.why, (stage.key or "")[:12]) for stage in stages]
    print_table(header, [row[: len(header)] for row in rows])
