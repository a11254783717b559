"""What the opener of a source is told."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trtforge.graph.contract import IoContract
from trtforge.recipe.calibration import Calibration

if TYPE_CHECKING:
    from trtforge.graph.model import Model
    from trtforge.recipe.schema import ShapeRange


@dataclass(frozen=True)
class SourceRequest:
    """Which data, for which model.

    Attributes:
        calibration: the section of the recipe.
        contract: the model's inputs.
        resolve: the file or folder that a path of the recipe means.
        model: for synthetic samples only; it says which inputs index tables.
        profiles: for synthetic samples of a model with dynamic inputs.
    """

    calibration: Calibration
    contract: IoContract
    resolve: Callable[[str], Path]
    model: "Model | None" = None
    profiles: "Sequence[Mapping[str, ShapeRange]]" = ()

    @property
    def wanted(self) -> int | None:
        """How many samples the recipe asks for, None for all."""
        return self.calibration.samples


def natural(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Sort key of a file's name: numbers in it by their value, so that 2 stands before 10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((int(part) if part.isdecimal() else -1, part) for part in parts), name


def shown(folder: Path) -> str:
    """Return a folder's name with a slash: no path, as that is of one machine."""
    return f"{folder.resolve().name}/"
