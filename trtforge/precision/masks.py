"""Additive masks of -1e9 or -3.4e38, made small enough for FP16 where data shows that they may be.

A mask is added to scores that go into Softmax. Every number so far below the scores that its
exponential is 0 does the same, unless a row is masked as a whole: its scores are then lost in
-1e9, and not in -3e4. So this is done with data alone: the scores must have been measured, and
the emulated model must come out right on the samples (`range_check.py`). What it saves is two
casts in every attention, and it leaves fused Attention operators whole.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_graphsurgeon as gs
from onnx import NodeProto, TensorProto, numpy_helper

from trtforge.graph.model import Model
from trtforge.graph.weights import tensor_array
from trtforge.precision.float_ranges import FloatRange, FloatRanges
from trtforge.precision.opgroups import MOVERS
from trtforge.precision.scales import FLOAT_MAX

SMALL_MASK = -30000.0
"""Two of them and the scores still fit into FP16, and e**-20000 is 0 even in FP32."""

_LARGEST_SCORE = 5000.0
_LARGEST_CONSTANT = 1 << 24
"""Elements; a mask for 4096 tokens has as many, and weights need not be looked at."""

_MASK_OF_ATTENTION = 3


def find_masks(model: Model, ranges: FloatRanges, wanted: str) -> tuple[list[str], list[str]]:
    """Find the masks that may be made small.

    Args:
        model: the model that the ranges were measured on.
        ranges: as measured.
        wanted: fp16 or bf16.

    Returns:
        Names of constants that hold a mask, and of all tensors that a mask flows through.
    """
    flow = _Flow(model, ranges)
    constants: list[str] = []
    carrying: list[str] = []
    for name, values in _constants(model, flow.readers):
        if not _is_mask(values, FLOAT_MAX[wanted]):
            continue
        carried = flow.follow(name)
        if carried is not None:
            constants.append(name)
            carrying += carried
    return constants, carrying


def as_if_small(ranges: FloatRanges, carrying: list[str]) -> FloatRanges:
    """Return the ranges that tensors have once the masks in them are small."""
    tensors = dict(ranges.tensors)
    lowest = 2 * SMALL_MASK - _LARGEST_SCORE
    for name in carrying:
        if (seen := tensors.get(name)) is not None:
            # Half of it, so that the margin for values that were not seen is not counted twice.
            tensors[name] = FloatRange(max(seen.low, lowest / 2), seen.high, seen.smallest)
    return FloatRanges(tensors, ranges.samples)


def shrink_masks(graph: gs.Graph, observed: Mapping[str, float] | None) -> None:
    """Make the masks that `observed` names small, in place."""
    names = set(observed.small_masks) if isinstance(observed, FloatRanges) else set()
    if not names:
        return
    for tensor in graph.tensors().values():
        if tensor.name in names and isinstance(tensor, gs.Constant):
            tensor.values = np.maximum(tensor.values, np.float32(SMALL_MASK))


def _is_mask(values: np.ndarray, limit: float) -> bool:
    """Whether all that is beyond the limit is far below it, finite, and nothing else is large."""
    low, high = float(values.min()), float(values.max())
    return math.isfinite(low) and low < -limit and high <= 1.0 and _is_two_sided(values)


def _is_two_sided(values: np.ndarray) -> bool:
    """Whether what is not a mask is a score: nothing lies between."""
    between = (values < -_LARGEST_SCORE) & (values > SMALL_MASK)
    return not bool(between.any())


def _constants(
    model: Model, readers: Mapping[str, list[NodeProto]]
) -> Iterator[tuple[str, np.ndarray]]:
    kinds = {"Where", "Add", "Mul", *MOVERS}
    for weight in model.proto.graph.initializer:
        size = math.prod(weight.dims)
        read = {node.op_type for node in readers[weight.name]}
        if weight.data_type == TensorProto.FLOAT and 0 < size < _LARGEST_CONSTANT and read & kinds:
            yield weight.name, tensor_array(weight, model.files)
    for node in model.proto.graph.node:
        for attribute in node.attribute:
            if node.op_type != "Constant":
                continue
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                values = numpy_helper.to_array(attribute.t)
                if values.size:
                    yield node.output[0], values
            elif attribute.name == "value_float":
                yield node.output[0], np.asarray(attribute.f, np.float32)


class _Flow:
    """Where a mask flows to."""

    def __init__(self, model: Model, ranges: FloatRanges) -> None:
        self._ranges = ranges.tensors
        self._ends = {value.name for value in model.proto.graph.output}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in model.proto.graph.node:
            for name in node.input:
                self.readers[name].append(node)
            if any(attribute.HasField("g") for attribute in node.attribute):
                self._ends.update(_captured(node))

    def follow(self, name: str) -> list[str] | None:
        """The tensors on the way to Softmax; None where some of it ends elsewhere."""
        carried, pending = [], [name]
        while pending:
            tensor = pending.pop()
            if tensor in self._ends:
                return None
            for node in self.readers[tensor]:
                if node.op_type == "Softmax" or _is_masked_attention(node, tensor):
                    continue
                if not self._passes(node, tensor):
                    return None
                for output in node.output:
                    if output not in carried:
                        carried.append(output)
                        pending.append(output)
        return carried

    def _passes(self, node: NodeProto, tensor: str) -> bool:
        others = [name for name in node.input if name != tensor]
        if node.op_type == "Add":
            return all(self._is_score(name) for name in others)
        if node.op_type == "Mul":
            return len(others) == 1 and self._is_share(others[0])
        if node.op_type == "Where":
            return node.input[0] != tensor and all(self._is_score(n) for n in others[1:])
        return node.op_type in MOVERS and node.input[0] == tensor

    def _is_score(self, name: str) -> bool:
        """Whether a tensor holds scores, or another mask; constants were no results."""
        seen = self._ranges.get(name)
        return seen is None or (seen.high <= _LARGEST_SCORE and not self._is_between(seen))

    def _is_between(self, seen: FloatRange) -> bool:
        return SMALL_MASK < seen.low < -_LARGEST_SCORE

    def _is_share(self, name: str) -> bool:
        seen = self._ranges.get(name)
        return seen is not None and seen.low >= 0 and seen.high <= 1


def _is_masked_attention(node: NodeProto, tensor: str) -> bool:
    return node.op_type == "Attention" and list(node.input).index(tensor) == _MASK_OF_ATTENTION


def _captured(node: NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from inner.input
            yield from _captured(inner)
