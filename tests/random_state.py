"""A random graph under construction, which knows the shape of each tensor at two sizes at once.

Each dimension is a pair of numbers, its size in the first and in the second run; an operator is
put in only where it is valid at both. So the graphs have truly dynamic dimensions and always run.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

Dim = tuple[int, int]
Dims = tuple[Dim, ...]
Kind = Literal["f", "i", "b"]

NUMPY_TYPES: dict[Kind, Any] = {"f": np.float32, "i": np.int64, "b": np.bool_}
SYMBOLS: dict[str, Dim] = {"N": (2, 3), "M": (3, 1), "L": (4, 7)}

MAX_ELEMENTS, MAX_RANK = 1500, 5

_MAX_BOUND = 60.0
"""Larger values are scaled down: errors are judged against the largest value on the way."""


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
        name: of the tensor.
        kind: float32, int64 or bool.
        dims: its dimensions at both sizes.
        exact: whether no rewrite may change a bit of it; only such floats are compared, rounded
            or cast to integers, so that a last bit never decides over a branch.
        bound: about how large it gets.
    """

    name: str
    kind: Kind
    dims: Dims
    exact: bool = False
    bound: float = 4.0

    @property
    def rank(self) -> int:
        """How many dimensions there are."""
        return len(self.dims)

    @property
    def elements(self) -> int:
        """How many elements there are at the larger size."""
        return max(math.prod(dim[run] for dim in self.dims) for run in (0, 1))

    def is_static(self, axis: int) -> bool:
        """Whether a dimension is the same at both sizes."""
        return self.dims[axis][0] == self.dims[axis][1]


def one(size: int) -> Dim:
    """Return a static dimension."""
    return size, size


def broadcast(first: Dims, second: Dims) -> Dims | None:
    """Return what two shapes broadcast to, None when they do not."""
    rank = max(len(first), len(second))
    padded = [(one(1),) * (rank - len(dims)) + dims for dims in (first, second)]
    result = []
    for a, b in zip(*padded, strict=True):
        if a != b and one(1) not in (a, b):
            return None
        result.append(b if a == one(1) else a)
    return tuple(result)


class Growing:
    """Nodes, constants and values so far.

    Args:
        opset: of the model.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.values: list[Value] = []
        self.random = random.Random(0)
        self._count = 0
        self._prefix = "t"

    # -- choices

    def pick(
        self, kind: Kind = "f", *, rank: tuple[int, int] = (0, MAX_RANK), **wanted: Any
    ) -> Value:
        """Return a value of some kind, mostly a new one, or make one."""
        found = [
            value
            for value in self.values
            if value.kind == kind
            and rank[0] <= value.rank <= rank[1]
            and all(getattr(value, name) == wish for name, wish in wanted.items())
        ]
        if not found:
            return self.constant(self.weights((2, 3, 4)[: max(rank[0], 1)]))
        back = min(self.random.choice((1, 1, 1, 2, 3, 5, len(found))), len(found))
        return found[-back]

    def chance(self, share: float = 0.5) -> bool:
        """Toss a coin."""
        return self.random.random() < share

    def axis(self, value: Value) -> int:
        """Return an axis of a value."""
        return self.random.randrange(value.rank)

    def signed(self, axis: int, value: Value) -> int:
        """Return an axis, now and then counted from behind."""
        return axis - value.rank if self.chance(0.4) else axis

    def comes_from(self, op: str, value: Value) -> bool:
        """Whether an operator computes a value."""
        return any(value.name in node.output for node in self.nodes if node.op_type == op)

    # -- building

    def name(self) -> str:
        """Return a name that is not in use."""
        self._count += 1
        return f"{self._prefix}{self._count}"

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | None],
        like: Value,
        outputs: int = 1,
        **attributes: Any,
    ) -> Value:
        """Add a node; its first output is as `like` says, but for the name."""
        names = [self.name() for _ in range(outputs)]
        given = ["" if value is None else value.name for value in inputs]
        label = f"/{op}.{names[0]}" if self.chance(0.8) else ""
        self.nodes.append(helper.make_node(op, given, names, name=label, **attributes))
        return replace(like, name=names[0])

    def several(
        self, op: str, inputs: Sequence[Value], likes: Sequence[Value], **attributes: Any
    ) -> list[Value]:
        """Add a node of several outputs."""
        self.emit(op, inputs, likes[0], outputs=len(likes), **attributes)
        names = self.nodes[-1].output
        return [replace(like, name=name) for like, name in zip(likes, names, strict=True)]

    def keep(self, value: Value) -> Value:
        """Offer a value to later nodes, scaled down when it has grown large."""
        if value.kind == "f" and value.bound > _MAX_BOUND:
            scale = self.constant(np.float32(1 / value.bound))
            value = self.emit("Mul", [value, scale], replace(value, bound=1.0, exact=False))
        self.values.append(value)
        return value

    def weights(self, dims: Sequence[int], low: float | None = None) -> np.ndarray:
        """Return random weights; all at least `low` where it is given."""
        values = np.random.default_rng(self.random.randrange(1 << 30)).standard_normal(tuple(dims))
        return (values if low is None else np.abs(values) + low).astype(np.float32)

    def constant(self, array: Any) -> Value:
        """Add a constant: an initializer, or a Constant node."""
        array = np.asarray(array)
        kind: Kind = {"f": "f", "i": "i", "b": "b"}[array.dtype.kind]  # type: ignore[assignment]
        bound = float(np.abs(array).max()) if array.size and kind != "b" else 1.0
        value = Value("", kind, tuple(map(one, array.shape)), True, bound)
        if self.chance(0.3):
            return self.emit("Constant", [], value, value=numpy_helper.from_array(array))
        made = replace(value, name=self.name())
        self.initializers.append(numpy_helper.from_array(array, made.name))
        return made

    def ints(self, *numbers: int) -> Value:
        """Add a constant list of integers."""
        return self.constant(np.asarray(numbers, np.int64))

    def reduce(self, op: str, value: Value, axes: Sequence[int], *, keep: bool) -> Value:
        """Add a reduction in the form of the opset."""
        cut = {axis % value.rank for axis in axes}
        dims = tuple(
            one(1) if axis in cut else dim
            for axis, dim in enumerate(value.dims)
            if keep or axis not in cut
        )
        inputs, attributes = [value], {"keepdims": int(keep)}
        if self.opset >= 18 or op == "ReduceSum":
            inputs.append(self.ints(*axes))
        else:
            attributes["axes"] = list(axes)  # type: ignore[assignment]
        count = max(math.prod(value.dims[axis][run] for axis in cut) for run in (0, 1))
        bound = value.bound * (count if op == "ReduceSum" else 1)
        exact = value.exact and op in ("ReduceMax", "ReduceMin")
        return self.emit(
            op, inputs, replace(value, dims=dims, bound=bound, exact=exact), **attributes
        )

    # -- bodies

    def body(self, level: int) -> "Growing":
        """Return a graph of its own for a body; siblings use the same names on purpose."""
        inner = Growing(self.opset)
        inner.values = list(self.values)
        inner.random = self.random
        inner._prefix = f"inner{level}_"
        return inner
