"""Small models with faults for FP16 planted in them, and the nodes that must be wide for them."""

import numpy as np
from models_precision import Net

from trtforge.pipeline.compare import VerifyOptions
from trtforge.pipeline.debug_subject import Subject
from trtforge.pipeline.question import question_of
from trtforge.recipe.precision import ForceRule, Precision

FORCED = Precision(type="fp16", force=(ForceRule(name="*", type="fp16"),))


def attention_logits(net, x):
    """Logits of up to 1e5 and more, scaled to something small before the softmax."""
    q = net.op("Mul", [x, net.const("q_up", 300.0)], "q")
    k = net.op("Transpose", [net.op("Mul", [x, net.const("k_up", 300.0)], "k_flat")], "k",
               perm=[1, 0])  # fmt: skip
    scores = net.op("MatMul", [q, k], "scores")
    scaled = net.op("Mul", [scores, net.const("scale", 1e-6)], "scaled")
    probabilities = net.op("Softmax", [scaled], "probabilities")
    return net.op("MatMul", [probabilities, x], "context"), {"n_scores", "n_scaled"}


def vanishing_variance(net, x):
    """A spelled norm of small values: their squares are zero in FP16, and so is the epsilon."""
    small = net.op("Mul", [x, net.const("small", 1e-4)], "tiny")
    square = net.op("Mul", [small, small], "square")
    mean = net.op("ReduceMean", [square, net.const("axis", [-1], np.int64)], "mean")
    plus = net.op("Add", [mean, net.const("eps", 1e-12)], "plus")
    root = net.op("Sqrt", [plus], "root")
    normed = net.op("Div", [small, root], "normed")
    return normed, {"n_square", "n_mean", "n_plus", "n_root"}


def additive_mask(net, x):
    """0 * -1e9 is NaN where -1e9 is -Inf."""
    centred = net.op("Sub", [x, net.const("centre", 0.5)], "centred")
    off = net.op("Mul", [net.op("Sign", [net.op("Relu", [centred], "on")], "bit"),
                         net.const("minus", -1e9)], "bias")  # fmt: skip
    attention = net.op("Softmax", [net.op("Add", [x, off], "biased")], "attention")
    return attention, {"n_bias"}


def weight(net, x, name="heavy"):
    """A weight of 1e5 that meets small values."""
    matrix = np.eye(8, dtype=np.float32)
    matrix[0, 0] = 1e5
    column = np.ones(8, np.float32)
    column[0] = 1e-5
    small = net.op("Mul", [x, net.const(f"{name}_small", column)], f"{name}_in")
    return net.op("MatMul", [small, net.const(f"{name}_w", matrix)], name), {f"n_{name}"}


def overflow(net, x, name="burst"):
    """A weight of 1e5 and a factor of 1e-5, within one node: nothing is lost in FP32."""
    weight = net.const(f"{name}_w", 1e5 * np.eye(8))
    return net.op("Gemm", [x, weight], name, alpha=1e-5), {f"n_{name}"}


def rounded_constant(net, x, name="slip"):
    """Three is nothing: 6145 and 6142 are both 6144 in FP16. All is finite, and wrong."""
    parts = [net.const(f"{name}_a", 6145.0), net.const(f"{name}_b", -6142.0)]
    return net.op("Sum", [x, *parts], name), {f"n_{name}"}


def cancellation(net, x):
    """A difference of large numbers: wide itself, it still needs what it reads to be wide."""
    far = net.op("Add", [x, net.const("far", 3000.3)], "lifted")
    back = net.op("Sub", [far, net.const("near", 3000.0)], "lowered")
    return back, {"n_lifted", "n_lowered"}


def two(net, x):
    left, first = overflow(net, x)
    right, second = weight(net, x)
    return net.op("Add", [left, right], "joined"), first | second


def three(net, x):
    y, both = two(net, x)
    z, third = rounded_constant(net, y)
    return z, both | third


def planted(fault):
    net = Net(3)
    x = net.input("x", [8, 8])
    h = net.op("Relu", [net.op("MatMul", [x, net.weight("w0", 8, 8)], "first")], "first_relu")
    h = net.op("Add", [h, net.const("shift", 0.1)], "shifted")
    h, culprits = fault(net, h)
    h = net.op("MatMul", [h, net.weight("w1", 8, 8)], "second")
    net.op("Tanh", [h], "y")
    net.output("y", [8, 8])
    return net.model(), culprits


def subject_of_model(model, folder, precision=FORCED, cache=None, **asked):
    path = folder / "original.onnx"
    model.save(path)
    bounds = VerifyOptions(tolerance=("sqnr_db=30",), **asked)
    return Subject(model, cache, precision, question_of(bounds, path, precision))


FAULTS = [
    attention_logits, vanishing_variance, additive_mask, weight, overflow, rounded_constant,
    cancellation, two, three,
]  # fmt: skip


def chain(length, places):
    """A chain of plain nodes, at some places of which something breaks.

    Its values are positive, so that no addition cancels, and its constants are those of FP16, so
    that their errors do not add up: either would be a fault of its own.
    """
    net = Net(7)
    h = net.input("x", [2, 8])
    planted = set()
    for index in range(length):
        if index in places:
            h, more = (overflow, rounded_constant)[places[index]](net, h, f"bad{index}")
            planted |= more
        elif index % 3 == 0:
            h = net.op(
                "Mul", [h, net.const(f"c{index}", (63 / 64, 65 / 64)[index % 2])], f"t{index}"
            )
        elif index % 3 == 1:
            h = net.op("Add", [h, net.const(f"c{index}", (-1) ** index / 64)], f"t{index}")
        else:
            h = net.op("Abs", [h], f"t{index}")
    net.op("Identity", [h], "y")
    net.output("y", [2, 8])
    return net.model(), planted
