"""Normalizations as exporters spell them out: which nodes, of what, along which axes.

With m = mean(x) and v = mean((x - m)^2), or m = 0 (root mean square), each computes

    n = (x - m) / sqrt(v + epsilon),   y = n * scale + bias

The square may be Pow or Mul, the root Sqrt or Pow, the division Div, or Mul by a Reciprocal, by
1 / root or by Pow with -0.5; x - m may be computed once or twice, in FP16 and then made FP32.
TensorFlow multiplies out: y = x * (r * scale) + (bias - m * (r * scale)), r being
1 / sqrt(v + epsilon).
"""

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import node_label
from trtforge.graph.pattern import is_scalar, normalized_axes, only_reader, reduction_axes, scalar

_EXACT = 1e-6
_MANY = 8


@dataclass
class Spelled:
    """A normalization found in a graph.

    Attributes:
        source: x.
        axes: along which it is normalized, as written.
        epsilon: inside the root.
        is_centred: whether the mean is subtracted.
        root: the node that computes n (or y, when it is multiplied out).
        inside: all nodes of the formula, `root` too.
        factor: the tensor that r is multiplied by before x is, when it is multiplied out.
        shift: likewise the tensor that is added.
    """

    source: gs.Tensor
    axes: tuple[int, ...]
    epsilon: float
    is_centred: bool
    root: gs.Node
    inside: list[gs.Node] = field(default_factory=list)
    factor: gs.Tensor | None = None
    shift: gs.Tensor | None = None


@dataclass(frozen=True)
class NearMiss:
    """What looks like a normalization and cannot be replaced, and why."""

    reason: str
    is_centred: bool


@dataclass
class Moment:
    """v = mean((x - m)^2): x, the axes, m where there is one, and the nodes of it."""

    source: gs.Tensor
    axes: tuple[int, ...]
    mean: gs.Tensor | None
    inside: list[gs.Node]


def spelled_norm(editor: Editor, node: gs.Node) -> Spelled | NearMiss | None:
    """Read a normalization from its root: a Sqrt, or a Pow with 0.5 or -0.5.

    Returns:
        What was found; None when it is nothing of the kind.
    """
    power = root_power(node)
    if power is None:
        return None
    variance, epsilon, inside = _without_epsilon(editor, node.inputs[0])
    moment = _moment(editor, variance)
    if moment is None or isinstance(moment, NearMiss):
        return moment
    inside = [node, *inside, *moment.inside]
    result = node.outputs[0]
    divided = _one_over(editor, result) if power > 0 else None
    if divided is not None:
        inside.append(divided)
        result, power = divided.outputs[0], -power
    found = _applied(editor, result, power, moment)
    if found is None:
        why = _not_applied(editor, result, moment)
    else:
        found.epsilon = epsilon
        found.inside += inside
        why = _objection(editor, found)
    return NearMiss(why, moment.mean is not None) if why is not None else found


def root_power(node: gs.Node) -> float | None:
    """Return 0.5 for Sqrt and Pow with 0.5, -0.5 for Pow with that, else None."""
    if node.op == "Sqrt":
        return 0.5
    if node.op != "Pow":
        return None
    return next((one for one in (0.5, -0.5) if is_scalar(node.inputs[1], one, _EXACT)), None)


def _without_epsilon(editor: Editor, tensor: gs.Tensor) -> tuple[gs.Tensor, float, list[gs.Node]]:
    node = editor.producer(tensor, "Add")
    if node is not None:
        for index in (0, 1):
            epsilon = scalar(node.inputs[1 - index])
            if epsilon is not None and epsilon >= 0.0:
                return node.inputs[index], epsilon, [node]
    return tensor, 0.0, []


def _moment(editor: Editor, variance: gs.Tensor) -> Moment | NearMiss | None:
    """Read mean(d * d), d = x - mean(x) or d = x."""
    reduce = editor.producer(variance, "ReduceMean")
    if reduce is None:
        return _unbiased(editor, variance)
    axes = reduction_axes(reduce)
    square = editor.producer(reduce.inputs[0], "Pow", "Mul")
    base = _squared(square) if square is not None else None
    if square is None or base is None:
        return None
    centre, widening = _difference(editor, base)
    inside = [reduce, square, *widening]
    if axes is None or not axes or reduce.attrs.get("keepdims", 1) != 1:
        why = "the mean of squares has no constant axes, or does not keep them"
        return NearMiss(why, centre is not None)
    mean = _mean_of(editor, centre, axes) if centre is not None else None
    if centre is None or mean is None:
        return Moment(base, axes, None, inside)
    return Moment(centre.inputs[0], axes, centre.inputs[1], [*inside, centre, mean])


def _difference(editor: Editor, tensor: gs.Tensor) -> tuple[gs.Node | None, list[gs.Node]]:
    """Return the Sub that computes a tensor, and a Cast to FP32 after it if there is one."""
    cast = editor.producer(tensor, "Cast")
    if cast is not None and editor.dtype(tensor) == np.float32:
        narrow = editor.dtype(cast.inputs[0])
        below = editor.producer(cast.inputs[0], "Sub")
        if below is not None and narrow is not None and narrow.itemsize == 2:
            return below, [cast]
    return editor.producer(tensor, "Sub"), []


def _unbiased(editor: Editor, variance: gs.Tensor) -> NearMiss | None:
    """Say so when the variance is divided by N - 1, as statistics of a sample are."""
    reduce, tensor = None, variance
    for _ in range(2):  # mean * N / (N - 1)
        node = editor.producer(tensor, "Div", "Mul")
        if node is not None and scalar(node.inputs[1]) is not None:
            tensor = node.inputs[0]
            reduce = editor.producer(tensor, "ReduceMean", "ReduceSum")
    square = editor.producer(reduce.inputs[0], "Pow", "Mul") if reduce is not None else None
    base = _squared(square) if square is not None else None
    centre = editor.producer(base, "Sub") if base is not None else None
    if centre is None:
        return None
    return NearMiss("the variance is not the mean of the squares: it is rescaled (N - 1?)", True)


def _squared(node: gs.Node) -> gs.Tensor | None:
    if node.op == "Pow":
        return node.inputs[0] if is_scalar(node.inputs[1], 2.0, _EXACT) else None
    return node.inputs[0] if node.inputs[0] is node.inputs[1] else None


def _mean_of(editor: Editor, centre: gs.Node, axes: tuple[int, ...]) -> gs.Node | None:
    """Return the ReduceMean whose result a Sub takes from what it is the mean of."""
    mean = editor.producer(centre.inputs[1], "ReduceMean")
    if mean is None or mean.inputs[0] is not centre.inputs[0]:
        return None
    own = reduction_axes(mean)
    if own is None or mean.attrs.get("keepdims", 1) != 1:
        return None
    return mean if same_axes(editor, centre.inputs[0], own, axes) else None


def same_axes(
    editor: Editor, source: gs.Tensor, one: tuple[int, ...], two: tuple[int, ...]
) -> bool:
    """Return whether two lists of axes of a tensor are the same set."""
    dims = editor.dims(source)
    if dims is None:
        return sorted(one) == sorted(two)
    return normalized_axes(one, len(dims)) == normalized_axes(two, len(dims))


def _one_over(editor: Editor, tensor: gs.Tensor) -> gs.Node | None:
    """Return the node that computes 1 / tensor and is its only reader."""
    node = only_reader(editor, tensor)
    if node is None or node.op == "Reciprocal":
        return node
    is_inverse = node.op == "Div" and is_scalar(node.inputs[0], 1.0, _EXACT)
    return node if is_inverse and node.inputs[1] is tensor else None


def _applied(editor: Editor, result: gs.Tensor, power: float, moment: Moment) -> Spelled | None:
    """Find what multiplies (or divides) by the root: n itself, or r * scale."""
    for user in _readers(editor, result):
        if user.op == "Div" and power > 0 and user.inputs[1] is result:
            other = user.inputs[0]
        elif (
            user.op == "Mul"
            and power < 0
            and (user.inputs[0] is result) != (user.inputs[1] is result)
        ):
            other = user.inputs[1] if user.inputs[0] is result else user.inputs[0]
        else:
            continue
        found = _normalized(editor, user, other, moment)
        if found is None and power < 0:
            found = _multiplied_out(editor, user, other, moment)
        if found is not None:
            return found
    if power < 0 and moment.mean is not None:
        return _spread(editor, result, None, moment)
    return None


def _readers(editor: Editor, tensor: gs.Tensor) -> list[gs.Node]:
    """Return the nodes of this graph that read a tensor, none when others do or it is kept."""
    if editor.is_kept(tensor) or not editor.is_local(tensor):
        return []
    return editor.users(tensor, _MANY)


def _normalized(editor: Editor, node: gs.Node, other: gs.Tensor, moment: Moment) -> Spelled | None:
    if moment.mean is None:
        is_it = other is moment.source
        return _spelled(moment, node, [node]) if is_it else None
    centred, widening = _difference(editor, other)
    if centred is None or centred.inputs[0] is not moment.source:
        return None
    mean = _mean_of(editor, centred, moment.axes)
    inside = [node, centred, *widening]
    return _spelled(moment, node, [*inside, mean]) if mean is not None else None


def _spelled(moment: Moment, root: gs.Node, inside: list[gs.Node]) -> Spelled:
    return Spelled(moment.source, moment.axes, 0.0, moment.mean is not None, root, inside)


def _multiplied_out(
    editor: Editor, node: gs.Node, factor: gs.Tensor, moment: Moment
) -> Spelled | None:
    """Read x * (r * scale) [+ (bias - m * (r * scale))] from the node r * scale."""
    if editor.producer(factor) is not None:
        return None  # a computed factor is not a scale
    if moment.mean is not None:
        found = _spread(editor, node.outputs[0], factor, moment)
        if found is not None:
            found.inside.append(node)
        return found
    for user in _readers(editor, node.outputs[0]):
        if user.op == "Mul" and any(tensor is moment.source for tensor in user.inputs):
            found = _spelled(moment, user, [node, user])
            found.factor = factor
            return found
    return None


def _spread(
    editor: Editor, inverse: gs.Tensor, factor: gs.Tensor | None, moment: Moment
) -> Spelled | None:
    """Read x * s + (bias - m * s), or x * s - m * s, from s."""
    mean = moment.mean
    users = [user for user in _readers(editor, inverse) if user.op == "Mul"]
    of_x = next((u for u in users if any(t is moment.source for t in u.inputs)), None)
    of_mean = next((u for u in users if any(t is mean for t in u.inputs)), None)
    if of_x is None or of_mean is None:
        return None
    inside, shift, lower = [of_x, of_mean], None, of_mean
    above = _readers(editor, of_mean.outputs[0])
    if len(above) != 1:
        return None
    if above[0].op == "Sub" and above[0].inputs[0] is not of_x.outputs[0]:
        lower, shift = above[0], above[0].inputs[0]
        inside.append(lower)
        above = _readers(editor, lower.outputs[0])
    wanted = "Sub" if shift is None else "Add"
    if len(above) != 1 or above[0].op != wanted:
        return None
    last = above[0]
    operands = {id(tensor) for tensor in last.inputs}
    if operands != {id(of_x.outputs[0]), id(lower.outputs[0])}:
        return None
    found = _spelled(moment, last, [*inside, last])
    found.factor, found.shift = factor, shift
    return found


def _not_applied(editor: Editor, result: gs.Tensor, moment: Moment) -> str | None:
    for user in _readers(editor, result):
        if user.op == "Add" and any(scalar(tensor) is not None for tensor in user.inputs):
            return "epsilon is added to the root, not under it"
    if moment.mean is None:
        return None  # a root mean square that something else is made of
    return "what the root divides is not what it is the root of, or more than that reads it"


def _objection(editor: Editor, found: Spelled) -> str | None:
    dtype = editor.dtype(found.source)
    if dtype is None or dtype == np.float64 or dtype.kind in "biu":
        return f"its type is {'unknown' if dtype is None else dtype.name}"
    result = found.root.outputs[0]
    above = only_reader(editor, result)
    given = result if above is None or above.op != "Cast" else above.outputs[0]
    if editor.dtype(result) != dtype and editor.dtype(given) != dtype:
        return f"its result has another type than x, {dtype.name}"
    inside = {id(node) for node in found.inside}
    for node in found.inside:
        if node is found.root:
            continue
        for tensor in node.outputs:
            if editor.is_kept(tensor):
                return f"'{tensor.name}' is an output"
            for user in editor.users(tensor, _MANY):
                if id(user) not in inside:
                    return f"'{tensor.name}' is used by '{node_label(user)}' too"
    return None


def trailing_axis(editor: Editor, found: Spelled) -> int | None:
    """Return the first normalized axis, counted from the end, when all after it are normalized."""
    dims = editor.dims(found.source)
    axes: list[int] | tuple[int, ...] = found.axes
    if dims is not None:
        axes = [axis - len(dims) for axis in normalized_axes(found.axes, len(dims))]
    elif any(axis >= 0 for axis in axes):
        return None
    ordered = sorted(axes)
    return ordered[0] if ordered == list(range(-len(ordered), 0)) else None
