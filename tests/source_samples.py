"""What the tests of data sources share: small nets, a way to open data, a real calibration."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from models_precision import BOOL, INT64, Net

from trtforge.errors import DataError
from trtforge.graph.model import Model
from trtforge.graph.sources import open_source
from trtforge.graph.sources.source import DataSource, Feeds
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.recipe.calibration import Calibration


def linear(batch: int | str = "N", width: int | str = 4) -> Model:
    """x (batch, width) times a matrix of ones: y is the sum of each row, four times."""
    net = Net()
    x = net.input("x", [batch, width])
    if isinstance(width, str):
        net.const("axis", [1], np.int64)
        y = net.op("ReduceSum", [x, "axis"], "y", keepdims=1)
    else:
        y = net.op("MatMul", [x, net.const("w", np.ones((width, 1)))], "y")
    net.output(y, [batch, 1])
    return net.model()


def tokens() -> Model:
    """Token ids (N, L) looked up in a table of 16 rows, and masked: two inputs, dynamic length."""
    net = Net()
    ids = net.input("ids", ["N", "L"], INT64)
    mask = net.input("mask", ["N", "L"], BOOL)
    rows = net.op("Gather", [net.weight("table", 16, 4), ids], "rows")
    kept = net.op("Unsqueeze", [mask, net.const("last", [-1], np.int64)], "kept")
    masked = net.op("Where", [kept, rows, net.const("zero", 0.0)], "masked")
    net.output(net.op("MatMul", [masked, net.weight("w", 4, 4)], "y"), ["N", "L", 4])
    return net.model()


def pictures(layout: str = "nchw", channels: int = 3, size: int = 8, kind: int = 1) -> Model:
    """One image in; its mean per channel out."""
    net = Net()
    axes = ("N", channels, size, size) if layout == "nchw" else ("N", size, size, channels)
    x = net.input("image", axes, kind)
    if kind != 1:
        x = net.op("Cast", [x], "cast", to=1)
    y = net.op("GlobalAveragePool", [x], "mean")
    net.output(y, ["N", axes[1], 1, 1])
    return net.model()


def opened(folder: Path, model: Model, section: Mapping[str, object] | str) -> DataSource:
    """Open a source as a recipe in that folder would; a text is the value of `data`."""
    section = {"data": section} if isinstance(section, str) else section
    calibration = Calibration.model_validate(section)
    return open_source(calibration, model.contract, folder.joinpath, model=model)


def measured(model: Model, source: DataSource, samples: int | None = None) -> tuple[float, float]:
    """Calibrate for real; return the smallest and the largest value of the first input."""
    inputs = tuple(spec.name for spec in model.contract.inputs if spec.dtype == "float32")
    tensors = (*inputs, model.contract.outputs[0].name)
    cache = calibrate(model, source, CalibrationRequest(tensors, "minmax", samples=samples))
    assert cache.samples == (source.count if samples is None else samples)
    assert cache.data[0].digest == source.digest
    assert cache.is_synthetic == source.is_synthetic
    seen = cache.ranges[tensors[0]]
    return seen.min, seen.max


def rows(source: DataSource, name: str, batch: int = 1) -> list[list[float]]:
    """All samples of one input as lists."""
    return [row.reshape(-1).tolist() for feeds in source.batches(batch) for row in feeds[name]]


def refused(folder: Path, model: Model, section: Mapping[str, object] | str) -> DataError:
    """Open data that is wrong and read it; return the error."""
    with pytest.raises(DataError) as caught:
        list(opened(folder, model, section).batches(1))
    assert caught.value.exit_status == 2
    assert caught.value.where is not None
    assert caught.value.hint or caught.value.code == "TF0505"
    return caught.value


def saved(path: Path, **arrays: object) -> Path:
    """Write a .npz file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def ramp(first: int, width: int = 4) -> np.ndarray:
    """One sample, float32, shape (width,): first, first + 1 ..."""
    return np.arange(first, first + width, dtype=np.float32)


__all__ = ["DataSource", "Feeds", "linear", "measured", "opened", "pictures", "ramp", "refused"]
__all__ += ["rows", "saved", "tokens"]
