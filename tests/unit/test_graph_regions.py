"""Where two versions of a model differ: the regions that are compared one by one."""

import models_graph as mg
import numpy as np
from hostile_text import hostile
from onnx import ModelProto

from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.graph.regions import Region, Version, find_regions, weights_bytes


def text(source: str) -> ModelProto:
    return hostile(source)().proto


def regions(before: ModelProto, after: ModelProto | Model) -> list[Region]:
    candidate = after if isinstance(after, Model) else Model(after)
    return find_regions(Version(Model(before)), Version(candidate))


def passed(proto: ModelProto, *names: str) -> list[Region]:
    result = run_passes(Model(proto), PassRequest(use=names, prove=False))
    assert result.report.passes[0].rewrites
    return regions(proto, result.model)


def ops(region: Region) -> tuple[list[str], list[str]]:
    sides = (region.before, region.after)
    before, after = ([node.op_type for node in side.nodes] for side in sides)
    return before, after


def test_equal_models_have_no_regions() -> None:
    assert regions(mg.conv_bn(), mg.conv_bn()) == []
    assert (
        regions(mg.conv_bn(), Model(mg.conv_bn()).with_graph(Model(mg.conv_bn()).to_graph())) == []
    )


def test_a_fused_pair() -> None:
    (region,) = passed(mg.conv_bn(), "conv-batchnorm")
    assert ops(region) == (["Conv", "BatchNormalization"], ["Conv"])
    assert region.outputs == ("n",)
    assert region.before.inputs == region.after.inputs == ("x",)
    assert set(region.before.constants) == {"W", "b", "bn.scale", "bn.B", "bn.mean", "bn.var"}


def test_a_common_subexpression() -> None:
    proto = text(
        "(float[N,4] x) => (float[N,4] y) { a = Exp(x) b = Exp(x) c = Neg(a) d = Abs(b)"
        " y = Add(c, d) }"
    )
    (region,) = passed(proto, "common-subexpressions", "dead-code")
    # The first Exp is in both versions; the second went with its reader.
    assert ops(region) == (["Exp", "Abs"], ["Abs"])
    assert region.outputs == ("d",)
    assert (region.before.inputs, region.after.inputs) == (("x",), ("a",))


def test_a_bypassed_identity_is_no_difference() -> None:
    proto = text("(float[N,4] x) => (float[N,4] y) { a = Exp(x) b = Identity(a) y = Neg(b) }")
    assert passed(proto, "identity") == []


def test_an_identity_whose_name_is_an_output() -> None:
    proto = text("(float[N,4] x) => (float[N,4] y) { a = Exp(x) y = Identity(a) }")
    (region,) = passed(proto, "identity")
    assert region.outputs == ("y",)
    assert ops(region)[1] == ["Exp"]


def test_an_edited_body() -> None:
    source = """(float[N,4] x, bool f) => (float[N,4] y) { a = Relu(x) b = If(f) <
        then_branch = t () => (float[N,4] u) { i = Concat<axis = 0>(a) u = Neg(i) },
        else_branch = e () => (float[N,4] v) { v = Abs(x) }> y = Exp(b) }"""
    (region,) = passed(text(source), "no-op")
    assert ops(region) == (["If"], ["If"])
    assert region.outputs == ("b",)
    assert set(region.before.inputs) == {"f", "a", "x"}  # what the bodies take from outside, too


def test_constants_are_known_by_their_content() -> None:
    one, two, three = mg.conv_bn(), mg.conv_bn(), mg.conv_bn()
    for tensor in two.graph.initializer:
        tensor.name = f"renamed.{tensor.name}"
    for node in two.graph.node[:2]:
        node.input[1:] = [f"renamed.{name}" for name in node.input[1:]]
    assert regions(one, two) == []
    values = mg.weights(4, 3, 3, 3)
    values[0, 0, 0, 0] += 1e-6
    three.graph.initializer[0].CopyFrom(mg.tensor("W", values))
    (region,) = regions(one, three)
    assert region.outputs == ("c",)


def test_merged_duplicates_are_no_difference() -> None:
    values = mg.weights(4, 4)
    nodes = [
        mg.node("MatMul", ["x", "V"], ["a"]),
        mg.node("MatMul", ["a", "W"], ["y"]),
    ]
    proto = mg.model(
        nodes,
        [mg.info("x", ["N", 4])],
        [mg.info("y", ["N", 4])],
        [mg.tensor("V", values), mg.tensor("W", values)],
    )
    assert passed(proto, "duplicate-initializers") == []


def test_dead_nodes_are_in_no_region() -> None:
    proto = text("(float[N,4] x) => (float[N,4] y) { d = Exp(x) e = Neg(d) y = Abs(x) }")
    assert passed(proto, "dead-code") == []


def test_places_far_apart_are_regions_of_their_own() -> None:
    nodes, initializers = [], list(mg.batchnorm_parameters("bn", 4))
    last = "x"
    for index in range(3):
        initializers.append(mg.tensor(f"W{index}", mg.weights(4, 4, 1, 1, seed=index)))
        nodes += [
            mg.node("Conv", [last, f"W{index}"], [f"c{index}"]),
            mg.batchnorm(f"c{index}", f"n{index}", "bn"),
            mg.node("Relu", [f"n{index}"], [f"r{index}"]),
        ]
        last = f"r{index}"
    proto = mg.model(nodes, [mg.info("x", ["N", 4, 2, 2])], [mg.info("r2", None)], initializers)
    found = passed(proto, "conv-batchnorm")
    assert [region.outputs for region in found] == [("n0",), ("n1",), ("n2",)]
    assert len({region.signature for region in found}) == 1
    before = Version(Model(proto))
    result = run_passes(Model(proto), PassRequest(use=("conv-batchnorm",), prove=False))
    after = Version(result.model)
    # Three weights of 64 bytes and four shared vectors of 16; then weights and biases of their own.
    assert weights_bytes(find_regions(before, after), before, after) == 3 * 64 + 4 * 16 + 3 * 80


def test_an_operator_that_changed_is_a_region() -> None:
    before = text("(float[N,4] x) => (float[N,4] y) { a = Exp(x) y = Sub(a, x) }")
    after = text("(float[N,4] x) => (float[N,4] y) { a = Exp(x) y = Sub(x, a) }")
    (region,) = regions(before, after)
    assert ops(region) == (["Sub"], ["Sub"])
    assert set(region.before.inputs) == {"a", "x"}
    assert np.prod([len(side.constants) for side in (region.before, region.after)]) == 0
