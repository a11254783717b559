"""The scales in an ONNX file that another tool has quantized: Model Optimizer, ONNX Runtime, NNCF.

Every QuantizeLinear of an activation with one constant scale tells the range of its input.
https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
"""

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.constants import editable_graph
from trtforge.precision.foreign.content import Content, malformed
from trtforge.precision.ranges import TensorRange
from trtforge.precision.scales import LARGEST, QUANTIZED_TYPE

WHAT = "quantized ONNX file"


def mismatch(content: Content) -> str:
    """Say why the content is not of this format."""
    return "" if content.is_onnx else "its name does not end in .onnx"


def read(content: Content) -> CalibrationCache:
    """Read the scales of activations; the grid is that of most of them.

    Raises:
        GraphError: the model is refused.
        DataError: no activation is quantized (TF0551).
    """
    graph = editable_graph(Model.load(content.path))
    ranges: dict[str, TensorRange] = {}
    grids: list[str] = []
    warnings = []
    for name, grid, found in _activations(graph):
        if name in ranges and ranges[name].amax != found.amax:
            warnings.append(f"tensor '{name}' is quantized with several scales; the first is taken")
        ranges.setdefault(name, found)
        grids.append(grid)
    if not ranges:
        raise malformed(content.path, WHAT, "no activation has a QuantizeLinear with one scale")
    return CalibrationCache(
        method="unknown",
        grid=max(sorted(set(grids)), key=grids.count),
        samples=0,
        graph_digest="",
        warnings=tuple(dict.fromkeys(warnings)),
        ranges=ranges,
        origin="Q/DQ nodes of an ONNX file",
    )


def _activations(graph: gs.Graph) -> Iterator[tuple[str, str, TensorRange]]:
    for node in graph.nodes:
        if node.op != "QuantizeLinear" or len(node.inputs) < 2:
            continue
        tensor, scale = node.inputs[:2]
        if isinstance(tensor, gs.Constant) or not isinstance(scale, gs.Constant):
            continue
        values = np.asarray(scale.values, np.float64)
        zero = np.asarray(node.inputs[2].values) if len(node.inputs) > 2 else np.zeros(1, np.uint8)
        if values.size != 1 or zero.size != 1 or not np.isfinite(values).all():
            continue
        ends = _ends(zero)
        if ends is not None and float(values.reshape(())) > 0:
            low, high = (end * float(values.reshape(())) for end in ends)
            grid = "fp8" if zero.dtype == QUANTIZED_TYPE["fp8"] else "int8"
            yield tensor.name, grid, TensorRange(min=low, max=high, amax=max(-low, high, 0.0))


def _ends(zero: np.ndarray) -> tuple[float, float] | None:
    """The grid's ends less the zero point; INT8's -128 is left out where the grid is symmetric."""
    if zero.dtype == QUANTIZED_TYPE["fp8"]:
        return -LARGEST["fp8"], LARGEST["fp8"]
    if zero.dtype not in (np.int8, np.uint8):
        return None
    point = int(zero.reshape(()))
    if zero.dtype == np.int8 and point == 0:
        return -LARGEST["int8"], LARGEST["int8"]
    limits = np.iinfo(zero.dtype)
    return float(limits.min - point), float(limits.max - point)
