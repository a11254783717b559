"""Engines on a real GPU: built, loaded, run, and held against ONNX Runtime."""

import numpy as np
import pytest

from trtforge.engine.engine_worker import EngineSource
from trtforge.engine.environment import driver
from trtforge.engine.onnxruntime import OnnxRuntimeRunner
from trtforge.engine.runner import EngineRunner
from trtforge.engine.supervisor import Job, run_worker
from trtforge.engine.views import engine_information
from trtforge.errors import BuildError
from trtforge.graph.model import Model
from trtforge.pipeline.attest_views import engine_view
from trtforge.precision.attest import attest

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("batch", [1, 8, 32])
def test_an_engine_computes_what_onnxruntime_computes(built, batch):
    backend, path, engine = built
    image = np.random.default_rng(batch).standard_normal((batch, 3, 16, 16)).astype(np.float32)
    with (
        OnnxRuntimeRunner(path) as reference,
        EngineRunner(EngineSource(engine, backend)) as candidate,
    ):
        expected = reference.infer({"image": image})
        found = candidate.infer({"image": image})
    assert list(found) == list(expected)
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=1e-3, atol=1e-4)


def test_a_batch_beyond_every_profile_is_refused_and_the_next_runs(built):
    backend, _, engine = built
    with EngineRunner(EngineSource(engine, backend)) as candidate:
        with pytest.raises(BuildError, match="no optimization profile"):
            candidate.infer({"image": np.zeros((33, 3, 16, 16), np.float32)})
        assert candidate.infer({"image": np.zeros((2, 3, 16, 16), np.float32)})


def test_a_damaged_engine_is_one_clear_error(built, tmp_path):
    backend, _, engine = built
    broken = tmp_path / "broken.engine"
    broken.write_bytes(engine.read_bytes()[:1000])
    with pytest.raises(BuildError):
        EngineRunner(EngineSource(broken, backend)).__enter__()


def test_probe_knows_whether_an_engine_can_run_here(built, tmp_path):
    backend, _, engine = built
    command = {"command": "probe", "backend": backend, "engine": str(engine)}
    facts = run_worker(Job("probing", command, tmp_path / "probe.log", 120))
    assert facts["driver"]["gpus"][0]["name"] == driver().gpus[0].name
    expected = {"tensorrt_rtx": {"valid", "suboptimal"}, "tensorrt": {"not_known"}}
    assert facts["engine"]["validity"] in expected[backend]


def test_an_engine_tells_what_its_layers_compute_in(built):
    backend, path, engine = built
    attested = attest(Model.load(path), {"image": (4, 3, 16, 16)}).as_json()
    view = engine_view(engine_information(engine, backend), attested)
    assert view.attested, view.reason
    assert set(view.amounts["nodes"]) & {"fp32"}
    assert not view.contradictions
