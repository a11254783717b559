"""What random graphs are made of, part two: operators that change shapes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from random_layers import LAYERS
from random_state import MAX_RANK, Dim, Growing, Value, one

Move = Callable[[Growing], Value | None]
"""Adds something to a graph and returns a value that later moves may read."""


def layer(graph: Growing) -> Value:
    return graph.random.choice(LAYERS)(graph, graph.pick())


def transpose(graph: Growing) -> Value:
    value = graph.pick(graph.random.choice("ffi"), rank=(1, MAX_RANK))  # type: ignore[arg-type]
    perm = list(range(value.rank))
    graph.random.shuffle(perm)
    given = {} if perm[::-1] == sorted(perm) and graph.chance() else {"perm": perm}
    dims = tuple(value.dims[axis] for axis in perm)
    moved = graph.emit("Transpose", [value], replace(value, dims=dims), **given)
    if graph.chance(0.5) or value.kind != "f":
        return moved
    between = graph.random.choice(LAYERS)(graph, moved)
    back = [perm.index(axis) for axis in range(value.rank)]
    like = replace(between, dims=value.dims)
    return graph.emit("Transpose", [between], like, perm=back)


def squeeze(graph: Growing) -> Value:
    value = graph.pick(graph.random.choice("ffi"))  # type: ignore[arg-type]
    ones = [axis for axis, dim in enumerate(value.dims) if dim == one(1)]
    if ones and graph.chance(0.7):
        axis = graph.random.choice(ones)
        dims = value.dims[:axis] + value.dims[axis + 1 :]
        axes = graph.ints(graph.signed(axis, value))
        return graph.emit("Squeeze", [value, axes], replace(value, dims=dims))
    if value.rank >= MAX_RANK:
        return value
    axis = graph.random.randint(0, value.rank)
    dims = (*value.dims[:axis], one(1), *value.dims[axis:])
    axes = graph.ints(axis - value.rank - 1 if graph.chance(0.3) else axis)
    return graph.emit("Unsqueeze", [value, axes], replace(value, dims=dims))


def _dim_of(graph: Growing, value: Value, axis: int) -> Value:
    """Compute one dimension at run time: Shape, then Gather and Unsqueeze, or Slice."""
    shape = shape_of(graph, value)
    length = replace(shape, dims=(one(1),))
    if graph.chance(0.3):
        limits = [graph.ints(axis), graph.ints(axis + 1), graph.ints(0)]
        return graph.emit("Slice", [shape, *limits], length)
    if graph.chance(0.3):
        return graph.emit("Gather", [shape, graph.ints(graph.signed(axis, value))], length)
    index = graph.constant(np.asarray(axis, np.int64))
    scalar = graph.emit("Gather", [shape, index], replace(shape, dims=()))
    return graph.emit("Unsqueeze", [scalar, graph.ints(0)], length)


def shape_of(graph: Growing, value: Value) -> Value:
    largest = max((max(dim) for dim in value.dims), default=1)
    like = Value("", "i", (one(value.rank),), True, float(largest))
    return graph.emit("Shape", [value], like)


def reshape(graph: Growing) -> Value:
    """Merge and split dimensions; the target is constant, or computed from the shape."""
    value = graph.pick(graph.random.choice("ffffi"), rank=(1, MAX_RANK))  # type: ignore[arg-type]
    parts: list[tuple[Dim, Any]] = []
    axis, open_ = 0, True
    while axis < value.rank:
        dim = value.dims[axis]
        divisors = [d for d in range(2, dim[0]) if dim[0] % d == 0 and value.is_static(axis)]
        if divisors and graph.chance(0.4):
            first = graph.random.choice(divisors)
            parts += [(one(first), first), (one(dim[0] // first), dim[0] // first)]
            axis += 1
        elif axis + 1 < value.rank and graph.chance(0.4):
            next_ = value.dims[axis + 1]
            merged = (dim[0] * next_[0], dim[1] * next_[1])
            parts.append((merged, merged[0] if merged[0] == merged[1] else (axis, axis + 1)))
            axis += 2
        else:
            kept = len(parts) == axis and graph.chance(0.6)
            parts.append((dim, 0 if kept else dim[0] if dim[0] == dim[1] else (axis,)))
            axis += 1
    entries: list[Any] = []
    for _, entry in parts:
        use_rest = open_ and entry != 0 and graph.chance(0.5 if isinstance(entry, int) else 0.8)
        entries.append(-1 if use_rest else entry)
        open_ = open_ and not use_rest
    if len(parts) > MAX_RANK:
        return value
    target = _target(graph, value, entries)
    return graph.emit("Reshape", [value, target], replace(value, dims=tuple(d for d, _ in parts)))


def _target(graph: Growing, value: Value, entries: Sequence[Any]) -> Value:
    if all(isinstance(entry, int) for entry in entries) and graph.chance(0.8):
        return graph.ints(*entries)
    pieces = []
    for entry in entries:
        if isinstance(entry, int):
            pieces.append(graph.ints(entry))
            continue
        piece = _dim_of(graph, value, entry[0])
        for axis in entry[1:]:
            piece = graph.emit("Mul", [piece, _dim_of(graph, value, axis)], piece)
        pieces.append(piece)
    return graph.emit("Concat", pieces, replace(pieces[0], dims=(one(len(pieces)),)), axis=0)


def reshape_there_and_back(graph: Growing) -> Value:
    value = graph.pick(rank=(2, MAX_RANK))
    axis = graph.random.randint(1, value.rank - 1)
    flat = tuple(
        (math.prod(d[0] for d in part), math.prod(d[1] for d in part))
        for part in (value.dims[:axis], value.dims[axis:])
    )
    between = graph.emit("Flatten", [value], replace(value, dims=flat), axis=axis)
    between = graph.random.choice(LAYERS)(graph, between)
    return graph.emit(
        "Reshape", [between, shape_of(graph, value)], replace(between, dims=value.dims)
    )


def slice_(graph: Growing) -> Value:
    value = graph.pick(graph.random.choice("ffi"), rank=(1, MAX_RANK))  # type: ignore[arg-type]
    axis, step = graph.axis(value), graph.random.choice((1, 1, 1, 2, -1))
    start = graph.random.choice((0, 0, 1, -2))
    end = graph.random.choice((2**63 - 1, 2**63 - 1, -1, 100, 3))
    if step < 0:
        start, end = graph.random.choice((-1, 2**63 - 1)), graph.random.choice((-(2**63) + 1, -100))
    sizes = tuple(len(range(size)[slice(start, end, step)]) for size in value.dims[axis])
    if 0 in sizes:
        return value
    dims = (*value.dims[:axis], (sizes[0], sizes[1]), *value.dims[axis + 1 :])
    limits = [graph.ints(start), graph.ints(end), graph.ints(graph.signed(axis, value))]
    steps = [graph.ints(step)] if step != 1 or graph.chance(0.3) else []
    return graph.emit("Slice", [value, *limits, *steps], replace(value, dims=dims))


def pad(graph: Growing) -> Value:
    value = graph.pick(rank=(1, MAX_RANK))
    amounts = [graph.random.choice((0, 0, 0, 1)) for _ in range(2 * value.rank)]
    sides = zip(amounts[: value.rank], amounts[value.rank :], strict=True)
    dims = tuple(
        (dim[0] + a + b, dim[1] + a + b) for dim, (a, b) in zip(value.dims, sides, strict=True)
    )
    mode = graph.random.choice(("constant", "constant", "edge"))
    like = replace(value, dims=dims)
    return graph.emit("Pad", [value, graph.ints(*amounts)], like, mode=mode)


def concat(graph: Growing) -> Value:
    value = graph.pick(graph.random.choice("ffi"), rank=(1, MAX_RANK))  # type: ignore[arg-type]
    axis = graph.axis(value)
    rest = value.dims[:axis] + value.dims[axis + 1 :]
    alike = [
        other
        for other in graph.values
        if other.kind == value.kind
        and other.rank == value.rank
        and other.dims[:axis] + other.dims[axis + 1 :] == rest
    ]
    parts = [
        value,
        *(graph.random.choice(alike or [value]) for _ in range(graph.random.randint(0, 2))),
    ]
    graph.random.shuffle(parts)
    total = sum(p.dims[axis][0] for p in parts), sum(p.dims[axis][1] for p in parts)
    dims = (*value.dims[:axis], total, *value.dims[axis + 1 :])
    bound, exact = max(p.bound for p in parts), all(p.exact for p in parts)
    like = replace(value, dims=dims, bound=bound, exact=exact)
    return graph.emit("Concat", parts, like, axis=graph.signed(axis, value))


def split(graph: Growing) -> Value:
    value = graph.pick(rank=(1, MAX_RANK))
    axes = [a for a in range(value.rank) if value.is_static(a) and value.dims[a][0] > 1]
    if not axes:
        return value
    axis = graph.random.choice(axes)
    size = value.dims[axis][0]
    first = size // 2 if graph.chance() else graph.random.randint(1, size - 1)
    likes = [
        replace(value, dims=(*value.dims[:axis], one(s), *value.dims[axis + 1 :]))
        for s in (first, size - first)
    ]
    inputs, attributes = [value], {"axis": graph.signed(axis, value)}
    if first * 2 != size or graph.opset >= 18 or graph.chance():
        inputs.append(graph.ints(first, size - first))
    parts = graph.several("Split", inputs, likes, **attributes)
    graph.values.append(parts[0])
    if graph.chance(0.3):
        return graph.emit("Concat", parts, value, axis=axis)
    return parts[1]


def gather(graph: Growing) -> Value:
    value = graph.pick(rank=(1, MAX_RANK))
    axis = graph.axis(value)
    size = min(value.dims[axis])
    indices = [graph.random.randrange(-size, size) for _ in range(graph.random.randint(1, 3))]
    scalar = graph.chance(0.3)
    index = graph.constant(np.asarray(indices[0], np.int64)) if scalar else graph.ints(*indices)
    dims = (*value.dims[:axis], *index.dims, *value.dims[axis + 1 :])
    return graph.emit("Gather", [value, index], replace(value, dims=dims), axis=axis)


def reduce(graph: Growing) -> Value:
    value = graph.pick(rank=(1, MAX_RANK))
    op = graph.random.choice(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"))
    axes = graph.random.sample(range(value.rank), graph.random.randint(1, value.rank))
    signed = [graph.signed(axis, value) for axis in axes]
    return graph.reduce(op, value, signed, keep=graph.chance())
