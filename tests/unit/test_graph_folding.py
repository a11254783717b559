"""What follows from constants and dimensions is computed; conditions and functions vanish."""

import models_graph as mg
import numpy as np
import onnx
import pytest
from graph_judging import self_contained
from hostile_text import hostile
from onnx import ModelProto, helper, numpy_helper

from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.graph.report import PassOutcome

SIZES = ({"N": 3, "M": 2}, {"N": 1, "M": 5})


def shapes_of(model: Model, sizes: dict[str, int]) -> dict[str, tuple[int, ...]]:
    return {
        spec.name: tuple(sizes[dim] if isinstance(dim, str) else dim or 2 for dim in spec.dims)
        for spec in model.contract.inputs
    }


def applied(proto: ModelProto, *names: str) -> tuple[Model, PassOutcome]:
    """Run passes; what comes out is valid and computes the same at two sets of sizes."""
    onnx.checker.check_model(proto)
    model = Model(proto)
    result = run_passes(model, PassRequest(use=names, prove=False))
    assert not any(outcome.rolled_back for outcome in result.report.passes)
    onnx.checker.check_model(self_contained(result.model), full_check=True)
    assert result.model.contract == model.contract
    for sizes in SIZES:
        assert mg.largest_difference(model, result.model, shapes_of(model, sizes)) == 0
    return result.model, result.report.passes[0]


def text(source: str, opset: int = 18, functions: str = "", imports: str = "") -> ModelProto:
    return hostile(source, opset=opset, functions=functions, imports=imports, ir_version=9)().proto


def constants(model: Model) -> dict[str, list[int]]:
    graph = model.proto.graph
    return {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer}


def refused(outcome: PassOutcome) -> str:
    return " ".join(note.reason for note in outcome.notes if note.kind == "refused")


# Constant conditions

_IF = """{name} = If({flag}) <
    then_branch = t () => (float[N,4] {then}u) {{ {then}i = Exp(x) {then}u = Neg({then}i) }},
    else_branch = e () => (float[N,4] {other}u) {{ {other}i = Abs(x) {other}u = Exp({other}i) }}>
"""


def conditional(name: str, flag: str, then: str = "t", other: str = "e") -> str:
    return _IF.format(name=name, flag=flag, then=then, other=other)


@pytest.mark.parametrize(("flag", "left"), [(1, ["Exp", "Neg"]), (0, ["Abs", "Exp"])])
def test_the_branch_that_is_taken(flag: int, left: list[str]) -> None:
    source = "(float[N,4] x) => (float[N,4] y) <bool c = {%d}> { %s y = Relu(a) }"
    model, outcome = applied(
        text(source % (flag, conditional("a", "c"))), "constant-condition", "identity"
    )
    assert mg.ops(model) == [*left, "Relu"]
    assert outcome.rewrites == 1


def test_conditions_that_follow_from_dimensions() -> None:
    source = """(float[N,4] x) => (float[N,4] y) <int64[1] i = {1}, int64[1] four = {4}> {
        s = Shape(x) d = Gather(s, i) c = Equal(d, four) %s y = Relu(a) }"""
    model, _ = applied(
        text(source % conditional("a", "c")), "constant-condition", "identity", "dead-code"
    )
    assert mg.ops(model) == ["Exp", "Neg", "Relu"]


def test_conditions_that_are_computed_stay() -> None:
    source = "(float[N,4] x, bool c) => (float[N,4] y) { %s y = Relu(a) }"
    assert applied(text(source % conditional("a", "c")), "constant-condition")[1].rewrites == 0


def test_names_that_branches_share_are_told_apart() -> None:
    source = "(float[N,4] x) => (float[N,4] y) <bool c = {1}, bool d = {0}> { %s %s y = Sub(a, b) }"
    proto = text(source % (conditional("a", "c", "s", "s"), conditional("b", "d", "s", "s")))
    model, outcome = applied(proto, "constant-condition", "identity")
    assert mg.ops(model) == ["Exp", "Neg", "Abs", "Exp", "Sub"]
    assert outcome.rewrites == 2
    names = [name for node in model.proto.graph.node for name in node.output]
    assert len(set(names)) == len(names)


def test_conditions_within_branches() -> None:
    inner = conditional("w", "d", "p", "q")
    source = """(float[N,4] x, bool f) => (float[N,4] y) <bool c = {1}, bool d = {0}> { a = If(c) <
        then_branch = t () => (float[N,4] u) { %s u = Neg(w) },
        else_branch = e () => (float[N,4] v) { v = Abs(x) }> y = Relu(a) }"""
    model, outcome = applied(text(source % inner), "constant-condition", "identity")
    assert mg.ops(model) == ["Abs", "Exp", "Neg", "Relu"]
    assert outcome.rewrites == 2
    # Within a branch that is chosen at run time, too.
    model, outcome = applied(text((source % inner).replace("If(c)", "If(f)")), "constant-condition")
    assert mg.ops(model) == ["If", "Relu"]
    assert outcome.rewrites == 1


def test_branches_that_hand_on_what_is_outside() -> None:
    source = """(float[N,4] x) => (float[N,4] y, float[N,4] z) <bool c = {1}> { a = Relu(x)
        b = If(c) <then_branch = t () => (float[N,4] u) { u = Identity(a) },
                   else_branch = e () => (float[N,4] v) { v = Neg(x) }>
        y = Neg(b)
        z = If(c) <then_branch = t () => (float[N,4] u2) { u2 = Identity(a) },
                   else_branch = e () => (float[N,4] v2) { v2 = Neg(x) }> }"""
    model, _ = applied(text(source), "constant-condition", "identity")
    assert sorted(mg.ops(model)) == ["Neg", "Relu"]


def test_weights_of_a_branch_come_along() -> None:
    source = """(float[N,4] x) => (float[N,4] y) <bool c = {1}, float[4] w = {9, 9, 9, 9}> {
        a = If(c) <then_branch = t () => (float[N,4] u) <float[4] k = {1, 2, 3, 4}> {
            u = Mul(x, k)
        }, else_branch = e () => (float[N,4] v) <float[4] k = {5, 6, 7, 8}> { v = Mul(x, k) }>
        y = Add(a, w) }"""
    model, _ = applied(text(source), "constant-condition", "identity")
    assert mg.ops(model) == ["Mul", "Add"]
    assert sorted(constants(model).values()) == [[1, 2, 3, 4], [9, 9, 9, 9]]


# Functions

_CALLS = "(float[N,4] x) => (float[N,4] y) { a = local.Outer(x) b = local.Inner(a) y = Add(a, b) }"
_IMPORTS = '<opset_import: ["": 18, "local": 1], domain: "local"> '
_INNER = _IMPORTS + "Inner (p) => (q) { t = Exp(p) q = Neg(t) }\n"
_OUTER = _IMPORTS + "Outer (p) => (q) { t = Inner(p) s = local.Inner(p) q = Abs(s) }\n"


def test_functions_that_call_functions() -> None:
    functions = _INNER + _OUTER.replace("t = Inner(p) ", "")
    model, outcome = applied(
        text(_CALLS, functions=functions, imports=', "local": 1'), "inline-functions"
    )
    assert mg.ops(model) == ["Exp", "Neg", "Abs", "Exp", "Neg", "Add"]
    assert outcome.rewrites == 2
    assert not model.proto.functions


def test_defaults_of_attributes() -> None:
    body = [
        helper.make_node("Elu", ["p"], ["q"]),
    ]
    body[0].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="a", type=1))
    function = helper.make_function(
        "local",
        "Scaled",
        ["p"],
        ["q"],
        body,
        [helper.make_opsetid("", 18)],
        attribute_protos=[helper.make_attribute("a", 0.25)],
    )
    source = "(float[N,4] x) => (float[N,4] y) { a = local.Scaled(x) y = local.Scaled<a = 3.0>(a) }"
    proto = text(source, imports=', "local": 1')
    proto.functions.append(function)
    before = proto.SerializeToString()
    model, _ = applied(proto, "inline-functions")
    alphas = [n.attribute[0].f for n in model.proto.graph.node]
    assert alphas == [0.25, 3.0]
    assert proto.SerializeToString() == before


def test_functions_that_nothing_calls_go() -> None:
    source = "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
    model, _ = applied(text(source, functions=_INNER, imports=', "local": 1'), "inline-functions")
    assert not model.proto.functions
    assert mg.ops(model) == ["Relu"]


def test_functions_in_bodies() -> None:
    source = """(float[N,4] x, bool f) => (float[N,4] y) { y = If(f) <
        then_branch = t () => (float[N,4] u) { u = local.Inner(x) },
        else_branch = e () => (float[N,4] v) { v = Abs(x) }> }"""
    model, _ = applied(text(source, functions=_INNER, imports=', "local": 1'), "inline-functions")
    (then,) = (a.g for a in model.proto.graph.node[0].attribute if a.name == "then_branch")
    assert [node.op_type for node in then.node] == ["Exp", "Neg"]


# Shape folding


def folded(
    body: str, *, opset: int = 18, dims: str = "N,4,6", more: str = "", rank: int = 1
) -> Model:
    result = ",".join("ABCD"[:rank])
    source = f"(float[{dims}] x) => (float[{result}] y) {more} {{ {body} }}"
    return applied(text(source, opset), "shape-folding", "dead-code")[0]


def targets(model: Model) -> list[list[int]]:
    """The constant targets of the Reshapes."""
    known = constants(model)
    return [known[n.input[1]] for n in model.proto.graph.node if n.op_type == "Reshape"]


_PART = "s = Shape(x) g{0} = Gather(s, i{0}) "
_INTS = (
    "<int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] minus = {-1}, "
    "int64[1] two = {2}, int64[1] zero = {0}>"
)


@pytest.mark.parametrize(
    ("dims", "target", "expected"),
    [
        ("N,4,6", "g0, g1, g2", [0, 4, 6]),
        ("N,4,6", "g1, g0, g2", [4, -1, 6]),
        ("N,4,6", "g0, p", [0, 24]),
        ("N,4,6", "p, g0", [24, -1]),
        ("N,4,6", "g0, minus", [0, 24]),
        ("N,4,6", "minus, g1", [-1, 4]),
        ("N,4,M", "g0, two, two, g2", None),
        ("N,4,M", "g2, g1, g0", None),
        ("N,4,M", "g0, g1, g2", [0, 4, 0]),
        ("N,4,M", "g0, q", None),  # a 0 and a -1: no empty tensor would go through
        ("N,4,M", "q, g0", None),
        ("N,N,6", "g1, g0, g2", [0, 0, 6]),
        ("N,4,6", "zero, p", [0, 24]),
    ],
)
def test_targets_become_constant(dims: str, target: str, expected: list[int] | None) -> None:
    body = "s = Shape(x) " + "".join(f"g{i} = Gather(s, i{i}) " for i in range(3))
    body += f"p = Mul(g1, g2) q = Mul(g1, g2) t = Concat<axis = 0>({target}) y = Reshape(x, t)"
    model = folded(body, dims=dims, more=_INTS, rank=target.count(",") + 1)
    if expected is None:
        assert not targets_are_constant(model)
    else:
        assert targets(model) == [expected]
        assert mg.ops(model) == ["Reshape"]
        assert not (0 in expected and -1 in expected)


def targets_are_constant(model: Model) -> bool:
    known = constants(model)
    return any(n.input[1] in known for n in model.proto.graph.node if n.op_type == "Reshape")


def test_targets_where_zero_means_zero_stay() -> None:
    body = "s = Shape(x) y = Reshape<allowzero = 1>(x, s)"
    assert "Shape" in mg.ops(folded(body, rank=3))


def test_equal_sizes_are_computed_once() -> None:
    body = """s = Shape(x) n = Gather(s, i0) m = Gather(s, i2) a = Mul(n, m) b = Mul(m, n)
        c = Add(a, two) d = Add(two, b) t = Concat<axis = 0>(c, d) f = Cast<to = 1>(t)
        y = Neg(f)"""
    model = folded(body, dims="N,4,M", more=_INTS)
    assert mg.ops(model).count("Mul") == 1
    assert mg.ops(model).count("Add") == 1


def test_equal_sizes_of_another_type_are_not_the_same() -> None:
    body = """s = Shape(x) a = Cast<to = 6>(s) f = Cast<to = 1>(a) g = Cast<to = 1>(s)
        y = Add(f, g)"""
    assert mg.ops(folded(body, dims="N,4,M")).count("Cast") == 3


@pytest.mark.parametrize(("opset", "is_short"), [(13, False), (14, False), (15, True), (18, True)])
def test_a_part_of_a_shape_is_read_at_once(opset: int, is_short: bool) -> None:
    body = """s = Shape(x) a = Gather(s, i1) b = Gather(s, i2) t = Concat<axis = 0>(a, b)
        f = Cast<to = 1>(t) y = Neg(f)"""
    model = folded(body, opset=opset, dims="4,N,M", more=_INTS)
    shape = next(n for n in model.proto.graph.node if n.op_type == "Shape")
    assert {a.name: a.i for a in shape.attribute} == ({"start": 1} if is_short else {})
    assert mg.ops(model) == (
        ["Shape", "Cast", "Neg"]
        if is_short
        else ["Shape", "Gather", "Gather", "Concat", "Cast", "Neg"]
    )


def test_a_part_in_the_middle_and_a_part_that_is_none() -> None:
    body = "s = Shape(x) t = Gather(s, w) f = Cast<to = 1>(t) y = Neg(f)"
    model = folded(body, dims="N,4,M", more="<int64[2] w = {0, 1}>")
    assert {a.name: a.i for a in model.proto.graph.node[0].attribute} == {"end": 2}
    model = folded(body, dims="N,4,M", more="<int64[2] w = {2, 0}>")
    assert mg.ops(model) == ["Shape", "Gather", "Cast", "Neg"]


def test_known_dimensions_are_constants_of_their_type_and_rank() -> None:
    body = """s = Shape(x) g = Gather(s, i) h = Cast<to = 6>(g) f = Cast<to = 1>(h) c = Neg(f)
        y = Add(c, x)"""
    model = folded(body, more="<int64 i = {1}>", rank=3)
    (constant,) = model.proto.graph.initializer
    assert (list(constant.dims), constant.data_type) == ([], onnx.TensorProto.INT32)
    assert constants(model) == {"h": 4}


def test_numbers_that_a_type_does_not_hold_are_left_alone() -> None:
    body = """s = Shape(x) m = Mul(s, big) h = Cast<to = 6>(m) f = Cast<to = 1>(h) y = Neg(f)"""
    model = folded(body, dims="2,4,6", more="<int64[1] big = {1099511627776}>")
    assert "Cast" in mg.ops(model)


def test_sizes_that_are_outputs_stay() -> None:
    source = "(float[2,4] x) => (int64[2] y) { y = Shape(x) }"
    assert applied(text(source), "shape-folding")[1].rewrites == 0


def test_what_a_loop_changes_is_not_folded() -> None:
    source = """(float[N,4] x) => (float[A,B] y) <int64 three = {3}, bool yes = {1}> {
        z, q = Loop(three, yes, x) <body = b (int64 i, bool c, float[K,4] v)
            => (bool d, float[L,4] w, int64[2] s) {
                d = Identity(c) w = Concat<axis = 0>(v, v) s = Shape(v) }>
        f = Cast<to = 1>(q) y = Neg(f) }"""
    model, _ = applied(text(source), "shape-folding")
    body = model.proto.graph.node[0].attribute[0].g
    assert [node.op_type for node in body.node] == ["Identity", "Concat", "Shape"]


@pytest.mark.parametrize("name", ["-1", "0", "4"])
def test_dimensions_that_are_called_by_a_number_are_not_known(name: str) -> None:
    nodes = [
        mg.node("Shape", ["x"], ["s"]),
        mg.node("Cast", ["s"], ["f"], to=1),
        mg.node("Neg", ["f"], ["y"]),
    ]
    proto = mg.model(nodes, [mg.info("x", [name, 4])], [mg.info("y", [2])])
    result = run_passes(Model(proto), PassRequest(shapes=({"x": (3, 4)},)))
    assert result.report.proof.verdict == "pass"
    assert not any(outcome.rolled_back for outcome in result.report.passes)
    assert "Shape" in mg.ops(result.model)


# Constant folding


def tied(*users: str) -> ModelProto:
    """x @ W and more uses of the same 2 MiB weight."""
    nodes = [mg.node("MatMul", ["x", "W"], ["a"])]
    nodes += [mg.node("Transpose", ["W"], ["t"]), mg.node("MatMul", ["x", "t"], ["b"])]
    nodes.append(mg.node("Add", ["a", "b"], ["y"]))
    if users == ("transpose",):
        del nodes[0]
        nodes[-1] = mg.node("Neg", ["b"], ["y"])
    return mg.model(
        nodes,
        [mg.info("x", ["N", 724])],
        [mg.info("y", ["N", 724])],
        [mg.tensor("W", mg.weights(724, 724))],
    )


def test_tied_weights_stay_tied() -> None:
    model, outcome = applied(tied(), "constant-folding")
    assert "Transpose" in mg.ops(model)
    assert "'t' would take 2096704 bytes" in refused(outcome)
    assert outcome.bytes == 0


def test_weights_of_their_own_are_turned_once() -> None:
    model, outcome = applied(tied("transpose"), "constant-folding", "dead-code")
    assert mg.ops(model) == ["MatMul", "Neg"]
    assert outcome.rewrites == 1
    (weight,) = model.proto.graph.initializer
    assert (weight.name, list(weight.dims)) == ("t", [724, 724])


@pytest.mark.parametrize(
    ("call", "is_folded"),
    [
        ("Expand(one, wide)", False),
        ("Expand(one, narrow)", True),
        ("ConstantOfShape(wide)", False),
        ("ConstantOfShape(narrow)", True),
        ("Tile(one, wide)", False),
        ("Tile(one, narrow)", True),
    ],
)
def test_results_up_to_one_mebibyte(call: str, is_folded: bool) -> None:
    sizes = "<float[1, 1] one = {2.0}, int64[2] wide = {512, 513}, int64[2] narrow = {512, 512}>"
    source = f"(float[N,512] x) => (float[N,M] y) {sizes} {{ a = {call} y = MatMul(x, a) }}"
    proto = text(source)
    model = Model(proto)
    result = run_passes(model, PassRequest(use=("constant-folding",), prove=False))
    assert (mg.ops(result.model) == ["MatMul"]) == is_folded
    if not is_folded:
        reason = refused(result.report.passes[0])
        assert "would take" in reason or "would fill" in reason or call.startswith("Const")


def test_a_huge_fill_is_never_made() -> None:
    sizes = "<float one = {2.0}, int64[4] huge = {100000, 100000, 100000, 100000}>"
    for call in ("Expand(one, huge)", "ConstantOfShape(huge)"):
        source = f"(float x) => (float[A,B,C,D] y) {sizes} {{ a = {call} y = Mul(x, a) }}"
        proto = text(source)
        result = run_passes(Model(proto), PassRequest(use=("constant-folding",), prove=False))
        assert "Mul" in mg.ops(result.model)
        assert result.report.passes[0].rewrites == 0
        assert not result.report.passes[0].rolled_back


def test_sums_over_big_constants_may_shrink_them() -> None:
    nodes = [
        mg.node("Slice", ["W", "b", "e"], ["p"]),
        mg.node("ReduceMean", ["p"], ["m"], keepdims=0),
        mg.node("Mul", ["x", "m"], ["y"]),
    ]
    proto = mg.model(
        nodes,
        [mg.info("x", ["N"])],
        [mg.info("y", ["N"])],
        [
            mg.tensor("W", mg.weights(600, 1024)),
            mg.tensor("b", [1], np.int64),
            mg.tensor("e", [500], np.int64),
        ],
    )
    model, _ = applied(proto, "constant-folding", "dead-code")
    assert mg.ops(model) == ["Mul"]
    assert [list(t.dims) for t in model.proto.graph.initializer] == [[]]


def test_scalars_stay_scalars() -> None:
    source = """(float x) => (float y) <float two = {2.0}, int64[0] none = {}> {
        a = Expand(two, none) b = Transpose(a) c = Identity(b) d = Reshape(c, none)
        y = Mul(x, d) }"""
    model, _ = applied(text(source), "constant-folding", "dead-code")
    assert mg.ops(model) == ["Mul"]
    assert [list(t.dims) for t in model.proto.graph.initializer] == [[]]
