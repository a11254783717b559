"""Emulation of random typed graphs: the per-operator model's bits, whatever goes in."""

import numpy as np
from emulation_samples import SHAPE, TYPES, differing, values, written
from hypothesis import given, settings
from hypothesis import strategies as st

from trtforge.graph.model import Model

UNARY = ["Relu", "Sigmoid", "Tanh", "Neg", "Exp", "Sqrt", "Abs", "Floor", "Erf", "Softmax"]
SHAPED = [
    "Transpose<perm = [0, 1, 3, 2]>({a})",
    "Conv<pads = [1, 1, 1, 1]>({a}, conv)",
    "MatMul({a}, square)",
    "MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>({a})",
    "LayerNormalization({a}, vector)",
    "Clip({a}, low, high)",
    "Pow({a}, two)",
]
BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"]
BRANCHES = (
    "If(flag) <then_branch = yes () => (T[2, 4, 6, 6] r) {{ s = Mul({a}, {b}) r = Add(s, {a}) }}, "
    "else_branch = no () => (T[2, 4, 6, 6] r) {{ s = Sub({a}, {b}) r = Exp(s) }}>"
)
ROUND_TRIP = "Cast<to = {other}>({a}) {name} = CastLike({name}_, x)"
OTHER = {"float16": 16, "bfloat16": 10}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Model, str]:
    """A typed graph over tensors of one shape; outputs may be read inside."""
    kind = draw(st.sampled_from(sorted(TYPES)))
    tensors, lines = ["x", "z"], []
    for index in range(draw(st.integers(1, 8))):
        name = f"t{index}"
        a, b = draw(st.sampled_from(tensors)), draw(st.sampled_from(tensors))
        choice = draw(st.sampled_from(["unary", "shaped", "binary", "if", "cast"]))
        if choice == "cast":
            text = ROUND_TRIP.format(other=OTHER[kind], a=a, name=name)
            lines.append(f"{name}_ = {text}")
        elif choice == "if":
            lines.append(f"{name} = {BRANCHES.format(a=a, b=b)}")
        elif choice == "unary":
            lines.append(f"{name} = {draw(st.sampled_from(UNARY))}({a})")
        elif choice == "binary":
            lines.append(f"{name} = {draw(st.sampled_from(BINARY))}({a}, {b})")
        else:
            lines.append(f"{name} = {draw(st.sampled_from(SHAPED)).format(a=a)}")
        tensors.append(name)
    ends = draw(st.lists(st.sampled_from(tensors[2:]), min_size=1, max_size=3, unique=True))
    outputs = ", ".join(f"T[2, 4, 6, 6] {name}" for name in ends)
    text = f"(T[2, 4, 6, 6] x, T[2, 4, 6, 6] z, bool flag) => ({outputs}) {{ {' '.join(lines)} }}"
    weights = {"conv": values(4, 4, 3, 3, seed=1, size=0.3), "square": values(6, 6, seed=2)}
    weights |= {"vector": values(6, seed=3), "low": np.float32(-1.1), "high": np.float32(40.7)}
    return written(text, kind, two=np.int64(2), **weights), kind


@settings(max_examples=40, deadline=None)
@given(graphs(), st.integers(0, 2**32 - 1), st.sampled_from([1e-4, 1.0, 100.0, 1e4]), st.booleans())
def test_random_graphs_agree_bit_for_bit(
    made: tuple[Model, str], seed: int, size: float, flag: bool
) -> None:
    model, kind = made
    feeds = {
        name: values(*SHAPE, seed=seed + index, size=size).astype(TYPES[kind])
        for index, name in enumerate(("x", "z"))
    }
    feeds["x"].reshape(-1)[:4] = np.inf, -np.inf, np.nan, -0.0
    assert differing(model, {**feeds, "flag": np.array(flag)}) == []
