"""Calibration data that is wrong, on the real command line: one error, its place, exit status 2."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from documents import REPOSITORY
from running import trtforge

DIGITS = REPOSITORY / "recipes" / "digits"
CODE = "import numpy as np\ndef samples():\n    {}\n"
ONE = "yield np.zeros((1, 8, 8), np.float32)"


def code(body: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "own.py").write_text(CODE.format(body)) and None


def damaged_image(folder: Path) -> None:
    (folder / "photos").mkdir()
    (folder / "photos" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")


def damaged_array(folder: Path) -> None:
    (folder / "arrays").mkdir()
    (folder / "arrays" / "a.npy").write_bytes(b"\x93NUMPY\x01\x00")


OWN = '{data: {python: "own:samples"}}'
CASES: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "damaged image": ("{data: {images: photos}}", damaged_image, ("photos/a.png", "repair")),
    "damaged array": ("{data: arrays}", damaged_array, ("arrays/a.npy",)),
    "code that fails": (OWN, code(f"{ONE}\n    1 / 0"), ("own.py:4", "ZeroDivisionError")),
    "code that leaves": (OWN, code("raise SystemExit(7)"), ("own.py:3", "SystemExit: 7")),
    "code of another shape": (OWN, code("yield np.zeros((2, 2))"), ("own:samples", "sample 0")),
    "code that shuffles": (
        OWN,
        code("for _ in range(9): yield np.random.rand(1, 8, 8)"),
        ("own:samples", "without shuffling"),
    ),
    "folder missing": ("{data: {images: pohtos}}", damaged_image, ("recipe.yaml:8:", "'pohtos'")),
    "neither": ("{method: mse}", damaged_image, ("recipe.yaml:8:", "'data' is missing")),
}


@pytest.mark.parametrize("name", CASES)
def test_one_error_with_its_place(tmp_path: Path, name: str) -> None:
    calibration, prepare, texts = CASES[name]
    shutil.copy(DIGITS / "model.onnx", tmp_path)
    shutil.copy(DIGITS / "test.npz", tmp_path)
    recipe = (DIGITS / "int8.yaml").read_text()
    changed = re.sub(r"^calibration: .*$", f"calibration: {calibration}", recipe, flags=re.M)
    (tmp_path / "recipe.yaml").write_text(changed)
    prepare(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    run = trtforge("calibrate", "recipe.yaml", "-q", store=tmp_path / "store", cwd=tmp_path)
    run.assert_clean_failure(2)
    for text in texts:
        assert text in run.stderr
    after = sorted(path.name for path in tmp_path.iterdir() if path.name != "store")
    assert after == before, "something was left behind"
