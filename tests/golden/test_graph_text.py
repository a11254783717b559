"""Graphs as ONNX text before and after: what a reader of a pull request sees."""

import models_graph as mg
import numpy as np
import onnx

from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes


def lines(model: Model) -> list[str]:
    """The nodes, one a line, without the header and the weights."""
    # The printer quotes names with dots and slashes, some versions of it more than others.
    return [onnx.printer.to_text(node).strip().replace('"', "") for node in model.proto.graph.node]


BLOCK = [
    mg.node("Conv", ["image", "stem.W"], ["stem"], pads=[1, 1, 1, 1], name="/stem/Conv"),
    mg.batchnorm("stem", "stem.norm", "bn", name="/stem/Norm"),
    mg.node("Constant", [], ["gain"], value_float=2.0, name="/gain"),
    mg.node("Mul", ["stem.norm", "gain"], ["scaled"], name="/scale/Mul"),
    mg.node("Relu", ["scaled"], ["act"], name="/stem/Relu"),
    mg.node("Dropout", ["act"], ["dropped", "mask"], name="/Dropout"),
    mg.node("Shape", ["head.W"], ["head.shape"], name="/head/Shape"),
    mg.node("Reshape", ["head.flat", "head.shape"], ["head.back"], name="/head/Reshape"),
    mg.node("Conv", ["dropped", "head.back"], ["head"], name="/head/Conv"),
    mg.node("Add", ["head", "stem"], ["sum"], name="/Add"),
    mg.node("Identity", ["sum"], ["logits"], name="/Identity"),
    mg.node("Exp", ["sum"], ["forgotten"], name="/forgotten"),
]


def block() -> Model:
    return Model(
        mg.model(
            BLOCK,
            [mg.info("image", [1, 3, 6, 6])],
            [mg.info("logits", [1, 4, 6, 6])],
            [
                mg.tensor("stem.W", mg.weights(4, 3, 3, 3)),
                mg.tensor("head.W", mg.weights(4, 4, 1, 1)),
                mg.tensor("head.flat", mg.weights(16, seed=1)),
                *mg.batchnorm_parameters("bn", 4),
            ],
        )
    )


def test_a_block_with_everything() -> None:
    result = run_passes(block(), PassRequest())
    assert lines(result.model) == [
        "[/stem/Conv] stem = Conv <pads: ints = [1, 1, 1, 1]> (image, stem.W)",
        "[/stem/Norm] scaled = BatchNormalization (stem, bn.scale, bn.B, bn.mean, bn.var)",
        "[/stem/Relu] act = Relu (scaled)",
        "[/head/Conv] head = Conv (act, head.back)",
        "[/Add] logits = Add (head, stem)",
    ]
    assert sorted(result.model.initializers) == [
        "bn.B",
        "bn.mean",
        "bn.scale",
        "bn.var",
        "head.back",
        "stem.W",
    ]
    told = [
        f"{outcome.name}: {note.kind} {note.node}: {note.reason}"
        for outcome in result.report.passes
        for note in outcome.notes
    ]
    assert told == [
        "constant-to-initializer: matched /gain: 'gain' is now an initializer",
        "identity: matched /Dropout: Dropout hands on 'act'",
        "identity: matched /Identity: Identity hands on 'sum'",
        "shape-folding: matched /head/Shape: 'head.shape' is always [4, 4, 1, 1]",
        "constant-folding: matched /head/Reshape: computed from constants",
        "conv-batchnorm: refused /stem/Norm: the result of '/stem/Conv' is used elsewhere too",
        "batchnorm-chain: matched /scale/Mul: merged into '/stem/Norm'",
        "dead-code: matched /forgotten: no output depends on it",
    ]
    assert result.report.proof.verdict == "pass"


def test_the_same_block_without_the_second_reader() -> None:
    model = block()
    graph = model.to_graph()
    add = next(node for node in graph.nodes if node.op == "Add")
    add.inputs[1] = add.inputs[0]
    result = run_passes(model.with_graph(graph), PassRequest())
    assert lines(result.model) == [
        "[/stem/Conv] scaled = Conv <pads: ints = [1, 1, 1, 1]> (image, stem.W, stem.W_bias)",
        "[/stem/Relu] act = Relu (scaled)",
        "[/head/Conv] head = Conv (act, head.back)",
        "[/Add] logits = Add (head, head)",
    ]
    assert result.report.proof.verdict == "pass"
    assert np.isfinite(result.model.initializer("stem.W_bias")).all()
