"""What is taken for dangerous in a narrow type where no data says otherwise.

Nothing is known of activations then. Two things go wrong so often that the few nodes around them
stay wide: a sum of squares whose root or reciprocal is taken, as in normalizations that are spelled
out (FP16 squares overflow above 256, and below 0.0002 they lose their bits), and Exp of an argument
that nothing bounds (FP16 overflows above 11.09). Fused forms (LayerNormalization,
RMSNormalization, InstanceNormalization, Softmax) need nothing: they take sums in FP32 whatever type
they read and write (ONNX: `stash_type` 1).
"""

import math
from collections.abc import Iterator

import onnx_graphsurgeon as gs

from trtforge.precision.opgroups import MOVERS

_SUMS = frozenset(["ReduceMean", "ReduceSum", "GlobalAveragePool", "CumSum"])
_PASSING = MOVERS | {"Add", "Sub", "Sum", "Mul", "Max", "Min", "Clip", "Cast"}
_ENDS = frozenset(["Sqrt", "Reciprocal", "Pow", "Log", "Div"])

_SQUARES = "a sum of squares whose values nobody measured: squares overflow above 256 in FP16"
_EXPONENTIAL = "Exp of an argument that nothing bounds: it overflows FP16 above 11.09"


class Cautions:
    """Reasons why nodes stay wide without data; FP16 only, since BF16 has FP32's exponents."""

    def __init__(self, wanted: str) -> None:
        self._is_narrow = wanted == "fp16"
        self._squares: set[str] = set()
        self._exponentials: set[str] = set()

    def visit(self, node: gs.Node) -> str | None:
        """Judge one node; call in topological order."""
        if not self._is_narrow or node.domain not in (None, "", "ai.onnx"):
            return None
        return self._square_reason(node) or self._exp_reason(node)

    def _square_reason(self, node: gs.Node) -> str | None:
        is_start = (_is_square(node) and _is_summed(node)) or node.op == "ReduceSumSquare"
        reads = any(tensor.name in self._squares for tensor in node.inputs)
        if not is_start and not (reads and node.op in _SUMS | _PASSING | _ENDS):
            return None
        if is_start or node.op not in _ENDS:
            self._squares.update(tensor.name for tensor in node.outputs)
        elif node.op == "Div" and node.inputs[1].name not in self._squares:
            self._squares.update(tensor.name for tensor in node.outputs)  # divided by a count
        return _SQUARES

    def _exp_reason(self, node: gs.Node) -> str | None:
        reads = [tensor.name in self._exponentials for tensor in node.inputs]
        is_start = node.op == "Exp" and not _is_bounded(node.inputs[0])
        if not is_start and not (any(reads) and node.op in _SUMS | _PASSING | _ENDS):
            return None
        ends = node.op in ("Log", "Reciprocal", "Sqrt") or (node.op == "Div" and all(reads))
        if not ends:
            self._exponentials.update(tensor.name for tensor in node.outputs)
        return _EXPONENTIAL


def _is_square(node: gs.Node) -> bool:
    if node.op == "Mul":
        return len(node.inputs) == 2 and node.inputs[0] is node.inputs[1]
    if node.op != "Pow" or not isinstance(node.inputs[1], gs.Constant):
        return False
    exponent = node.inputs[1].values
    return bool(exponent.size == 1 and float(exponent.reshape(-1)[0]) == 2.0)


def _is_summed(node: gs.Node) -> bool:
    return any(reader.op in _SUMS for tensor in node.outputs for reader in tensor.outputs)


def _is_bounded(tensor: gs.Tensor) -> bool:
    """Whether a tensor is 0 at most by the way it is made."""
    if isinstance(tensor, gs.Constant):
        return True
    maker = _maker(tensor)
    if maker is None:
        return False
    if maker.op == "Sub":
        largest = _maker(maker.inputs[1])
        return largest is not None and largest.op in ("ReduceMax", "ReduceLogSumExp")
    if maker.op == "Neg":
        below = _maker(maker.inputs[0])
        signless = ("Abs", "Relu", "Softplus", "Exp", "Sqrt", "ReduceSumSquare", "ReduceL2")
        return below is not None and (below.op in signless or _is_square(below))
    return maker.op in ("LogSoftmax", "Clip", "Sigmoid", "Tanh", "HardSigmoid")


def _maker(tensor: gs.Tensor) -> gs.Node | None:
    """The node that computes a tensor's values, seen through movers."""
    while tensor.inputs and tensor.inputs[0].op in MOVERS and tensor.inputs[0].inputs:
        tensor = tensor.inputs[0].inputs[0]
    return tensor.inputs[0] if tensor.inputs else None


def summands(node: gs.Node) -> int:
    """How many numbers go into one result, as far as shapes are known; 1 where they are not."""
    shape = node.inputs[0].shape
    if shape is None:
        return 1
    return math.prod(shape[a] for a in _axes(node, len(shape)) if isinstance(shape[a], int))


def _axes(node: gs.Node, rank: int) -> Iterator[int]:
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1:
        if not isinstance(node.inputs[1], gs.Constant):
            return
        axes = node.inputs[1].values.reshape(-1).tolist()
    elif axes is None:
        axes = range(rank)
    yield from (axis % rank for axis in axes if -rank <= axis < rank)
