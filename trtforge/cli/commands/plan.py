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
    """Say for each stage of RECIPE whether the store has its result, and why not if not.

    And what is missing on this machine, for which a build would stop before any work.
    """
    from trtforge.pipeline.events import Warned
    from trtforge.pipeline.plan import plan as plan_job
    from trtforge.pipeline.run import BuildOptions, job_of
    from trtforge.pipeline.support import missing_here

    show = ProgressLines(quiet=quiet, verbose=verbose)
    options = BuildOptions(targets=targets, overrides=overrides)
    job = job_of(recipe, options, show)
    stages, missing = plan_job(job), missing_here(job.recipe)
    if as_json:
        document = {
            "stages": [asdict(stage) for stage in stages],
            "missing": [problem.as_json() for problem in missing],
        }
        print_json("trtforge.plan/1", document)
        return
    for problem in missing:
        show(Warned(f"a build would stop: {problem.message} ({problem.hint})"))
    header = ("stage", "would", "why", "key") if verbose else ("stage", "would", "why")
    rows = [(stage.name, stage.outcome, stage.why, (stage.key or "")[:12]) for stage in stages]
    print_table(header, [row[: len(header)] for row in rows])
