"""What a bundle's recipe says is to be measured, and what the command line says otherwise."""

from dataclasses import dataclass
from pathlib import Path

from trtforge.engine.measuring.scenarios import Load, Scenario
from trtforge.pipeline.file_kinds import run_kind_of
from trtforge.recipe.performance import Performance

_MULTI_STREAM_BATCH = 8
"""Samples per query of MLPerf's MultiStream scenario."""


@dataclass(frozen=True)
class Asked:
    """What the command line says of a load; None and nothing where it says nothing."""

    scenario: Scenario | None = None
    batch: int | None = None
    rate: float | None = None
    streams: int | None = None
    limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Declared:
    """What arrives, and what must hold.

    Attributes:
        load: with default times.
        limits: as given; of the recipe where none are given and what arrives is the recipe's.
        note: why the recipe's limits are left out; None where they are not.
    """

    load: Load
    limits: tuple[str, ...]
    note: str | None = None


def declared(subject: Path, asked: Asked) -> Declared:
    """Fill in from the recipe of a bundle what is not asked for.

    Raises:
        UsageError: there is nothing at the path.
        IntegrityError: the bundle is damaged.
    """
    recipe = performance_of(subject)
    known = recipe or Performance()
    scenario = asked.scenario or known.scenario
    is_recipes = scenario == known.scenario
    batch = asked.batch or (known.batch if is_recipes else None)
    rate = asked.rate or (known.rate if is_recipes else None)
    streams = asked.streams or (known.streams if is_recipes else 1)
    load = Load(
        scenario,
        batch or (_MULTI_STREAM_BATCH if scenario == "multi-stream" else 1),
        rate=rate,
        streams=streams,
    )
    if asked.limits or not known.limits:
        return Declared(load, asked.limits)
    if (batch, rate, streams) == (known.batch, known.rate, known.streams) and is_recipes:
        return Declared(load, known.limits)
    note = "the recipe's limits are not judged: scenario, batch, rate or streams are others here"
    return Declared(load, (), note)


def performance_of(subject: Path) -> Performance | None:
    """The `performance` section of a bundle's recipe; None of anything else."""
    if run_kind_of(subject) != "bundle":
        return None
    from trtforge.bundle.read import open_bundle
    from trtforge.recipe.load import load_recipe

    recipe = open_bundle(subject).file("recipe.yaml")
    return load_recipe(recipe, check_files=False).recipe.performance
