"""A program that runs an engine of `engine_models.conv_net` in a session, and what must come of it.

It is run in a process of its own, as sessions are: TensorRT is never in the tests' own process.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trtforge.engine.onnxruntime import OnnxRuntimeRunner

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from trtforge.engine import arrays
from trtforge.engine.cuda import Cuda
from trtforge.engine.flavour import FLAVOURS
from trtforge.engine.infer import load_engine
from trtforge.engine.native_log import LogBook
from trtforge.engine.session import Session, SessionOptions
from trtforge.engine.tensorrt import load_module
from trtforge.errors import BuildError
backend, folder, engine_path = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
trt = load_module(FLAVOURS[backend])
job = {"backend": backend, "engine": engine_path, "allow_host_code": False}
engine, runtime = load_engine(job, LogBook(backend, lambda line: None))
found = {}
def image(batch):
    rng = np.random.default_rng(batch)
    return {"image": rng.standard_normal((batch, 3, 16, 16)).astype(np.float32)}
options = SessionOptions(streams=2, graphs=True, runtime_cache=folder / "kernels")
with Session(trt, engine, Cuda(), options) as session:
    for batch in (1, 8, 16, 2):  # two profiles, growing and shrinking
        found[f"b{batch}"] = session.infer(image(batch))["scores"]
    pinned = [session.pin(image(batch)) for batch in (3, 12)]
    first, second = [session.submit(one) for one in pinned]  # under way, each in its own profile
    for pending in (second, first):
        with pending:
            assert pending.wait() >= 0
            scores = pending.outputs()["scores"]
            found[f"b{len(scores)}"] = scores
    session.prepare(pinned[0])
    print(session.facts)
    for bad in ({}, {"image": np.zeros((1, 3, 16, 16))}, image(33)):
        try:
            session.infer(bad)
        except BuildError as error:
            print(error.code)
    found["b5"] = session.infer(image(5))["scores"]
    session.keep_runtime_cache()
arrays.store(folder / "found.npz", found)
"""
"""Arguments: backend, folder, engine with profiles for 1..8 and 9..32 images. Prints facts of the
session and the codes of three refusals; leaves scores by batch size in found.npz."""

REFUSALS = ["TF0616", "TF0616", "TF0614"]


def assert_scores_are_right(folder: Path, model: Path, **tolerance: float) -> None:
    """Hold what the program left against ONNX Runtime."""
    with np.load(folder / "found.npz") as file:
        found: list[Any] = list(file.values())
    assert [len(scores) for scores in found] == [1, 8, 16, 2, 12, 3, 5]
    with OnnxRuntimeRunner(model) as reference:
        for scores in found:
            expected: Mapping[str, Any] = reference.infer(images(len(scores)))
            np.testing.assert_allclose(scores, expected["scores"], **tolerance)


def images(batch: int) -> dict[str, Any]:
    """The inputs that the program makes."""
    rng = np.random.default_rng(batch)
    return {"image": rng.standard_normal((batch, 3, 16, 16)).astype(np.float32)}
