"""Seeded random samples: only when asked for, the same each time, by the model's contract."""

from pathlib import Path

import numpy as np
import pytest
from source_samples import linear, measured, opened, tokens

from trtforge.errors import GraphError
from trtforge.graph.model import Model
from trtforge.graph.sources import open_source
from trtforge.graph.sources.source import DataSource
from trtforge.recipe.calibration import Calibration
from trtforge.recipe.schema import ShapeRange

SYNTHETIC = {"synthetic": True}


def made(model: Model, samples: int | None = None, length: int = 6) -> DataSource:
    calibration = Calibration(synthetic=True, samples=samples)
    shape = ShapeRange(min=(1, 1), opt=(8, length), max=(8, 9))
    profiles = [{"ids": shape, "mask": shape}]
    return open_source(calibration, model.contract, Path, model=model, profiles=profiles)


def test_thirty_two_samples_that_say_what_they_are(tmp_path: Path) -> None:
    source = opened(tmp_path, linear(1), SYNTHETIC)
    assert (source.count, source.is_synthetic) == (32, True)
    assert source.description == "synthetic samples"
    samples = [feeds["x"] for feeds in source.batches(1)]
    assert len({sample.tobytes() for sample in samples}) == 32
    low, high = measured(linear(1), source)
    assert low < -1 < 1 < high


def test_they_are_the_same_each_time(tmp_path: Path) -> None:
    one, other = (opened(tmp_path, linear(1), SYNTHETIC | {"samples": 5}) for _ in range(2))
    assert one.digest == other.digest
    assert one.count == 5
    for left, right in zip(one.batches(2), other.batches(2), strict=True):
        assert np.array_equal(left["x"], right["x"])
    assert opened(tmp_path, linear(1), SYNTHETIC).digest != one.digest


def test_token_ids_lie_within_their_table() -> None:
    source = made(tokens(), 20, 7)
    feeds = list(source.batches(1))
    assert {one["ids"].shape for one in feeds} == {(1, 7)}
    ids = np.concatenate([one["ids"] for one in feeds])
    assert (ids.min(), ids.max()) == (0, 15)
    assert set(np.unique([one["mask"] for one in feeds])) == {False, True}
    measured(tokens(), source)
    assert made(tokens(), 20, 6).digest != source.digest


def test_a_static_batch_is_filled(tmp_path: Path) -> None:
    source = opened(tmp_path, linear(3), SYNTHETIC)
    assert source.count == 33
    measured(linear(3), source)


def test_a_dynamic_input_needs_a_shape(tmp_path: Path) -> None:
    with pytest.raises(GraphError) as caught:
        opened(tmp_path, tokens(), SYNTHETIC)
    assert caught.value.code == "TF0412"
