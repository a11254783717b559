"""Ranges of a model's float tensors over samples, measured in one pass, for the choice of types.

Calibration for INT8 looks at the tensors that are quantized, and wants the shape of their
distribution. For FP16 and BF16 every float tensor matters, and of each only how large its values
get, and how small where something divides by them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto

from trtforge.errors import DataError
from trtforge.graph.model import Model
from trtforge.precision.typeinfo import element_types

if TYPE_CHECKING:
    from trtforge.precision.ranges import TensorRange
    from trtforge.precision.streaming import DataSource, Progress

SAMPLES = 4
"""How many samples are measured where nobody says: magnitudes of a network hardly differ from
sample to sample, and a factor of `range_judgement.MARGIN` is left for those that were not seen."""

PASSES_ON = frozenset(
    (
        *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile"),
        *("Slice", "Split", "DepthToSpace", "SpaceToDepth"),
    )
)
"""Movers whose results have no other values than their first input."""

_BOUNDED = frozenset(
    ["Softmax", "Sigmoid", "Tanh", "HardSigmoid", "Erf", "Softsign", "Sin", "Cos", "Sign"]
)
"""Their results lie in -1..1, whatever comes in."""

DIVISORS: dict[str, tuple[int, ...]] = {
    "Div": (1,),
    "Reciprocal": (0,),
    "Sqrt": (0,),
    "Log": (0,),
    "Pow": (0,),
}
"""Inputs of which small values count as much as large ones, since what comes out is large or has
their relative error."""


@dataclass(frozen=True)
class FloatRange:
    """What was seen of one tensor; infinities and NaN do not count.

    Attributes:
        low: smallest value.
        high: largest value.
        smallest: smallest magnitude other than 0; 0 where that was not looked at.
    """

    low: float
    high: float
    smallest: float = 0.0

    @property
    def amax(self) -> float:
        """Largest magnitude."""
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True)
class FloatRanges(Mapping[str, float]):
    """Largest magnitude of each float tensor, with what else is known.

    Attributes:
        tensors: per tensor name.
        samples: how many samples were seen.
        wide_values: tensors whose values the narrow type cannot hold well enough, and why: what
            writes or reads them stays wide.
        wide_results: tensors that must be computed wide, and why: their producers stay wide.
        small_masks: constants that hold an additive mask which is made small (`masks.py`).
        sqnr_db: how close the worst output came when the cast model was emulated on samples; None
            where that was not done.
    """

    tensors: Mapping[str, FloatRange]
    samples: int = 0
    wide_values: Mapping[str, str] = field(default_factory=dict)
    wide_results: Mapping[str, str] = field(default_factory=dict)
    small_masks: tuple[str, ...] = ()
    sqnr_db: float | None = None

    def __getitem__(self, name: str) -> float:
        return self.tensors[name].amax

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def joined(self, calibrated: Mapping[str, "TensorRange"]) -> "FloatRanges":
        """Return the ranges widened to what calibration saw of some of the tensors."""
        tensors = dict(self.tensors)
        for name, seen in calibrated.items():
            own = tensors.get(name, FloatRange(seen.min, seen.max))
            low, high = min(own.low, seen.min), max(own.high, seen.max)
            tensors[name] = FloatRange(low, high, own.smallest)
        return replace(self, tensors=tensors)

    def as_json(self) -> dict[str, Any]:
        """Return the ranges as plain JSON data."""
        return {
            "samples": self.samples,
            "tensors": {n: [r.low, r.high, r.smallest] for n, r in self.tensors.items()},
            "wide_values": dict(self.wide_values),
            "wide_results": dict(self.wide_results),
            "small_masks": list(self.small_masks),
            "sqnr_db": None if self.sqnr_db is None else str(self.sqnr_db),  # JSON has no inf
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "FloatRanges":
        """Read what `as_json` returned."""
        tensors = {name: FloatRange(*three) for name, three in data["tensors"].items()}
        return cls(
            tensors,
            data["samples"],
            data["wide_values"],
            data["wide_results"],
            tuple(data["small_masks"]),
            None if data["sqnr_db"] is None else float(data["sqnr_db"]),
        )


def measure(
    model: Model,
    source: "DataSource",
    samples: int | None = None,
    on_progress: "Progress | None" = None,
) -> FloatRanges:
    """Run samples through a model and look at every float tensor of its main graph.

    Memory holds the model and one sample's tensors, at most about `streaming.VALUES_BYTES`; where
    they do not fit, the samples run several times.

    Args:
        model: the FP32 model that will be cast.
        source: samples that match the model's inputs.
        samples: how many to use; None for SAMPLES, or all where there are fewer.
        on_progress: told the fraction done (0..1) and a line of text.

    Raises:
        DataError: there are fewer samples than asked for (TF0523).
        GraphError: ONNX Runtime refuses the model.
    """
    wanted = min(SAMPLES, source.count) if samples is None else samples
    if wanted > source.count:
        raise DataError(
            "TF0523",
            f"{wanted} samples are asked for, the data has {source.count}",
            f"ask for {source.count} or less, or give more data",
        )
    size = source.static_batch or 1
    stop = max(wanted // size, 1) * size
    found = _Tensors(model.proto)
    from trtforge.precision.streaming import Stream  # a session, which conversion alone needs not

    stream = Stream(model, source, 0, stop, on_progress, optimize=False)
    groups = stream.groups(found.looked_at)
    for index, group in enumerate(groups):
        part = (index / len(groups), (index + 1) / len(groups))
        stream.run(group, found.visit, part=part, what="ranges")
    return FloatRanges(found.ranges(), stop)


class _Tensors:
    """Which tensors of a graph are looked at, and what was seen of them."""

    def __init__(self, proto: ModelProto) -> None:
        self._nodes = proto.graph.node
        types = element_types(proto)
        constants = {weight.name for weight in proto.graph.initializer}
        inputs = [v.name for v in proto.graph.input if v.name not in constants]
        floats = [name for name in inputs if types.get(name) == TensorProto.FLOAT]
        self._from: dict[str, str] = {}
        self._bounded: list[str] = []
        known = set(floats)
        for node in self._nodes:
            names = [name for name in node.output if types.get(name) == TensorProto.FLOAT]
            is_standard = node.domain in ("", "ai.onnx")
            if is_standard and node.op_type in PASSES_ON and node.input[0] in known:
                self._from.update((name, node.input[0]) for name in names)
            elif is_standard and node.op_type in _BOUNDED:
                self._bounded += names
            elif node.op_type != "Constant":
                floats += names
            known.update(names)
        self.looked_at = tuple(floats)
        self._divisors = {self.source_of(name) for name in divisors(self._nodes)}
        self._seen: dict[str, FloatRange] = {}

    def source_of(self, name: str) -> str:
        """The tensor that a mover's result got its values from."""
        while name in self._from:
            name = self._from[name]
        return name

    def visit(self, name: str, values: npt.NDArray[np.float32]) -> None:
        """Take in one run's values of a tensor."""
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            values = values[np.isfinite(values)]
            if values.size == 0:
                return
            low, high = float(values.min()), float(values.max())
        smallest = _smallest(values) if name in self._divisors else 0.0
        before = self._seen.get(name)
        if before is not None:
            low, high = min(low, before.low), max(high, before.high)
            both = [value for value in (smallest, before.smallest) if value]
            smallest = min(both, default=0.0)
        self._seen[name] = FloatRange(low, high, smallest)

    def ranges(self) -> dict[str, FloatRange]:
        """What was seen, also of tensors that only pass on what others hold."""
        found = self._seen | {name: FloatRange(-1.0, 1.0) for name in self._bounded}
        for name in self._from:
            if (source := self.source_of(name)) in found:
                found[name] = found[source]
        return found


def divisors(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Names of the tensors that something divides by, or takes a root or logarithm of."""
    for node in nodes:
        for index in DIVISORS.get(node.op_type, ()):
            if index < len(node.input):
                yield node.input[index]


def _smallest(values: npt.NDArray[np.float32]) -> float:
    """Smallest magnitude other than 0; 0 where all are 0."""
    magnitudes = np.abs(values)
    smallest = float(magnitudes.min(where=magnitudes > 0, initial=np.inf))
    return smallest if math.isfinite(smallest) else 0.0
