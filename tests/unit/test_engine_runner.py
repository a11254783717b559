"""Running engines: runner and worker, choice of profiles, and what is never attempted."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trtforge.engine import engine_worker, environment, infer
from trtforge.engine.engine_worker import EngineSource
from trtforge.engine.environment import Driver, Gpu
from trtforge.engine.interface import choose_profile, engine_profiles
from trtforge.engine.runner import EngineRunner
from trtforge.errors import BuildError, MissingError

REPOSITORY = Path(__file__).parents[2]

WORKER = f"""
import json, os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from trtforge.engine import arrays, messages
from trtforge.engine.worker import Requests
from trtforge.errors import BuildError

def send(message):
    sys.stdout.buffer.write(messages.encode(message))
    sys.stdout.flush()

job = json.loads(Path(sys.argv[1]).read_text())
send(messages.result(job))
for case in Requests():
    feeds = arrays.load(Path(case["feeds"]), case["members"])
    if "crash" in feeds:
        os.abort()
    if "wide" in feeds:
        send(messages.failure(BuildError("TF0614", "no optimization profile covers it")))
        continue
    doubled = {{name + "/out": array * 2 for name, array in feeds.items()}}
    members = arrays.store(Path(case["outputs"]), doubled)
    send(messages.result({{"members": members}}))
"""


@pytest.fixture
def with_gpu(monkeypatch):
    found = Driver("13.0", (Gpu("a GPU", "8.9"),), None)
    monkeypatch.setattr(engine_worker, "driver", lambda: found)


@pytest.fixture
def doubling(tmp_path, with_gpu):
    """A runner whose worker doubles its inputs."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    program = (sys.executable, str(script))
    return EngineRunner(
        EngineSource(tmp_path / "m.engine", "tensorrt_rtx", program=program), timeout_s=20
    )


def test_batches_go_out_and_come_back_one_after_another(doubling):
    with doubling as engine:
        for size in (1, 5, 2):
            batch = np.arange(size * 2, dtype=np.float32).reshape(size, 2)
            outputs = engine.infer({"x": batch, "ids": np.array([size])})
            assert list(outputs) == ["x/out", "ids/out"]
            np.testing.assert_array_equal(outputs["x/out"], batch * 2)
            assert outputs["ids/out"].dtype == np.int64
        folder = Path(engine._held.folder)
        assert not list(folder.glob("*.npz")), "nothing piles up"
    assert not folder.exists()


def test_a_case_that_is_refused_leaves_the_runner_usable(doubling):
    with doubling as engine:
        with pytest.raises(BuildError, match="no optimization profile"):
            engine.infer({"wide": np.zeros(3)})
        assert engine.infer({"x": np.ones(1)})["x/out"][0] == 2


def test_a_crash_while_running_is_one_clear_error(doubling):
    with doubling as engine, pytest.raises(BuildError, match=r"crashed \(SIGABRT\)") as caught:
        engine.infer({"crash": np.zeros(1)})
    assert caught.value.message.startswith("running m.engine with tensorrt_rtx failed")


def test_without_a_driver_nothing_is_attempted(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_worker, "driver", lambda: Driver(None, (), "no NVIDIA driver"))
    monkeypatch.setattr(environment, "driver", lambda: Driver(None, (), "no NVIDIA driver"))
    marker = tmp_path / "started"
    program = (sys.executable, "-c", f"open({str(marker)!r}, 'w')")
    engine = EngineRunner(EngineSource(tmp_path / "m.engine", "tensorrt_rtx", program=program))
    assert EngineRunner.unavailable_reason() == "no NVIDIA driver"
    with pytest.raises(MissingError, match="no NVIDIA driver") as caught:
        engine.__enter__()
    assert caught.value.exit_status == 3
    assert not marker.exists()


def test_the_worker_too_attempts_nothing_without_a_driver(tmp_path, monkeypatch):
    monkeypatch.setattr(infer, "driver", lambda: Driver(None, (), "no NVIDIA driver"))
    monkeypatch.setattr(infer, "load_engine", lambda job: pytest.fail("deserialize attempted"))
    job = {"engine": str(tmp_path / "m.engine"), "backend": "tensorrt_rtx"}
    with pytest.raises(MissingError):
        infer.serve(job, [], lambda message: None)


class FakeRuntime:
    engine_host_code_allowed = False

    def __init__(self, logger):
        FakeRuntime.last = self
        self.logger = logger

    def deserialize_cuda_engine(self, data):
        self.logger.log(SimpleNamespace(name="ERROR"), "Version tag does not match")


@pytest.mark.parametrize("allowed", [False, True])
def test_host_code_is_allowed_only_when_asked_for(tmp_path, monkeypatch, allowed):
    class Logger:
        def __init__(self):
            pass

    fake = SimpleNamespace(
        ILogger=Logger,
        Runtime=FakeRuntime,
        init_libnvinfer_plugins=lambda logger, namespace: True,
        __version__="1.7",
    )
    monkeypatch.setattr(infer, "load_module", lambda flavour: fake)
    (tmp_path / "m.engine").write_bytes(b"engine")
    job = {
        "engine": str(tmp_path / "m.engine"),
        "backend": "tensorrt_rtx",
        "allow_host_code": allowed,
    }
    with pytest.raises(BuildError, match="Version tag does not match") as caught:
        infer.load_engine(job)
    assert caught.value.code == "TF0613"
    assert FakeRuntime.last.engine_host_code_allowed is allowed


class FakeEngine:
    """An ICudaEngine with two profiles for one dynamic and one static input."""

    num_io_tensors = 3
    num_optimization_profiles = 2

    def get_tensor_name(self, index):
        return ["x", "s", "y"][index]

    def get_tensor_mode(self, name):
        return SimpleNamespace(name="OUTPUT" if name == "y" else "INPUT")

    def is_shape_inference_io(self, name):
        return False

    def get_tensor_profile_shape(self, name, index):
        high = 4 if index == 0 else 64
        return [(2,)] * 3 if name == "s" else [(1, 3), (2, 3), (high, 3)]


@pytest.mark.parametrize(("batch", "profile"), [(1, 0), (4, 0), (5, 1), (64, 1)])
def test_the_first_profile_that_covers_a_batch_is_used(batch, profile):
    profiles = engine_profiles(FakeEngine())
    feeds = {"x": np.zeros((batch, 3)), "s": np.zeros(2)}
    assert choose_profile(profiles, feeds) == profile


def test_a_batch_that_no_profile_covers_is_named():
    profiles = engine_profiles(FakeEngine())
    with pytest.raises(BuildError, match=r"no optimization profile .* covers x \[65, 3\]"):
        choose_profile(profiles, {"x": np.zeros((65, 3)), "s": np.zeros(2)})
