"""The onnx package's own backend tests: each comes out valid and equal, or is left with a reason.

Every node test runs three times: as it is, with all inputs but the first as initializers (so that
passes see weights, axes and shapes), and with all of them (so that the whole graph folds).
"""

import functools
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graph_judging as judge
import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests, load_node_model_tests

from trtforge.errors import ForgeError
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model

CHUNKS = 16
FOLDER = Path(onnx.backend.test.__file__).parent / "data"
LIGHT = sorted(path.stem for path in (FOLDER / "light").glob("*.onnx"))
STORED = ("simple", "pytorch-converted", "pytorch-operator")

Examined = tuple[str, str]
"""A verdict (see `graph_judging.compared`, or "refused", or "wrong") and the reason."""


@functools.cache
def node_tests() -> tuple[TestCase, ...]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return tuple(sorted(load_node_model_tests(), key=lambda case: case.name))


def examined(proto: ModelProto, feeds: list[judge.Arrays], folder: Path | None) -> Examined:
    """Take one model the whole way; `folder` None leaves the gate out."""
    try:
        model = judge.through_the_gate(proto, folder) if folder else Model(proto)
        assert model.contract.outputs
    except ForgeError as error:
        return "refused", f"{error.code}: {error.message}"
    try:
        return judge.compared(judge.judged(model), feeds)
    except AssertionError as error:
        return "wrong", str(error)
    except Exception as error:
        return "wrong", f"crashed: {type(error).__name__}: {error}"


def feeds_of(case: TestCase) -> list[judge.Arrays]:
    names = [info.name for info in case.model.graph.input]
    return [dict(zip(names, inputs, strict=True)) for inputs, _ in case.data_sets]


def can_be_fixed(case: TestCase) -> bool:
    """Whether all inputs and outputs are tensors, so that they may stand in initializers."""
    infos = (*case.model.graph.input, *case.model.graph.output)
    return bool(case.model.graph.input) and all(info.type.HasField("tensor_type") for info in infos)


def with_constants(case: TestCase, keep: int) -> tuple[ModelProto, list[judge.Arrays]]:
    """Make initializers of all inputs but the first `keep`; return the model and its feeds."""
    proto = ModelProto()
    proto.CopyFrom(case.model)
    proto.ir_version = max(proto.ir_version, 8)  # older ones want initializers to be inputs
    feeds = feeds_of(case)[0]
    for info in list(proto.graph.input)[keep:]:
        proto.graph.input.remove(info)
        proto.graph.initializer.append(as_tensor(feeds.pop(info.name), info))
    if not keep:
        outputs = list(zip(proto.graph.output, case.data_sets[0][1], strict=True))
        for info, expected in outputs:
            feeds.update(put_a_reader_behind(proto, info, np.shape(array_of(expected))))
    return proto, [feeds]


def put_a_reader_behind(
    proto: ModelProto, info: ValueInfoProto, shape: tuple[int, ...]
) -> judge.Arrays:
    """Let an output depend on a new input too, so that what computes it is not the end."""
    opset = next((i.version for i in proto.opset_import if i.domain in ("", "ai.onnx")), None)
    if opset is None:
        opset = 21
        proto.opset_import.add(domain="", version=opset)
    inner, lifted, tail, name = (f"{info.name}/{role}" for role in ("in", "up", "tail", "out"))
    axes = {"axes": [0]} if opset < 13 else {}
    given = [info.name] if opset < 13 else [info.name, inner]
    if opset >= 13:
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), inner))
    proto.graph.node.append(helper.make_node("Unsqueeze", given, [lifted], **axes))
    proto.graph.node.append(helper.make_node("Concat", [lifted, tail], [name], axis=0))
    kind = info.type.tensor_type.elem_type
    proto.graph.input.append(helper.make_tensor_value_info(tail, kind, (1, *shape)))
    info.CopyFrom(helper.make_tensor_value_info(name, kind, (2, *shape)))
    if kind == TensorProto.STRING:
        return {tail: np.full((1, *shape), "", object)}
    return {tail: np.zeros((1, *shape), helper.tensor_dtype_to_np_dtype(kind))}


def array_of(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def as_tensor(value: Any, info: ValueInfoProto) -> TensorProto:
    tensor = TensorProto()
    if isinstance(value, TensorProto):
        tensor.CopyFrom(value)
    else:
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(value)))
    tensor.name = info.name
    return tensor


def counted(verdicts: dict[str, Examined], what: str) -> Counter[str]:
    """Print the totals, and assert that there is nothing that must not be."""
    totals = Counter(verdict for verdict, _ in verdicts.values())
    print(f"{what}: {dict(sorted(totals.items()))}")
    wrong = [f"{name}: {why}" for name, (verdict, why) in verdicts.items() if verdict == "wrong"]
    assert not wrong, "\n".join(wrong)
    for verdict, why in verdicts.values():
        assert verdict in ("equal", "random") or why
        assert verdict != "refused" or why.startswith("TF04")
    return totals


def test_there_are_as_many_as_there_should_be() -> None:
    assert len(node_tests()) > 1500
    assert len(LIGHT) == 9
    assert sum(1 for _ in stored_tests()) > 100


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_node_models(chunk: int, tmp_path: Path) -> None:
    cases = node_tests()[chunk::CHUNKS]
    verdicts = {case.name: examined(case.model, feeds_of(case), tmp_path) for case in cases}
    totals = counted(verdicts, "as they are")
    assert totals["equal"] > 0.75 * len(cases)
    assert totals["not_run"] == 0  # a model that nothing here can run is not rewritten either


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_node_models_with_constant_operands(chunk: int) -> None:
    cases = [case for case in node_tests()[chunk::CHUNKS] if can_be_fixed(case)]
    verdicts = {case.name: examined(*with_constants(case, 1), None) for case in cases}
    totals = counted(verdicts, "constant operands")
    assert totals["equal"] > 0.6 * len(cases)
    assert totals["not_run"] <= 0.05 * len(cases)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_node_models_of_constants_alone(chunk: int) -> None:
    cases = [case for case in node_tests()[chunk::CHUNKS] if can_be_fixed(case)]
    verdicts = {case.name: examined(*with_constants(case, 0), None) for case in cases}
    totals = counted(verdicts, "constants alone")
    assert totals["equal"] > 0.6 * len(cases)
    assert totals["not_run"] <= 0.05 * len(cases)


def stored_tests() -> Iterator[tuple[str, Path]]:
    for kind in STORED:
        for case in load_model_tests(kind=kind):
            assert case.model_dir is not None
            yield case.name, Path(case.model_dir)


def test_stored_models(tmp_path: Path) -> None:
    verdicts = {}
    for name, folder in stored_tests():
        proto = onnx.load(folder / "model.onnx")
        inputs = list(map(stored_tensor, sorted((folder / "test_data_set_0").glob("input_*.pb"))))
        given = {info.name for info in proto.graph.input}
        given -= {tensor.name for tensor in proto.graph.initializer}
        names = [info.name for info in proto.graph.input if info.name in given]
        verdicts[name] = examined(proto, [dict(zip(names, inputs, strict=False))], tmp_path)
    totals = counted(verdicts, "stored")
    assert totals["equal"] >= 100


def stored_tensor(path: Path) -> np.ndarray:
    return numpy_helper.to_array(TensorProto.FromString(path.read_bytes()))


@pytest.mark.parametrize("name", LIGHT)
def test_light_models(name: str) -> None:
    model = Model.load(FOLDER / "light" / f"{name}.onnx")
    case = judge.judged(model)
    verdict, why = judge.compared(case, [random_feeds(model, {}, seed=0)])
    assert verdict == "equal", why
