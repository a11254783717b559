"""What measured ranges say about a narrow type: what it cannot hold, and what must be exact.

Four rules, each about a consequence and not about size alone. Values near the end of the range
overflow. Tensors that are tiny as a whole lose bits to FP16's subnormals. Small values lose bits
too, which matters where something divides by them, or takes their root or logarithm: then the
chain of operators that made them, back to a square, is exact as well. And Exp, Sin, Cos and Tan
turn an absolute error of their argument into a relative one, or into a wrong phase.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from trtforge.graph.model import Model
from trtforge.precision import opgroups as ops
from trtforge.precision.float_ranges import DIVISORS, FloatRange, FloatRanges
from trtforge.precision.masks import as_if_small, find_masks
from trtforge.precision.scales import FLOAT_MAX

MARGIN = 2.0
"""Values that were not seen may be this much larger than those that were."""

_TINY: Mapping[str, float] = {"fp16": 2.0**-15, "bf16": 0.0}
"""A tensor whose largest magnitude is below has less than about 50 dB over FP16's steps of 2**-24;
BF16 has FP32's exponents."""

_FEW_BITS: Mapping[str, float] = {"fp16": 2.0**-14, "bf16": 0.0}
"""FP16's smallest normal number (IEEE 754 binary16): below, each halving costs a bit."""

_STEEP = 8.0
"""Functions that amplify the rounding of their argument by more than this get it exactly."""

_LONGEST_CHAIN = 8
"""How far back a chain of cheap operators is followed."""

_CHAIN = ops.MOVERS | ops.POINTWISE | ops.REDUCTIONS | {"CumSum", "Range", "Cast"}


def judge(
    model: Model, ranges: FloatRanges, wanted: str, *, shrinks_masks: bool = True
) -> FloatRanges:
    """Return the ranges with what must stay wider, and why.

    Args:
        model: the model that they were measured on.
        ranges: as measured.
        wanted: fp16 or bf16.
        shrinks_masks: make additive masks small where that is possible.
    """
    masks, carrying = find_masks(model, ranges, wanted) if shrinks_masks else ([], [])
    ranges = as_if_small(ranges, carrying)
    judgement = _Judgement(model.proto, ranges, wanted)
    judgement.run()
    return replace(
        ranges,
        wide_values=judgement.values,
        wide_results=judgement.results,
        small_masks=tuple(masks),
    )


class Chains:
    """The producers of a graph's tensors, and the way back through cheap operators."""

    def __init__(self, proto: ModelProto) -> None:
        # Other domains may have operators of the same names.
        self.nodes: Sequence[NodeProto] = [
            node for node in proto.graph.node if node.domain in ("", "ai.onnx")
        ]
        self.constants = _single_numbers(proto)
        self._weights = {weight.name for weight in proto.graph.initializer} | set(self.constants)
        self._made = {name: node for node in self.nodes for name in node.output if name}

    def back(self, name: str, stops: frozenset[str] = frozenset()) -> Iterator[str]:
        """A tensor and those it is computed from, nearest first, through cheap operators alone.

        Args:
            name: where to start; it is yielded itself if a cheap operator makes it.
            stops: operators whose results are yielded, and not what they come from.
        """
        level, seen = [name], {name}
        for _ in range(_LONGEST_CHAIN):
            further: list[str] = []
            for tensor in level:
                node = self._made.get(tensor)
                if node is None or node.op_type not in _CHAIN:
                    continue
                yield tensor
                if node.op_type not in stops and not self.is_square(node):
                    further += [one for one in self.variables(node) if one not in seen]
                    seen.update(further)
            level = further

    def variables(self, node: NodeProto) -> list[str]:
        """Inputs that are no constants, each once."""
        return list(dict.fromkeys(n for n in node.input if n and n not in self._weights))

    def made_by(self, name: str) -> NodeProto | None:
        """The node that computes a tensor."""
        return self._made.get(name)

    def is_square(self, node: NodeProto) -> bool:
        """Whether a node multiplies a tensor by itself."""
        if node.op_type == "Mul":
            return bool(node.input[0] == node.input[1])
        return bool(node.op_type == "Pow") and self.constants.get(node.input[1]) == 2.0

    def divisors(self) -> Iterator[tuple[NodeProto, str]]:
        """Each node that divides, or takes a root or logarithm, with what of."""
        for node in self.nodes:
            for index in DIVISORS.get(node.op_type, ()):
                name = node.input[index]
                if name in self._weights or (node.op_type == "Pow" and self._is_harmless(node)):
                    continue
                yield node, name

    def _is_harmless(self, power: NodeProto) -> bool:
        exponent = self.constants.get(power.input[1])
        return exponent is not None and exponent >= 1


class _Judgement:
    def __init__(self, proto: ModelProto, ranges: FloatRanges, wanted: str) -> None:
        self._chains = Chains(proto)
        self._ranges = ranges.tensors
        self._wanted = wanted
        self._type = wanted.upper()
        self.values: dict[str, str] = {}
        self.results: dict[str, str] = {}

    def run(self) -> None:
        for name, found in self._ranges.items():
            if (reason := self._unfit(name, found)) is not None:
                self.values[name] = reason
        for node, name in self._chains.divisors():
            self._divides(node, name)
        for node in self._chains.nodes:
            if node.op_type in ops.TRIGONOMETRY or node.op_type == "Exp":
                self._steep(node)

    def _unfit(self, name: str, found: FloatRange) -> str | None:
        limit = FLOAT_MAX[self._wanted]
        if found.amax * MARGIN > limit:
            return (
                f"calibration saw '{name}' at {found.amax:.6g}, which leaves less than a factor of "
                f"{MARGIN:g} to {self._type}'s {limit:.6g}"
            )
        if 0 < found.amax < _TINY[self._wanted]:
            return (
                f"calibration saw '{name}' at {found.amax:.3g} at most: {self._type} has few bits "
                "for such small numbers"
            )
        return None

    def _divides(self, node: NodeProto, name: str) -> None:
        found = self._ranges.get(name)
        if found is None or not 0 < found.smallest < _FEW_BITS[self._wanted]:
            return
        does = "divides by it" if node.op_type in ("Div", "Reciprocal") else "magnifies it"
        reason = (
            f"'{name}' holds values down to {found.smallest:.3g}, for which {self._type} has few "
            f"bits or none, and {node.op_type} {does}"
        )
        self.values.setdefault(name, reason)
        for tensor in self._summed(name):
            self.results.setdefault(tensor, reason)

    def _summed(self, name: str) -> Iterable[str]:
        """The chain from a sum of squares and an epsilon, say, back to the square."""
        pending = [name]
        for _ in range(_LONGEST_CHAIN):
            if not pending or (node := self._chains.made_by(pending.pop())) is None:
                return
            is_sum = node.op_type.startswith("Reduce") or node.op_type in ops.MOVERS
            inputs = self._chains.variables(node)
            if not (is_sum or self._chains.is_square(node) or len(inputs) == 1):
                return
            if node.op_type not in _CHAIN:
                return
            yield node.output[0]
            if not self._chains.is_square(node):
                pending += inputs[:1]

    def _steep(self, node: NodeProto) -> None:
        argument = node.input[0]
        found = self._ranges.get(argument)
        if found is None:
            return
        reach = found.high if node.op_type == "Exp" else found.amax
        if reach <= _STEEP:
            return
        reason = (
            f"{node.op_type} of up to {reach:.3g}: what rounding takes from the argument, it makes "
            + ("a relative error" if node.op_type == "Exp" else "a wrong phase")
        )
        self.results.setdefault(node.output[0], reason)
        for tensor in self._chains.back(argument):
            seen = self._ranges.get(tensor)
            if seen is not None and seen.amax > 1:
                self.results.setdefault(tensor, reason)


def _single_numbers(proto: ModelProto) -> dict[str, float]:
    """Constants of one element, by name."""
    found = {}
    for weight in proto.graph.initializer:
        if np.prod(weight.dims, dtype=int) == 1 and not weight.external_data:
            found[weight.name] = float(numpy_helper.to_array(weight).reshape(-1)[0])
    for node in proto.graph.node:
        if node.op_type != "Constant":
            continue
        for attribute in node.attribute:
            if attribute.name == "value" and np.prod(attribute.t.dims, dtype=int) == 1:
                found[node.output[0]] = float(numpy_helper.to_array(attribute.t).reshape(-1)[0])
            elif attribute.name == "value_float":
                found[node.output[0]] = attribute.f
    return found
