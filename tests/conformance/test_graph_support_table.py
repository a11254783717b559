"""The support report against TensorRT-RTX's own parser: the table must not rot."""

import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import tensorrt_rtx as trt
from onnx import ModelProto, TensorProto
from onnxruntime.quantization import QuantFormat, QuantType
from readiness_models import SYMMETRIC, dynamically_quantized, quantized, ready

from trtforge.errors import GraphError
from trtforge.graph.model import Model
from trtforge.graph.readiness import operators
from trtforge.graph.readiness.support import support_problems


class QuietLogger(trt.ILogger):
    """Errors come back through the parser."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)

    def log(self, severity: Any, msg: str) -> None:
        pass


LOGGER = QuietLogger()
BUILDER = trt.Builder(LOGGER)

KNOWN_TO_THE_PARSER_ALONE = frozenset(
    {
        "Attention",  # which masks and head sizes go together
        "Cast",  # to FLOAT8E8M0, which is a type of scales alone
        "Celu",
        "Clip",  # of INT8
        "Loop",
        "MatMul",
        "Mod",  # of floats
        "OneHot",
        "Range",
        "ReduceMean",  # axes that are computed
        "Resize",
        "Split",
        "TensorScatter",
        "Upsample",
        "",
    }
)
"""Operators of which the parser refuses forms that the report does not know of."""


def parser_errors(proto: ModelProto) -> list[tuple[str, str]]:
    """What the parser says of a model: operator and text."""
    network = BUILDER.create_network(0)
    parser = trt.OnnxParser(network, LOGGER)
    parser.parse(proto.SerializeToString())
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return [(error.node_operator(), error.desc()) for error in errors]


@functools.cache
def test_models() -> tuple[tuple[str, ModelProto], ...]:
    from onnx.backend.test.case import node
    from onnx.backend.test.case.utils import import_recursive

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_recursive(node)
        cases = node.collect_testcases(None)
    return tuple((case.name, case.model) for case in cases if case.model is not None)


test_models.__test__ = False  # type: ignore[attr-defined]


def judged() -> Iterator[tuple[str, list[tuple[str, str]], tuple[Any, ...]]]:
    for name, proto in test_models():
        try:
            model = Model(proto)
            problems = support_problems(model, "tensorrt_rtx")
        except GraphError:
            continue  # sequences and the like at the border: the gate refuses them
        yield name, parser_errors(proto), problems


def test_the_table_is_what_the_parser_says() -> None:
    network = BUILDER.create_network(0)  # it must live as long as the parser
    parser = trt.OnnxParser(network, LOGGER)
    schemas = {s.name for s in onnx.defs.get_all_schemas() if s.domain in ("", "ai.onnx")}
    taken = {name for name in schemas if parser.supports_operator(name)}
    assert taken == operators.STANDARD | operators.PLUGINS
    assert not operators.STANDARD & operators.PLUGINS
    for name in operators.CONTRIB | operators.NAMED:
        assert parser.supports_operator(name), name


def test_every_remedy_is_for_an_operator_that_is_not_taken() -> None:
    assert not set(operators.REMEDIES) & operators.STANDARD


@pytest.mark.slow
def test_the_report_and_the_parser_agree_on_onnxs_own_test_models() -> None:
    wrongly, missed, right = [], [], 0
    for name, errors, problems in judged():
        reasons = " ".join(problem.reason for problem in problems)
        if problems and not errors:
            if not any(text in reasons for text in _DELIBERATE):
                wrongly.append((name, reasons))
        elif errors and not problems:
            if errors[0][0] not in KNOWN_TO_THE_PARSER_ALONE:
                missed.append((name, errors[0][1]))
        else:
            right += 1
    assert wrongly == []
    assert missed == []
    assert right > 1500


_DELIBERATE = (
    "the engine would take it for FP32",
    "takes for INT8 without a word",
    "is an input",  # a zero point: the builder refuses it
)
"""What the parser takes and should not: an engine would compute something else, or not be built."""


def test_plugins_are_missing_indeed() -> None:
    needed = {
        proto.graph.node[0].op_type: proto
        for _, proto in test_models()
        if proto.graph.node and proto.graph.node[0].op_type in operators.PLUGINS
    }
    assert set(needed) == operators.PLUGINS
    for name, proto in needed.items():
        assert any("plugin" in text.lower() for _, text in parser_errors(proto)), name


def test_types_that_the_report_takes_are_taken() -> None:
    from trtforge.graph.readiness.rules import type_objection

    for _, number in TensorProto.DataType.items():
        if type_objection(number, "x") is not None or number in _TAKEN_IN_PART:
            continue
        info = onnx.helper.make_tensor_value_info
        node = onnx.helper.make_node("Identity", ["x"], ["y"])
        graph = onnx.helper.make_graph(
            [node], "g", [info("x", number, [2])], [info("y", number, [2])]
        )
        assert not parser_errors(onnx.helper.make_model(graph)), number


_TAKEN_IN_PART = (TensorProto.UNDEFINED, TensorProto.FLOAT8E8M0)


def engine_bytes(proto: ModelProto) -> int:
    """Parse and build a static model with the real builder; 0 when it refuses."""
    network = BUILDER.create_network(0)
    parser = trt.OnnxParser(network, LOGGER)
    if not parser.parse(proto.SerializeToString()):
        return 0
    plan = BUILDER.build_serialized_network(network, BUILDER.create_builder_config())
    return 0 if plan is None else int(plan.nbytes)


@pytest.mark.parametrize("form", list(QuantFormat))
@pytest.mark.parametrize("activations", [QuantType.QInt8, QuantType.QUInt8])
def test_symmetric_models_of_quantize_static_build(
    form: QuantFormat, activations: QuantType, tmp_path: Path
) -> None:
    types = (activations, QuantType.QInt8)
    proto = quantized(tmp_path, form, types, extra_options=SYMMETRIC, softmax=True)
    assert engine_bytes(proto) == 0
    model, _ = ready(proto)
    assert engine_bytes(model.proto) > 0


def test_asymmetric_models_build_when_asked_for(tmp_path: Path) -> None:
    proto = quantized(tmp_path)
    assert engine_bytes(proto) == 0
    model, _ = ready(proto, "asymmetric-to-float", "quantized-bias", "dead-code")
    assert engine_bytes(model.proto) > 0


def test_models_of_quantize_dynamic_build(tmp_path: Path) -> None:
    proto = dynamically_quantized(tmp_path, QuantType.QInt8, per_channel=True)
    assert engine_bytes(proto) == 0
    model, _ = ready(proto)
    assert engine_bytes(model.proto) > 0
