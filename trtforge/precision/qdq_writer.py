"""Writes Q/DQ pairs and quantized weights into a graph."""

from collections import defaultdict
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.errors import DataError, Place
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.names import Names
from trtforge.precision.scales import (
    QUANTIZED_TYPE,
    Floats,
    quantize_values,
    round_up,
    scale_of,
)
from trtforge.precision.sharing import Pair
from trtforge.precision.sites import Site
from trtforge.recipe.schema import Precision


class QdqWriter:
    """Collects nodes; `insert` puts them into the graph."""

    def __init__(self, graph: gs.Graph, cache: CalibrationCache, precision: Precision) -> None:
        """Begin; the graph's nodes stay in their order."""
        self._graph = graph
        self._cache = cache
        self._kind = precision.quantize
        self._float_type = precision.type
        self._compact = precision.compact
        self._names = Names(graph)
        self._weights: dict[tuple[str, int | None], gs.Tensor] = {}
        self._zero_point: gs.Constant | None = None
        self._first: list[gs.Node] = []
        self._after: dict[int, list[gs.Node]] = defaultdict(list)

    def put_pair(self, pair: Pair) -> None:
        """Let the readers of a pair read it.

        Raises:
            DataError: the cache lacks a range (TF0521).
        """
        result = self._make_pair(pair.tensor, self._scale(pair))
        for node, index in pair.readers:
            node.inputs[index] = result

    def put_weight(self, site: Site) -> None:
        """Let a node read its weight quantized; nodes with one weight and axis share it.

        Raises:
            DataError: the cache fixes scales that do not fit the weight (TF0535).
        """
        key = (site.weight.name, site.axis)
        if key not in self._weights:
            self._weights[key] = self._make_weight(site.weight, site.axis)
        site.node.inputs[site.weight_index] = self._weights[key]

    def insert(self) -> None:
        """Put weights and pairs of inputs first, other pairs behind what computes their tensors."""
        nodes = list(self._first)
        for node in self._graph.nodes:
            nodes.append(node)
            nodes.extend(self._after.get(id(node), ()))
        self._graph.nodes.clear()
        self._graph.nodes.extend(nodes)

    def _scale(self, pair: Pair) -> float:
        """The largest scale of those that share one; ranges of further members may be unknown."""
        known = [name for name in pair.group if name in self._cache.ranges]
        names = dict.fromkeys([pair.tensor.name, *known])
        return max(
            self._cache.scale(name, self._kind, self._float_type, compact=self._compact)
            for name in names
        )

    def _make_pair(self, tensor: gs.Tensor, value: float) -> gs.Tensor:
        name = tensor.name
        scale = gs.Constant(self._names.fresh(f"{name}_scale"), np.asarray(value, np.float32))
        if self._zero_point is None:
            zero = np.zeros((), QUANTIZED_TYPE[self._kind])
            self._zero_point = gs.Constant(self._names.fresh(f"{self._kind}_zero_point"), zero)
        quantized = self._variable(f"{name}_QuantizeLinear", QUANTIZED_TYPE[self._kind], tensor)
        result = self._variable(f"{name}_DequantizeLinear", np.dtype(np.float32), tensor)
        pair = [
            self._node("QuantizeLinear", name, [tensor, scale, self._zero_point], quantized),
            self._node("DequantizeLinear", name, [quantized, scale, self._zero_point], result),
        ]
        if tensor.inputs:
            self._after[id(tensor.inputs[0])].extend(pair)
        else:
            self._first.extend(pair)
        return result

    def _make_weight(self, weight: gs.Constant, axis: int | None) -> gs.Tensor:
        values = np.asarray(weight.values, np.float32)
        scale = self._weight_scale(weight.name, values, axis)
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        spread = scale.reshape(shape) if scale.ndim else scale
        stored = quantize_values(values, spread, self._kind)
        name = weight.name
        inputs = [
            gs.Constant(self._names.fresh(f"{name}_quantized"), stored),
            gs.Constant(self._names.fresh(f"{name}_scale"), scale),
        ]
        result = self._variable(f"{name}_DequantizeLinear", np.dtype(np.float32), weight)
        node = self._node("DequantizeLinear", name, inputs, result)
        if scale.ndim:
            node.attrs["axis"] = axis
        self._first.append(node)
        return result

    def _weight_scale(self, name: str, values: Floats, axis: int | None) -> Floats:
        """One scale per channel of `axis`, or a single one; those that a technique fixed first."""
        fixed = self._cache.weight_scales.get(name)
        if fixed is None:
            others = tuple(i for i in range(values.ndim) if i != axis) if axis is not None else None
            amax = np.maximum(values.max(axis=others), -values.min(axis=others))
            return scale_of(amax, self._kind, self._float_type)
        channels = values.shape[axis] if axis is not None else 1
        if len(fixed) not in (1, channels):
            raise DataError(
                "TF0535",
                f"the calibration cache fixes {len(fixed)} scales for the weight '{name}', "
                f"which has {channels} output channels",
                "the cache belongs to another graph; calibrate again",
                Place(node=name),
            )
        is_one = axis is None or (len(fixed) == 1 and channels != 1)
        return round_up(fixed[0] if is_one else fixed, self._float_type)

    def _variable(self, name: str, dtype: np.dtype[Any], like: gs.Tensor) -> gs.Variable:
        return gs.Variable(self._names.fresh(name), dtype, like.shape)

    def _node(self, op: str, name: str, inputs: list[gs.Tensor], output: gs.Tensor) -> gs.Node:
        return gs.Node(op, self._names.fresh_node(f"{name}_{op}"), {}, inputs, [output])
