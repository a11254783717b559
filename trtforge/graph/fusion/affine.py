"""Maps y -> scale * y + shift, two numbers per feature, read from the nodes that compute them."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values
from trtforge.graph.rounding import is_float

ARITHMETIC = ("Mul", "Add", "Sub", "Div")

_DEFAULT_EPSILON = 1e-5
"""Source: https://onnx.ai/onnx/operators/onnx__BatchNormalization.html"""


@dataclass(frozen=True)
class Affine:
    """y -> scale * y + shift; both float64, shape (features,)."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Place:
    """Where a tensor has its features.

    Attributes:
        features: how many there are.
        rank: of the tensor; None when it is not known.
        axis: along which they lie, 1 or -1.
    """

    features: int
    rank: int | None
    axis: int


@dataclass(frozen=True)
class Parameters:
    """What an inference-mode BatchNormalization computes with, float64, shape (features,).

    y = scale * (x - mean) / deviation + shift.
    """

    scale: np.ndarray
    shift: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @np.errstate(all="ignore")  # what is not finite is refused by those who fold it
    def affine(self) -> Affine:
        """Return the map as one product and one sum."""
        factor = self.scale / self.deviation
        return Affine(factor, self.shift - self.mean * factor)


def batchnorm_parameters(editor: Editor, norm: gs.Node) -> Parameters | str:
    """Return the constants of a BatchNormalization, or why it is none with fixed numbers."""
    why = _training(norm, editor, editor.opset)
    if why is not None:
        return why
    found = []
    for role, tensor in zip(("scale", "B", "mean", "var"), norm.inputs[1:5], strict=True):
        values = constant_values(tensor)
        if values is None:
            return f"{role} ('{tensor.name}') is not constant"
        if not is_float(values.dtype) or values.ndim != 1:
            return f"{role} ('{tensor.name}') is not one number per channel"
        found.append(values.astype(np.float64))
    if len({values.shape for values in found}) != 1:
        return "its parameters differ in length"
    scale, shift, mean, variance = found
    divisor = variance + float(norm.attrs.get("epsilon", _DEFAULT_EPSILON))
    if not (divisor > 0).all():
        return "a variance is negative"
    return Parameters(scale, shift, mean, np.sqrt(divisor))


def of_batchnorm(editor: Editor, norm: gs.Node, place: Place) -> Affine | str:
    """Read a BatchNormalization as a map of the features at a place, or say why it is none."""
    found = batchnorm_parameters(editor, norm)
    if isinstance(found, str):
        return found
    if place.axis != 1 and place.rank != 2:
        return "it normalizes along axis 1, and the features are along the last one"
    if found.scale.shape != (place.features,):
        return f"scale has shape {list(found.scale.shape)}, not {place.features} channels"
    return found.affine()


def of_arithmetic(node: gs.Node, index: int, place: Place) -> Affine | str:
    """Read Mul, Add, Sub or Div of input `index` with a constant as a map of its features.

    y * c has s = c; y / c has s = 1 / c; y + c has t = c; y - c has t = -c; c - y has s = -1 and
    t = c.
    """
    constant = constant_values(node.inputs[1 - index])
    assert constant is not None  # the caller looked for it
    shape = _aligned(node, index, constant.shape, place)
    values = None if shape is None else _per_feature(constant.reshape(shape), place)
    if values is None:
        return f"the constant of shape {list(constant.shape)} is not one value per channel"
    ones, zeros = np.ones(place.features), np.zeros(place.features)
    if node.op == "Mul":
        return Affine(values, zeros)
    if node.op == "Div":
        with np.errstate(divide="ignore"):  # weights that become infinite are refused
            return Affine(1.0 / values, zeros)
    if node.op == "Sub" and index == 1:
        return Affine(-ones, values)
    return Affine(ones, values if node.op == "Add" else -values)


def constant_beside(node: gs.Node, index: int) -> bool:
    """Return whether an arithmetic node is a map of its input `index` with a constant of floats."""
    if len(node.inputs) != 2 or (node.op == "Div" and index == 1):
        return False
    values = constant_values(node.inputs[1 - index])
    return values is not None and is_float(values.dtype)


def keeps_shape(editor: Editor, node: gs.Node, index: int, place: Place) -> bool:
    """Return whether an arithmetic node's input `index` surely has the shape of its result.

    It has when the constant beside it broadcasts, and not the input.
    """
    constant = constant_values(node.inputs[1 - index])
    dims = editor.dims(node.inputs[index])
    if constant is None or constant.ndim == 0:
        return constant is not None
    if dims is None or constant.ndim > len(dims):
        return False
    return constant.size == 1 or dims[place.axis % len(dims)] == place.features


def _aligned(
    node: gs.Node, index: int, shape: tuple[int, ...], place: Place
) -> tuple[int, ...] | None:
    """Return a constant's shape with an axis for each of the result's, None when it has more.

    Before opset 7 the second operand broadcasts when `broadcast` is 1, and `axis` says where.
    Source: https://onnx.ai/onnx/operators/onnx__Add.html, version 6
    """
    rank = place.rank
    if rank is None:  # a matrix product of unknown rank has a last axis at least
        rank = 1 if place.axis == -1 else 0
    free = rank - len(shape)
    if free < 0 or (node.attrs.get("broadcast", 0) and index == 1):
        return None
    before = int(node.attrs.get("axis", free))
    before += rank if before < 0 else 0
    return (1,) * before + shape + (1,) * (free - before) if before <= free else None


def _per_feature(constant: np.ndarray, place: Place) -> np.ndarray | None:
    """Return an aligned constant as float64 (features,) if it varies along the features only."""
    axis = place.axis % constant.ndim if constant.ndim else 0
    for i, dim in enumerate(constant.shape):
        if dim != 1 and (i != axis or dim != place.features):
            return None
    return np.broadcast_to(constant.reshape(-1).astype(np.float64), (place.features,))


def _training(norm: gs.Node, editor: Editor, opset: int) -> str | None:
    if norm.attrs.get("training_mode", 0) or (opset < 7 and not norm.attrs.get("is_test", 0)):
        return "the normalization is in training mode"
    if norm.attrs.get("spatial", 1) != 1:
        return "the normalization is per activation, not per channel"
    for extra in norm.outputs[1:]:
        if extra.name and (editor.users(extra, 1) or editor.is_kept(extra)):
            return f"its statistics ('{extra.name}') are used"
    return None
