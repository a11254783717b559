"""What would go wrong in FP16 or BF16: found in the graph, and in ranges where they were measured.

Three things are seen in the graph: constants beyond FP16's range (additive masks of -1e9 or
-3.4e38) and whatever they flow through; constants that vanish (an epsilon of 1e-12); positions and
masks computed from integers, and arguments of Sin and Cos, which lose their meaning when rounded.
What measured ranges add is in `range_judgement.py`; what is feared without them, in `cautions.py`.

An additive mask is not clamped to -65504: a row that is masked as a whole would then sum to
different scores, and two masks added would overflow all the same. The few nodes between mask and
Softmax stay FP32 instead.
"""

import math
from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from trtforge.precision.cautions import Cautions, summands
from trtforge.precision.float_ranges import FloatRanges
from trtforge.precision.opgroups import INDEX_ARITHMETIC, MOVERS, TRIGONOMETRY
from trtforge.precision.ports import is_float32
from trtforge.precision.scales import FLOAT_MAX

_VANISHES_BELOW: dict[str, float] = {"fp16": 2.0**-25, "bf16": 0.0}
"""Below half of the smallest subnormal a number rounds to zero; BF16 has FP32's exponents."""

_INTEGERS = frozenset(
    TensorProto.DataType.Value(name)
    for name in ("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
)

_KEEPS_MAGNITUDE = MOVERS | {
    *("Add", "Sub", "Sum", "Neg", "Abs", "Max", "Min", "Relu", "LeakyRelu", "Clip", "Cast"),
    *("ReduceMax", "ReduceMin", "ReduceSum", "CumSum", "QuantizeLinear", "DequantizeLinear"),
}
_FEW_BITS_BELOW: dict[str, float] = {"fp16": 2.0**-15, "bf16": 0.0}
"""FP16's steps are 2**-24 there, and a constant that multiplies has an error of 0.1 % or more."""

_SUMS = frozenset(["ReduceSum", "CumSum", "ReduceL1"])
_MULTIPLIES = frozenset(["Mul", "Div", "MatMul", "Gemm", "Conv", "ConvTranspose"])
_MINDS_ZERO = frozenset(["Sqrt", "Reciprocal", "Log", "Div", "Pow"])


def constant_magnitude(tensor: gs.Tensor) -> float | None:
    """Largest finite magnitude of a float constant; None for anything else.

    Infinities do not count: FP16 and BF16 have them too.
    """
    if not isinstance(tensor, gs.Constant) or isinstance(tensor.dtype, int):
        return None  # GraphSurgeon gives types that numpy lacks as ONNX numbers
    if np.dtype(tensor.dtype).kind != "f":
        return None
    values = tensor.values
    if values.size == 0:
        return 0.0
    largest = max(float(values.max()), -float(values.min()))
    if math.isfinite(largest):
        return largest
    finite = values[np.isfinite(values)]
    return float(np.abs(finite).max()) if finite.size else 0.0


class RangeHazards:
    """Reasons why nodes must stay FP32 because of constants that the type cannot hold."""

    def __init__(self, wanted: str, observed: Mapping[str, float]) -> None:
        """Prepare.

        Args:
            wanted: fp16 or bf16.
            observed: largest magnitude that calibration saw, per tensor; `FloatRanges` know more,
                and of what they measured nothing is feared that was not seen.
        """
        self._limit = FLOAT_MAX[wanted]
        self._vanish = _VANISHES_BELOW[wanted]
        self._few_bits = _FEW_BITS_BELOW[wanted]
        self._wanted = wanted.upper()
        self._observed = observed
        self._cautions = Cautions(wanted)
        self._magnitude: dict[str, float] = {}
        self._vanishing: set[str] = set()
        self._constants: dict[str, float | None] = {}

    def visit(self, node: gs.Node) -> str | None:
        """Judge one node; call in topological order.

        Returns:
            Why it must stay FP32, or None.
        """
        reason = self._constant_reason(node) or self._flow_reason(node)
        magnitude = self._output_magnitude(node)
        for tensor in node.outputs:
            self._magnitude[tensor.name] = magnitude
        if reason is None and magnitude > self._limit:
            reason = f"its values may reach {magnitude:.3g}, beyond {self._limit_text}"
        feared = self._cautions.visit(node)
        if self._is_measured(node):
            feared = None
        return reason or self._observed_reason(node) or feared

    def pass_on(self, source: gs.Tensor, target: gs.Tensor) -> str | None:
        """Note that values of one tensor appear as another, at the border of a body.

        Returns:
            Why they must stay FP32 on the way, or None.
        """
        magnitude = max(self._of(source), self._magnitude.get(target.name, 0.0))
        self._magnitude[target.name] = magnitude
        if source.name in self._vanishing:
            self._vanishing.add(target.name)
        if magnitude > self._limit:
            return f"'{source.name}' may reach {magnitude:.3g}, beyond {self._limit_text}"
        return None

    def _is_measured(self, node: gs.Node) -> bool:
        if not isinstance(self._observed, FloatRanges) or not node.outputs:
            return False
        return node.outputs[0].name in self._observed

    @property
    def _limit_text(self) -> str:
        return f"{self._wanted}'s {self._limit:.6g}"

    def _constant(self, tensor: gs.Tensor) -> float | None:
        if tensor.name not in self._constants:
            self._constants[tensor.name] = constant_magnitude(tensor)
        return self._constants[tensor.name]

    def _constant_reason(self, node: gs.Node) -> str | None:
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            return None  # scales are rounded up to the grid
        for index, tensor in enumerate(node.inputs):
            magnitude = self._constant(tensor) if tensor.name else None
            if magnitude is None:
                continue
            if magnitude > self._limit and not (node.op == "Clip" and index > 0):
                return (
                    f"constant '{tensor.name}' reaches {magnitude:.3g}, beyond {self._limit_text}"
                )
            if 0 < magnitude < self._vanish:
                self._vanishing.update(output.name for output in node.outputs)
                return (
                    f"constant '{tensor.name}' ({magnitude:.3g}) would become 0 in {self._wanted}"
                )
            if 0 < magnitude < self._few_bits and node.op in _MULTIPLIES:
                self._vanishing.update(output.name for output in node.outputs)
                return f"{self._wanted} has few bits for constant '{tensor.name}' ({magnitude:.3g})"
        return None

    def _flow_reason(self, node: gs.Node) -> str | None:
        for tensor in node.inputs:
            magnitude = self._magnitude.get(tensor.name, 0.0)
            if magnitude > self._limit:
                return f"'{tensor.name}' may reach {magnitude:.3g}, beyond {self._limit_text}"
            if tensor.name in self._vanishing and node.op in _MINDS_ZERO:
                return f"'{tensor.name}' holds numbers too small for {self._wanted}"
        return None

    def _observed_reason(self, node: gs.Node) -> str | None:
        if isinstance(self._observed, FloatRanges):
            return _measured_reason(node, self._observed)
        for tensor in (*node.inputs, *node.outputs):
            seen = self._observed.get(tensor.name, 0.0)
            # One part in a thousand for the rounding of a scale on FP16's grid.
            if seen * 1.001 > self._limit:
                return f"calibration saw '{tensor.name}' at {seen:.6g}, beyond {self._limit_text}"
        return None

    def _output_magnitude(self, node: gs.Node) -> float:
        """What the node's constants let its values reach; unknown activations count as 1.

        Where it was measured, that is what counts, unless a constant beyond the range flows in: a
        mask that no sample needed.
        """
        is_within = all(self._of(tensor) <= self._limit for tensor in node.inputs if tensor.name)
        if is_within and self._is_measured(node):
            return self._observed[node.outputs[0].name]
        if node.op == "ConstantOfShape":
            value = node.attrs.get("value")
            return (constant_magnitude(value) or 0.0) if value is not None else 0.0
        if node.op == "Clip":
            bounds = [self._constant(t) for t in node.inputs[1:] if t.name]
            limits = [bound for bound in bounds if bound is not None]
            through = self._of(node.inputs[0])
            return min(through, max(limits)) if len(limits) == 2 else through
        if node.op == "Mul":
            return math.prod(self._of(tensor) for tensor in node.inputs)
        if node.op == "Div":
            divisor = self._constant(node.inputs[1])
            return self._of(node.inputs[0]) / (divisor or 1.0)
        if node.op in _SUMS:
            return summands(node) * self._of(node.inputs[0])
        if node.op in _KEEPS_MAGNITUDE:
            return max((self._of(tensor) for tensor in node.inputs if tensor.name), default=1.0)
        return 1.0

    def _of(self, tensor: gs.Tensor) -> float:
        if isinstance(tensor, gs.Constant):
            magnitude = self._constant(tensor)
            return 0.0 if magnitude is None else magnitude
        known = self._magnitude.get(tensor.name)
        if known is None and isinstance(self._observed, FloatRanges):
            known = self._observed.get(tensor.name)
        return 1.0 if known is None else known


def _measured_reason(node: gs.Node, ranges: FloatRanges) -> str | None:
    for tensor in (*node.inputs, *node.outputs):
        if tensor.name in ranges.wide_values:
            return ranges.wide_values[tensor.name]
    return next((w for t in node.outputs if (w := ranges.wide_results.get(t.name))), None)


def index_arithmetic(graph: gs.Graph, types: Mapping[str, int]) -> dict[int, str]:
    """Nodes that compute positions, masks or sizes; they stay FP32.

    These are the float nodes whose every float input comes from integers (through Cast or Range)
    and constants; further, Sin and Cos of such values or of graph inputs, with all arithmetic
    between.

    Returns:
        id(node) -> reason.
    """
    sources = _Sources(types)
    elementwise = {tensor.name for tensor in graph.inputs}
    reasons: dict[int, str] = {}
    for node in graph.nodes:
        if node.op not in INDEX_ARITHMETIC:
            continue
        names = [tensor.name for tensor in node.outputs]
        if sources.computes_from_integers(node):
            sources.integers.update(names)
            reasons[id(node)] = "computed from integers alone: positions, sizes or a mask"
        elif sources.only_from(node, sources.fills):
            sources.fills.update(names)
        elif sources.only_from(node, sources.integers | sources.fills | elementwise):
            elementwise.update(names)
            if node.op in TRIGONOMETRY:
                _mark_argument(node, elementwise, reasons)
    return reasons


class _Sources:
    """Which float tensors hold what: numbers made of integers, or constants spread to a shape."""

    def __init__(self, types: Mapping[str, int]) -> None:
        self._types = types
        self.integers: set[str] = set()
        self.fills: set[str] = set()

    def computes_from_integers(self, node: gs.Node) -> bool:
        """Whether every float input comes from integers, fills and constants, one from integers."""
        if not self._makes_floats(node):
            return False
        if node.op == "Cast":
            source = node.inputs[0].name
            return self._types.get(source) in _INTEGERS or source in self.integers
        floats = self._float_inputs(node)
        variables = [t.name for t in floats if not isinstance(t, gs.Constant)]
        if not variables:
            # Moving constants (an embedding looked up by ids, a mask chosen) is no arithmetic.
            return bool(node.op == "Range")
        if node.op == "MatMul" and not _is_outer_product(node):
            return False
        known = self.integers | self.fills
        return known.issuperset(variables) and not self.integers.isdisjoint(variables)

    def only_from(self, node: gs.Node, known: set[str]) -> bool:
        """Whether a node other than a MatMul has no float input but of `known` and constants."""
        if node.op == "MatMul" or not self._makes_floats(node):
            return False
        variables = [t.name for t in self._float_inputs(node) if not isinstance(t, gs.Constant)]
        if not variables:
            return node.op in ("ConstantOfShape", "Where")
        return known.issuperset(variables)

    def _makes_floats(self, node: gs.Node) -> bool:
        return any(is_float32(tensor, self._types) for tensor in node.outputs)

    def _float_inputs(self, node: gs.Node) -> list[gs.Tensor]:
        return [tensor for tensor in node.inputs if is_float32(tensor, self._types)]


def _is_outer_product(node: gs.Node) -> bool:
    """Frequencies times positions, as rotary embeddings compute them; more is a layer's weight."""
    left, right = node.inputs
    if isinstance(left, gs.Constant):
        return len(left.shape) > 1 and left.shape[-1] == 1
    return isinstance(right, gs.Constant) and len(right.shape) > 1 and right.shape[-2] == 1


def _mark_argument(node: gs.Node, elementwise: set[str], reasons: dict[int, str]) -> None:
    pending = [node]
    while pending:
        current = pending.pop()
        if id(current) in reasons:
            continue
        reasons[id(current)] = "argument of Sin or Cos: rounding it would lose the phase"
        for tensor in current.inputs:
            if tensor.name in elementwise:
                pending.extend(tensor.inputs)
