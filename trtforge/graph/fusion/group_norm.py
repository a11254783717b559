"""Group normalization, which PyTorch exports as an instance normalization of groups."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion.scale_bias import Tail, with_scale
from trtforge.graph.nodes import constant_values
from trtforge.graph.pattern import made_by, only_reader

_OPSET = 21
"""In opset 18 scale and bias were per group, which no framework means; that form is deprecated."""

_DEFAULT_EPSILON = 1e-5


class FuseGroupNorm:
    """Fuse Reshape, InstanceNormalization, Reshape, Mul and Add.

    Matches: x of (N, C, ...) seen as (N, G, ...), InstanceNormalization of the G groups with
    constant scale g and bias b, and the shape of x again; then, where they are there, * w + c with
    one constant value per channel.
    Rewrites to: GroupNormalization with num_groups G, and per channel the scale g * w and the bias
    b * w + c (https://onnx.ai/onnx/operators/onnx__GroupNormalization.html, opset 21).
    Refuses when: C is not known or no multiple of G, the last Reshape may give another shape than
    that of x, or a value in between is an output or used elsewhere.
    """

    name = "group-norm"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for norm in editor.nodes("InstanceNormalization"):
            first = editor.producer(norm.inputs[0], "Reshape")
            last = only_reader(editor, norm.outputs[0])
            if first is None or last is None or last.op != "Reshape":
                continue
            groups = _groups(editor, norm, first, last)
            if isinstance(groups, str):
                editor.refuse(norm, f"this looks like GroupNormalization, but {groups}")
            else:
                _fuse(editor, norm, Tail(last, first.inputs[0]), groups)


def _groups(editor: Editor, norm: gs.Node, first: gs.Node, last: gs.Node) -> int | str:
    source = first.inputs[0]
    dims, grouped = editor.dims(source), editor.dims(norm.inputs[0])
    if dims is None or grouped is None or len(dims) < 3 or not isinstance(dims[1], int):
        return "the channels are not known"
    groups = grouped[1]
    if not isinstance(groups, int) or dims[1] % groups:
        return f"{dims[1]} channels are not divided into {groups} groups"
    if made_by(editor, norm.inputs[0], "Reshape") is None:
        return f"'{norm.inputs[0].name}' is an output or used elsewhere too"
    if not (_keeps_first(first) or (dims[0] is not None and dims[0] == grouped[0])):
        return "the first axis of the groups may not be that of x"
    if not _restores(editor, last, source):
        return f"'{last.outputs[0].name}' may have another shape than '{source.name}'"
    if any(constant_values(tensor) is None for tensor in norm.inputs[1:3]):
        return "scale or bias of the groups is not constant"
    return groups


def _keeps_first(reshape: gs.Node) -> bool:
    shape = constant_values(reshape.inputs[1])
    return bool(
        shape is not None and shape.size and shape[0] == 0 and not reshape.attrs.get("allowzero", 0)
    )


def _restores(editor: Editor, last: gs.Node, source: gs.Tensor) -> bool:
    shape = editor.producer(last.inputs[1], "Shape")
    if (
        shape is not None
        and shape.inputs[0] is source
        and not shape.attrs.keys() & {"start", "end"}
    ):
        return True
    before, after = editor.dims(source), editor.dims(last.outputs[0])
    if before is None or after is None or len(before) != len(after):
        return False
    unequal = [a for a, b in zip(before, after, strict=True) if a is None or a != b]
    return len(unequal) <= 1 and 0 not in before  # as many elements: the last size agrees, too


def _fuse(editor: Editor, norm: gs.Node, tail: Tail, groups: int) -> None:
    dims = editor.dims(tail.source)
    assert dims is not None  # said by `_groups`
    channels = dims[1]
    assert isinstance(channels, int)
    if not editor.allows(norm, _OPSET):
        return
    tail = with_scale(editor, tail, (channels,), behind=len(dims) - 2)
    scale, bias = _per_channel(norm, tail, channels // groups)
    base = tail.root.outputs[0].name
    editor.match(tail.root, f"GroupNormalization of '{tail.source.name}' in {groups} groups")
    attributes = {
        "num_groups": groups,
        "epsilon": float(norm.attrs.get("epsilon", _DEFAULT_EPSILON)),
    }
    constants = [editor.constant(f"{base}_scale", scale), editor.constant(f"{base}_bias", bias)]
    editor.replace(tail.root, "GroupNormalization", [tail.source, *constants], attributes)


def _per_channel(norm: gs.Node, tail: Tail, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return g * w and b * w + c, computed in float64 and rounded once."""
    given = [constant_values(tensor) for tensor in norm.inputs[1:3]]
    assert given[0] is not None
    dtype = given[0].dtype
    group_scale, group_bias = (np.repeat(np.asarray(values, np.float64), size) for values in given)
    weight = np.asarray(constant_values(tail.scale), np.float64) if tail.scale is not None else 1.0
    shift = np.asarray(constant_values(tail.bias), np.float64) if tail.bias is not None else 0.0
    return (group_scale * weight).astype(dtype), (group_bias * weight + shift).astype(dtype)
