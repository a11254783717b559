"""The quickstart on a GPU: engine parity is really judged there."""

import json
from pathlib import Path

import pytest
from running import trtforge

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("on_rtx_target")]


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "fp8"])
def test_the_engine_computes_what_the_original_does(
    name: str, digits: Path, tmp_path: Path
) -> None:
    run = trtforge(
        "build", digits / f"{name}.yaml", "--out", tmp_path, "--json", store=tmp_path / "store"
    )
    assert run.status == 0, run.stdout + run.stderr
    (built,) = json.loads(run.stdout)["builds"]
    assert built["verdicts"]["engine_parity"]["rtx"]["verdict"] == "pass"
    again = trtforge(
        "verify",
        built["bundle"],
        "--against",
        digits / "model.onnx",
        "--data",
        digits / "test.npz",
        "--require-engine",
        store=tmp_path / "store",
    )
    assert again.status == 0, again.stdout + again.stderr
