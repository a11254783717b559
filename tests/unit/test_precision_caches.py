"""Calibration caches: ours and TensorRT's text."""

import base64
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from trtforge.errors import DataError, MissingError
from trtforge.precision.cache import CalibrationCache, TensorRange
from trtforge.precision.observers.histogram import BINS, Histogram
from trtforge.precision.ranges import StoredHistogram
from trtforge.precision.trt_text import parse_trt_text, read_trt_text, write_trt_text

NAMES = (
    "(Unnamed Layer* 22) [Constant]_output",
    "onnx::Conv_329",
    "/conv1/Conv_output_0",
    "input_1:0",
    "odd: name: 3",
)


def cache(**changes: object) -> CalibrationCache:
    fields: dict[str, object] = {
        "method": "entropy",
        "samples": 4,
        "graph_digest": "sha256:aa",
        "data": [{"digest": "sha256:bb", "source": "calib.npz", "spans": [[0, 4]]}],
        "versions": {"numpy": "2"},
        "ranges": {n: TensorRange(min=-1.0, max=2.0, amax=1.27 + i) for i, n in enumerate(NAMES)},
    }
    return CalibrationCache.model_validate(fields | changes)


def test_a_cache_comes_back_as_it_was_and_equal_caches_are_equal_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    cache().save(first)
    loaded = CalibrationCache.load(first)
    assert loaded == cache()
    loaded.save(second)
    assert first.read_bytes() == second.read_bytes()
    assert json.loads(first.read_text())["schema"] == "trtforge.calibration/2"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_scales_come_from_the_method_for_int8_and_from_all_values_for_fp8() -> None:
    one = cache(ranges={"x": TensorRange(min=-8.96, max=1.0, amax=1.27)})
    assert one.scale("x", "int8") == pytest.approx(0.01)
    assert one.scale("x", "fp8") == pytest.approx(0.02)
    assert one.scale("x", "int8", "fp16") >= 0.01
    with pytest.raises(DataError) as caught:
        one.scale("y", "int8")
    assert caught.value.code == "TF0521"


def test_histograms_come_back(tmp_path: Path) -> None:
    text = _with_histogram()
    (tmp_path / "cache.json").write_text(text)
    found = CalibrationCache.load(tmp_path / "cache.json").ranges["x"].state()
    assert found.histogram is not None
    assert (found.low, found.high) == (0.0, 2.0)
    assert found.histogram.exponent == 2
    assert found.histogram.zeros == 1
    assert found.histogram.counts.nonzero()[0].tolist() == [0, BINS // 4, BINS // 2]


def _with_histogram(**changes: object) -> str:
    """A cache of one tensor whose stored histogram is spoiled."""
    histogram = Histogram()
    histogram.update(np.array([0.0, 1.0, 2.0], np.float32), 2.0)
    stored = StoredHistogram.of(histogram).model_dump() | changes
    return _mutated({"ranges": {"x": {"min": 0, "max": 2, "amax": 2, "histogram": stored}}})


def _packed(counts: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(counts.astype("<i8").tobytes())).decode()


def _mutated(change: dict[str, object]) -> str:
    return json.dumps(cache().as_json() | change)


MALFORMED = {
    "empty": "",
    "not json": "TRT-8205-EntropyCalibration2\nx: 3c010a14\n",
    "a list": "[]",
    "another schema": '{"schema": "trtforge.bundle/1"}',
    "truncated": cache().as_text()[:-40],
    "an unknown key": _mutated({"extra": 1}),
    "fewer than no samples": _mutated({"samples": -1}),
    "another version": _mutated({"schema": "trtforge.calibration/3"}),
    "a weight's scale of zero": _mutated({"weight_scales": {"w": [0.0]}}),
    "spans that overlap": _mutated({"data": [{"digest": "d", "spans": [[0, 4], [3, 6]]}]}),
    "a span that ends before it begins": _mutated({"data": [{"digest": "d", "spans": [[4, 2]]}]}),
    "counts that are not base64": _with_histogram(counts="?"),
    "counts that do not inflate": _with_histogram(counts="AAAA"),
    "too few counts": _with_histogram(counts=_packed(np.zeros(7))),
    "a gigabyte of counts": _with_histogram(counts=_packed(np.zeros(1 << 20))),
    "a negative count": _with_histogram(counts=_packed(np.full(BINS, -1))),
    "more zeros than values": _with_histogram(zeros=2),
    "an exponent that no float has": _with_histogram(exponent=129),
    "a negative amax": _mutated({"ranges": {"x": {"min": 0, "max": 1, "amax": -1}}}),
    "min above max": _mutated({"ranges": {"x": {"min": 2, "max": 1, "amax": 1}}}),
    "NaN": cache().as_text().replace('"amax": 1.27', '"amax": NaN'),
    "an overflowing number": cache().as_text().replace('"amax": 1.27', '"amax": 1e999'),
    "deep nesting": "[" * 100_000,
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_caches_are_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cache.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        CalibrationCache.load(path)
    assert caught.value.code == "TF0520"
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_a_missing_cache_and_binary_bytes_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        CalibrationCache.load(tmp_path / "none.json")
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\x80\x00\xff")
    with pytest.raises(DataError, match="not text"):
        CalibrationCache.load(binary)
    with pytest.raises(DataError):
        CalibrationCache.load(tmp_path)


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        cache().save(tmp_path / "no" / "cache.json")
    assert caught.value.code == "TF0302"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MissingError) as caught:
        cache().save(tmp_path / "cache.json")
    assert caught.value.code == "TF0301"
    assert list(tmp_path.iterdir()) == []


def test_tensorrt_text_holds_scale_as_hex_and_every_kind_of_name(tmp_path: Path) -> None:
    path = tmp_path / "trt.calib"
    write_trt_text(cache(), path)
    lines = path.read_text().splitlines()
    assert lines[0] == "TRT-100300-EntropyCalibration2"
    assert lines[1] == f"{NAMES[0]}: {struct.pack('!f', 1.27 / 127).hex()}"
    table = read_trt_text(path)
    assert tuple(table.scales) == NAMES
    for index, name in enumerate(NAMES):
        assert table.scales[name] == pytest.approx((1.27 + index) / 127, rel=1e-7)


@pytest.mark.parametrize(
    ("text", "version", "algorithm"),
    [
        ("TRT-8205-EntropyCalibration2\n", "8205", "EntropyCalibration2"),
        ("TRT-100300-MinMaxCalibration\n", "100300", "MinMaxCalibration"),
        ("TRT-8XXX-EntropyCalibration2", "8XXX", "EntropyCalibration2"),
    ],
)
def test_headers_of_every_width(text: str, version: str, algorithm: str) -> None:
    table = parse_trt_text(text)
    assert (table.version, table.algorithm) == (version, algorithm)


def test_known_values_unpadded_hex_and_dead_tensors() -> None:
    table = parse_trt_text(
        "TRT-8205-EntropyCalibration2\r\n"
        "input_1:0: 3c010a14\r\nonnx::Conv_1: 3b810a13\ndead: 0\ntiny: 1\nbig: 40008102\n\n"
    )
    assert table.scales["input_1:0"] * 127 == pytest.approx(1.00024, abs=1e-5)
    assert table.scales["onnx::Conv_1"] * 127 == pytest.approx(0.50012, abs=1e-5)
    assert table.scales["big"] * 127 == pytest.approx(255.0, abs=1e-4)
    assert 0 < table.scales["tiny"] < 1e-44
    assert table.dead_tensors == ("dead",)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("hello\n", 1),
        ("TRT-8205-EntropyCalibration2\nx 3c010a14\n", 2),
        ("TRT-8205-EntropyCalibration2\nx: 3c010a14f\n", 2),
        ("TRT-8205-EntropyCalibration2\nx: zz\n", 2),
        ("TRT-8205-EntropyCalibration2\nx: 3c010a14\nx: 3c010a14\n", 3),
        ("TRT-8205-EntropyCalibration2\nx: 7f800000\n", 2),
        ("TRT-8205-EntropyCalibration2\nx: 7fc00000\n", 2),
        ("TRT-8205-EntropyCalibration2\nx: bc010a14\n", 2),
    ],
)
def test_malformed_tables_name_the_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "trt.calib"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_trt_text(path)
    assert caught.value.code == "TF0522"
    assert caught.value.where is not None
    assert caught.value.where.line == line


def test_a_name_that_breaks_the_line_is_refused(tmp_path: Path) -> None:
    bad = cache(ranges={"a\nb": TensorRange(min=0, max=1, amax=1)})
    with pytest.raises(DataError, match="does not fit on one line"):
        write_trt_text(bad, tmp_path / "trt.calib")
    with pytest.raises(DataError, match="header"):
        write_trt_text(cache(), tmp_path / "trt.calib", header="TRT 8205")
