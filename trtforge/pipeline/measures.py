"""What a budget bounds: SQNR, the loss of top-1 accuracy, or a number of the user's code."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from trtforge.errors import DataError, Place
from trtforge.graph.sources.user_code import UserCode, import_module, load_script
from trtforge.precision.sensitivity import Noise
from trtforge.recipe.precision import Budget
from trtforge.verify.classes import check_labels, predictions

Outputs = dict[str, np.ndarray]
Labels = npt.NDArray[np.int64]


class Measure(Protocol):
    """A number for a candidate, and the bound on it.

    Attributes:
        name: of the key in the recipe.
        bound: the value that is still good enough.
    """

    @property
    def name(self) -> Literal["sqnr_db", "top1_drop", "metric"]: ...  # noqa: D102
    @property
    def bound(self) -> float: ...  # noqa: D102

    def value(self, reference: Sequence[Outputs], candidate: Iterable[Outputs]) -> float:
        """Compare the outputs of all runs, in order; the candidate's are read once."""
        ...

    def score(self, value: float) -> float:
        """Return a value as a number of which more is better."""
        ...


def meets(measure: Measure, value: float) -> bool:
    """Whether a value is within the bound; NaN is not."""
    return measure.score(value) >= measure.score(measure.bound)


def shown(measure: Measure, value: float) -> str:
    """Write a value with its unit."""
    if measure.name == "sqnr_db":
        return f"{value:.2f} dB"
    return f"{value:.3g} points lost" if measure.name == "top1_drop" else f"{value:.6g}"


@dataclass(frozen=True)
class Sqnr:
    """Signal-to-quantization-noise ratio of the worst output over all runs, dB."""

    bound: float
    name: Literal["sqnr_db"] = "sqnr_db"

    def value(self, reference: Sequence[Outputs], candidate: Iterable[Outputs]) -> float:
        """Sum signal and noise over all runs; only outputs of floats are judged."""
        sums: dict[str, Noise] = {}
        with np.errstate(invalid="ignore", over="ignore"):
            for expected, got in zip(reference, candidate, strict=True):
                for name, array in expected.items():
                    if array.dtype.kind == "f" and array.size:
                        sums.setdefault(name, Noise()).add(array, got[name].astype(np.float64))
        return min((one.sqnr_db for one in sums.values()), default=math.inf)

    def score(self, value: float) -> float:
        """More is better."""
        return value


@dataclass(frozen=True, eq=False)
class Top1Drop:
    """Loss of top-1 accuracy, percentage points; below 0 where the candidate is better.

    Attributes:
        bound: the largest loss.
        labels: class ids of all samples, in order.
    """

    bound: float
    labels: Labels
    name: Literal["top1_drop"] = "top1_drop"

    def value(self, reference: Sequence[Outputs], candidate: Iterable[Outputs]) -> float:
        """Count the samples of which one predicts the label and the other does not.

        Raises:
            DataError: TF0561, no output predicts classes; TF0706, a label is no class.
        """
        size = len(self.labels) // len(reference)
        lost = 0
        for index, (expected, got) in enumerate(zip(reference, candidate, strict=True)):
            labels = self.labels[index * size : (index + 1) * size]
            name, right = _predicted(expected, labels)
            check_labels(labels, expected[name], name)
            found = predictions(got[name], size)
            hits = 0 if found is None else int(np.count_nonzero(found == labels))
            lost += int(np.count_nonzero(right == labels)) - hits
        return 100 * lost / len(self.labels)

    def score(self, value: float) -> float:
        """Less is better."""
        return -value


def _predicted(outputs: Outputs, labels: Labels) -> tuple[str, Labels]:
    for name, array in outputs.items():
        classes = predictions(array, len(labels))
        if classes is not None:
            return name, classes
    shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in outputs.items())
    raise DataError(
        "TF0561",
        f"top1_drop needs an output with scores of classes, and there is none: {shapes}",
        "use a budget by sqnr_db, or a metric of your own",
    )


@dataclass(frozen=True, eq=False)
class Metric:
    """A number that the user's function gives.

    Attributes:
        bound: the least that is good enough.
        function: `score(reference, candidate)`: two lists of dicts of arrays by output name, one
            dict for each run (a sample, or as many as the model's fixed batch), in the order of the
            data. A parameter named `labels` is given their array, or None.
        code: where the function is.
        labels: class ids, None where the data has none.
    """

    bound: float
    function: Callable[..., object]
    code: UserCode
    labels: Labels | None = None
    name: Literal["metric"] = "metric"

    def value(self, reference: Sequence[Outputs], candidate: Iterable[Outputs]) -> float:
        """Call the function.

        Raises:
            DataError: TF0541, it failed; TF0562, it gave no number.
        """
        outputs = list(candidate)
        with self.code.runs():
            wants_labels = "labels" in inspect.signature(self.function).parameters
            more = {"labels": self.labels} if wants_labels else {}
            found = self.function(list(reference), outputs, **more)
        is_scalar = isinstance(found, np.ndarray | np.generic) and found.size == 1
        number = found.item() if is_scalar else found  # type: ignore[attr-defined]
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise DataError(
                "TF0562",
                f"'{self.code.where.file}' gave a {type(found).__name__}, not a number",
                "return a float of which more is better",
                self.code.where,
            )
        return float(number)

    def score(self, value: float) -> float:
        """More is better."""
        return value


def measure_of(budget: Budget, folder: Path, labels: Labels | None) -> Measure:
    """Return what a budget bounds.

    Args:
        budget: the section of the recipe.
        folder: the recipe's folder, that Python code is looked for in.
        labels: class ids of the samples that are searched on.

    Raises:
        DataError: TF0541 and TF0542, the function cannot be had; TF0563, labels are needed.
    """
    if budget.sqnr_db is not None:
        return Sqnr(budget.sqnr_db)
    if budget.top1_drop is not None:
        if labels is None:
            raise DataError(
                "TF0563",
                "top1_drop needs labels, and the data has none",
                "add an integer array 'labels' of shape (samples,) to the .npz file of "
                "calibration.data or verify.data",
            )
        return Top1Drop(budget.top1_drop, labels)
    assert budget.metric is not None, "laws of recipes"
    assert budget.at_least is not None, "laws of recipes"
    code, function = load_metric(budget.metric, folder)
    return Metric(budget.at_least, function, code, labels)


def load_metric(metric: str, folder: Path) -> tuple[UserCode, Callable[..., object]]:
    """Load the function that `module:function` or `file.py:function` names.

    Raises:
        DataError: TF0541, the code failed; TF0542, there is no such file or function.
    """
    where, _, name = metric.rpartition(":")
    purpose = "scores the outputs"
    if where.endswith(".py"):
        path = folder / where
        if not path.is_file():
            raise DataError(
                "TF0542", f"there is no file '{path}'", "name the file with the metric's function"
            )
        code = UserCode(path.parent, Place(str(path)), purpose)
        found = code.attribute(lambda: load_script(path), name)
    else:
        code = UserCode(folder, Place(metric), purpose)
        found = code.attribute(lambda: import_module(where, code.folder), name)
    if not callable(found):
        raise code.unfit(f"has '{name}', which is no function", "name a function")
    return code, found


def metric_files(metric: str, folder: Path) -> Iterator[Path]:
    """Yield the files of the recipe's folder that a metric's code is in."""
    where = metric.rpartition(":")[0]
    top = where if where.endswith(".py") else f"{where.replace('.', '/')}.py"
    for path in (folder / top, folder / top.removesuffix(".py") / "__init__.py"):
        if path.is_file():
            yield path
