"""Multiplications by a constant go into the weights of a product before or after them."""

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values, is_standard, node_label
from trtforge.graph.pattern import made_by, with_constant
from trtforge.graph.rounding import is_float, scaled

_LAYOUT = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity")
_WEIGHTED = ("MatMul", "Gemm", "Conv", "ConvTranspose")
_STEPS_AT_MOST = 24

_SMALL_BYTES = 1 << 16
"""A bias of 16384 channels; where others read it, too, it stays as it is beside a scaled one."""

_LEAST_IN_HALF = 2.0**-6
"""Attention scales by 1 / sqrt(d), d up to 4096; below that FP16 values may become subnormal."""

_LEAST_WEIGHT = 2.0**-14
"""FP16's smallest normal number: a weight below has few bits once the model is cast."""

_MOST_BYTES = 16 << 20
"""Weights above this stay in their file: rewritten ones of a model of gigabytes fill the memory,
and what is saved is one elementwise product, which TensorRT fuses anyway."""


class FoldScales:
    """Fold Mul and Div by a constant into weights, and two scales of a product into one.

    Matches, for s y or y / s with a constant s:
        s a number, y the product x W (+ b) of a MatMul, Gemm, Conv or ConvTranspose with constant
        weights, through an Add or Sub of a constant, a Mul by a constant, and any Reshape,
        Transpose, Squeeze, Unsqueeze, Flatten: s (x W + b) = x (s W) + s b; and through a MatMul
        of two computed matrices, into either: s (A B) = (s A) B; and through a Split along the
        last axis, where the columns of the other parts are scaled by 1;
        s one value per column, y = x W (+ b) of a MatMul directly before;
        s a number, y going into a MatMul, Gemm or Conv with constant weights, through the same
        operators that only change the layout: (s x) W = x (s W);
        MatMul(s q, t k), s and t numbers: MatMul((s t) q, k)
        (https://onnx.ai/onnx/operators/onnx__MatMul.html).
    Rewrites to: weights and bias times s, in float64, rounded once; the Mul or Div goes.
    Refuses when: s is zero or not finite; a weight is shared, is above 16 MiB, would overflow or
    lose digits in its type, or would become too small for FP16; a result between is an output or
    read elsewhere; FP16 values before a product would grow (|s| > 1), as they may overflow there,
    or shrink below 1/64.

    Any opset from 7 on.
    """

    name = "scale-folding"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        if editor.is_to_be_raised:
            return
        for node in editor.nodes("Mul", "Div"):
            scale = _scale(editor, node)
            if scale is not None:
                _fold(editor, node, *scale)
        for node in editor.nodes("MatMul"):
            _merge_scales(editor, node)


def _scale(editor: Editor, node: gs.Node) -> tuple[gs.Tensor, np.ndarray] | None:
    """Return what a node scales, and by what as float64; x / s is x * (1 / s)."""
    split = with_constant(node)
    if split is None or not is_float(editor.dtype(node.outputs[0])):
        return None
    source, values, index = split
    if node.op == "Div" and index == 0:
        return None
    if values.size != 1 and values.size != values.shape[-1]:
        return None
    if values.ndim > len(editor.dims(source) or ()):
        return None  # it may add axes
    wide = values.reshape(-1).astype(np.float64)
    with np.errstate(all="ignore"):
        return source, 1.0 / wide if node.op == "Div" else wide


def _fold(editor: Editor, node: gs.Node, source: gs.Tensor, scale: np.ndarray) -> None:
    place = _Place(editor, scale)
    found = place.before(source)
    if not found and scale.size == 1:
        place = _Place(editor, scale, place.reasons)
        found = place.after(node.outputs[0])
    if not found:
        if place.reasons:
            editor.refuse(node, "; ".join(dict.fromkeys(place.reasons)))
        return
    if not np.isfinite(scale).all() or not scale.all():
        editor.refuse(node, "the scale is zero or not finite")
        return
    constants = [_new_values(*constant) for constant in place.constants]
    for values in constants:
        if isinstance(values, str):
            editor.refuse(node, values)
            return
    result = node.outputs[0].name
    why = editor.bypass(node, source)
    if why is not None:
        editor.refuse(node, why)
        return
    editor.rename(tensor for tensor in place.changed if tensor is not source)
    if any(tensor is source for tensor in place.changed):
        source.name = result  # which is what it holds now
    names = []
    for (reader, index, _), values in zip(place.constants, constants, strict=True):
        old = reader.inputs[index]
        names.append(f"'{old.name}'")
        assert isinstance(values, np.ndarray)
        editor.set_input(reader, index, editor.renewed(old, values))
    editor.match(node, f"folded into {' and '.join(names)}")


@dataclass
class _Place:
    """The constants that a scale can go into, found by walking from it.

    Attributes:
        editor: of the graph.
        scale: one number, or one per column of the tensor that is looked at.
        reasons: why nearly fitting places do not.
        constants: node and input of each constant to scale, and by what.
        changed: tensors on the way, which will hold other values.
        steps: how many nodes were looked at.
    """

    editor: Editor
    scale: np.ndarray
    reasons: list[str] = field(default_factory=list)
    constants: list[tuple[gs.Node, int, np.ndarray]] = field(default_factory=list)
    changed: list[gs.Tensor] = field(default_factory=list)
    steps: int = 0

    def before(self, tensor: gs.Tensor) -> bool:
        """Find what computes a tensor, whose only reader is the scale or leads to it."""
        self.steps += 1
        count = len(self.changed)
        node = self.editor.producer(tensor)
        if node is None or self.steps > _STEPS_AT_MOST or not is_standard(node):
            return False
        if node.op in _WEIGHTED:
            found = self._product(node)
        elif node.op in ("Add", "Sub", "Mul", "Div"):
            found = self._arithmetic(node)
        elif node.op == "Split":
            found = self._split(node, tensor)
        else:
            found = self._keeps_columns(node) and self.before(node.inputs[0])
        if found and not self.editor.is_private(tensor):
            self.reasons.append(f"the result of '{node_label(node)}' is read elsewhere, too")
            found = False
        if found:
            self.changed.append(tensor)
        else:
            del self.changed[count:]
        return found

    def _keeps_columns(self, node: gs.Node) -> bool:
        if self.scale.size == 1 or node.op not in _LAYOUT:
            return node.op in _LAYOUT
        ends = [(self.editor.dims(t) or ())[-1:] for t in (node.inputs[0], node.outputs[0])]
        return node.op in ("Reshape", "Identity") and ends == [(self.scale.size,)] * 2

    def _split(self, node: gs.Node, tensor: gs.Tensor) -> bool:
        """Scale one part's columns of what is split; those of the others by 1."""
        dims = self.editor.dims(node.inputs[0])
        if self.scale.size > 1 or not dims:
            return False
        columns = []
        for part in node.outputs:
            width = (self.editor.dims(part) or (None,))[-1]
            if not isinstance(width, int):
                return False
            columns.append(np.full(width, self.scale[0] if part is tensor else 1.0))
        whole, before = np.concatenate(columns), self.scale
        if int(node.attrs.get("axis", 0)) % len(dims) != len(dims) - 1 or whole.size < 2:
            return False
        self.scale = whole
        if dims[-1] == whole.size and self.before(node.inputs[0]):
            return True
        self.scale = before
        return False

    def _arithmetic(self, node: gs.Node) -> bool:
        split = with_constant(node)
        if split is None:
            return False
        source, values, index = split
        if node.op == "Mul" or (node.op == "Div" and index == 0):
            return values.size == self.scale.size == 1 and self._take(node, index, self.scale)
        if node.op == "Div":
            return False
        count, scale = len(self.constants), self.scale
        if scale.size > 1 and values.shape[-1:] not in ((scale.size,), (1,)):
            return False
        if not self._take(node, index, scale):
            return False
        if self.before(source):
            return True
        del self.constants[count:]
        return False

    def _product(self, node: gs.Node) -> bool:
        weights = [i for i in (0, 1) if isinstance(node.inputs[i], gs.Constant)]
        if not weights and node.op == "MatMul":
            return self._through_product(node)
        if len(weights) != 1 or (weights != [1] and (node.op != "MatMul" or self.scale.size > 1)):
            return False
        index, scale = weights[0], self.scale
        if scale.size > 1:
            is_turned = node.op == "Gemm" and bool(node.attrs.get("transB", 0))
            shape = node.inputs[1].shape
            if node.op not in ("MatMul", "Gemm") or len(shape) < 2:
                return False
            if shape[0 if is_turned else -1] != scale.size:
                return False
            scale = scale[:, np.newaxis] if is_turned else scale
        if not self._take(node, index, scale):
            return False
        has_bias = len(node.inputs) > 2 and bool(node.inputs[2].name)
        return not has_bias or self._take(node, 2, self.scale)

    def _through_product(self, node: gs.Node) -> bool:
        if self.scale.size > 1 or not self._may_grow(node):
            return False
        for tensor in node.inputs:
            count = len(self.constants)
            if self.before(tensor):
                return True
            del self.constants[count:]
        return False

    def after(self, tensor: gs.Tensor) -> bool:
        """Find a product that a scaled tensor goes into, alone."""
        editor = self.editor
        while self.steps < _STEPS_AT_MOST and editor.is_private(tensor) and editor.is_local(tensor):
            self.steps += 1
            node = editor.users(tensor, 1)[0]
            if not is_standard(node):
                return False
            if node.op in _WEIGHTED:
                index = 0 if node.inputs[1] is tensor else 1
                is_weight = isinstance(node.inputs[index], gs.Constant)
                if not is_weight or (node.op != "MatMul" and index == 0):
                    return False
                return self._take(node, index, self.scale)
            if node.op not in _LAYOUT or node.inputs[0] is not tensor:
                return False
            tensor = node.outputs[0]
            self.changed.append(tensor)
        return False

    def _may_grow(self, node: gs.Node) -> bool:
        dtype, size = self.editor.dtype(node.outputs[0]), abs(float(self.scale[0]))
        if dtype == np.float16 and not _LEAST_IN_HALF <= size <= 1:
            reason = f"values before '{node_label(node)}' would leave float16's range, or digits"
            self.reasons.append(reason)
            return False
        return True

    def _take(self, node: gs.Node, index: int, scale: np.ndarray) -> bool:
        why = _objection(self.editor, node.inputs[index])
        if why is not None:
            self.reasons.append(why)
            return False
        self.constants.append((node, index, scale))
        return True


def _objection(editor: Editor, tensor: gs.Tensor) -> str | None:
    """Return why one reader of a tensor cannot have its values scaled, None when it can."""
    values = constant_values(tensor)
    if values is None:
        return f"'{tensor.name}' is not constant"
    if not is_float(values.dtype):
        return f"'{tensor.name}' is {values.dtype.name}"
    if values.nbytes > _MOST_BYTES:
        return f"'{tensor.name}' is too big to be held a second time for one multiplication"
    if values.nbytes > _SMALL_BYTES and not editor.is_private(tensor):
        return f"'{tensor.name}' is shared"
    return None


def _new_values(node: gs.Node, index: int, scale: np.ndarray) -> np.ndarray | str:
    """Return a scaled constant, or why it does not fit."""
    values = constant_values(node.inputs[index])
    assert values is not None  # said by `_objection`
    if scale.size > 1:
        values = np.broadcast_to(values, np.broadcast_shapes(values.shape, scale.shape))
    result = scaled(values, scale)
    if isinstance(result, str) or values.ndim < 2:
        return result
    if 0 < np.abs(result).max() < _LEAST_WEIGHT <= np.abs(values).max():
        return "its values would become too small for FP16"
    return result


def _merge_scales(editor: Editor, node: gs.Node) -> None:
    """Let one factor of a product bear the scale of both."""
    left, right = (_scale_before(editor, tensor) for tensor in node.inputs)
    if left is None or right is None:
        return
    (one, index, first, scaled_more), (two, _, second, unscaled) = left, right
    total = first * second
    dtype = editor.dtype(node.outputs[0])
    if dtype is None or not np.isfinite(total) or total == 0:
        return
    if dtype == np.float16 and not _LEAST_IN_HALF <= abs(total) <= max(1.0, abs(first)):
        editor.refuse(node, "the scale of both is too big or too small for float16 on one factor")
        return
    value = np.asarray(total if one.op == "Mul" else 1 / total)
    shape = one.inputs[index].shape
    constant = scaled(np.ones(shape, dtype), value)
    if isinstance(constant, str):
        editor.refuse(node, f"the product of the scales does not fit in {dtype.name}")
        return
    why = editor.bypass(two, next(t for t in two.inputs if not isinstance(t, gs.Constant)))
    if why is not None:
        editor.refuse(node, why)
        return
    editor.rename((*scaled_more, *unscaled[:-1]))
    editor.set_input(one, index, editor.constant(f"{one.outputs[0].name}_scale", constant))
    editor.match(node, f"'{node_label(one)}' bears the scale of '{node_label(two)}' as well")


def _scale_before(
    editor: Editor, tensor: gs.Tensor
) -> tuple[gs.Node, int, float, list[gs.Tensor]] | None:
    """Return the node that scales, its constant, the scale, and the tensors from it to here."""
    between: list[gs.Tensor] = []
    for _ in range(_STEPS_AT_MOST):
        between.append(tensor)
        node = made_by(editor, tensor, "Mul", "Div", *_LAYOUT)
        if node is None:
            return None
        if node.op not in _LAYOUT:
            split, found = with_constant(node), _scale(editor, node)
            if split is None or found is None or found[1].size != 1:
                return None
            return node, split[2], float(found[1][0]), between
        tensor = node.inputs[0]
    return None
