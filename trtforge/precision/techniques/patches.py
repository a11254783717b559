"""What a layer's weights are multiplied with, as rows: patches of images for convolutions."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs


def can_unfold(node: gs.Node) -> bool:
    """Whether `unfold` knows a node: a MatMul, a Gemm or a Conv of one group, as written out."""
    if node.op == "Gemm":
        return not node.attrs.get("transA", 0)
    if node.op == "MatMul":
        return len(node.inputs[1].shape) == 2
    padding = node.attrs.get("auto_pad", "NOTSET")
    return bool(
        node.op == "Conv" and node.attrs.get("group", 1) == 1 and padding in ("NOTSET", "VALID")
    )


def unfold(
    node: gs.Node, values: npt.NDArray[np.float32], most: int, turn: int
) -> npt.NDArray[np.float32]:
    """Arrange activations as rows, so that the node is rows times weights.

    Args:
        node: one that `can_unfold`.
        values: its activation.
        most: how many rows of each sample to take, evenly spread over its positions.
        turn: shifts which ones, so that several samples show all positions.

    Returns:
        (rows, inputs): for a Conv, the inputs are (channel, tap) in the order of its weights.
    """
    if node.op != "Conv":
        rows = values.reshape(-1, values.shape[-1])
        per_sample = max(1, len(rows) // max(1, len(values)))
        return rows[_spread(len(rows), most * max(1, len(rows) // per_sample), turn)]
    windows = _windows(node, values)
    spatial = windows.shape[2 : 2 + values.ndim - 2]
    chosen = np.unravel_index(_spread(math.prod(spatial), most, turn), spatial)
    index: tuple[Any, ...] = (slice(None), slice(None), *chosen)
    picked = windows[index]  # (N, C, rows, taps...)
    rows = np.moveaxis(picked, 2, 1)
    return np.ascontiguousarray(rows).reshape(rows.shape[0] * rows.shape[1], -1)


def _spread(count: int, most: int, turn: int) -> npt.NDArray[np.intp]:
    step = max(1, -(-count // most))
    return np.arange(turn % step, count, step)


def _windows(node: gs.Node, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """View of (N, C, positions..., taps...).

    Conv, ONNX operator since opset 1: https://onnx.ai/onnx/operators/onnx__Conv.html
    """
    taps = [int(size) for size in node.inputs[1].shape[2:]]
    rank = len(taps)
    pads = node.attrs.get("pads") or [0] * (2 * rank)
    if node.attrs.get("auto_pad", "NOTSET") == "VALID":
        pads = [0] * (2 * rank)
    dilations = node.attrs.get("dilations") or [1] * rank
    strides = node.attrs.get("strides") or [1] * rank
    around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    padded = np.pad(values, around)
    reach = [(tap - 1) * dilation + 1 for tap, dilation in zip(taps, dilations, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    positions = tuple(slice(None, None, stride) for stride in strides)
    within = tuple(slice(None, None, dilation) for dilation in dilations)
    return view[:, :, *positions, *within]
