"""A folder of .npz and .npy files: natural order, one or several samples each, flat memory."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from source_samples import linear, measured, opened, ramp, refused, rows, saved, tokens


def folder_of(tmp_path: Path, *numbers: int) -> Path:
    for number in numbers:
        saved(tmp_path / "calib" / f"s{number}.npz", x=ramp(number))
    return tmp_path


def test_files_come_in_natural_order(tmp_path: Path) -> None:
    source = opened(folder_of(tmp_path, 10, 2, 1, 0), linear(), "calib")
    assert source.count == 4
    assert [row[0] for row in rows(source, "x")] == [0, 1, 2, 10]
    assert source.description == "calib/ (4 files)"
    assert not source.is_synthetic
    assert measured(linear(), source) == (0, 13)


def test_a_file_holds_one_sample_or_several(tmp_path: Path) -> None:
    calib = folder_of(tmp_path, 0) / "calib"
    np.save(calib / "s1.npy", np.stack([ramp(1), ramp(2)]))
    saved(calib / "s3.npz", x=ramp(3)[None].astype(np.float64), labels=np.arange(1))
    np.save(calib / "s4.npy", np.asfortranarray(np.stack([ramp(4), ramp(5), ramp(6)])))
    source = opened(tmp_path, linear(), "calib")
    assert [row[0] for row in rows(source, "x")] == list(range(7))
    assert [row[0] for row in rows(source, "x", 3)] == list(range(7))
    for start in range(7):
        first = next(source.batches(7, start=start))["x"]
        assert first[:, 0].tolist() == list(range(start, 7))
    assert [len(feeds["x"]) for feeds in source.batches(4, limit=6)] == [4, 2]
    assert next(source.batches(1))["x"].dtype == np.float32


def test_samples_may_differ_in_shape(tmp_path: Path) -> None:
    lengths = [3, 3, 5, 2, 2]
    for number, length in enumerate(lengths):
        ids = np.full(length, number, np.int32)
        saved(tmp_path / "calib" / f"{number}.npz", ids=ids, mask=np.ones((1, length), np.bool_))
    source = opened(tmp_path, tokens(), "calib")
    assert [feeds["ids"].shape for feeds in source.batches(1)] == [(1, n) for n in lengths]
    assert [feeds["mask"].shape for feeds in source.batches(8)] == [(2, 3), (1, 5), (2, 2)]
    assert next(source.batches(1))["ids"].dtype == np.int64
    measured(tokens(), source)


def test_a_static_batch_is_kept(tmp_path: Path) -> None:
    source = opened(folder_of(tmp_path, *range(6)), linear(3), "calib")
    assert source.static_batch == 3
    assert [feeds["x"].shape for feeds in source.batches(1)] == [(3, 4), (3, 4)]
    assert measured(linear(3), source) == (0, 8)
    error = refused(folder_of(tmp_path, 6), linear(3), "calib")
    assert (error.code, error.hint[:13]) == ("TF0506", "use 6 samples")  # type: ignore[index]


def test_samples_of_a_static_batch_have_one_shape(tmp_path: Path) -> None:
    for number, width in enumerate((2, 3)):
        saved(tmp_path / "calib" / f"{number}.npz", x=ramp(0, width))
    error = refused(tmp_path, linear(2, "L"), "calib")
    assert error.code == "TF0504"
    assert "differ in shape" in error.message


def test_the_digest_is_of_contents_and_names_and_of_what_is_used(tmp_path: Path) -> None:
    def digest(folder: Path, samples: int | None = None) -> str:
        return opened(folder, linear(), {"data": "calib", "samples": samples}).digest

    one, same = folder_of(tmp_path / "a", 1, 2, 3), folder_of(tmp_path / "b", 1, 2, 3)
    assert digest(one) == digest(same)
    assert digest(one, 2) != digest(one) == digest(one, 3)
    saved(same / "calib" / "s3.npz", x=ramp(9))
    assert digest(one, 2) == digest(same, 2)
    assert digest(one) != digest(same)
    (same / "calib" / "s1.npz").rename(same / "calib" / "s0.npz")
    assert digest(one, 2) != digest(same, 2)


@pytest.mark.parametrize(
    ("arrays", "code", "text"),
    [
        ({"y": ramp(0)}, "TF0503", "array 'y' is no input of the model"),
        ({"x": ramp(0, 5)}, "TF0504", "dimension 1 of array 'x' is 5"),
        ({"x": np.zeros((1, 1, 4), np.float32)}, "TF0504", "has 3 dimensions"),
        ({"x": np.float32(1)}, "TF0504", "is a single number"),
        ({"x": np.zeros(4, np.int64)}, "TF0505", "array 'x' is int64"),
        ({"x": np.zeros((0, 4), np.float32)}, "TF0506", "no samples"),
        ({"x": np.array([0, 1, np.nan, 3], np.float32)}, "TF0507", "in sample 2"),
        ({"x": np.array([0, 1e300, 2, 3])}, "TF0507", "overflows float32"),
        ({"x": np.array([None] * 4)}, "TF0509", "holds Python objects"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    tmp_path: Path, arrays: dict[str, np.ndarray], code: str, text: str
) -> None:
    bad = saved(folder_of(tmp_path, 1, 2) / "calib" / "s9.npz", **arrays)
    error = refused(tmp_path, linear(), "calib")
    assert (error.code, error.where.file) == (code, str(bad))  # type: ignore[union-attr]
    assert text in error.message


def test_arrays_of_one_file_hold_the_same_number_of_samples(tmp_path: Path) -> None:
    ids, mask = np.zeros((2, 3), np.int64), np.ones((1, 3), np.bool_)
    saved(tmp_path / "calib" / "a.npz", ids=ids, mask=mask)
    error = refused(tmp_path, tokens(), "calib")
    assert error.code == "TF0506"
    assert "'ids' 2, 'mask' 1" in error.message


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    bad = folder_of(tmp_path, 1, 2) / "calib" / "s2.npz"
    bad.write_bytes(bad.read_bytes()[:80])
    error = refused(tmp_path, linear(), "calib")
    assert (error.code, error.where.file) == ("TF0502", str(bad))  # type: ignore[union-attr]


def test_a_lone_array_does_for_one_input_only(tmp_path: Path) -> None:
    (tmp_path / "calib").mkdir()
    np.save(tmp_path / "calib" / "a.npy", np.zeros((1, 3), np.int64))
    assert "holds one array" in refused(tmp_path, tokens(), "calib").message


def test_a_folder_needs_data_of_one_kind(tmp_path: Path) -> None:
    (tmp_path / "calib").mkdir()
    (tmp_path / "calib" / "notes.txt").write_text("")
    (tmp_path / "calib" / ".hidden.npz").write_text("")
    error = refused(tmp_path, linear(), "calib")
    assert error.code == "TF0501"
    assert "images" in str(error.hint)
    (folder_of(tmp_path, 1) / "calib" / "b.json").write_text("[]")
    assert "1 .npz and .npy files and 1 .json files" in refused(tmp_path, linear(), "calib").message


def test_without_a_declared_rank_one_sample_is_not_told_from_several(tmp_path: Path) -> None:
    model = linear()
    model.proto.graph.input[0].type.tensor_type.ClearField("shape")
    unknown = type(model)(model.proto)
    assert not unknown.contract.inputs[0].rank_known
    error = refused(folder_of(tmp_path, 1), unknown, "calib")
    assert error.code == "TF0504"
    assert "cannot be told" in error.message
    assert "one .npz file" in str(error.hint)


def test_fewer_samples_than_asked_for_is_an_error(tmp_path: Path) -> None:
    source = opened(folder_of(tmp_path, 1, 2), linear(), "calib")
    with pytest.raises(Exception, match="asks for 3 samples, the data has 2"):
        measured(linear(), source, 3)


def test_ten_thousand_files_take_no_more_memory_than_their_names(tmp_path: Path) -> None:
    """Samples are hard links to one file: what is measured is the reading, not the disk."""
    (tmp_path / "calib").mkdir()
    first = saved(tmp_path / "one.npz", x=ramp(0, 1000))
    for number in range(10_000):
        (tmp_path / "calib" / f"{number}.npz").hardlink_to(first)
    source = opened(tmp_path, linear(width=1000), {"data": "calib", "samples": 1500})
    assert source.count == 10_000
    tracemalloc.start()
    batches = sum(1 for _ in source.batches(16, limit=1500))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batches == 94
    assert peak < 1_000_000, "the samples together are 6 MB"


def test_a_large_file_is_read_in_blocks(tmp_path: Path) -> None:
    (tmp_path / "calib").mkdir()
    np.save(tmp_path / "calib" / "big.npy", np.zeros((20_000, 1000), np.float32))
    source = opened(tmp_path, linear(width=1000), "calib")
    tracemalloc.start()
    assert sum(len(feeds["x"]) for feeds in source.batches(64)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000, "the file has 80 MB"
