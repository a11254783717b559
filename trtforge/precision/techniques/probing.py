"""What running a few samples costs: shapes of one run, and how many samples that allows."""

import math
from collections.abc import Mapping

from trtforge.errors import GraphError
from trtforge.graph.model import Model
from trtforge.precision.streaming import DataSource
from trtforge.precision.techniques.job import TechniqueJob
from trtforge.precision.typeinfo import infer

Shapes = Mapping[str, tuple[int, ...]]

_FEW = 16
"""Samples that are always worth their time: ranges and means over positions settle soon."""

_MANY = 128
_VALUES = 1 << 27
"""Small models run up to _MANY, as long as that makes no more than so many values (1 to 3 s)."""


def shapes_of_a_run(model: Model, source: DataSource) -> Shapes:
    """Shapes of the tensors of the main graph for the source's first run, as far as inferred.

    Raises:
        DataError: the source cannot give a sample.
    """
    size = source.static_batch or 1
    feeds = next(iter(source.batches(size, size)))
    try:
        graph = infer(model.proto, fixed={name: array.shape for name, array in feeds.items()}).graph
    except GraphError:  # ONNX's inference gives up on some models that ONNX Runtime runs
        return {}
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def samples_to_run(job: TechniqueJob, source: DataSource, shapes: Shapes) -> int:
    """How many samples to look at: whole runs, more of them for a small model."""
    values = sum(math.prod(dims) for dims in shapes.values()) or _VALUES
    size = source.static_batch or 1
    most = source.count if job.samples is None else min(source.count, job.samples)
    wanted = min(most, max(_FEW, min(_MANY, _VALUES // values * size)))
    return max(size, wanted // size * size)
