"""Laws that hold for every source: order, batches, slices, and the same ranges to the last bit."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from precision_samples import net
from source_samples import linear, opened, saved

from trtforge.errors import DataError, Place
from trtforge.graph.sources import KINDS
from trtforge.graph.sources.items import ItemSource
from trtforge.graph.sources.request import SourceRequest, natural
from trtforge.graph.sources.source import DataSource
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.quantize import candidate_tensors
from trtforge.recipe.calibration import Calibration
from trtforge.recipe.schema import Precision

COUNT = 12


class Items(ItemSource):
    """Items from a list."""

    def __init__(self, made: Sequence[Any], width: int | str = "L", batch: int | str = "N") -> None:
        self.made = made
        contract = linear(batch, width).contract
        calibration = Calibration(data="data:samples")
        super().__init__(SourceRequest(calibration, contract, Path), "items", Place("items"))

    def items(self) -> Iterator[tuple[Any, Place]]:
        for item in self.made:
            yield item, self.where


lengths = st.lists(st.integers(1, 3), min_size=1, max_size=12)


@st.composite
def grouped(draw: st.DrawFn) -> tuple[list[np.ndarray], list[Any]]:
    """Samples of any length, numbered, and the same ones put into items at random."""
    samples = [np.full(n, i, np.float32) for i, n in enumerate(draw(lengths))]
    made: list[Any] = []
    position = 0
    while position < len(samples):
        same = [s for s in samples[position:] if s.shape == samples[position].shape]
        size = 1
        while size < len(same) and samples[position + size].shape == samples[position].shape:
            size += 1
        size = draw(st.integers(1, size))
        block = np.stack(samples[position : position + size])
        item = block[0] if size == 1 and draw(st.booleans()) else block
        made.append(item if draw(st.booleans()) else {"x": item})
        position += size
    return samples, made


@given(grouped(), st.integers(1, 5), st.integers(0, 12), st.integers(0, 14))
@settings(max_examples=200, deadline=None)
def test_samples_come_in_order_however_they_are_grouped(
    both: tuple[list[np.ndarray], list[Any]], batch: int, start: int, limit: int
) -> None:
    samples, made = both
    source = Items(made)
    assert source.count == len(samples)
    assert source.digest == Items(samples).digest
    batches = [feeds["x"] for feeds in source.batches(batch, limit, start)]
    read = [row for rows in batches for row in rows]
    wanted = samples[start:limit]
    assert len(read) == len(wanted)
    assert all(np.array_equal(one, other) for one, other in zip(read, wanted, strict=True))
    assert all(1 <= len(rows) <= batch for rows in batches)
    for one, other in pairwise(batches):
        assert len(one) == batch or one.shape[1:] != other.shape[1:], "no batch ends early"


@given(st.integers(0, 11), st.lists(st.integers(1, 4), min_size=4, max_size=6))
@settings(max_examples=50, deadline=None)
def test_a_bad_value_is_named_by_its_sample(bad: int, sizes: list[int]) -> None:
    values = np.zeros((sum(sizes), 3), np.float32)
    values[min(bad, len(values) - 1), 1] = np.nan
    with pytest.raises(DataError, match=rf"in sample {min(bad, len(values) - 1)}$"):
        Items(np.split(values, np.cumsum(sizes)[:-1]))


@given(st.lists(st.integers(0, 2000), unique=True))
def test_numbers_in_names_sort_by_value(numbers: list[int]) -> None:
    names = [f"img{number}.png" for number in numbers]
    assert sorted(names, key=natural) == [f"img{number}.png" for number in sorted(numbers)]


def test_names_that_differ_in_zeros_have_an_order() -> None:
    names = ["a1", "a01", "a001", "b", "a", "1", "²"]
    backwards = names[::-1]
    assert sorted(names, key=natural) == sorted(backwards, key=natural)


def folder_of_all_kinds(tmp_path: Path, images: np.ndarray) -> Path:
    from PIL import Image
    from polygraphy.json import save_json

    saved(tmp_path / "calib.npz", image=images)
    np.save(tmp_path / "calib.npy", images)
    for folder in ("folder", "photos", "jsons"):
        (tmp_path / folder).mkdir()
    for number, image in enumerate(images):
        np.save(tmp_path / "folder" / f"{number}.npy", image)
        pixels = np.round(image.transpose(1, 2, 0) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
        save_json({"image": image[None]}, str(tmp_path / "jsons" / f"{number}.json"))
    save_json([{"image": images[:5]}, {"image": images[5:]}], str(tmp_path / "inputs.json"))
    code = "import numpy as np\nfrom pathlib import Path\ndef load_data():\n"
    code += "    yield from np.load(Path(__file__).parent / 'calib.npz')['image']\n"
    (tmp_path / "load.py").write_text(code)
    return tmp_path


SECTIONS: dict[str, Any] = {
    "npz": "calib.npz",
    "npy": "calib.npy",
    "folder": "folder",
    "images": {"images": "photos"},
    "json": "inputs.json",
    "jsons": "jsons",
    "script": "load.py",
    "python": {"python": "load:load_data"},
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DataSource]:
    """The same 12 images from every kind of source."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 16, 16))
    images = pixels.astype(np.float32) * np.float32(1 / 255)
    folder = folder_of_all_kinds(tmp_path_factory.mktemp("kinds"), images)
    return {name: opened(folder, net("cnn"), {"data": data}) for name, data in SECTIONS.items()}


def test_the_same_data_gives_the_same_ranges_to_the_last_bit(
    sources: dict[str, DataSource],
) -> None:
    tensors = candidate_tensors(net("cnn"), Precision(quantize="int8"))
    request = CalibrationRequest(tensors, "entropy")
    wanted = calibrate(net("cnn"), sources["npz"], request)
    assert wanted.samples == COUNT
    for name, source in sources.items():
        cache = calibrate(net("cnn"), source, request)
        assert cache.ranges == wanted.ranges, name
        assert (cache.data[0].digest, cache.data[0].source) == (source.digest, source.description)
    digests = {sources[name].digest for name in ("json", "jsons", "script", "python")}
    assert len(digests) == 1


@pytest.mark.parametrize("name", SECTIONS)
def test_every_source_keeps_the_laws(sources: dict[str, DataSource], name: str) -> None:
    source = sources[name]
    assert (source.count, source.static_batch, source.is_synthetic) == (COUNT, None, False)
    assert source.digest.startswith("sha256:")
    assert len(source.digest) == 71
    assert source.description
    assert "\n" not in source.description
    assert "/tmp" not in source.description
    whole = np.concatenate([feeds["image"] for feeds in source.batches(COUNT)])
    assert np.array_equal(whole, next(sources["npz"].batches(COUNT))["image"])
    for batch in (1, 5, 100):
        sizes = [len(feeds["image"]) for feeds in source.batches(batch)]
        assert sizes == [min(batch, COUNT - first) for first in range(0, COUNT, batch)]
    for start, limit in ((0, 0), (3, 8), (11, 12), (12, 12), (4, 99)):
        parts = [feeds["image"] for feeds in source.batches(3, limit, start)]
        assert np.array_equal(np.concatenate([whole[:0], *parts]), whole[start:limit])


def test_the_table_names_modules_that_open() -> None:
    from importlib import import_module

    assert all(callable(import_module(module).open_source) for module in KINDS.values())


def test_a_model_without_inputs_takes_no_data(tmp_path: Path) -> None:
    from trtforge.graph.contract import IoContract
    from trtforge.graph.sources import open_source

    saved(tmp_path / "calib" / "a.npz", x=np.zeros((1, 4)))
    with pytest.raises(DataError, match="the model has no inputs"):
        open_source(Calibration(data="calib"), IoContract((), ()), tmp_path.joinpath)
