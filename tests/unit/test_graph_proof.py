"""The proof: what it lets through, what it finds, and how much memory it takes."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import models_graph as mg
import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hostile_graphs import HOSTILE
from onnx import ModelProto, numpy_helper

from trtforge.errors import ParityError
from trtforge.graph import passes, proof, region_proof
from trtforge.graph.edit import Editor
from trtforge.graph.inputs import Shapes
from trtforge.graph.model import Model
from trtforge.graph.nodes import constant_values
from trtforge.graph.passes import DEFAULT_PASSES, Optimized, PassRequest, run_passes
from trtforge.graph.proof import Prover, judged
from trtforge.graph.report import Proof

SHAPES: tuple[Shapes, ...] = ({"x": (2, 3, 6, 6)}, {"x": (1, 3, 6, 6)})


@pytest.fixture(params=["whole", "regions"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "regions":
        monkeypatch.setattr(proof, "_WHOLE_BYTES", -1)
        monkeypatch.setattr(proof, "_WHOLE_AT_MOST_BYTES", -1)
    return str(request.param)


# What passes


def shapes_of(name: str) -> tuple[Model, tuple[Shapes, ...]]:
    case = HOSTILE[name]()
    model = Model(case.proto)
    shapes = []
    for sizes in case.sizes:
        shapes.append(
            {
                spec.name: tuple(
                    sizes.get(dim, 2) if isinstance(dim, str) else 2 if dim is None else dim
                    for dim in spec.dims
                )
                for spec in model.contract.inputs
            }
        )
    return model, tuple(shapes)


NO_VALUES = frozenset({"strings"})
"""Inputs of text: there is nothing to draw, neither here nor for the whole model."""


@pytest.mark.parametrize("name", [name for name in HOSTILE if HOSTILE[name]().refused is None])
def test_default_passes_pass_place_by_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "_WHOLE_BYTES", -1)
    fallbacks: list[str] = []
    by_whole = Prover._by_whole

    def counted(prover: Prover, candidate: Model) -> Proof:
        fallbacks.append(name)
        return by_whole(prover, candidate)

    monkeypatch.setattr(Prover, "_by_whole", counted)
    model, shapes = shapes_of(name)
    report = run_passes(model, PassRequest(shapes=shapes)).report
    assert not [outcome for outcome in report.passes if outcome.rolled_back]
    assert report.proof.verdict == ("not_run" if name in NO_VALUES else "pass")
    assert bool(fallbacks) == (name in NO_VALUES), "the whole model had to decide"


def test_both_ways_compare_two_seeds_at_each_shape(way: str) -> None:
    report = run_passes(Model(mg.conv_bn()), PassRequest(shapes=SHAPES)).report
    assert (report.proof.verdict, report.proof.cases) == ("pass", 4)
    assert (report.proof.scope is not None) == (way == "regions")


def test_models_without_inputs_are_compared_once() -> None:
    proto = mg.model(
        [mg.node("Exp", ["c"], ["a"]), mg.node("Concat", ["a"], ["b"], axis=0),
         mg.node("Neg", ["b"], ["y"])],
        [],
        [mg.info("y", [2])],
        [mg.tensor("c", [1, 2], np.float32)],
    )  # fmt: skip
    report = run_passes(Model(proto), PassRequest()).report
    assert (report.proof.verdict, report.proof.cases) == ("pass", 1)


def test_a_second_seed_finds_what_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mg.model([mg.node("Abs", ["x"], ["y"])], [mg.info("x", [1])], [mg.info("y", [1])])
    after = mg.model([mg.node("Identity", ["x"], ["y"])], [mg.info("x", [1])], [mg.info("y", [1])])
    found = set()
    for seed in range(12):
        verdicts = {}
        for seeds in (1, 2):
            monkeypatch.setattr(proof, "_SEEDS", seeds)
            verdicts[seeds] = Prover(Model(before), (), seed).compare(Model(after), {}).verdict
        found.add((verdicts[1], verdicts[2]))
    assert ("pass", "fail") in found  # x is positive in the first set of inputs


# What does not


def mixture() -> ModelProto:
    """A convolution, a normalization, a difference, a sum over an axis and a bias."""
    return mg.model(
        [
            mg.node("Conv", ["x", "W", "b"], ["c"]),
            mg.node("InstanceNormalization", ["c", "g", "h"], ["n"], epsilon=1e-5),
            mg.node("Sub", ["n", "c"], ["d"]),
            mg.node("Softmax", ["d"], ["s"], axis=2),
            mg.node("Sum", ["s", "bias", "c"], ["y"]),
        ],
        [mg.info("x", ["N", 3, 6, 6])],
        [mg.info("y", ["N", 4, 6, 6])],
        [
            mg.tensor("W", mg.weights(4, 3, 1, 1) / 20),
            mg.tensor("b", mg.weights(4)),
            mg.tensor("g", mg.weights(4, seed=1)),
            mg.tensor("h", mg.weights(4, seed=2)),
            mg.tensor("bias", mg.weights(4, 1, 1, seed=3)),
        ],
    )


def _one_weight_off(editor: Editor, node: gs.Node) -> None:
    values = constant_values(node.inputs[1])
    assert values is not None
    changed = values.copy()
    changed.reshape(-1)[0] += 1e-2
    editor.set_input(node, 1, editor.constant("W_new", changed))


def _another_axis(editor: Editor, node: gs.Node) -> None:
    editor.set_attribute(node, "axis", 3)


def _swapped(editor: Editor, node: gs.Node) -> None:
    editor.replace(node, "Sub", list(node.inputs)[::-1])


def _forgotten_bias(editor: Editor, node: gs.Node) -> None:
    editor.drop_inputs(node, 2)


def _another_epsilon(editor: Editor, node: gs.Node) -> None:
    editor.set_attribute(node, "epsilon", 1e-3)


FAULTS: dict[str, tuple[str, Callable[[Editor, gs.Node], None]]] = {
    "one-weight-off": ("Conv", _one_weight_off),
    "another-axis": ("Softmax", _another_axis),
    "swapped": ("Sub", _swapped),
    "forgotten-bias": ("Conv", _forgotten_bias),
    "another-epsilon": ("InstanceNormalization", _another_epsilon),
}


def inject(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Put a pass in the table that does one wrong thing once."""
    op, change = FAULTS[fault]

    class Faulty:
        name = fault

        def apply(self, editor: Editor) -> None:
            for node in editor.nodes(op):
                if not node.name.endswith("!"):
                    editor.match(node, "surely the same")
                    node.name += "!"
                    change(editor, node)

    module = ModuleType("injected_faults")
    module.Faulty = Faulty  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "injected_faults", module)
    monkeypatch.setitem(passes.PASSES, fault, "injected_faults:Faulty")


def with_fault(monkeypatch: pytest.MonkeyPatch, fault: str) -> Optimized:
    inject(monkeypatch, fault)
    names = ("identity", fault, *DEFAULT_PASSES)
    return run_passes(Model(mixture()), PassRequest(use=names, shapes=SHAPES))


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found_named_and_taken_back(
    fault: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = with_fault(monkeypatch, fault)
    taken_back = {o.name: o.reason for o in result.report.passes if o.rolled_back}
    assert list(taken_back) == [fault], way
    assert "it changes the result: output" in str(taken_back[fault])
    assert result.report.proof.verdict == "pass"
    for shapes in SHAPES:
        assert mg.largest_difference(Model(mixture()), result.model, shapes) < 1e-5


def test_the_original_does_not_run(way: str) -> None:
    proto = mixture()
    proto.graph.node[3].op_type = "NoSuchOperator"
    proto.graph.node[3].domain = "nowhere"
    proto.opset_import.add(domain="nowhere", version=1)
    proto.graph.node.append(mg.node("Concat", ["y"], ["z"], axis=0))
    proto.graph.node.append(mg.node("Neg", ["z"], ["w"]))
    proto.graph.output.append(mg.info("w", ["N", 4, 6, 6]))
    report = run_passes(Model(proto), PassRequest(shapes=SHAPES)).report
    if way == "whole":
        assert report.proof.verdict == "not_run"
        assert "the original does not run here" in str(report.proof.reason)
        assert not [outcome for outcome in report.passes if outcome.rolled_back]
    else:  # the operator is in no place that was rewritten
        assert report.proof.verdict == "pass"


def test_another_contract_fails() -> None:
    other = mixture()
    other.graph.output[0].name = other.graph.node[-1].output[0] = "z"
    found = Prover(Model(mixture()), SHAPES, 0).compare(Model(other), {})
    assert (found.verdict, found.reason) == ("fail", "its inputs or outputs are no longer the same")


# Judging


@pytest.mark.parametrize(
    ("expected", "found", "verdict"),
    [
        (np.zeros(2, np.float32), np.full(2, 1e-7, np.float32), "pass"),
        (np.zeros(2, np.float32), np.full(2, 1e-5, np.float32), "fail"),
        (np.ones(2, np.float32), np.full(2, 1.00001, np.float32), "pass"),
        (np.ones(2, np.float32), np.full(2, 1.001, np.float32), "fail"),
        (np.asarray([np.nan, 1.0]), np.asarray([np.nan, 1.0]), "pass"),
        (np.asarray([np.inf, 1.0]), np.asarray([-np.inf, 1.0]), "fail"),
        (np.asarray([1.0, 1.0]), np.asarray([np.nan, 1.0]), "fail"),
        (np.asarray([1, 2]), np.asarray([1, 3]), "fail"),
        (np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), "pass"),
        (np.zeros(2, np.float32), np.zeros((2, 1), np.float32), "fail"),
        (np.zeros(2, np.float32), np.zeros(2), "fail"),
        ([np.zeros(2)], [np.zeros(2)], "pass"),
        ([np.zeros(2)], [np.ones(2)], "fail"),
        ([np.zeros(2)], [np.zeros(2), np.zeros(2)], "fail"),
        ([], [], "pass"),
        ([np.zeros(2)], np.zeros((1, 2)), "fail"),
        (None, None, "pass"),
        (None, np.zeros(2), "fail"),
    ],
)
def test_values_are_judged(expected: Any, found: Any, verdict: str) -> None:
    assert judged({"y": expected}, {"y": found}, 80.0).verdict == verdict


# Memory

_MEASURED = """
import json, resource, sys
from pathlib import Path
from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
model = Model.load(Path(sys.argv[1]))
def peak():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return int(fields["VmHWM"].split()[0]) << 10
import trtforge.graph.proof  # ONNX Runtime
start = peak()
report = run_passes(model, PassRequest(shapes=({"x": (2, 2048)},))).report
own = int(next(l for l in open("/proc/self/smaps_rollup") if "Anonymous" in l).split()[1]) << 10
print(json.dumps([report.proof.verdict, report.proof.scope, (peak() - start) >> 20, own >> 20]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_model_of_200_megabytes_is_proven_in_bounded_memory(tmp_path: Path) -> None:
    size, layers = 2048, 13
    nodes, initializers = [], []
    last = "x"
    for index in range(layers):
        values = mg.weights(size, size, seed=index) / np.float32(45)
        initializers += [
            mg.tensor(f"W{index}", values),
            mg.tensor(f"b{index}", mg.weights(size, seed=index)),
        ]
        nodes += [
            mg.node("MatMul", [last, f"W{index}"], [f"m{index}"]),
            mg.node("Add", [f"m{index}", f"b{index}"], [f"a{index}"]),
            mg.node("Concat", [f"a{index}"], [f"i{index}"], axis=0),
            mg.node("Relu", [f"i{index}"], [f"r{index}"]),
        ]
        last = f"r{index}"
    proto = mg.model(nodes, [mg.info("x", ["N", size])], [mg.info(last, ["N", size])], initializers)
    path = mg.save_external(proto, tmp_path / "big.onnx")
    weights = sum(numpy_helper.to_array(tensor).nbytes for tensor in initializers)
    assert weights > 200 << 20
    del proto, initializers
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(path)], capture_output=True, text=True, check=True
    )
    verdict, scope, grown_mib, own_mib = json.loads(done.stdout)
    assert verdict == "pass"
    assert "rewritten places, each kind among them" in scope or "no tensor" in scope
    # Two places of a kind, in two versions, of 16 MiB each, and what ONNX Runtime takes.
    assert grown_mib < 120, done.stdout
    assert own_mib < 200, done.stdout


def test_places_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no room for two places at a time each runs by itself, with the same verdict."""
    monkeypatch.setattr(proof, "_WHOLE_BYTES", -1)
    monkeypatch.setattr(region_proof, "_BYTES_AT_ONCE", 1)
    report = run_passes(Model(mg.conv_bn()), PassRequest(shapes=SHAPES)).report
    assert report.proof.verdict == "pass"


def test_strict_wants_every_kind_of_rewrite_proven() -> None:
    report = run_passes(Model(mg.conv_bn()), PassRequest(shapes=({"x": (1, 3, 6, 6)},))).report
    report.require_proof()
    scope = "4 of 9 rewritten places, 1 of 3 kinds left out"
    partial = replace(report, proof=replace(report.proof, scope=scope, left_out=1))
    with pytest.raises(ParityError, match="1 of 3 kinds left out") as caught:
        partial.require_proof()
    assert (caught.value.code, caught.value.exit_status) == ("TF0416", 5)
