"""Candidates against the original on the same samples, whose outputs are computed once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trtforge.errors import DataError, GraphError
from trtforge.graph.contract import IoContract
from trtforge.graph.execute import Session
from trtforge.graph.inputs import Values
from trtforge.graph.model import Model
from trtforge.graph.sources.source import DataSource
from trtforge.graph.sources.value_rows import ValueRows, open_arrays
from trtforge.pipeline.measures import Labels, Measure, Outputs
from trtforge.pipeline.stage import Job
from trtforge.precision.attest import attest
from trtforge.precision.emulate import emulate
from trtforge.precision.ends import narrowed
from trtforge.recipe.precision import Precision

if TYPE_CHECKING:
    from trtforge.recipe.schema import Profile

_MOST = 1024
"""Samples of a mix where the measure counts right answers: it needs as many as there are."""

_FEW, _MANY, _MACS = 32, 256, 130e9
"""Samples for SQNR: as many as cost so many multiply-accumulates, 32 of resnet50, within these
bounds. The SQNR of mixes of the digits network differs by 1 dB from one 32 samples to others, and
by 0.3 dB between 256 calibration and 797 held-out samples."""

_KEPT_BYTES = 1 << 30
"""Outputs of the original that are kept in memory; fewer samples are used where this is full."""


@dataclass(frozen=True, eq=False)
class Data:
    """Samples to run candidates on.

    Attributes:
        source: the samples.
        count: how many of them the recipe allows; None for all.
        role: where they come from, in the words of a recipe: `calibration.data`, `verify.data`.
        labels: class ids of all samples; None where there are none.
    """

    source: DataSource
    count: int | None
    role: str
    labels: Labels | None = None

    def limit(self, wanted: int) -> int:
        """How many samples to use where some number is wanted: whole runs, at least one.

        Raises:
            DataError: TF0506, there are fewer samples than the model's fixed batch.
        """
        size = self.source.static_batch or 1
        if self.source.count < size:
            raise DataError(
                "TF0506",
                f"{self.role} has {self.source.count} samples, the model runs {size} at once",
                f"give at least {size} samples",
            )
        return max(min(wanted, self.source.count, self.count or wanted) // size, 1) * size

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the first run's inputs; Values of those that decide shapes."""
        feeds = next(iter(self.source.batches(1, self.source.static_batch or 1)))
        deciding = self.source.deciding if isinstance(self.source, ValueRows) else ()
        return {
            name: Values(array.reshape(-1).tolist()) if name in deciding else array.shape
            for name, array in feeds.items()
        }


@dataclass(frozen=True, eq=False)
class Trial:
    """Samples, and what the original makes of them.

    Attributes:
        data: where the samples come from.
        runs: how many runs there are.
        reference: the original's outputs, one dict for each run.
        contract: of the original; inputs and outputs that a recipe makes narrow are cast.
    """

    data: Data
    runs: int
    reference: tuple[Outputs, ...]
    contract: IoContract

    @property
    def samples(self) -> int:
        """How many samples are used."""
        return self.runs * (self.data.source.static_batch or 1)

    @property
    def labels(self) -> Labels | None:
        """The class ids of the samples that are used."""
        return None if self.data.labels is None else self.data.labels[: self.samples]

    def value(self, typed: Model, measure: Measure) -> float:
        """Run a typed model, every operator rounded to its type, and measure it.

        Raises:
            GraphError: ONNX Runtime refuses the model.
            DataError: as the measure.
        """
        twin = emulate(typed, wide_ends=narrowed(self.contract, typed.contract))
        return measure.value(self.reference, _outputs(twin, self.data, self.samples))


def trial_of(original: Model, data: Data, measure: str) -> Trial:
    """Run the original.

    Raises:
        GraphError: ONNX Runtime refuses it; TF0524, an output is NaN or infinite.
        DataError: the data cannot be read or has too few samples.
    """
    kept: list[Outputs] = []
    free = _KEPT_BYTES
    wanted = _enough(original, data) if measure == "sqnr_db" else _MOST
    for outputs in _outputs(original, data, data.limit(wanted)):
        free -= sum(array.nbytes for array in outputs.values())
        if free < 0 and kept:
            break
        _check_finite(outputs)
        for array in outputs.values():
            array.flags.writeable = False  # the user's code gets to see it
        kept.append(outputs)
    return Trial(data, len(kept), tuple(kept), original.contract)


def search_data(calibration: Data | None, judging: Data | None, precision: Precision) -> Data:
    """Return the samples that mixes are searched on: those of calibration where they will do.

    Args:
        calibration: the samples that ranges come from; None where there are none.
        judging: other samples; None where there are none.
        precision: its budget says whether labels are needed.

    Raises:
        DataError: TF0563, labels are needed and nothing has any; or there are no samples.
    """
    needs_labels = precision.budget is not None and precision.budget.top1_drop is not None
    for data in (calibration, judging):
        if data is not None and (data.labels is not None or not needs_labels):
            return data
    raise DataError(
        "TF0563",
        "top1_drop needs labels, and no samples have any"
        if needs_labels
        else "a budget is met on samples, and there are none",
        "add an integer array 'labels' of shape (samples,) to the .npz file of calibration.data or "
        "verify.data (of --data or --held-out, without a recipe)"
        if needs_labels
        else "give calibration.data or verify.data",
    )


def calibration_samples(job: Job) -> Data | None:
    """Return the samples that a recipe calibrates on, None where it has none."""
    calibration, found = job.recipe.calibration, job.calibration_data
    if calibration is None or found is None:
        return None
    path = job.loaded.resolve(calibration.data) if isinstance(calibration.data, str) else None
    labels = labels_of(path, Model.load(job.model_path).contract, job.recipe.shapes)
    return Data(found, calibration.samples, "calibration.data", labels)


def verifying_samples(job: Job) -> Data | None:
    """Return the samples that a recipe verifies on, None where it has none."""
    verify = job.recipe.verify
    if verify.data is None:
        return None
    contract = Model.load(job.model_path).contract
    path = job.loaded.resolve(verify.data)
    source = open_arrays(path, contract, job.recipe.shapes, labels=True)
    return Data(source, verify.samples, "verify.data", source.labels)


def labels_of(
    path: Path | None, contract: IoContract, profiles: "Sequence[Profile]" = ()
) -> Labels | None:
    """Return the class ids that stand beside the samples of a .npz file; None for anything else."""
    if path is None or path.suffix.lower() != ".npz":
        return None
    return open_arrays(path, contract, profiles, labels=True).labels


def _enough(original: Model, data: Data) -> int:
    """How many samples an SQNR is measured on."""
    try:
        macs = sum(attest(original, data.shapes).macs.values())
    except GraphError:  # shapes that only a run would tell: it may be a large model
        return _FEW
    samples = data.source.static_batch or 1
    return int(min(max(_MACS * samples / max(macs, 1), _FEW), _MANY))


def _outputs(model: Model, data: Data, samples: int) -> Iterator[Outputs]:
    """Yield the outputs of each run; a sample runs alone where the model lets it."""
    session = Session(model)
    names = {spec.name for spec in model.contract.inputs}
    for feeds in data.source.batches(data.source.static_batch or 1, samples):
        yield session.run({name: array for name, array in feeds.items() if name in names})


def _check_finite(outputs: Outputs) -> None:
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise GraphError(
                "TF0524",
                f"output '{name}' of the original is NaN or infinite on a sample",
                "look for overflow or a division by zero in the model, or leave the sample out",
            )
