"""What random graphs are made of, part three: products, fills, integers; and whole models."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto, helper
from random_layers import LAYERS
from random_moves import (
    Move,
    concat,
    gather,
    layer,
    pad,
    reduce,
    reshape,
    reshape_there_and_back,
    shape_of,
    slice_,
    split,
    squeeze,
    transpose,
)
from random_state import (
    MAX_ELEMENTS,
    MAX_RANK,
    NUMPY_TYPES,
    SYMBOLS,
    Growing,
    Value,
    broadcast,
    one,
)

OPSETS = (13, 17, 18, 20, 21)

_INPUTS: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "x": ("f", ("N", "M", 4)),
    "image": ("f", ("N", 4, 6, 5)),
    "rows": ("f", ("L", 6)),
    "numbers": ("i", ("N", "M")),
    "flag": ("b", ()),
}


def expand(graph: Growing) -> Value:
    """Expand to the shape of another value, or fill that shape, or count along it."""
    value = graph.pick(rank=(1, MAX_RANK))
    shape = shape_of(graph, value)
    kind = graph.random.choice(("Expand", "ConstantOfShape", "Range"))
    if kind == "ConstantOfShape":
        fill = helper.make_tensor("", 1, [1], [graph.random.choice((0.0, 1.0, 0.5))])
        filled = graph.emit(kind, [shape], replace(value, exact=True, bound=1.0), value=fill)
        return graph.emit(
            "Add", [value, filled], replace(value, exact=False, bound=value.bound + 1)
        )
    if kind == "Range":
        index = graph.constant(np.asarray(value.rank - 1, np.int64))
        size = graph.emit("Gather", [shape, index], replace(shape, dims=()))
        ends = [graph.constant(np.asarray(number, np.int64)) for number in (0, 1)]
        like = Value("", "i", (value.dims[-1],), True, 50.0)
        counted = graph.emit("Range", [ends[0], size, ends[1]], like)
        return graph.emit("Cast", [counted], replace(counted, kind="f"), to=1)
    others = [
        v for v in graph.values if v.kind == "f" and broadcast(value.dims, v.dims) == value.dims
    ]
    other = graph.random.choice(others or [value])
    return graph.emit("Expand", [other, shape], replace(other, dims=value.dims))


def tile(graph: Growing) -> Value:
    value = graph.pick(rank=(1, 3))
    repeats = [graph.random.choice((1, 1, 2)) for _ in value.dims]
    dims = tuple((d[0] * r, d[1] * r) for d, r in zip(value.dims, repeats, strict=True))
    return graph.emit("Tile", [value, graph.ints(*repeats)], replace(value, dims=dims))


def matmul(graph: Growing) -> Value:
    value = graph.pick(rank=(2, MAX_RANK))
    if not value.is_static(value.rank - 1):
        order = [*range(value.rank - 2), value.rank - 1, value.rank - 2]
        dims = tuple(value.dims[axis] for axis in order)
        other = graph.emit("Transpose", [value], replace(value, dims=dims), perm=order)
        result = (*value.dims[:-1], value.dims[-2])
        bound = value.bound**2 * max(value.dims[-1])
        return graph.emit(
            "MatMul", [value, other], replace(value, dims=result, bound=bound, exact=False)
        )
    inner, outer = value.dims[-1][0], graph.random.choice((3, 4, 6))
    dims = (*value.dims[:-1], one(outer))
    like = replace(value, dims=dims, bound=value.bound * inner, exact=False)
    bias = graph.constant(graph.weights(graph.random.choice(((outer,), (1, outer), (1,)))))
    if value.rank == 2 and graph.chance():
        flipped = graph.chance()
        weight = graph.constant(graph.weights((outer, inner) if flipped else (inner, outer)))
        alpha, beta = graph.random.choice(((1.0, 1.0), (0.5, 2.0)))
        given = [value, weight, bias] if graph.chance(0.7) else [value, weight]
        return graph.emit("Gemm", given, like, transB=int(flipped), alpha=alpha, beta=beta)
    product = graph.emit("MatMul", [value, graph.constant(graph.weights((inner, outer)))], like)
    inputs = [product, bias] if graph.chance() else [bias, product]
    return graph.emit("Add", inputs, like) if graph.chance(0.7) else product


def attention(graph: Growing) -> Value:
    """Scaled-dot-product attention spelled out, over one, two or three different tensors."""
    value = graph.pick(rank=(3, MAX_RANK))
    alike = [v for v in graph.values if v.kind == "f" and v.dims == value.dims] or [value]
    query, key, last = (graph.random.choice(alike) for _ in "qkv")
    order = [*range(value.rank - 2), value.rank - 1, value.rank - 2]
    loose = replace(value, exact=False)
    turned = replace(loose, dims=tuple(value.dims[axis] for axis in order))
    key_t = graph.emit("Transpose", [key], turned, perm=order)
    scale = graph.constant(np.float32(graph.random.choice((0.5, 0.25, 0.3))))
    square = replace(loose, dims=(*value.dims[:-1], value.dims[-2]), bound=20.0)
    if graph.chance():
        query = graph.emit("Mul", [query, scale], loose)
        scores = graph.emit("MatMul", [query, key_t], square)
    else:
        scores = graph.emit("MatMul", [query, key_t], square)
        scores = graph.emit(graph.random.choice(("Mul", "Div")), [scores, scale], square)
    if graph.chance(0.4):
        mask = graph.pick("f")
        if broadcast(square.dims, mask.dims) == square.dims:
            scores = graph.emit("Add", [scores, mask], square)
    shares = graph.emit("Softmax", [scores], replace(square, bound=1.0), axis=-1)
    return graph.emit("MatMul", [shares, last], loose)


def conv(graph: Growing) -> Value:
    value = graph.pick(rank=(4, 4))
    if value.rank != 4 or not value.is_static(1) or min(map(min, value.dims[2:])) < 2:
        return matmul(graph)
    channels = value.dims[1][0]
    if graph.chance(0.3):
        parameters = [graph.weights([channels], low=0.5) for _ in "sbmv"]
        names = [graph.constant(parameter) for parameter in parameters]
        return graph.emit("BatchNormalization", [value, *names], replace(value, exact=False))
    inputs = [value, graph.constant(graph.weights((4, channels, 3, 3)) / 6)]
    if graph.chance():
        inputs.append(graph.constant(graph.weights([4])))
    dims = (value.dims[0], one(4), *value.dims[2:])
    like = replace(value, dims=dims, exact=False, bound=value.bound * channels)
    result = graph.emit("Conv", inputs, like, pads=[1, 1, 1, 1])
    if graph.chance():
        parameters = [graph.weights([4], low=0.5) for _ in "sbmv"]
        names = [graph.constant(parameter) for parameter in parameters]
        return graph.emit("BatchNormalization", [result, *names], result)
    return result


def integers(graph: Growing) -> Value:
    """Exact arithmetic on integers, and comparisons."""
    value = graph.pick("i")
    if value.kind != "i":
        value = shape_of(graph, value)
    op = graph.random.choice(("Add", "Sub", "Mul", "Div", "Mod", "Cast", "Less", "Equal", "Cast"))
    if op == "Cast":
        return graph.emit(op, [value], replace(value, kind="f"), to=1)
    number = graph.constant(np.asarray(graph.random.choice((1, 2, 3)), np.int64))
    if op in ("Less", "Equal"):
        return graph.emit(op, [value, number], replace(value, kind="b", bound=1.0))
    if op == "Mul" and value.bound > 1e4:
        op = "Add"
    bound = value.bound * 3 if op == "Mul" else value.bound + 3
    return graph.emit(op, [value, number], replace(value, bound=bound))


def booleans(graph: Growing) -> Value:
    """Comparisons of what no rewrite changes, and logic."""
    value = graph.pick("f", exact=True)
    if graph.chance(0.4):
        flags = graph.pick("b")
        if flags.kind == "b":
            flags = graph.emit("Not", [flags], flags)
            return graph.emit("Cast", [flags], replace(flags, kind="f"), to=1)
    limit = graph.constant(np.float32(graph.random.choice((0.25, -0.75))))
    return graph.emit(
        graph.random.choice(("Greater", "Less")), [value, limit], replace(value, kind="b")
    )


def casts(graph: Growing) -> Value:
    """There and back; never right before a body: ONNX Runtime drops the pair even when it optimizes
    nothing, and forgets that a body reads it."""
    value = graph.pick("f")
    kind = graph.random.choice((11, 11, 7 if value.exact else 11))
    there = graph.emit("Cast", [value], value, to=kind)
    back = graph.emit("Cast", [there], value, to=1)
    return graph.emit("Tanh", [back], replace(value, exact=False, bound=1.0))


def folded(graph: Growing) -> Value:
    """A value computed from constants alone."""
    value = graph.constant(
        graph.weights(graph.random.choice(((), (4,), (3, 1, 4), (1, 6))), low=0.1)
    )
    for _ in range(graph.random.randint(1, 3)):
        value = graph.random.choice(LAYERS[:6])(graph, value)
    return value


def again(graph: Growing) -> Value | None:
    """The same node once more, under other names, for common subexpressions."""
    known = {value.name: value for value in graph.values}
    nodes = [n for n in graph.nodes if len(n.output) == 1 and n.output[0] in known]
    if not nodes:
        return None
    node = graph.random.choice(nodes)
    value = known[node.output[0]]
    copy = type(node)()
    copy.CopyFrom(node)
    copy.output[0] = graph.name()
    copy.name = f"/{node.op_type}.{copy.output[0]}" if node.name else ""
    graph.nodes.append(copy)
    twin = replace(value, name=copy.output[0])
    if value.kind != "f":
        return twin
    graph.values.append(twin)
    return graph.emit("Add", [value, twin], replace(value, exact=False, bound=2 * value.bound))


MOVES: tuple[Move, ...] = (
    layer, layer, layer, layer, layer, transpose, reshape, transpose, squeeze, slice_, pad, concat,
    split, gather, reduce, expand, tile, matmul, attention, conv, integers, booleans, casts, folded,
    again, reshape_there_and_back,
)  # fmt: skip


def random_model(
    opset: int, moves: Sequence[tuple[int, int]], outputs: int
) -> tuple[ModelProto, list[dict[str, np.ndarray]]]:
    """Build a model.

    Args:
        opset: of the model.
        moves: a number of `MOVES` each, and the seed of its choices.
        outputs: a seed of which values are outputs.

    Returns:
        The model, and inputs at two sizes with two seeds.
    """
    graph = Growing(opset)
    for name, (kind, dims) in _INPUTS.items():
        pairs = tuple(SYMBOLS[d] if isinstance(d, str) else one(d) for d in dims)
        graph.values.append(Value(name, kind, pairs, True))  # type: ignore[arg-type]
    given = len(graph.values)
    for move, seed in moves:
        graph.random.seed(seed)
        value = MOVES[move](graph)
        if value is not None and value.elements <= MAX_ELEMENTS and value.rank <= MAX_RANK:
            graph.keep(value)
    graph.random.seed(outputs)
    made = list({value.name: value for value in graph.values[given:]}.values())
    last = made[-1:] or [graph.emit("Relu", [graph.values[0]], graph.values[0])]
    chosen = {v.name: v for v in (*last, *graph.random.sample(made, min(len(made), outputs % 3)))}
    return _model(graph, list(chosen.values())), [
        _feeds(run, seed) for seed in (0, 1) for run in (0, 1)
    ]


def _model(graph: Growing, outputs: list[Value]) -> ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, {"f": 1, "i": 7, "b": 9}[kind], dims)
        for name, (kind, dims) in _INPUTS.items()
    ]
    infos = []
    for value in outputs:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(NUMPY_TYPES[value.kind]))
        infos.append(helper.make_tensor_value_info(value.name, kind, [None] * value.rank))
    proto = helper.make_graph(graph.nodes, "random", inputs, infos, graph.initializers)
    imports = [helper.make_opsetid("", graph.opset)]
    return helper.make_model(proto, opset_imports=imports, ir_version=8)


def _feeds(run: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng([run, seed])
    feeds = {}
    for name, (kind, dims) in _INPUTS.items():
        shape = tuple(SYMBOLS[d][run] if isinstance(d, str) else d for d in dims)
        if kind == "f":
            feeds[name] = generator.standard_normal(shape).astype(np.float32)
        elif kind == "i":
            feeds[name] = generator.integers(-4, 5, shape)
        else:
            feeds[name] = np.asarray(bool(seed) != bool(run))
    return feeds
