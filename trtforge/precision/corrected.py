"""Layers whose quantized form has its mean shift taken off, as bias correction would."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import NodeProto, TensorProto, helper
from onnx.numpy_helper import from_array

from trtforge.precision.switches import Layer, LayeredModel, first_output


def corrected(found: LayeredModel, shifts: Mapping[str, Sequence[float]]) -> LayeredModel:
    """Subtract shifts from what quantized forms of layers compute; float forms stay.

    Args:
        found: a model and its layers.
        shifts: first output of a layer -> the shift of each of its channels.
    """
    graph = found.model.proto.graph
    ranks = {one.name: len(one.dims) for one in graph.initializer}
    taken = {name for node in graph.node for name in node.output} | set(ranks)
    prefix = "corrected"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    layers, added = [], list(found.added)
    for layer in found.layers:
        shift = shifts.get(layer.output)
        if shift is None or layer.node.input[1] not in ranks:
            layers.append(layer)
            continue
        constant, changed = _corrected(layer, shift, ranks[layer.node.input[1]], prefix)
        layers.append(changed)
        added.append(constant)
    return replace(found, layers=tuple(layers), added=tuple(added))


def _corrected(
    layer: Layer, shift: Sequence[float], rank: int, prefix: str
) -> tuple[TensorProto, Layer]:
    values = np.asarray(shift, np.float32)
    if layer.node.op_type in ("Conv", "ConvTranspose"):  # channels lie on axis 1
        values = values.reshape(-1, *[1] * (rank - 2))
    result = layer.output
    shifted, name = f"{prefix}/{result}/shifted", f"{prefix}/{result}/shift"
    quantized = NodeProto()
    quantized.CopyFrom(layer.quantized)
    quantized.output[list(quantized.output).index(first_output(quantized))] = shifted
    less = helper.make_node("Sub", [shifted, name], [result], f"{prefix}/{result}")
    return from_array(values, name), Layer(layer.node, less, (*layer.inserted, quantized))
