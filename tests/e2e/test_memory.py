"""Memory is bounded by the weights, once or twice, not by how many steps a model goes through."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="not run: no /proc to read peak memory from"
)

WIDTH, LAYERS = 1280, 16
WEIGHTS_MIB = WIDTH * WIDTH * LAYERS * 4 / 2**20  # 100 MiB

STAGES = """
import json, sys
from pathlib import Path
from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.pipeline.judge import Question, judge_graph, tolerances_of
from trtforge.precision.attest import attest
from trtforge.precision.cast import typed
from trtforge.precision.emulate import emulate
from trtforge.recipe.schema import Precision, Verify
import onnx_graphsurgeon, onnxruntime, polygraphy.backend.onnxrt
from trtforge.graph import catalog, proof, workshop
for name in catalog.PASSES:  # code is no weights
    workshop.pass_named(name)

def peak_mib():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
shapes = {"min": {"x": (1, 1280)}, "max": {"x": (4, 1280)}}
before = peak_mib()
optimized = run_passes(Model.load(source), PassRequest(shapes=tuple(shapes.values())))
assert optimized.report.proof.verdict == "pass" and optimized.report.passes
assert optimized.model is not None and optimized.report.nodes_before > optimized.report.nodes_after
optimized.model.save(folder / "optimized.onnx")
del optimized
result = typed(Model.load(folder / "optimized.onnx"), None, Precision(type="fp16"))
result.model.save(folder / "typed.onnx")
attest(result.model, shapes["max"])
result.model.digest()
del result
question = Question(source, shapes, tolerances_of(Verify(), "fp16", "none"))
verdict = judge_graph(question, folder / "typed.onnx").verdict
print(json.dumps([verdict, peak_mib() - before]))
"""


def perceptron(path: Path, *, external: bool) -> Path:
    """100 MiB of FP32 weights, and an Identity for the passes to remove."""
    generator = np.random.default_rng(0)
    nodes, weights = [helper.make_node("Identity", ["x"], ["h0"], "start")], []
    for index in range(LAYERS):
        values = generator.standard_normal((WIDTH, WIDTH), dtype=np.float32) / np.float32(36)
        weights.append(onnx.numpy_helper.from_array(values, f"w{index}"))
        result = "y" if index == LAYERS - 1 else f"h{index + 1}"
        inputs = [f"h{index}", f"w{index}"]
        nodes.append(helper.make_node("MatMul", inputs, [result], f"layer{index}"))
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH])] for name in "xy"]
    graph = helper.make_graph(nodes, "perceptron", *ends, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path, save_as_external_data=external, location="weights")
    return path


@pytest.mark.parametrize("external", [True, False])
def test_all_steps_together_need_little_more_than_twice_the_weights(
    tmp_path: Path, external: bool
) -> None:
    source = perceptron(tmp_path / "model.onnx", external=external)
    done = subprocess.run(
        [sys.executable, "-c", STAGES, str(source), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    verdict, used_mib = json.loads(done.stdout)
    assert verdict == "pass"
    assert used_mib < 2.2 * WEIGHTS_MIB
