"""What several precision tests share: data, measures, checks of a typed graph."""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import onnx
from models_precision import cnn, control_flow, transformer

from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.emulate import emulate
from trtforge.precision.quantize import candidate_tensors
from trtforge.recipe.schema import Precision

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "cnn": {"image": (8, 3, 16, 16)},
    "transformer": {"ids": (4, 12), "mask": (4, 12)},
    "control_flow": {"x": (2, 8, 8, 8)},
}
MAKERS = {"cnn": cnn, "transformer": transformer, "control_flow": control_flow}

Feeds = dict[str, np.ndarray]


@lru_cache
def net(name: str) -> Model:
    return MAKERS[name]()


class Samples:
    """Calibration data in memory."""

    digest = "sha256:data"
    description = "data.npz"
    is_synthetic = False

    def __init__(self, arrays: Feeds, static_batch: int | None = None) -> None:
        self.arrays = arrays
        self.count = len(next(iter(arrays.values())))
        self.static_batch = static_batch

    def batches(self, batch: int, limit: int | None = None, start: int = 0) -> Iterator[Feeds]:
        total = self.count if limit is None else limit
        for first in range(start, total, batch):
            yield {n: v[first : min(first + batch, total)] for n, v in self.arrays.items()}


def samples_for(model: Model, feeds: Feeds) -> Samples:
    """The feeds as data of a model, whose batch may be fixed."""
    batch = model.contract.inputs[0].dims[0]
    return Samples(feeds, batch if isinstance(batch, int) else None)


@lru_cache
def ranges(name: str, method: str = "minmax") -> CalibrationCache:
    """Calibrated on other random inputs than those that are compared."""
    model = net(name)
    tensors = candidate_tensors(model, Precision(quantize="int8"))
    data = samples_for(model, random_feeds(model, SHAPES[name], seed=1))
    return calibrate(model, data, CalibrationRequest(tensors, method))


def sqnr_db(reference: np.ndarray, candidate: np.ndarray) -> float:
    signal = reference.astype(np.float64)
    noise = ((signal - candidate.astype(np.float64)) ** 2).sum()
    if not np.isfinite(noise):
        return -np.inf
    return float(10 * np.log10((signal**2).sum() / noise)) if noise else np.inf


def fidelity(original: Model, candidate: Model, feeds: Feeds) -> float:
    """Least SQNR over the outputs, the candidate emulated."""
    expected = Session(original).run(feeds)
    got = Session(emulate(candidate)).run(feeds)
    return min(sqnr_db(expected[name], got[name]) for name in expected)


def check_typed(original: Model, candidate: Model) -> None:
    """Valid, strictly typed, same contract, no cast too many."""
    onnx.checker.check_model(candidate.proto, full_check=True)
    onnx.shape_inference.infer_shapes(
        candidate.proto, check_type=True, strict_mode=True, data_prop=True
    )
    assert candidate.contract == original.contract
    casts = [node for node in candidate.proto.graph.node if node.op_type == "Cast"]
    made = {node.output[0]: node for node in casts}
    outputs = {value.name for value in candidate.proto.graph.output}
    inner = [node for node in casts if node.output[0] not in outputs]
    requests = Counter((node.input[0], node.attribute[0].i) for node in inner)
    assert max(requests.values(), default=1) == 1, "a tensor is cast twice to one type"
    before = {node.name for node in original.proto.graph.node if node.op_type == "Cast"}
    for node in casts:
        if node.name not in before:
            assert node.input[0] not in made, f"{node.name} casts the result of a cast"


def ops(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.proto.graph.node)


def initializer_types(model: Model) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.proto.graph.initializer}
