"""What a stage is: files into files, cached under a key of everything that can change them."""

import functools
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trtforge.pipeline.events import Sink, ignore
from trtforge.pipeline.store import Entry, Store, file_sha256
from trtforge.recipe.load import LoadedRecipe
from trtforge.recipe.schema import Recipe

if TYPE_CHECKING:
    from trtforge.graph.sources.source import DataSource
    from trtforge.pipeline.ranges import Wanted

Progress = Callable[[float | None, str], None]
"""Called by a running stage: fraction 0..1 (None: unknown), and what it is doing."""

Inputs = Mapping[str, Entry]
"""Upstream stage name -> its entry."""


@dataclass
class Job:
    """One recipe on its way through the house.

    Attributes:
        loaded: the recipe with its places and its folder.
        recipe: the recipe as it is built (`--target` may have left only some targets in it).
        store: where results are kept.
        emit: told what happens.
        cancelled: once set, what still runs stops within seconds.
    """

    loaded: LoadedRecipe
    recipe: Recipe
    store: Store
    emit: Sink = ignore
    cancelled: threading.Event = field(default_factory=threading.Event, repr=False)
    _digests: dict[Path, str] = field(default_factory=dict, repr=False)

    @property
    def model_path(self) -> Path:
        """The original ONNX file."""
        return self.loaded.resolve(self.recipe.model.onnx)

    def shapes_json(self) -> list[dict[str, Any]]:
        """The optimization profiles as JSON data."""
        return [
            {name: shape.model_dump(mode="json") for name, shape in profile.items()}
            for profile in self.recipe.shapes
        ]

    @property
    def has_values(self) -> bool:
        """Whether profiles give values that decide shapes; samples without any take them."""
        return any(one.values for each in self.recipe.shapes for one in each.values())

    def file_digest(self, path: Path) -> str:
        """Return the sha256 (hex) of a data file, read once per job."""
        if path not in self._digests:
            self._digests[path] = file_sha256(path)
        return self._digests[path]

    def wanted(self, checkpoint: Path | None = None) -> "Wanted":
        """Return what is quantized, and where its ranges come from."""
        from trtforge.pipeline.ranges import Wanted

        recipe = self.recipe
        return Wanted(
            recipe.precision, recipe.calibration, self.loaded.resolve, recipe.shapes, checkpoint
        )

    @functools.cached_property
    def calibration_data(self) -> "DataSource | None":
        """The calibration data, opened once for the original model; its inputs are everyone's."""
        from trtforge.graph.model import Model
        from trtforge.pipeline.ranges import open_data

        return open_data(Model.load(self.model_path), self.wanted())

    def model_digest(self) -> str:
        """Return the digest of the original model, external data included."""
        from trtforge.graph.model import source_digest

        if self.model_path not in self._digests:
            self._digests[self.model_path] = source_digest(self.model_path)
        return self._digests[self.model_path]


class Stage(Protocol):
    """One step of the pipeline.

    Attributes:
        name: unique in a pipeline, e.g. `build:rtx`.
        kind: the folder in the store, e.g. `build`.
        rooms: the packages of trtforge whose code makes the result; their source is in the key.
        consumes: upstream stage name -> glob patterns of the files that are read.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def rooms(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]: ...  # noqa: D102

    def facts(self, job: Job) -> dict[str, Any]:
        """Return what else determines the result: recipe slice, source digests, versions."""
        ...

    def run(self, job: Job, inputs: Inputs, out: Path, progress: Progress) -> str:
        """Write the result's files into `out`; return one line about it (may be empty)."""
        ...


def key_document(stage: Stage, job: Job, inputs: Inputs) -> dict[str, Any]:
    """Return everything that determines a stage's result; its sha256 is the key."""
    return {
        "stage": stage.kind,
        "code": {room: code_digest(room) for room in (*stage.rooms, "pipeline")},
        **stage.facts(job),
        "inputs": {
            name: {
                file: digest
                for file, digest in sorted(inputs[name].files.items())
                if any(fnmatch(file, pattern) for pattern in patterns)
            }
            for name, patterns in stage.consumes.items()
        },
    }


@functools.cache
def code_digest(room: str) -> str:
    """Return 16 digits over the source of one room of trtforge.

    A version number would have to be raised by hand at each change that can change a result; a
    forgotten one is a stale hit that nobody sees.
    """
    folder = Path(__file__).parent.parent / room
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".j2"):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def package_versions(*names: str) -> dict[str, str]:
    """Return the installed versions of packages, without importing them."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_json(path: Path, value: Any) -> None:
    """Write one of a stage's JSON files: readable, keys sorted, no NaN."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    path.write_text(text, encoding="utf-8")
