"""Graphs made to break an optimizer come out valid and equal, or are refused with a reason."""

from pathlib import Path
from typing import Any

import graph_judging as judge
import numpy as np
import pytest
from hostile_graphs import HOSTILE, Hostile
from onnx import ModelProto

from trtforge.errors import ForgeError
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.graph.weights import model_nodes

RUN_BY_NOTHING = frozenset({"custom_domain", "custom_domain_of_constants"})
"""Graphs with operators that only a plugin knows; all else must run, or the proof is empty."""


def feeds_for(case: Hostile, model: Model) -> list[judge.Arrays]:
    """Inputs at two shapes, with two seeds."""
    return [feeds_at(case, model, sizes, seed) for seed, sizes in enumerate(case.sizes * 2)]


def feeds_at(case: Hostile, model: Model, sizes: dict[str, int], seed: int) -> judge.Arrays:
    shapes = {}
    for spec in model.contract.inputs:
        dims = [sizes.get(dim, 2) if isinstance(dim, str) else dim for dim in spec.dims]
        shapes[spec.name] = tuple(2 if dim is None else dim for dim in dims)
    feeds = {}
    for spec in model.contract.inputs:
        if spec.name in case.given:
            feeds[spec.name] = given(case.given[spec.name], shapes[spec.name], spec.dtype)
    known = random_feeds(model, shapes, seed) if set(shapes) - set(feeds) else {}
    return known | feeds


def given(value: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if callable(value):
        value = value(*shape)
    return np.asarray(value, object if dtype == "string" else dtype)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graph(name: str, tmp_path: Path) -> None:
    case = HOSTILE[name]()
    if case.refused is not None:
        with pytest.raises(ForgeError) as caught:
            judge.through_the_gate(case.proto, tmp_path)
        assert caught.value.code == case.refused
        return
    model = judge.through_the_gate(case.proto, tmp_path)
    result = judge.judged(model)
    verdict, why = judge.compared(result, feeds_for(case, model))
    expected = {"not_run", "untouched"} if name in RUN_BY_NOTHING else {"equal", "reference"}
    expected |= {"random"} if name.startswith("random_") else set()
    assert verdict in expected, why
    saved = tmp_path / "saved.onnx"
    result.after.save(saved)
    assert Model.load(saved).contract == model.contract


@pytest.mark.parametrize("name", [name for name in HOSTILE if HOSTILE[name]().refused is None])
def test_import_and_export_alone_lose_nothing(name: str) -> None:
    proto = HOSTILE[name]().proto
    model = Model(proto)
    assert normal(model.with_graph(model.to_graph()).proto) == normal(proto)


def normal(proto: ModelProto) -> ModelProto:
    """What may change: empty domains, inputs with initializers (constants to TensorRT), and
    annotations of tensors that do not exist."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    copy.ir_version = max(proto.ir_version, 4)
    for node in model_nodes(copy):
        if not node.domain:
            node.ClearField("domain")
    graph, initialized = copy.graph, {tensor.name for tensor in proto.graph.initializer}
    for info in [info for info in graph.input if info.name in initialized]:
        graph.input.remove(info)
    known = {name for node in graph.node for name in (*node.input, *node.output)}
    for note in [n for n in graph.quantization_annotation if n.tensor_name not in known]:
        graph.quantization_annotation.remove(note)
    return copy
