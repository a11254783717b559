"""`trtforge calibrate MODEL`: caches without a recipe, in shards, of all tensors, in two halves."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import environment

from trtforge.cli.main import _run
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.merging import merge

Capture = pytest.CaptureFixture[str]


def calibrated(
    capfd: Capture, digits: Path, out: Path, *more: object, status: int = 0
) -> tuple[str, str]:
    command = ("calibrate", digits / "model.onnx", "-o", out, "--data", digits / "calib.npz", *more)
    capfd.readouterr()
    got = _run(list(map(str, command)))
    found = capfd.readouterr()
    assert got == status, found
    return found


@pytest.mark.parametrize("techniques", ["none", "default"])
def test_the_cache_is_the_one_that_quantize_measures(
    capfd: Capture, digits: Path, tmp_path: Path, techniques: str
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    text, err = calibrated(capfd, digits, first, "--method", "mse", "--techniques", techniques)
    assert text == f"{first}\n"
    assert "8 tensors over 256 samples, mse" in err
    arguments = ["quantize", digits / "model.onnx", "-o", tmp_path / "out.onnx", "--method", "mse",
                 "--data", digits / "calib.npz", "--cache", second,
                 "--techniques", techniques]  # fmt: skip
    assert _run(list(map(str, arguments))) == 0
    ranges = [CalibrationCache.load(path).ranges for path in (first, second)]
    assert ranges[0] == ranges[1]


def test_shards_merge_into_the_cache_of_the_whole(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    calibrated(capfd, digits, tmp_path / "whole.json")
    shards = []
    for number in (1, 2, 3):
        path = tmp_path / f"{number}.json"
        calibrated(capfd, digits, path, "--shard", f"{number}/3")
        shards.append(CalibrationCache.load(path))
    assert sum(shard.samples for shard in shards) == 256
    merged = merge(shards)
    assert merged.ranges == CalibrationCache.load(tmp_path / "whole.json").ranges
    merged.save(tmp_path / "merged.json")
    for cache in ("whole.json", "merged.json"):
        arguments = ["quantize", digits / "model.onnx", "-o", tmp_path / f"{cache}.onnx",
                     "--reuse", tmp_path / cache]  # fmt: skip
        assert _run(list(map(str, arguments))) == 0
    made = [(tmp_path / f"{cache}.json.onnx").read_bytes() for cache in ("whole", "merged")]
    assert made[0] == made[1]


def test_all_tensors_are_more_than_those_quantized(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    calibrated(capfd, digits, tmp_path / "some.json", "--method", "minmax")
    calibrated(capfd, digits, tmp_path / "all.json", "--method", "minmax", "--tensors", "all")
    some, every = (CalibrationCache.load(tmp_path / f"{name}.json") for name in ("some", "all"))
    assert {"image", "logits"} <= every.ranges.keys()
    assert len(every.ranges) > len(some.ranges)
    for name, found in some.ranges.items():  # other outputs, other fusions: not to the last bit
        assert every.ranges[name].amax == pytest.approx(found.amax, rel=1e-5)


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("TF0111", ["--shard", "0/2"]),
        ("TF0111", ["--shard", "3/2"]),
        ("TF0111", ["--shard", "half"]),
        ("TF0523", ["--shard", "1/257"]),
        ("TF0523", ["--samples", "257"]),
        ("TF0112", ["--quantize", "int8_weight_only"]),
        ("TF0100", ["--force"]),
        ("TF0100", ["--set", "precision.type=fp16"]),
    ],
)
def test_refusals(
    capfd: Capture, digits: Path, tmp_path: Path, code: str, options: list[str]
) -> None:
    text, err = calibrated(capfd, digits, tmp_path / "cache.json", *options, status=2)
    assert f"error[{code}]" in err
    assert text == ""
    assert list(tmp_path.iterdir()) == []


def test_options_of_models_are_refused_for_recipes(capfd: Capture, digits: Path) -> None:
    assert _run(["calibrate", str(digits / "int8.yaml"), "--method", "mse"]) == 2
    assert "--method is for models" in capfd.readouterr().err


SLOW = """
import numpy as np, time

class Slow:
    calls = 0
    def __iter__(self):
        Slow.calls += 1
        for number in range(600):  # they are read in blocks of 256
            if Slow.calls > 1:
                time.sleep(0.003)
            yield {"image": np.random.default_rng(number).random((1, 1, 8, 8), np.float32)}

samples = Slow()
"""


def test_ctrl_c_keeps_what_was_measured_and_the_same_command_goes_on(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, "-m", "trtforge.cli.main", "calibrate", digits / "model.onnx",
               "--data", "slow:samples"]  # fmt: skip
    process = subprocess.Popen(
        [*command, "-v"],
        env=environment(tmp_path / "store"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "samples, " in line and "left" in line:
            break
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "what was measured is kept beside 'cache.json'" in err
    assert "the same command goes on from there" in err
    assert "interrupted" in err
    assert not (tmp_path / "cache.json").exists()
    assert len(list(tmp_path.glob("cache.json.*.partial"))) == 1
    done = subprocess.run(
        [*command, "--json", "-v"],
        env=environment(tmp_path / "store"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["files"] == ["cache.json"]
    assert not list(tmp_path.glob("*.partial"))
    subprocess.run(
        [*command, "-o", "whole.json"], env=environment(tmp_path / "store"), cwd=tmp_path,
        check=True, capture_output=True,
    )  # fmt: skip
    assert (tmp_path / "cache.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
