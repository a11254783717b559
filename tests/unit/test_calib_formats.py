"""Calibration caches of other tools: told apart, read, written, and refused when damaged."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.quant_utils import write_calibration_table
from precision_samples import net, ranges

from trtforge.errors import DataError, UsageError
from trtforge.precision.cache import CalibrationCache, TensorRange
from trtforge.precision.cast import typed
from trtforge.precision.foreign import FORMATS, detect, dump, read_any, read_detected
from trtforge.precision.foreign.content import MOST_BYTES, Content
from trtforge.precision.trt_text import (
    TrtTable,
    format_trt_text,
    header_of,
    parse_trt_text,
)
from trtforge.recipe.schema import Precision

NAMES = (
    "input_1:0",
    "onnx::Conv_329",
    "/conv1/Conv_output_0",
    "(Unnamed Layer* 22) [Constant]_output",
    "a name: with all of it",
    " edges ",
)
WRITABLE = [name for name in FORMATS if name != "qdq"]


def cache(**amax: float) -> CalibrationCache:
    values = amax or {name: 0.5 + index for index, name in enumerate(NAMES)}
    return CalibrationCache(
        method="entropy",
        samples=0,
        graph_digest="",
        ranges={name: TensorRange(min=-top, max=top, amax=top) for name, top in values.items()},
    )


def written(tmp_path: Path, data: bytes | str, name: str = "file") -> Path:
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_known_tables_of_tensorrt_and_its_imitators(tmp_path: Path) -> None:
    text = (
        "TRT-8XXX-EntropyCalibration2\r\ninput_1:0: 3c010a14\r\n"
        "(Unnamed Layer* 22) [Constant]_output: 0\r\na: b: 40008102\r\n"
    )
    name, found = read_any(written(tmp_path, "\ufeff" + text))
    assert (name, found.method, found.origin) == (
        "tensorrt",
        "EntropyCalibration2",
        "TRT-8XXX-EntropyCalibration2",
    )
    assert (found.samples, found.graph_digest) == (0, "")
    assert found.ranges["input_1:0"].amax == pytest.approx(1.00024, abs=1e-5)
    assert found.ranges["a: b"].amax == pytest.approx(255.0, abs=1e-4)
    assert found.ranges["(Unnamed Layer* 22) [Constant]_output"].amax == 0


@pytest.mark.parametrize(
    ("version", "digits"),
    [("8.2.5", "8205"), ("8.6.1", "8601"), ("7.1.3", "7103"), ("9.0.1", "9001"),
     ("10.3.0", "100300"), ("10.3", "100300"), ("10.13.3.9", "101303")],
)  # fmt: skip
def test_headers_follow_nv_tensorrt_version(version: str, digits: str) -> None:
    assert header_of("MinMaxCalibration", version) == f"TRT-{digits}-MinMaxCalibration"


@pytest.mark.parametrize("version", ["", "8", "8601", "8.6.x", "8.6.1.2.3", "-8.6.1", "8.600.1"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(UsageError) as caught:
        header_of("EntropyCalibration2", version)
    assert caught.value.code == "TF0554"


@pytest.fixture
def onnxruntime_files(tmp_path: Path) -> Path:
    """What ONNX Runtime itself writes."""

    def tensor(low: float, high: float, **more: np.ndarray) -> TensorData:
        return TensorData(lowest=np.float32(low), highest=np.float32(high), **more)

    edges = np.array([-4.0, 0.0, 6.0], np.float32)
    data = {
        "both sides: a": tensor(-1.5, 1.0),
        "x:0": tensor(-0.25, 3.25, hist=np.array([1, 2]), hist_edges=edges),
        "negative": tensor(-2.0, -0.5),
    }
    write_calibration_table(TensorsData(CalibrationMethod.MinMax, data).data, str(tmp_path))
    return tmp_path


def test_onnxruntimes_json_holds_both_ends(onnxruntime_files: Path) -> None:
    name, found = read_any(onnxruntime_files / "calibration.json")
    assert name == "onnxruntime-json"
    assert found.warnings == ()
    assert found.ranges["both sides: a"] == TensorRange(min=-1.5, max=1, amax=1.5)
    assert found.ranges["x:0"] == TensorRange(min=-4, max=6, amax=3.25), "edges were observed"
    assert found.ranges["negative"] == TensorRange(min=-2, max=-0.5, amax=2)


@pytest.mark.parametrize("form", ["cache", "flatbuffers"])
def test_onnxruntimes_other_forms_have_lost_the_negative_side(
    onnxruntime_files: Path, form: str
) -> None:
    name, found = read_any(onnxruntime_files / f"calibration.{form}")
    assert name == {"cache": "onnxruntime-text", "flatbuffers": "onnxruntime-flatbuffers"}[form]
    assert {n: r.amax for n, r in found.ranges.items()} == {"both sides: a": 1.0, "x:0": 3.25}
    assert "not the larger magnitude" in found.warnings[0]
    assert "'negative' is left out" in found.warnings[1]


def test_onnxruntime_reads_what_we_write() -> None:
    from onnxruntime.quantization.CalTableFlatBuffers.TrtTable import TrtTable as Generated

    table = Generated.GetRootAs(dump(cache(), "onnxruntime-flatbuffers"), 0)
    found = {
        table.Dict(i).Key().decode(): float(table.Dict(i).Value())
        for i in range(table.DictLength())
    }
    assert found == {name: one.amax for name, one in cache().ranges.items()}
    document = json.loads(dump(cache(), "onnxruntime-json"))
    assert document["calibration_method"]["value"] == str(CalibrationMethod.Entropy)
    lowest = document["data"]["input_1:0"]["lowest"]
    assert np.array(lowest["data"], lowest["dtype"]) == np.float32(-0.5)


def test_onnxruntimes_method_comes_back() -> None:
    found = read_detected("onnxruntime-json", Content(Path("x"), dump(cache(), "onnxruntime-json")))
    assert found.method == "entropy"


def test_model_optimizers_scales_and_magnitudes(tmp_path: Path) -> None:
    text = json.dumps({"a: b_scale": 0.5, "model.conv.input_quantizer._amax": [3.0]})
    name, found = read_any(written(tmp_path, text))
    assert name == "modelopt"
    assert {n: r.amax for n, r in found.ranges.items()} == {
        "a: b": 63.5,
        "model.conv.input_quantizer": 3.0,
    }


def test_model_optimizer_reads_what_we_write() -> None:
    """It splits at every `": "` and takes only whole bytes of hex (calib_utils.py)."""
    text = dump(cache(**{"x": 0.0, "/conv/Conv_output_0": 1.0}), "modelopt").decode()
    for line in text.splitlines()[1:]:
        _, digits = line.split(": ")
        struct.unpack("!f", bytes.fromhex(digits))
    with pytest.raises(DataError) as caught:
        dump(cache(**{"a: b": 1.0}), "modelopt")
    assert caught.value.code == "TF0553"


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_scales_of_a_quantized_model_come_back(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "quantized.onnx"
    typed(net("cnn"), ranges("cnn"), Precision.model_validate({"quantize": kind})).model.save(path)
    name, found = read_any(path)
    assert (name, found.grid) == ("qdq", kind)
    assert len(found.ranges) > 5
    for tensor, one in found.ranges.items():
        assert one.amax == pytest.approx(ranges("cnn").ranges[tensor].amax, rel=1e-6)


def test_a_model_without_scales_is_refused(tmp_path: Path) -> None:
    net("cnn").save(tmp_path / "plain.onnx")
    with pytest.raises(DataError, match="no activation has a QuantizeLinear"):
        read_any(tmp_path / "plain.onnx")


names = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1, max_size=20)
scales = st.floats(0, width=32, allow_nan=False, allow_infinity=False)
tables = st.dictionaries(names, scales, max_size=8)
plain = names.filter(lambda name: not name.startswith(("{", "TRT-", "\ufeff")) and ": " not in name)
"""Names that look like the beginning of no other format, and that Model Optimizer can read."""


@settings(max_examples=150, deadline=None)
@given(tables, st.from_regex(r"[0-9]{4,7}|8XXX", fullmatch=True), st.booleans(), st.booleans())
def test_text_to_table_to_text_is_the_same(
    found: dict[str, float], version: str, crlf: bool, unpadded: bool
) -> None:
    text = format_trt_text(TrtTable(f"TRT-{version}-EntropyCalibration2", found))
    assert format_trt_text(parse_trt_text(text)) == text
    header, *lines = text.split("\n")[:-1]
    if unpadded:
        pairs = [line.rpartition(": ") for line in lines]
        lines = [f"{name}: {int(digits, 16):X}" for name, _, digits in pairs]
    variant = ("\r\n" if crlf else "\n").join((header, *lines))
    assert format_trt_text(parse_trt_text(variant)) == text


@pytest.mark.parametrize("name", WRITABLE)
@settings(max_examples=40, deadline=None)
@given(found=st.dictionaries(plain, scales, max_size=8))
def test_every_format_comes_back_and_is_told_apart(name: str, found: dict[str, float]) -> None:
    original = cache(**{"x": 1.0} | {n: s * 127 for n, s in found.items()})
    content = Content(Path("file"), dump(original, name))
    told = detect(content)
    assert told == ("tensorrt" if name == "modelopt" else name)
    again = read_detected(told, content) if told != "trtforge" else None
    if again is not None:
        got = {n: r.amax for n, r in again.ranges.items()}
        wanted = {n: r.amax for n, r in original.ranges.items()}
        assert got == pytest.approx(wanted, rel=1e-7, abs=1e-42), "scales are float32 in text"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.sampled_from(["", "{", "TRT-8601-X\n", "x 1.5\n", "\x0c\0\0\0"]))
def test_no_bytes_crash_a_reader(data: bytes, head: str) -> None:
    content = Content(Path("file"), head.encode() + data)
    try:
        found = read_detected(detect(content), content)
    except DataError:
        return
    assert all(np.isfinite(one.amax) and one.amax >= 0 for one in found.ranges.values())


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), st.integers(0, 255))
def test_a_spoiled_flatbuffer_never_crashes(place: int, value: int) -> None:
    raw = bytearray(dump(cache(), "onnxruntime-flatbuffers"))
    raw[place % len(raw)] = value
    try:
        found = read_detected("onnxruntime-flatbuffers", Content(Path("file"), bytes(raw)))
    except DataError:
        return
    assert all(np.isfinite(one.amax) and one.amax >= 0 for one in found.ranges.values())


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", "TF0550", "is empty"),
        (b"  \n", "TF0550", "is empty"),
        (bytes(range(256)) * 40, "TF0550", "no calibration cache of a known format"),
        (b'{"a": 1', "TF0550", "known format"),
        (b"[1, 2]", "TF0550", "known format"),
        (b'{"a": 1}', "TF0550", "known format"),
        (b'{"a_scale": "1"}', "TF0551", "not one number"),
        (b'{"a_scale": -1}', "TF0551", "finite and >= 0"),
        (b'{"a_scale": NaN}', "TF0551", "finite and >= 0"),
        (b'{"a_scale": [1, 2]}', "TF0551", "not one number"),
        (b'{"a_scale": 1, "a_amax": 1}', "TF0551", "stands twice"),
        (b'{"a": {"CLS": "TensorData"}}', "TF0551", "has no lowest"),
        (b'{"a": {"CLS": "TensorData", "lowest": 1, "highest": 0}}', "TF0551", "above highest"),
        (b'{"a": {"CLS": "TensorData", "lowest": [1, 2]}}', "TF0551", "per channel"),
        (b"a 1.5\nb\n", "TF0551", "is not '<tensor> <number>'"),
        (b"a 1.5\na 2\n", "TF0551", "stands twice"),
        (b"a nan\n", "TF0551", "'nan'"),
        (b"TRT-8601-EntropyCalibration2\na: 3c01\xff\n", "TF0550", "known format"),
        (b"TRT-8601-EntropyCalibration2\na: 3c010\nb", "TF0522", "is not '<tensor>"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, data: bytes, code: str, message: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(DataError, match=message) as caught:
        read_any(path)
    assert caught.value.code == code
    assert caught.value.where is not None
    assert caught.value.where.file == str(path)


def test_places_that_are_no_files_are_refused(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "none", "does not exist")):
        with pytest.raises(DataError, match=message) as caught:
            read_any(path)
        assert caught.value.code == "TF0550"


@pytest.mark.skipif(os.name == "nt", reason="sparse files")
def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = written(tmp_path, b"TRT-8601-EntropyCalibration2\n")
    os.truncate(path, MOST_BYTES + (40 << 20))
    with pytest.raises(DataError, match="has more than 64 MiB"):
        read_any(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(DataError, match="has more than 64 MiB"):
        read_any(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "", "\ud800"])
@pytest.mark.parametrize("target", ["tensorrt", "modelopt", "onnxruntime-text"])
def test_names_that_do_not_fit_on_a_line(name: str, target: str) -> None:
    with pytest.raises(DataError, match="does not fit on one line"):
        dump(cache(**{name: 1.0}), target)


def test_why_no_format_fits_is_told_format_by_format(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_any(written(tmp_path, b"\0garbage"))
    told = (caught.value.details or "").splitlines()
    assert [line.partition(":")[0] for line in told] == list(FORMATS)
