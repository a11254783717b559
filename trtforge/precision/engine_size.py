"""Whether an INT8 engine of TensorRT-RTX will be larger than the FP16 one, before it is built.

INT8 saves one byte per weight beside FP16 and costs a compiled kernel per layer, which layers of
equal shapes and output scales share. What a kernel costs more than FP16's depends on how many of
those the library has ready: mostly 60 to 140 KB in twelve networks
(docs/quantization-placement.md), less in transformers. So the estimate has two ends; the lower one
told for all of the twelve, plain and compact, which engine is the larger.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from trtforge.precision.compact import KERNEL_BYTES, Dims, Weights, too_costly
from trtforge.precision.placement_rules import WEIGHTED
from trtforge.precision.scales import round_to_step

_LEAST_KERNEL_BYTES = 69_000

_DEPTHWISE_BYTES = 40
"""What a depthwise weight takes more in INT8 than in FP16, with padding and the constants that come
with it: 44 to 93 bytes in four networks, 8 and 13 in two small ones."""

_MOST_HOPS = 5


@dataclass(frozen=True)
class Growth:
    """How an INT8 engine differs from the FP16 one.

    Attributes:
        kernels: compiled for INT8.
        saved_bytes: what the weights are smaller by; negative where they are larger.
    """

    kernels: int
    saved_bytes: int

    @property
    def least_bytes(self) -> int:
        """The engine is larger by so much at least; negative: it may be smaller."""
        return self.kernels * _LEAST_KERNEL_BYTES - self.saved_bytes

    @property
    def most_bytes(self) -> int:
        """The engine is larger by so much at most."""
        return self.kernels * KERNEL_BYTES - self.saved_bytes


@dataclass(frozen=True)
class EngineSize:
    """The estimate for a quantized graph.

    Attributes:
        layers: how many have INT8 weights.
        now: of the graph as it is.
        left: how many of them `precision.compact` would leave in floats; None where it is set.
        compact: of the graph with it.
    """

    layers: int
    now: Growth
    left: int | None = None
    compact: Growth | None = None

    def warnings(self) -> tuple[str, ...]:
        """Say that the engine will be larger than FP16's, and what helps; else nothing."""
        if self.now.least_bytes <= 0:
            return ()
        kernels, more = self.now.kernels, max(self.now.least_bytes / 1e6, 0.1)
        return (
            "the INT8 engine of TensorRT-RTX is expected to be larger than the FP16 one "
            f"({kernels} kernel{'s' * (kernels != 1)}, {more:.1f} MB or more)"
            f"{self._remedy()}",
        )

    def _remedy(self) -> str:
        if self.compact is None:
            return (
                " even with `precision.compact`: its layers are too small, FP16 alone gives the "
                "smallest"
            )
        if self.compact.least_bytes > 0:
            return (
                "; its layers are too small for `precision.compact: true` to make up for it, "
                "FP16 alone gives the smallest"
            )
        leaves = f"leaves {self.left} of {self.layers} layers in floats and " if self.left else ""
        should = "should" if self.compact.most_bytes < 0 else "may"
        return (
            f"; `precision.compact: true` {leaves}lets layers share kernels, which {should} make "
            "it smaller than FP16's"
        )


def engine_size(graph: gs.Graph, dims: Dims, *, is_compact: bool) -> EngineSize:
    """Estimate the engine of a graph with its Q/DQ nodes.

    Args:
        graph: quantized to INT8.
        dims: shapes of the tensors that were there before.
        is_compact: whether `precision.compact` is set.
    """
    layers = tuple(_layers(graph, dims))
    now = _growth(layers, dims)
    if is_compact:
        return EngineSize(len(layers), now)
    paying = [one for one in layers if too_costly(one.weights) is None]
    stepped = [one.with_step() for one in paying]
    return EngineSize(len(layers), now, len(layers) - len(paying), _growth(stepped, dims))


@dataclass(frozen=True)
class _Layer:
    node: gs.Node
    weight: str
    weights: Weights
    scale: float | None

    def with_step(self) -> "_Layer":
        scale = None if self.scale is None else round_to_step(self.scale)
        return _Layer(self.node, self.weight, self.weights, scale)

    def kernel(self, dims: Dims) -> tuple[object, ...]:
        """What layers must have in common to share a kernel."""
        strides = tuple(self.node.attrs.get("strides", ()))
        at = dims.get(self.node.outputs[0].name)
        weights = self.weights
        return (weights.op, weights.shape, weights.group, strides, at, self.scale)


def _layers(graph: gs.Graph, dims: Dims) -> Iterator[_Layer]:
    for node in graph.nodes:
        if node.op not in WEIGHTED:
            continue
        for index in WEIGHTED[node.op].channels:
            maker = node.inputs[index].inputs[0] if node.inputs[index].inputs else None
            if maker is None or maker.op != "DequantizeLinear":
                continue
            if isinstance(maker.inputs[0], gs.Constant):
                weights = Weights.of(node, index, dims)
                yield _Layer(node, str(maker.inputs[0].name), weights, _next_scale(node))


def _next_scale(node: gs.Node) -> float | None:
    """The scale of the pair behind a layer and what it fuses with; None where none is near."""
    for _ in range(_MOST_HOPS):
        readers = node.outputs[0].outputs
        for reader in readers:
            if reader.op == "QuantizeLinear":
                return float(reader.inputs[1].values)
        if not readers:
            return None
        node = readers[0]
    return None


def _growth(layers: Iterable[_Layer], dims: Dims) -> Growth:
    kernels = set()
    saved: dict[str, int] = {}
    for one in layers:
        kernels.add(one.kernel(dims))
        each = -_DEPTHWISE_BYTES if one.weights.is_depthwise else 1
        saved[one.weight] = one.weights.count * each
    return Growth(len(kernels), sum(saved.values()))
