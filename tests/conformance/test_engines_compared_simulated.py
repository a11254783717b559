"""Single engine files: compared with each other, without their weights, and what is told of them.

On the simulated TensorRT 10 and 11: nothing here is a GPU result.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_models import CONV_PROFILE, conv_net, matmul, save
from onnx import TensorProto, helper
from running import trtforge
from simulator.simulation import Simulation

from trtforge.engine.backend import BuildRequest, get_backend
from trtforge.errors import ParityError, UsageError
from trtforge.pipeline.compare import VerifyOptions, verify
from trtforge.pipeline.engine_files import worker_of
from trtforge.pipeline.inspect import inspect_path

ON_TEN = pytest.mark.parametrize("simulated", ["10"], indirect=True)
"""For what does not depend on the major version."""


def built(folder: Path, graph: onnx.ModelProto, **more: Any) -> tuple[Path, Path]:
    """Build an engine; returns the model and the engine."""
    folder.mkdir(exist_ok=True)
    path, engine = save(graph, folder), folder / "m.plan"
    get_backend("tensorrt").build(BuildRequest(path, engine, folder / "m.log", "tensorrt", **more))
    return path, engine


def another(graph: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """The same model with other weights."""
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    for tensor in made.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return made


def half_ends() -> onnx.ModelProto:
    """`conv_net` with FP16 inputs and outputs."""
    made = conv_net()
    graph = made.graph
    for held in (*graph.input, *graph.output):
        held.type.tensor_type.elem_type = TensorProto.FLOAT16
    nodes = [*graph.node]
    nodes[0].input[0], nodes[-1].output[0] = "wide", "result"
    nodes.insert(0, helper.make_node("Cast", ["image"], ["wide"], name="in", to=1))
    nodes.append(helper.make_node("Cast", ["result"], ["scores"], name="out", to=10))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return made


@ON_TEN
def test_an_engine_is_compared_with_another(simulated: Simulation, tmp_path: Path) -> None:
    narrow = {"image": ((2, 3, 16, 16), (4, 3, 16, 16), (6, 3, 16, 16))}
    _, one = built(tmp_path / "one", conv_net(), profiles=(CONV_PROFILE,))
    _, same = built(tmp_path / "same", conv_net(), profiles=(narrow,))
    _, half = built(tmp_path / "half", half_ends(), profiles=(CONV_PROFILE,))
    _, other = built(tmp_path / "other", another(conv_net(), 1.5), profiles=(CONV_PROFILE,))
    (report,) = verify(one, VerifyOptions(against=same)).checks.values()
    assert report.verdict == "pass"
    assert report.outputs["scores"].metrics is not None
    assert report.outputs["scores"].metrics.max_abs == 0
    bound = ("sqnr_db=40",)
    data = tmp_path / "data.npz"
    np.savez(data, image=np.ones((5, 3, 16, 16), np.float32), labels=np.zeros(5, np.int64))
    for pair, given in (((half, one), data), ((one, half), None)):  # compared in FP32
        result = verify(pair[0], VerifyOptions(against=pair[1], tolerance=bound, data=given))
        assert result.verdict == "pass"
        (report,) = result.checks.values()
        assert report.outputs["scores"].metrics.max_abs > 0
    result = verify(other, VerifyOptions(against=one))
    assert (result.verdict, result.exit_status) == ("fail", 5)


@ON_TEN
def test_engines_that_cannot_be_compared_say_why(simulated: Simulation, tmp_path: Path) -> None:
    wide = {"image": ((9, 3, 16, 16), (16, 3, 16, 16), (32, 3, 16, 16))}
    model, one = built(tmp_path / "one", conv_net(), profiles=(CONV_PROFILE,))
    _, large = built(tmp_path / "large", conv_net(), profiles=(wide,))
    _, other = built(tmp_path / "other", matmul())
    with pytest.raises(ParityError, match="take no shape in common"):
        verify(one, VerifyOptions(against=large))
    with pytest.raises(ParityError, match="inputs differ: image here, x in the reference"):
        verify(one, VerifyOptions(against=other))
    with pytest.raises(UsageError, match="cannot serve as the reference of an ONNX file"):
        verify(model, VerifyOptions(against=one))
    with pytest.raises(UsageError, match=r"is an engine of tensorrt, not of tensorrt_rtx"):
        verify(one, VerifyOptions(against=model, backend="tensorrt_rtx"))
    with pytest.raises(UsageError, match="--against-python is of an engine"):
        verify(one, VerifyOptions(against=model, against_python=Path(sys.executable)))


def test_engines_of_two_majors_are_compared(
    simulated: Simulation, simulations: Any, tmp_path: Path
) -> None:
    """Each in an interpreter of its own, as both are the module `tensorrt`."""
    other = simulations["11" if simulated.major == "10" else "10"]
    path, here = built(tmp_path, conv_net(), profiles=(CONV_PROFILE,))
    there = tmp_path / "there.plan"
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH={other.modules}:$PYTHONPATH exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    program = (
        "import sys; from pathlib import Path\n"
        "from trtforge.engine.backend import BuildRequest, get_backend\n"
        "path, output = map(Path, sys.argv[1:])\n"
        "profile = {'image': ((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))}\n"
        "request = BuildRequest(path, output, output.with_suffix('.log'), 'tensorrt', (profile,))\n"
        "get_backend('tensorrt').build(request)\n"
    )
    other.python(program, str(path), str(there))
    assert inspect_path(there)["tensorrt_version"] == other.version
    run = trtforge("verify", here, "--against", there, store=tmp_path)
    run.assert_clean_failure(4)
    assert f"library version {other.version} got {simulated.version}" in run.stderr
    asked = ("--against", there, "--against-python", python, "--require-engine", "--json")
    run = trtforge("verify", here, *asked, store=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    document = json.loads(run.stdout)
    assert document["checks"]["engine:m.plan"]["verdict"] == "pass"


def test_an_interpreter_that_does_not_do_is_one_clear_error(tmp_path: Path) -> None:
    script = tmp_path / "python"
    with pytest.raises(UsageError, match=r"does not run: .*No such file"):
        worker_of(script)
    script.write_text("#!/bin/sh\necho 0.0.1\n")
    script.chmod(0o755)
    with pytest.raises(UsageError, match=r"has trtforge 0\.0\.1, this is"):
        worker_of(script)
    script.write_text("#!/bin/sh\necho ModuleNotFoundError: trtforge >&2; exit 1\n")
    with pytest.raises(Exception, match="has no trtforge: ModuleNotFoundError") as caught:
        worker_of(script)
    assert getattr(caught.value, "exit_status", None) == 3
