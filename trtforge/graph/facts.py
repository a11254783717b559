"""What is known about the tensors of a graph without running it: element types and dimensions.

The onnx package's shape inference says it, data propagation included, so that chains of Shape,
Gather and Concat have given their results to the Reshape that they feed.
Source: https://onnx.ai/onnx/repo-docs/ShapeInference.html
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import GraphProto, ModelProto, TensorShapeProto, ValueInfoProto

from trtforge.errors import GraphError
from trtforge.graph.external import ExternalFiles
from trtforge.graph.skeleton import EXTERNAL_THRESHOLD_BYTES, without_weights
from trtforge.graph.weights import Extent, numpy_dtype, set_external, storage_bytes

Dim = int | str | None
Dims = tuple[Dim, ...]
"""One entry per axis: a number, a name (the same name is the same size), None when unknown."""

_Known = tuple[int, Dims | None]


class Facts:
    """Types and dimensions, kept at the tensors themselves; bodies may use a name twice."""

    def __init__(self) -> None:
        self._dtypes: dict[int, np.dtype[Any] | None] = {}

    @classmethod
    def of(cls, graph: gs.Graph, proto: ModelProto, files: ExternalFiles) -> "Facts":
        """Infer what can be known about a graph that was imported from `proto` just now.

        A model that shape inference refuses leaves what the model itself declares.
        """
        facts = cls()
        try:
            inferred = inferred_graph(proto, files)
        except GraphError:
            inferred = proto.graph
        facts._note(graph, inferred, {})
        return facts

    def _note(self, graph: gs.Graph, inferred: GraphProto, outer: Mapping[str, _Known]) -> None:
        known = {**outer, **_declared(inferred)}
        for tensor in graph.inputs:
            tensor.known = known.get(tensor.name)
        for node, source in zip(graph.nodes, inferred.node, strict=True):
            for tensor in node.outputs:
                tensor.known = known.get(tensor.name)
            for attribute in source.attribute:
                body = node.attrs.get(attribute.name)
                if isinstance(body, gs.Graph):
                    self._note(body, attribute.g, known)

    def dims(self, tensor: gs.Tensor) -> Dims | None:
        """Return a tensor's dimensions, or None when not even its rank is known."""
        if isinstance(tensor, gs.Constant):
            return tuple(tensor.shape)
        known: _Known | None = getattr(tensor, "known", None)
        return known[1] if known is not None else None

    def dtype(self, tensor: gs.Tensor) -> "np.dtype[Any] | None":
        """Return a tensor's element type as numpy (or ml_dtypes) has it, None when unknown."""
        if isinstance(tensor, gs.Constant):
            dtype = tensor.dtype
            return dtype if isinstance(dtype, np.dtype) else self.numpy(int(dtype))
        known: _Known | None = getattr(tensor, "known", None)
        return self.numpy(known[0]) if known is not None else None

    def numpy(self, data_type: int) -> "np.dtype[Any] | None":
        """Return numpy's type of an ONNX element type, None when there is none."""
        if data_type not in self._dtypes:
            try:
                self._dtypes[data_type] = numpy_dtype(data_type) if data_type else None
            except GraphError:
                self._dtypes[data_type] = None
        return self._dtypes[data_type]

    def refine(self, tensor: gs.Tensor, dims: Dims) -> None:
        """Add what was found out about a tensor's dimensions to what is known already."""
        known: _Known | None = getattr(tensor, "known", None)
        data_type, old = known if known is not None else (0, None)
        if old is not None and len(old) == len(dims):
            dims = tuple(_better(one, two) for one, two in zip(old, dims, strict=True))
        tensor.known = (data_type, dims)

    def learn(self, tensor: gs.Tensor, dtype: Any, dims: Dims | None) -> None:
        """Note what is known about a new tensor; `dtype` is numpy's, None when unknown."""
        data_type = 0 if dtype is None else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        tensor.known = (int(data_type), dims)


def _better(old: Dim, new: Dim) -> Dim:
    if isinstance(old, int) or new is None:
        return old
    if isinstance(new, str) and isinstance(old, str) and _MADE_UP in new and _MADE_UP not in old:
        return old
    return new


_MADE_UP = "unk__"
"""Begins the names that onnx's shape inference gives to dimensions that it does not know."""


def inferred_graph(proto: ModelProto, files: ExternalFiles) -> GraphProto:
    """Return a model's graph, without big weights, with value_info for all that can be inferred.

    Raises:
        GraphError: TF0414, shape inference refuses the model.
    """
    light, moved = without_weights(
        proto, files, lambda tensor: storage_bytes(tensor) >= EXTERNAL_THRESHOLD_BYTES
    )
    for header, source in moved:
        set_external(header, Extent("not-read", 0, storage_bytes(source)))
    try:
        return onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception as error:  # onnx raises InferenceError, ValueError and RuntimeError
        raise GraphError(
            "TF0414",
            f"shape inference refuses the model: {error}",
            "shapes and types in it contradict each other; export it again",
        ) from error


def _declared(graph: GraphProto) -> dict[str, _Known]:
    return {
        info.name: _known(info)
        for info in (*graph.value_info, *graph.output, *graph.input)
        if info.type.HasField("tensor_type")
    }


def _known(info: ValueInfoProto) -> _Known:
    tensor = info.type.tensor_type
    dims = _dims(tensor.shape) if tensor.HasField("shape") else None
    return int(tensor.elem_type), dims


def _dims(shape: TensorShapeProto) -> Dims:
    found: list[Dim] = []
    for dim in shape.dim:
        if dim.HasField("dim_value"):
            found.append(int(dim.dim_value) if dim.dim_value >= 0 else None)
        else:
            found.append(size_name(dim.dim_param) if dim.dim_param else None)
    return tuple(found)


def size_name(name: str) -> str:
    """Return the name by which a dimension's own name is known among sizes.

    A dimension may be called "-1", and some exporters do so: that is no number.
    """
    return f"'{name}'" if name.lstrip("-").isdecimal() else name
