"""Reshapes a graph as a calibration cache says, without data."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.model import Model
from trtforge.precision.constants import editable_graph
from trtforge.precision.names import Names
from trtforge.precision.reshaping import Reshaping, ScaledGroup
from trtforge.precision.techniques.channels import ChannelGroup


def recorded(group: ChannelGroup, scale: Iterable[float]) -> ScaledGroup:
    """Put down what was scaled by what."""
    return ScaledGroup(
        scale=tuple(float(one) for one in scale),
        axis=group.axis,
        makers=tuple(node.outputs[0].name for node in group.makers),
        readers=tuple(node.outputs[0].name for node in group.readers),
        offsets=tuple(
            (node.outputs[0].name, index, group.ranks[node.outputs[0].name])
            for node, index in group.offsets
        ),
    )


def replayed(model: Model, reshaping: Iterable[Reshaping]) -> Model | str:
    """Scale the channels of a model as it was done before.

    Args:
        model: the float model before it was reshaped.
        reshaping: what each technique did, in order.

    Returns:
        The reshaped model, the same to the last bit if `model` is; or why the vectors do not fit.
        That a model with other readers of the same tensors still computes what it did is not
        checked here: compare the digest with that of the graph that was measured.
    """
    for one in reshaping:
        graph = editable_graph(model)
        fresh = Names(graph)
        nodes = {node.outputs[0].name: node for node in graph.nodes if node.outputs}
        for group in one.groups:
            found = _group(group, nodes)
            if isinstance(found, str):
                return f"the {one.technique} vectors in it do not fit: {found}"
            found.scale(np.asarray(group.scale, np.float64), fresh)
        model = model.with_graph(graph)
    return model


def _group(group: ScaledGroup, nodes: Mapping[str, gs.Node]) -> ChannelGroup | str:
    offsets = [name for name, _, _ in group.offsets]
    for name in (*group.makers, *group.readers, *offsets):
        if name not in nodes:
            return f"no node computes '{name}'"
    found = ChannelGroup(
        len(group.scale),
        group.axis,
        {name: rank for name, _, rank in group.offsets},
        [nodes[name] for name in group.makers],
        [nodes[name] for name in group.readers],
        [(nodes[name], index) for name, index, _ in group.offsets],
    )
    name = found.misfit()
    return f"'{name}' does not have {found.channels} channels" if name else found
