"""Which techniques a recipe wants, and running them around calibration."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from trtforge.errors import UsageError
from trtforge.graph.names import did_you_mean
from trtforge.precision.techniques import AFTER, BEFORE, DEFAULT

if TYPE_CHECKING:
    from trtforge.graph.model import Model
    from trtforge.graph.sources.source import DataSource
    from trtforge.precision.cache import CalibrationCache
    from trtforge.recipe.schema import Precision


@dataclass
class TechniqueJob:
    """What techniques work on; they change `model` and `cache`.

    Attributes:
        model: an FP32 model.
        source: samples.
        precision: the section of the recipe.
        samples: how many samples to use; None for all.
        cache: the ranges; None before calibration, and where weights alone are quantized.
        on_progress: told the fraction done (0..1) and a line of text.
    """

    model: "Model"
    source: "DataSource"
    precision: "Precision"
    samples: int | None = None
    cache: "CalibrationCache | None" = None
    on_progress: Callable[[float, str], None] | None = None


def chosen_techniques(precision: "Precision") -> tuple[str, ...]:
    """Return the techniques that a recipe wants, in the order in which they run.

    Raises:
        UsageError: TF0538, there is no technique of a name.
    """
    asked = precision.techniques
    if asked == "none":
        return ()
    names = DEFAULT.get(precision.quantize, ()) if asked == "default" else asked
    for name in names:
        technique(name)
    return tuple(name for name in BEFORE | AFTER if name in names)


def technique(name: str) -> str:
    """Return where a technique is: "module:Class".

    Raises:
        UsageError: TF0538, there is none of this name.
    """
    known = BEFORE | AFTER
    if name not in known:
        raise UsageError("TF0538", f"there is no technique '{name}'", did_you_mean(name, known))
    return known[name]


def run_techniques(names: tuple[str, ...], job: TechniqueJob) -> None:
    """Run techniques one after the other."""
    for name in names:
        module, _, attribute = technique(name).partition(":")
        getattr(import_module(module), attribute)().apply(job)
