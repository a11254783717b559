"""What follows a BatchNormalization, per channel, goes into its scale and shift."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import linear
from trtforge.graph.fusion.affine import (
    ARITHMETIC,
    Affine,
    Parameters,
    Place,
    batchnorm_parameters,
    constant_beside,
    keeps_shape,
    of_arithmetic,
    of_batchnorm,
)
from trtforge.graph.nodes import constant_values, node_label
from trtforge.graph.rounding import rounded


class MergeBatchNorms:
    """Merge a BatchNormalization with the BatchNormalization, Mul, Add, Sub or Div next to it.

    Matches: an inference-mode BatchNormalization with constant parameters whose result only
    another one, or Mul, Add, Sub or Div by a constant per channel, reads; and one that reads the
    result of such arithmetic, which nothing else reads
    (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html, opset 7 on).
    Rewrites to: one BatchNormalization with the mean and variance of the first. With
    y = g * (x - mean) / d + B, d = sqrt(var + epsilon): s * y + t has g' = s * g, B' = s * B + t;
    and of s * x + t it has g' = s * g, B' = B + g * (s * mean + t - mean) / d.
    Refuses when: a result between is an output or read elsewhere, the constant is not one value
    per channel, it trains, or a parameter does not fit its type.
    """

    name = "batchnorm-chain"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("BatchNormalization", *ARITHMETIC):
            for index in _computed_inputs(node):
                norm = editor.producer(node.inputs[index], "BatchNormalization")
                if norm is not None:
                    _merge_after(editor, norm, node, index)
                    break
        for norm in editor.nodes("BatchNormalization"):
            _merge_before(editor, norm)


def _computed_inputs(node: gs.Node) -> tuple[int, ...]:
    if node.op == "BatchNormalization":
        return (0,)
    return tuple(index for index in (0, 1) if constant_beside(node, index))


def _merge_after(editor: Editor, norm: gs.Node, follower: gs.Node, index: int) -> None:
    result = norm.outputs[0]
    parameters = batchnorm_parameters(editor, norm)
    why: str | None = None
    if not editor.is_private(result):
        why = f"the result of '{node_label(norm)}' is used elsewhere too"
    elif isinstance(parameters, str):
        why = parameters
    else:
        affine = _read(editor, follower, index, _place(editor, norm, parameters))
        why = affine if isinstance(affine, str) else _after(editor, norm, parameters, affine)
    if why is not None:
        editor.refuse(follower, why)
        return
    editor.match(follower, f"merged into '{node_label(norm)}'")
    linear.take_over(editor, norm, follower)


def _merge_before(editor: Editor, norm: gs.Node) -> None:
    source = norm.inputs[0]
    arithmetic = editor.producer(source, *ARITHMETIC)
    if arithmetic is None:
        return
    index = next((i for i in (0, 1) if constant_beside(arithmetic, i)), None)
    parameters = batchnorm_parameters(editor, norm)
    if index is None or isinstance(parameters, str):
        return
    given = arithmetic.inputs[index]
    why: str | None = None
    if not editor.is_private(source):
        why = f"'{source.name}' is used elsewhere too"
    elif not keeps_shape(editor, arithmetic, index, _place(editor, norm, parameters)):
        why = f"'{node_label(arithmetic)}' may broadcast '{given.name}'"
    else:
        affine = of_arithmetic(arithmetic, index, _place(editor, norm, parameters))
        why = affine if isinstance(affine, str) else _before(editor, norm, parameters, affine)
    if why is not None:
        editor.refuse(arithmetic, why)
        return
    editor.match(arithmetic, f"merged into '{node_label(norm)}'")
    editor.set_input(norm, 0, given)


def _place(editor: Editor, norm: gs.Node, parameters: Parameters) -> Place:
    dims = editor.dims(norm.inputs[0]) or editor.dims(norm.outputs[0])
    return Place(parameters.scale.size, None if dims is None else len(dims), 1)


def _read(editor: Editor, follower: gs.Node, index: int, place: Place) -> Affine | str:
    if follower.op == "BatchNormalization":
        return of_batchnorm(editor, follower, place)
    return of_arithmetic(follower, index, place)


@np.errstate(all="ignore")  # what is not finite is refused when it is rounded
def _after(editor: Editor, norm: gs.Node, old: Parameters, affine: Affine) -> str | None:
    shift = affine.scale * old.shift + affine.shift
    return _rewrite(editor, norm, Affine(affine.scale * old.scale, shift))


@np.errstate(all="ignore")  # what is not finite is refused when it is rounded
def _before(editor: Editor, norm: gs.Node, old: Parameters, affine: Affine) -> str | None:
    moved = affine.scale * old.mean + affine.shift - old.mean
    shift = old.shift + old.scale * moved / old.deviation
    return _rewrite(editor, norm, Affine(affine.scale * old.scale, shift))


def _rewrite(editor: Editor, norm: gs.Node, new: Affine) -> str | None:
    made = []
    for index, exact in ((1, new.scale), (2, new.shift)):
        old = norm.inputs[index]
        values = constant_values(old)
        assert values is not None  # said by `batchnorm_parameters`
        in_type = rounded(exact, values)
        if isinstance(in_type, str):
            return in_type
        made.append(editor.renewed(old, in_type))
    for index, tensor in enumerate(made, start=1):
        editor.set_input(norm, index, tensor)
    return None
