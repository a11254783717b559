"""Data files: streamed in flat memory, checked against the contract, every defect named."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from trtforge.errors import DataError
from trtforge.graph.contract import IoContract, TensorSpec
from trtforge.graph.data import ArrayData

X = TensorSpec("x", "float32", ("N", 3))
IDS = TensorSpec("ids", "int64", ("N", 4))


def contract(*specs: TensorSpec) -> IoContract:
    return IoContract(specs or (X,), ())


def save(path: Path, compress: bool = False, **arrays: object) -> Path:
    (np.savez_compressed if compress else np.savez)(path, **arrays)  # type: ignore[arg-type]
    return path


def rows(count: int, width: int = 3, dtype: type = np.float32) -> np.ndarray:
    return np.arange(count * width).reshape(count, width).astype(dtype)


def refused(path: Path, *specs: TensorSpec, labels: bool = False) -> DataError:
    with pytest.raises(DataError) as caught:
        ArrayData.open(path, contract(*specs), labels=labels)
    assert caught.value.exit_status == 2
    assert caught.value.where is not None
    assert caught.value.where.file == str(path)
    return caught.value


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_batches_are_the_rows_in_order(tmp_path: Path, compress: bool, order: str) -> None:
    x, ids = rows(10), rows(10, 4, np.int64)
    laid_out = np.asarray(x, order=order)  # type: ignore[call-overload]
    path = save(tmp_path / "d.npz", compress, x=laid_out, ids=ids, labels=np.arange(10))
    data = ArrayData.open(path, contract(X, IDS), labels=True)
    assert data.count == 10
    assert data.labels is not None
    assert data.labels.tolist() == list(range(10))
    batches = list(data.batches(4))
    assert [len(batch["x"]) for batch in batches] == [4, 4, 2]
    assert np.array_equal(np.concatenate([batch["x"] for batch in batches]), x)
    assert np.array_equal(np.concatenate([batch["ids"] for batch in batches]), ids)
    limited = list(data.batches(4, limit=5))
    assert [len(batch["ids"]) for batch in limited] == [4, 1]
    assert len(list(data.batches(4))) == 3


@pytest.mark.parametrize("compress", [False, True])
def test_memory_is_one_batch(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "d.npz"
    save(path, compress, x=np.zeros((200_000, 30), np.float32))  # 24 MB
    data = ArrayData.open(path, contract(TensorSpec("x", "float32", ("N", 30))))
    tracemalloc.start()
    total = sum(len(batch["x"]) for batch in data.batches(1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 200_000
    assert peak < 4 << 20


def test_a_lone_array_for_a_single_input(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", rows(5))
    data = ArrayData.open(tmp_path / "d.npy", contract(X))
    assert data.count == 5
    assert np.array_equal(next(data.batches(9))["x"], rows(5))
    assert "2 inputs" in refused(tmp_path / "d.npy", X, IDS).message


def test_labels_are_left_alone_unless_asked_for(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=rows(3), labels=np.arange(3))
    assert ArrayData.open(path, contract()).labels is None
    assert (
        ArrayData.open(save(tmp_path / "e.npz", x=rows(3)), contract(), labels=True).labels is None
    )


def test_an_input_called_labels_is_an_input(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", labels=rows(3))
    data = ArrayData.open(path, contract(TensorSpec("labels", "float32", ("N", 3))), labels=True)
    assert data.labels is None
    assert next(data.batches(3))["labels"].dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.bool_])
def test_safe_conversions(tmp_path: Path, dtype: type) -> None:
    path = save(tmp_path / "d.npz", x=rows(3, dtype=dtype))
    assert next(ArrayData.open(path, contract()).batches(3))["x"].dtype == np.float32


@pytest.mark.parametrize("dtype", [np.int64, np.complex64, "U4"])
def test_unsafe_conversions_are_refused(tmp_path: Path, dtype: type) -> None:
    path = save(tmp_path / "d.npz", x=rows(3).astype(dtype))
    assert refused(path).code == "TF0505"


def test_float64_that_overflows_float32_is_found(tmp_path: Path) -> None:
    values = rows(3, dtype=np.float64)
    values[2, 1] = 1e300
    data = ArrayData.open(save(tmp_path / "d.npz", x=values), contract())
    with pytest.raises(DataError, match="sample 2"):
        list(data.batches(2))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_name_the_array_and_the_sample(tmp_path: Path, bad: float) -> None:
    values = rows(9)
    values[7, 1] = bad
    data = ArrayData.open(save(tmp_path / "d.npz", x=values), contract())
    batches = data.batches(4)
    next(batches)
    with pytest.raises(DataError, match=r"array 'x' holds NaN or Inf .* in sample 7") as caught:
        next(batches)
    assert caught.value.code == "TF0507"
    assert len(list(data.batches(4, limit=7))) == 2


def test_a_static_batch_is_kept(tmp_path: Path) -> None:
    spec = TensorSpec("x", "float32", (2, 3))
    data = ArrayData.open(save(tmp_path / "d.npz", x=rows(6)), contract(spec))
    assert data.static_batch == 2
    assert [len(batch["x"]) for batch in data.batches(4)] == [2, 2, 2]
    with pytest.raises(DataError, match="no multiple") as caught:
        list(data.batches(4, limit=5))
    assert "4 samples" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("arrays", "code", "says"),
    [
        ({"X1": rows(2)}, "TF0503", "'X1' is no input"),
        ({"x": rows(2), "other": rows(2)}, "TF0503", "'other' is no input"),
        ({"labels": np.arange(2)}, "TF0503", "no array for input 'x'"),
        ({}, "TF0503", "no array for input 'x'"),
        ({"x": rows(2)[0]}, "TF0504", "1 dimensions [3]"),
        ({"x": np.float32(1)}, "TF0504", "single number"),
        ({"x": rows(2, 4)}, "TF0504", "dimension 1 of array 'x' is 4, the model's input has 3"),
        ({"x": rows(0)}, "TF0506", "no samples"),
        ({"x": rows(2), "labels": np.arange(3)}, "TF0506", "'x' 2, 'labels' 3"),
        ({"x": rows(2), "labels": np.zeros(2)}, "TF0508", "not float64 [2]"),
        ({"x": rows(2), "labels": np.zeros((2, 1), int)}, "TF0508", "[2, 1]"),
        ({"x": rows(2), "labels": np.array([1, -1])}, "TF0508", "negative class id"),
        ({"x": np.array([[1, "a", None]], dtype=object)}, "TF0509", "Python objects"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, arrays: dict[str, np.ndarray], code: str, says: str
) -> None:
    error = refused(save(tmp_path / "d.npz", **arrays), labels=True)
    assert (error.code, says in error.message) == (code, True), error.message


def test_a_near_name_is_suggested(tmp_path: Path) -> None:
    spec = TensorSpec("image", "float32", ("N", 3))
    error = refused(save(tmp_path / "d.npz", imgae=rows(2)), spec)
    assert error.hint == "did you mean 'image'?"


def test_different_counts(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=rows(3), ids=rows(4, 4, np.int64))
    assert "'x' 3, 'ids' 4" in refused(path, X, IDS).message


def test_missing_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "no.npz").code == "TF0501"
    assert refused(tmp_path).code == "TF0501"


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"hello", b"\x93NUMPY", b"\x93NUMPY\x07\0" + b"x" * 90]
)
def test_bytes_that_are_no_data(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    assert refused(path).code == "TF0502"


@pytest.mark.parametrize("compress", [False, True])
def test_every_truncation_is_refused(tmp_path: Path, compress: bool) -> None:
    whole = save(tmp_path / "d.npz", compress, x=rows(100)).read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 25)):
        (tmp_path / "d.npz").write_bytes(whole[:length])
        assert refused(tmp_path / "d.npz").code == "TF0502", length


@pytest.mark.parametrize("compress", [False, True])
def test_damaged_bytes_are_found_while_reading(tmp_path: Path, compress: bool) -> None:
    path = save(tmp_path / "d.npz", compress, x=np.random.default_rng(0).random((400, 3)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(ArrayData.open(path, contract()).batches(50))
    assert caught.value.code in ("TF0502", "TF0507")


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)}
    )
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue() + b"\0" * 64)
    assert "bytes" in refused(tmp_path / "d.npz").message


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = save(tmp_path / "d.npz", x=rows(3))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert ArrayData.open(path, contract()).digest == f"sha256:{expected}"


def test_an_input_that_has_no_rows_is_told_what_can_be_done(tmp_path):
    number = TensorSpec("s", "float32", ())
    for values in (np.float32(1), rows(2)):
        error = refused(save(tmp_path / "number.npz", x=rows(2), s=values), X, number)
        assert "'s' is a single number in the model" in error.message
        assert "without data" in error.hint
    side = TensorSpec("side", "float32", (3, 3))
    error = refused(save(tmp_path / "side.npz", x=rows(24), side=rows(3)), X, side)
    assert error.code == "TF0506"
    assert "a constant of the model" in error.hint
