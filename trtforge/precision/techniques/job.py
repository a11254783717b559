"""What techniques work on, which of them a recipe wants, and running them."""

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from trtforge.errors import UsageError
from trtforge.graph.names import did_you_mean
from trtforge.precision.techniques import AFTER, BEFORE, DEFAULT, FOR_FIXED_LAYERS

if TYPE_CHECKING:
    from trtforge.graph.model import Model
    from trtforge.precision.cache import CalibrationCache
    from trtforge.precision.reshaping import Reshaping
    from trtforge.precision.streaming import DataSource, Progress
    from trtforge.recipe.schema import Precision


@dataclass
class TechniqueJob:
    """What techniques work on; they replace `model` and `cache` and add to `notes`.

    Attributes:
        model: an FP32 model.
        source: samples; None where there are none, and techniques that need them do nothing.
        precision: the section of the recipe.
        samples: how many samples to use; None for all.
        cache: the ranges; None before calibration, and where weights alone are quantized.
        reshaping: what reshaped the graph, so that a cache can say how to do it again.
        notes: what was done, a line of text for each technique.
        on_progress: told the fraction done (0..1) and a line of text.
    """

    model: "Model"
    source: "DataSource | None"
    precision: "Precision"
    samples: int | None = None
    cache: "CalibrationCache | None" = None
    reshaping: "tuple[Reshaping, ...]" = ()
    notes: list[str] = field(default_factory=list)
    on_progress: "Progress | None" = None


class Technique(Protocol):
    """One technique."""

    name: str

    def apply(self, job: TechniqueJob) -> None:
        """Do it."""


def technique(name: str) -> str:
    """Return where a technique is: "module:Class".

    Raises:
        UsageError: TF0538, there is none of this name.
    """
    known = BEFORE | AFTER
    if name not in known:
        raise UsageError("TF0538", f"there is no technique '{name}'", did_you_mean(name, known))
    return known[name]


def chosen_techniques(precision: "Precision") -> tuple[str, ...]:
    """Return the techniques that a recipe wants, in the order in which they run.

    Raises:
        UsageError: TF0538, there is no technique of a name.
    """
    asked = precision.techniques
    if asked == "none":
        return ()
    names = DEFAULT.get(precision.quantize, ()) if asked == "default" else asked
    if precision.budget is not None:
        names = tuple(name for name in names if name not in FOR_FIXED_LAYERS)
    for name in names:
        technique(name)
    return tuple(name for name in BEFORE | AFTER if name in names)


def with_reshaping(cache: "CalibrationCache", job: TechniqueJob) -> "CalibrationCache":
    """Return the cache with what reshaped the graph that it was measured on."""
    return cache.model_copy(update={"reshaping": job.reshaping}) if job.reshaping else cache


def run_techniques(names: tuple[str, ...], job: TechniqueJob) -> None:
    """Run techniques one after the other."""
    for name in names:
        module, _, attribute = technique(name).partition(":")
        found: Technique = getattr(import_module(module), attribute)()
        model, cache, count = job.model, job.cache, len(job.notes)
        found.apply(job)
        if len(job.notes) == count:
            did_nothing = job.model is model and job.cache is cache
            job.notes.append(f"{name}: {'nothing to do' if did_nothing else 'done'}")
