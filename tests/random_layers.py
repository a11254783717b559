"""What random graphs are made of, part one: layers that keep the shape of their input."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from onnx import helper
from random_state import NUMPY_TYPES, Growing, Value, broadcast

Layer = Callable[[Growing, Value], Value]
"""Takes a float tensor and returns one of the same shape."""


def _scalar(graph: Growing, number: float, like: Value) -> Value:
    shape = graph.random.choice(((), (), (1,))) if like.rank else ()
    return graph.constant(np.full(shape, number, np.float32))


def _pair(graph: Growing, op: str, one_: Value, two: Value, bound: float) -> Value:
    """A commutative operator, its inputs in either order; the first gives the shape."""
    inputs = [one_, two] if graph.chance(0.7) else [two, one_]
    return graph.emit(op, inputs, replace(one_, bound=bound, exact=False))


def unary(graph: Growing, value: Value) -> Value:
    bounded = {"Tanh": 1.0, "Sigmoid": 1.0, "Erf": 1.0, "Softplus": value.bound + 1.0}
    kept = {"Relu": value.bound, "Abs": value.bound, "Neg": value.bound, "LeakyRelu": value.bound}
    op = graph.random.choice((*bounded, *kept))
    bound = (bounded | kept)[op]
    return graph.emit(
        op,
        [value],
        replace(value, bound=bound, exact=value.exact and op in kept and op != "LeakyRelu"),
    )


def nothing(graph: Growing, value: Value) -> Value:
    """Operators that do nothing."""
    op = graph.random.choice(("Identity", "Dropout", "Cast", "Mul", "Add", "Transpose"))
    if op == "Cast" and graph.comes_from("Cast", value):
        op = "Identity"  # see `random_graphs.casts`
    if op in ("Identity", "Dropout"):
        return graph.emit(op, [value], value)
    if op == "Cast":
        return graph.emit(op, [value], value, to=1)
    if op == "Transpose":
        perm = list(range(value.rank)) or None
        return graph.emit(op, [value], value, **({"perm": perm} if perm else {}))
    return graph.emit(op, [value, _scalar(graph, 1.0 if op == "Mul" else 0.0, value)], value)


def clip(graph: Growing, value: Value) -> Value:
    limits = [graph.constant(np.float32(-0.5)), graph.constant(np.float32(1.5))]
    chosen = graph.random.choice(([limits[0], None], [None, limits[1]], limits))
    return graph.emit("Clip", [value, *chosen], replace(value, bound=max(value.bound, 1.5)))


def affine(graph: Growing, value: Value) -> Value:
    """Mul, Add, Sub and Div by constants that broadcast in all ways."""
    for _ in range(graph.random.randint(1, 3)):
        dims = [d[0] if d[0] == d[1] and graph.chance(0.6) else 1 for d in value.dims]
        constant = graph.constant(
            graph.weights(dims[graph.random.randint(0, len(dims)) :], low=0.5)
        )
        op = graph.random.choice(("Mul", "Add", "Sub", "Div", "Sub"))
        bound = value.bound * (4 if op == "Mul" else 2) + (0 if op in ("Mul", "Div") else 4)
        inputs = [value, constant] if op == "Div" or graph.chance(0.7) else [constant, value]
        value = graph.emit(op, inputs, replace(value, bound=bound, exact=False))
    return value


def with_another(graph: Growing, value: Value) -> Value:
    """Two values of shapes that broadcast."""
    other = graph.pick()
    if broadcast(value.dims, other.dims) != value.dims:
        other = value
    op = graph.random.choice(("Add", "Mul", "Sub", "Max", "Min"))
    bound = value.bound * other.bound if op == "Mul" else value.bound + other.bound
    return _pair(graph, op, value, other, bound)


def guarded(graph: Growing, value: Value) -> Value:
    """Functions that are steep somewhere, kept away from there."""
    positive = graph.emit("Abs", [value], value)
    positive = graph.emit(
        "Add", [positive, _scalar(graph, 0.5, value)], replace(value, exact=False)
    )
    op = graph.random.choice(("Sqrt", "Log", "Reciprocal", "Div", "Pow", "Exp"))
    like = replace(positive, bound=value.bound + 2)
    if op == "Div":
        return graph.emit(op, [value, positive], like)
    if op == "Pow":
        exponent = graph.random.choice((2.0, 0.5, 3.0, 1.0))
        return graph.emit(
            op,
            [positive, _scalar(graph, exponent, value)],
            replace(like, bound=like.bound**exponent),
        )
    if op == "Exp":
        small = graph.emit("Tanh", [value], replace(value, bound=1.0, exact=False))
        return graph.emit(op, [small], replace(small, bound=math.e))
    return graph.emit(op, [positive], like)


def softmax(graph: Growing, value: Value) -> Value:
    if not value.rank:
        return unary(graph, value)
    axis = graph.signed(graph.axis(value), value)
    op = graph.random.choice(("Softmax", "Softmax", "LogSoftmax"))
    bound = 1.0 if op == "Softmax" else 2 * value.bound + 4
    return graph.emit(op, [value], replace(value, bound=bound, exact=False), axis=axis)


def norm(graph: Growing, value: Value) -> Value:
    """LayerNorm and RMSNorm spelled out, sometimes with the epsilon in the wrong place."""
    if not value.rank:
        return unary(graph, value)
    axes = [-1] if graph.chance(0.7) else [graph.signed(graph.axis(value), value)]
    loose = replace(value, exact=False)
    centered = value
    if graph.chance(0.7):
        mean = graph.reduce("ReduceMean", value, axes, keep=True)
        centered = graph.emit("Sub", [value, mean], loose)
    if graph.chance():
        square = graph.emit("Mul", [centered, centered], replace(loose, bound=value.bound**2))
    else:
        square = graph.emit(
            "Pow", [centered, _scalar(graph, 2.0, value)], replace(loose, bound=value.bound**2)
        )
    variance = graph.reduce("ReduceMean", square, axes, keep=True)
    epsilon = graph.constant(np.float32(0.01))
    if graph.chance(0.8):
        deviation = graph.emit("Sqrt", [graph.emit("Add", [variance, epsilon], variance)], variance)
    else:
        root = graph.emit("Sqrt", [variance], variance)
        deviation = graph.emit("Add", [root, graph.constant(np.float32(0.2))], root)
    if graph.chance(0.7):
        result = graph.emit("Div", [centered, deviation], replace(loose, bound=6.0))
    else:
        inverse = graph.emit("Reciprocal", [deviation], deviation)
        result = graph.emit("Mul", [centered, inverse], replace(loose, bound=6.0))
    return affine(graph, result) if graph.chance(0.8) else result


def activation(graph: Growing, value: Value) -> Value:
    """Gelu (erf, tanh), SiLU, HardSwish, Mish spelled out, now and then with a wrong constant."""
    loose = replace(value, exact=False)
    half, wrong = replace(loose, bound=1.0), graph.chance(0.15)
    kind = graph.random.choice(("erf", "tanh", "silu", "hard", "mish"))
    if kind == "silu":
        return _pair(graph, "Mul", loose, graph.emit("Sigmoid", [value], half), value.bound)
    if kind == "mish":
        soft = graph.emit("Softplus", [value], loose)
        return _pair(graph, "Mul", loose, graph.emit("Tanh", [soft], half), value.bound)
    if kind == "hard":
        moved = graph.emit("Add", [value, _scalar(graph, 3.0, value)], loose)
        limits = [graph.constant(np.float32(0)), graph.constant(np.float32(5 if wrong else 6))]
        gate = graph.emit("Clip", [moved, *limits], replace(loose, bound=6.0))
        product = _pair(graph, "Mul", loose, gate, 6 * value.bound)
        return graph.emit("Div", [product, _scalar(graph, 6.0, value)], loose)
    if kind == "erf":
        scaled = graph.emit(
            "Div", [value, _scalar(graph, 1.5 if wrong else math.sqrt(2), value)], loose
        )
        curve = graph.emit("Erf", [scaled], half)
    else:
        cube = graph.emit(
            "Pow", [value, _scalar(graph, 3.0, value)], replace(loose, bound=value.bound**3)
        )
        small = graph.emit("Mul", [cube, _scalar(graph, 0.05 if wrong else 0.044715, value)], loose)
        inner = _pair(graph, "Add", loose, small, value.bound**3)
        scaled = graph.emit("Mul", [inner, _scalar(graph, math.sqrt(2 / math.pi), value)], loose)
        curve = graph.emit("Tanh", [scaled], half)
    gate = graph.emit("Add", [curve, _scalar(graph, 1.0, value)], half)
    if graph.chance():
        product = _pair(graph, "Mul", loose, gate, 2 * value.bound)
        return graph.emit("Mul", [product, _scalar(graph, 0.5, value)], loose)
    halved = graph.emit("Mul", [gate, _scalar(graph, 0.5, value)], half)
    return _pair(graph, "Mul", loose, halved, value.bound)


def instance_norm(graph: Growing, value: Value) -> Value:
    """InstanceNormalization, as the operator or spelled out over the last axes."""
    if value.rank < 3 or not value.is_static(1):
        return norm(graph, value)
    if graph.chance(0.4):
        axes, loose = list(range(2, value.rank)), replace(value, exact=False)
        mean = graph.reduce("ReduceMean", value, axes, keep=True)
        centered = graph.emit("Sub", [value, mean], loose)
        square = graph.emit("Mul", [centered, centered], replace(loose, bound=value.bound**2))
        variance = graph.reduce("ReduceMean", square, axes, keep=True)
        sum_ = graph.emit("Add", [variance, _scalar(graph, 0.01, value)], variance)
        root = graph.emit("Sqrt", [sum_], variance)
        return affine(graph, graph.emit("Div", [centered, root], replace(loose, bound=6.0)))
    channels = value.dims[1][0]
    parameters = [graph.constant(graph.weights([channels], low=0.5)) for _ in "sb"]
    like = replace(value, bound=12.0, exact=False)
    return graph.emit("InstanceNormalization", [value, *parameters], like, epsilon=0.01)


def where(graph: Growing, value: Value) -> Value:
    condition = graph.pick("b")
    if condition.kind != "b" or broadcast(value.dims, condition.dims) != value.dims:
        condition = graph.constant(np.asarray(graph.chance()))
    other = graph.constant(graph.weights([d[0] if d[0] == d[1] else 1 for d in value.dims]))
    return graph.emit("Where", [condition, value, other], replace(value, bound=value.bound + 4))


def if_body(graph: Growing, value: Value, level: int = 1) -> Value:
    """If, its branches reading outer names, its condition an input, computed or constant."""
    branches = {}
    for branch in ("then_branch", "else_branch"):
        inner = graph.body(level)
        result = value
        for _ in range(graph.random.randint(1, 3)):
            if level == 1 and graph.chance(0.15):
                result = if_body(inner, result, level + 1)
            else:
                result = graph.random.choice(BODY_LAYERS)(inner, result)
        if not inner.nodes or result.name not in inner.nodes[-1].output:
            result = inner.emit("Identity", [result], result)
        branches[branch] = helper.make_graph(
            inner.nodes, branch, [], [_info(result)], inner.initializers
        )
    conditions = [v for v in graph.values if v.kind == "b" and not v.dims]
    condition = graph.random.choice([*conditions, graph.constant(np.asarray(graph.chance()))])
    return graph.emit("If", [condition], replace(value, bound=100.0, exact=False), **branches)


def loop_body(graph: Growing, value: Value) -> Value:
    """Loop with a constant trip count, 0 to 3, which carries one tensor."""
    inner = graph.body(3)
    state = replace(value, name=inner.name(), exact=False)
    result = state
    for _ in range(graph.random.randint(1, 2)):
        result = graph.random.choice(BODY_LAYERS)(inner, result)
    result = inner.emit("Tanh", [result], replace(result, bound=1.0))
    go_on = inner.emit("Identity", [replace(state, name="inner_go")], state)
    ends = [
        helper.make_tensor_value_info("inner_i", 7, []),
        helper.make_tensor_value_info("inner_go", 9, []),
    ]
    body = helper.make_graph(
        inner.nodes,
        "body",
        [*ends, _info(state)],
        [helper.make_tensor_value_info(go_on.name, 9, []), _info(result)],
        inner.initializers,
    )
    trips = graph.constant(np.asarray(graph.random.randint(0, 3), np.int64))
    go = graph.constant(np.asarray(True))
    return graph.emit("Loop", [trips, go, value], replace(value, exact=False), body=body)


def _info(value: Value) -> object:
    dims = [dim[0] if dim[0] == dim[1] else None for dim in value.dims]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(NUMPY_TYPES[value.kind]))
    return helper.make_tensor_value_info(value.name, kind, dims)


BODY_LAYERS: tuple[Layer, ...] = (
    unary,
    nothing,
    affine,
    with_another,
    activation,
    norm,
    softmax,
    guarded,
)

LAYERS: tuple[Layer, ...] = (*BODY_LAYERS, affine, clip, instance_norm, where, if_body, loop_body)
