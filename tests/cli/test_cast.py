"""`trtforge cast`: what is written and printed, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from planted_faults import two_culprits
from running import trtforge

from trtforge.cli.main import _run
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.emulate import emulate
from trtforge.precision.range_check import sqnr_db

Capture = pytest.CaptureFixture[str]


def run(capfd: Capture, *args: object, status: int = 0) -> tuple[str, str]:
    """Run the command line in this process; return both streams."""
    capfd.readouterr()
    got = _run(list(map(str, args)))
    out, err = capfd.readouterr()
    assert got == status, (out, err)
    assert "Traceback" not in err
    return out, err


@pytest.fixture
def culprits(tmp_path: Path) -> tuple[Path, Path]:
    """A model with two faults, and its data."""
    fault = two_culprits()
    onnx.save(fault.proto, tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", allow_pickle=False, **fault.data)
    return tmp_path / "model.onnx", tmp_path / "data.npz"


@pytest.mark.parametrize(
    ("kind", "element", "least"),
    [("fp16", TensorProto.FLOAT16, 55), ("bf16", TensorProto.BFLOAT16, 37)],
)
def test_the_digits_model_in_a_narrow_type(
    capfd: Capture, digits: Path, tmp_path: Path, kind: str, element: int, least: float
) -> None:
    out = tmp_path / "out.onnx"
    data = digits / "calib.npz"
    text, _ = run(
        capfd, "cast", digits / "model.onnx", "-o", out, "--type", kind, "--data", data, "--json"
    )
    found: dict[str, Any] = json.loads(text)
    onnx.checker.check_model(str(out), full_check=True)
    proto = onnx.load(out)
    assert {weight.data_type for weight in proto.graph.initializer} <= {element, TensorProto.INT64}
    assert proto.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    images = {"image": np.load(digits / "test.npz")["image"][:64]}
    reference = Session(Model.load(digits / "model.onnx")).run(images)
    candidate = Session(emulate(Model.load(out))).run(images)
    assert sqnr_db(*(next(iter(v.values())) for v in (reference, candidate))) > least
    assert found["cast"]["nodes"].keys() == {kind}
    assert found["ranges"]["samples"] == 4
    assert float(found["ranges"]["emulated_sqnr_db"]) > least


def test_every_node_that_stays_wide_is_explained(
    capfd: Capture, tmp_path: Path, culprits: tuple[Path, Path]
) -> None:
    model, data = culprits
    out, err = run(
        capfd,
        "cast",
        model,
        "-o",
        tmp_path / "o.onnx",
        "--data",
        data,
        "--explain",
        "--no-optimize",
    )
    said = out + err
    assert "beyond FP16's 65504" in said
    assert "too small for FP16" in said
    assert "casts added: 4" in said
    assert "SQNR of the worst output, emulated: " in said
    assert out.endswith(f"{tmp_path / 'o.onnx'}\n")


def test_without_data_it_says_so(capfd: Capture, digits: Path, tmp_path: Path) -> None:
    out, err = run(capfd, "cast", digits / "model.onnx", "-o", tmp_path / "o.onnx")
    assert "ranges: none were measured" in out + err


def test_synthetic_samples_are_told_of(capfd: Capture, digits: Path, tmp_path: Path) -> None:
    options = ("--synthetic", "--shape", "image=1x1x8x8")
    _, err = run(capfd, "cast", digits / "model.onnx", "-o", tmp_path / "o.onnx", *options)
    assert "warning: the ranges come from synthetic samples" in err


def test_keep_force_and_io_types(capfd: Capture, digits: Path, tmp_path: Path) -> None:
    text, _ = run(
        capfd,
        *("cast", digits / "model.onnx", "-o", tmp_path / "o.onnx", "--json"),
        *("--keep", "op=Gemm", "--force", "op=Conv", "--io-types", "convert"),
    )
    found = json.loads(text)
    assert found["precision"]["force"] == [
        {"op": "Conv", "name": None, "path": None, "type": "fp16"}
    ]
    assert found["cast"]["nodes"]["fp32"] == 1
    proto = onnx.load(tmp_path / "o.onnx")
    assert proto.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("options", "code", "status"),
    [
        (["--keep", "Gemm"], "TF0107", 2),
        (["--force", "op="], "TF0107", 2),
        (["--type", "fp8"], "TF0100", 2),
        (["--samples", "3"], "TF0108", 2),
        (["--data", "none.npz"], "TF0", 2),
    ],
)
def test_wrong_options_are_one_clear_error(
    capfd: Capture, digits: Path, tmp_path: Path, options: list[str], code: str, status: int
) -> None:
    out = tmp_path / "o.onnx"
    _, err = run(capfd, "cast", digits / "model.onnx", "-o", out, *options, status=status)
    assert f"error[{code}" in err
    assert not out.exists()


def test_more_samples_than_there_are(capfd: Capture, digits: Path, tmp_path: Path) -> None:
    data = digits / "calib.npz"
    _, err = run(
        capfd,
        *("cast", digits / "model.onnx", "-o", tmp_path / "o.onnx"),
        *("--data", data, "--samples", "100000"),
        status=2,
    )
    assert "error[TF0523]" in err


def test_as_a_program(digits: Path, tmp_path: Path) -> None:
    ended = trtforge(
        "cast",
        str(digits / "model.onnx"),
        "-o",
        str(tmp_path / "o.onnx"),
        "--quiet",
        store=tmp_path,
    )
    assert ended.status == 0
    assert ended.stdout == f"{tmp_path / 'o.onnx'}\n"
    assert ended.stderr == ""
