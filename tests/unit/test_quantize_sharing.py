"""Where pairs stand: shared over movers, of one scale before a Concat, as few as can be."""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from models_precision import Net
from onnx import helper
from precision_samples import sqnr_db
from quantize_samples import (
    INT8,
    action,
    built,
    calibrated,
    feeds_of,
    int8,
    pairs,
    producers,
    quantized,
    reads,
    reason,
)

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.constants import editable_graph
from trtforge.precision.placement_rules import JOINING, PASSING, TARGETS, UNITE_WITHIN
from trtforge.precision.quantize import candidate_tensors, quantize
from trtforge.precision.scale_groups import ScaleGroups
from trtforge.precision.sharing import share_pairs
from trtforge.precision.sites import Refusal, find_sites
from trtforge.precision.typeinfo import tensors_of

Move = Callable[[Net, str], str]


def ints(net: Net, name: str, *values: int) -> str:
    return net.const(name, list(values), np.int64)


def resize(net: Net, x: str, mode: str) -> str:
    return net.op("Resize", [x, "", net.const("up", [1.0, 1, 2, 2])], "moved", mode=mode)


MOVES: dict[str, tuple[Sequence[int], Move]] = {
    "Identity": ((2, 8, 6, 6), lambda net, x: net.op("Identity", [x], "moved")),
    "Reshape": (
        (2, 8, 9, 4),
        lambda net, x: net.op("Reshape", [x, ints(net, "to", 2, 8, 9, 4)], "moved"),
    ),
    "Transpose": (
        (2, 8, 6, 6),
        lambda net, x: net.op("Transpose", [x], "moved", perm=[0, 1, 3, 2]),
    ),
    "DepthToSpace": (
        (2, 2, 12, 12),
        lambda net, x: net.op("DepthToSpace", [x], "moved", blocksize=2),
    ),
    "SpaceToDepth": (
        (2, 32, 3, 3),
        lambda net, x: net.op("SpaceToDepth", [x], "moved", blocksize=2),
    ),
    "Expand": (
        (2, 8, 6, 6),
        lambda net, x: net.op("Expand", [x, ints(net, "to", 2, 8, 6, 6)], "moved"),
    ),
    "Tile": (
        (2, 8, 12, 6),
        lambda net, x: net.op("Tile", [x, ints(net, "to", 1, 1, 2, 1)], "moved"),
    ),
    "Pad": (
        (2, 8, 8, 8),
        lambda net, x: net.op("Pad", [x, ints(net, "to", 0, 0, 1, 1, 0, 0, 1, 1)], "moved"),
    ),
    "Resize": ((2, 8, 12, 12), lambda net, x: resize(net, x, "nearest")),
    "MaxPool": (
        (2, 8, 3, 3),
        lambda net, x: net.op("MaxPool", [x], "moved", kernel_shape=[2, 2], strides=[2, 2]),
    ),
    "GlobalMaxPool": ((2, 8, 1, 1), lambda net, x: net.op("GlobalMaxPool", [x], "moved")),
    "Slice": (
        (2, 8, 3, 6),
        lambda net, x: net.op(
            "Slice", [x, ints(net, "from", 0), ints(net, "to", 3), ints(net, "axis", 2)], "moved"
        ),
    ),
    "Gather": (
        (2, 3, 6, 6),
        lambda net, x: net.op("Gather", [x, ints(net, "which", 0, 5, 2)], "moved", axis=1),
    ),
    "Split": ((2, 4, 6, 6), lambda net, x: split(net, x)),
    "Flatten": ((2, 288), lambda net, x: net.op("Flatten", [x], "moved")),
    "Squeeze": (
        (2, 8, 6, 6),
        lambda net, x: net.op("Squeeze", [unit(net, x), ints(net, "at", 4)], "moved"),
    ),
    "Unsqueeze": (
        (2, 8, 6, 6, 1),
        lambda net, x: net.op("Unsqueeze", [x, ints(net, "at", 4)], "moved"),
    ),
}


def unit(net: Net, x: str) -> str:
    return net.op("Unsqueeze", [x, ints(net, "last", 4)], "unit")


def split(net: Net, x: str) -> str:
    outputs = ["moved", "rest"]
    net.nodes.append(helper.make_node("Split", [x], outputs, "n_moved", axis=1, num_outputs=2))
    return "moved"


def reader(net: Net, x: str, shape: Sequence[int], name: str) -> None:
    """A convolution, or a product for what is not an image; its result is an output."""
    if len(shape) == 2:
        net.op("Gemm", [x, net.weight(f"w_{name}", shape[1], 4)], name)
        net.output(name, [shape[0], 4])
    elif len(shape) == 5:
        net.op("MatMul", [x, net.weight(f"w_{name}", 1, 4)], name)
        net.output(name, [*shape[:4], 4])
    else:
        net.op("Conv", [x, net.weight(f"w_{name}", 4, shape[1], 1, 1)], name)
        net.output(name, [shape[0], 4, *shape[2:]])


def moved(op: str) -> Model:
    """A tensor that a Conv reads, and another reader behind a mover of it."""
    shape, move = MOVES[op]
    net = Net(3, opset=19)
    x = net.op("Relu", [net.input("image", [2, 8, 6, 6])], "x")
    reader(net, x, (2, 8, 6, 6), "direct")
    reader(net, move(net, x), shape, "behind")
    return net.model()


@pytest.mark.parametrize("op", sorted(PASSING))
def test_one_pair_serves_a_tensor_and_what_only_moves_it(op: str) -> None:
    source = moved(op)
    result, report = quantized(source)
    assert list(pairs(result)) == ["x"]
    assert action(report, "n_moved") == "passes"
    assert reason(report, "n_moved") == "it passes on the scale of 'x', where the pair stands"
    feeds = feeds_of(source)
    expected, got = Session(source).run(feeds), Session(result).run(feeds)
    assert min(sqnr_db(expected[name], got[name]) for name in expected) > 30


def test_every_rule_is_built_by_tensorrt_rtx(tmp_path: Path) -> None:
    models = {op: quantized(moved(op))[0] for op in PASSING}
    models["Concat"] = quantized(joined())[0]
    errors = built(tmp_path, models)
    assert set(errors) == set(PASSING) | set(JOINING)
    assert {name: found for name, found in errors.items() if found} == {}
    rules = (*PASSING.values(), *JOINING.values())
    assert all(set(rule.sources) <= set(TARGETS) for rule in rules)


@pytest.mark.parametrize("op", ["Transpose", "MaxPool", "Slice"])
def test_alone_the_pair_stands_directly_in_front_of_its_reader(op: str) -> None:
    shape, move = MOVES[op]
    net = Net()
    x = net.op("Relu", [net.input("image", [2, 8, 6, 6])], "x")
    reader(net, move(net, x), shape, "behind")
    result, report = quantized(net.model())
    assert list(pairs(result)) == ["moved"]
    assert reason(report, "n_moved") == "the pair stands behind it: nothing else quantizes 'x'"


def test_a_reader_that_wants_floats_gets_them() -> None:
    net = Net()
    x = net.op("Relu", [net.input("image", [2, 8, 6, 6])], "x")
    reader(net, x, (2, 8, 6, 6), "direct")
    turned = MOVES["Transpose"][1](net, x)
    reader(net, turned, (2, 8, 6, 6), "behind")
    net.op("Sigmoid", [turned], "floats")
    net.output("floats", [2, 8, 6, 6])
    source = net.model()
    result, report = quantized(source)
    assert set(pairs(result)) == {"x", "moved"}
    assert "read in floats too" in reason(report, "n_moved")
    feeds = feeds_of(source)
    wanted = Session(source).run(feeds)["floats"]
    assert (Session(result).run(feeds)["floats"] == wanted).all()


def test_an_output_of_the_graph_is_not_rounded() -> None:
    net = Net()
    x = net.op("Relu", [net.input("image", [2, 8, 6, 6])], "x")
    reader(net, x, (2, 8, 6, 6), "direct")
    reader(net, MOVES["MaxPool"][1](net, x), (2, 8, 3, 3), "behind")
    net.output("moved", [2, 8, 3, 3])
    result, _ = quantized(net.model())
    assert set(pairs(result)) == {"x", "moved"}


def test_two_pairs_behind_movers_become_one_before_them() -> None:
    net = Net()
    x = net.op("Relu", [net.input("image", [2, 8, 6, 6])], "x")
    turned = net.op("Transpose", [x], "turned", perm=[0, 1, 3, 2])
    again = net.op("Reshape", [turned, ints(net, "to", 2, 8, 9, 4)], "again")
    reader(net, again, (2, 8, 9, 4), "a")
    reader(net, net.op("Transpose", [x], "other", perm=[0, 1, 3, 2]), (2, 8, 6, 6), "b")
    result, report = quantized(net.model())
    assert list(pairs(result)) == ["x"]
    assert [action(report, f"n_{name}") for name in ("turned", "again", "other")] == ["passes"] * 3
    assert reads(result, "n_again")[0] == "turned"


def test_parts_with_ranges_of_their_own_keep_their_pairs() -> None:
    net = Net()
    x = net.op("Relu", [net.input("image", [2, 8, 6, 6])], "x")
    reader(net, split(net, x), (2, 4, 6, 6), "a")
    reader(net, "rest", (2, 4, 6, 6), "b")
    result, _ = quantized(net.model())
    assert set(pairs(result)) == {"moved", "rest"}


@pytest.mark.parametrize(
    ("op", "why"), [("Resize", "only if nearest"), ("Pad", "only if zeros are padded")]
)
def test_what_makes_new_values_passes_nothing(op: str, why: str) -> None:
    net = Net()
    x = net.op("Relu", [net.input("image", [2, 8, 6, 6])], "x")
    reader(net, x, (2, 8, 6, 6), "direct")
    if op == "Resize":
        reader(net, resize(net, x, "linear"), (2, 8, 12, 12), "behind")
    else:
        inputs = [x, ints(net, "to", 0, 0, 1, 1, 0, 0, 1, 1), net.const("one", 1.0)]
        reader(net, net.op("Pad", inputs, "moved"), (2, 8, 8, 8), "behind")
    result, report = quantized(net.model())
    assert set(pairs(result)) == {"x", "moved"}
    assert why in reason(report, "n_moved")


def joined(gain: float = 1.0, *, constant: bool = False) -> Model:
    """Two branches that are joined; a convolution reads the first of them as well."""
    net = Net(5)
    image = net.input("image", [2, 8, 6, 6])
    a = net.op("Relu", [image], "a")
    b = net.op("Mul", [net.op("Sigmoid", [image], "s"), net.const("gain", gain)], "b")
    parts = [a, b, net.weight("extra", 2, 8, 6, 6)] if constant else [a, b]
    joint = net.op("Concat", parts, "joint", axis=1)
    reader(net, a, (2, 8, 6, 6), "direct")
    reader(net, joint, (2, 8 * len(parts), 6, 6), "behind")
    return net.model()


def test_a_tensor_that_feeds_concat_and_conv_has_one_pair_with_the_common_scale() -> None:
    source = joined(2.0)
    cache = calibrated(source)
    result, report = quantized(source)
    scales = pairs(result)
    assert set(scales) == {"a", "b"}
    assert set(scales.values()) == {max(cache.scale(name, "int8") for name in ("a", "b", "joint"))}
    assert [producers(result)[name].op_type for name in reads(result, "n_joint")] == [
        "DequantizeLinear"
    ] * 2
    assert reads(result, "n_behind")[0] == "joint"
    assert reason(report, "n_joint") == "quantized before it: its inputs have pairs of one scale"
    assert reason(report, "n_direct").endswith("one scale for 3 tensors")


def test_ranges_far_apart_are_not_joined() -> None:
    result, report = quantized(joined(100.0))
    assert set(pairs(result)) == {"a", "joint"}
    assert "too far apart for one scale" in reason(report, "n_joint")


def test_a_constant_beside_it_and_a_keep_rule_leave_the_pair_behind() -> None:
    result, report = quantized(joined(2.0, constant=True))
    assert set(pairs(result)) == {"a", "joint"}
    assert "'extra' is a constant" in reason(report, "n_joint")
    result, report = quantized(joined(2.0), int8(keep=[{"op": "Concat"}]))
    assert set(pairs(result)) == {"a", "joint"}
    assert "keep rule {op: Concat" in reason(report, "n_joint")


def test_a_chain_of_concats_has_one_scale() -> None:
    """As in DenseNet: each layer reads all before it."""
    net = Net(7)
    grown = net.op("Relu", [net.input("image", [2, 4, 6, 6])], "t0")
    for index in range(1, 5):
        made = f"c{index}"
        weight = net.weight(f"w{index}", 4, 4 * index, 1, 1, fan_in=index)
        net.op("Conv", [grown, weight], made)
        active = net.op("Relu", [made], f"t{index}")
        grown = net.op("Concat", [grown, active], f"joint{index}", axis=1)
    reader(net, grown, (2, 20, 6, 6), "last")
    source = net.model()
    result, _ = quantized(source)
    scales = pairs(result)
    assert set(scales) == {"t0", "t1", "t2", "t3", "t4"}
    assert len(set(scales.values())) == 1
    feeds = feeds_of(source)
    expected, got = Session(source).run(feeds)["last"], Session(result).run(feeds)["last"]
    assert sqnr_db(expected, got) > 28


def test_split_parts_of_one_scale_are_quantized_before_the_split() -> None:
    """As in the C2f block of YOLO: Split, one part on through a Conv, all parts joined."""
    net = Net(8)
    x = net.op("Relu", [net.input("image", [2, 8, 6, 6])], "x")
    split(net, x)
    more = net.op("Relu", [net.op("Conv", ["rest", net.weight("w", 4, 4, 1, 1)], "c")], "more")
    joint = net.op("Concat", ["moved", "rest", more], "joint", axis=1)
    reader(net, joint, (2, 12, 6, 6), "behind")
    result, report = quantized(net.model())
    assert set(pairs(result)) == {"x", "more"}
    assert action(report, "n_moved") == "passes"


def test_a_cache_that_lacks_what_could_be_shared_still_serves() -> None:
    source = joined(2.0)
    cache = calibrated(source)
    ranges = {name: known for name, known in cache.ranges.items() if name != "b"}
    result, report = quantize(source, cache.model_copy(update={"ranges": ranges}), INT8)
    assert set(pairs(result)) == {"a", "joint"}
    assert "the cache has no range of 'b'" in reason(report, "n_joint")


def test_scale_groups() -> None:
    groups = ScaleGroups({"a": 1.0, "b": 3.0, "c": 10.0, "dead": 0.0}, UNITE_WITHIN)
    assert groups.unite(["a", "b"]) is None
    assert "from 1 to 10" in str(groups.unite(["b", "c"]))
    assert groups.unite(["c", "dead"]) is None
    assert groups.unite(["dead", "b"]) is not None
    assert groups.members("b") == ("a", "b")
    assert groups.are_one(["a", "b"])
    assert not groups.are_one(["a", "c"])


def test_ten_thousand_nodes_take_linear_time() -> None:
    def seconds(blocks: int) -> float:
        net = Net()
        x = net.op("Relu", [net.input("image", [1, 4, 4, 4])], "x")
        weight = net.weight("w", 4, 8, 1, 1)
        for index in range(blocks):
            turned = net.op("Transpose", [x], f"t{index}", perm=[0, 1, 3, 2])
            joint = net.op("Concat", [turned, x], f"j{index}", axis=1)
            x = net.op("Conv", [joint, weight], f"c{index}")
            x = net.op("Identity", [net.op("Identity", [x], f"i{index}")], f"k{index}")
        net.output(x, [1, 4, 4, 4])
        model = net.model()
        graph, tensors = editable_graph(model), tensors_of(model.proto)
        start = perf_counter()
        found = find_sites(graph, tensors, INT8)
        wanted = [one for one in found if not isinstance(one, Refusal)]
        assert len(share_pairs(graph, wanted, None).pairs) == blocks
        return perf_counter() - start

    small = min(seconds(500) for _ in range(3))
    # Quadratic growth would be 16 times; a busy machine may triple what linear growth takes.
    assert min(seconds(2000) for _ in range(3)) < 12 * small


def test_candidates_are_in_graph_order_and_none_for_weights_only() -> None:
    assert candidate_tensors(joined(), INT8) == ("a", "b", "joint")
    assert candidate_tensors(joined(), int8(quantize="int8_weight_only")) == ()
