"""Sequences of tensors whose members are known become those tensors."""

from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values
from trtforge.graph.readiness.quantizing import input_of
from trtforge.graph.readiness.writing import Writer

_OPSET = 13
"""Sizes of Split and axes of Squeeze as inputs. Source: ONNX, Split 13."""

_MAKERS = ("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SplitToSequence", "Identity")
_READERS = ("SequenceAt", "SequenceLength", "ConcatFromSequence")


class SequencesToTensors:
    """Read the members of a sequence directly.

    Matches: SequenceAt, SequenceLength and ConcatFromSequence of what SequenceConstruct,
    SequenceEmpty, SequenceInsert and SplitToSequence make in the same graph, with constant
    positions and known sizes (https://onnx.ai/onnx/operators/onnx__SplitToSequence.html, opset 11
    on); PyTorch writes `split`, `chunk` and `unbind` so.
    Rewrites to: the member itself; a constant; Concat. SplitToSequence becomes Split, with a
    Squeeze behind each part where it does not keep the axis.
    Refuses when: a position is computed, the number of members is not known, or the sequence
    comes from elsewhere (a Loop, an input).
    """

    name = "sequences-to-tensors"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        readers = list(editor.nodes(*_READERS))
        if not readers:
            return
        sequences = _Sequences(editor)
        for node in readers:
            members = sequences.members(node.inputs[0])
            why = members if isinstance(members, str) else _objection(editor, node, len(members))
            if isinstance(members, str) or why is not None:
                editor.refuse(node, str(why))
            elif editor.allows(node, _OPSET):
                editor.match(node, f"the sequence has {len(members)} members, which are known")
                _read(editor, node, members, sequences)


class _Part:
    """One piece that a SplitToSequence makes."""

    def __init__(self, split: gs.Node, index: int) -> None:
        self.split, self.index = split, index


_Member: TypeAlias = "gs.Tensor | _Part"


class _Sequences:
    """What is in the sequences of a graph; splits are written once, when they are needed."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._parts: dict[int, list[gs.Tensor]] = {}

    def members(self, sequence: gs.Tensor) -> list[_Member] | str:
        """Return what a sequence consists of, or why that is not known."""
        maker = self._editor.producer(sequence, *_MAKERS)
        if maker is None:
            return f"the sequence '{sequence.name}' is not made of known members in this graph"
        if maker.op == "SequenceEmpty":
            return []
        if maker.op == "SequenceConstruct":
            return list(maker.inputs)
        if maker.op == "Identity":
            return self.members(maker.inputs[0])
        if maker.op == "SequenceInsert":
            return self._inserted(maker)
        sizes = _sizes(self._editor, maker)
        if isinstance(sizes, str):
            return sizes
        return [_Part(maker, index) for index in range(len(sizes))]

    def _inserted(self, maker: gs.Node) -> list[_Member] | str:
        members = self.members(maker.inputs[0])
        if isinstance(members, str):
            return members
        at = len(members)
        if (given := input_of(maker, 2)) is not None:
            position = _whole(given)
            if position is None or not -len(members) <= position <= len(members):
                return f"the position '{given.name}' at which it inserts is not known"
            at = position + len(members) if position < 0 else position
        return [*members[:at], maker.inputs[1], *members[at:]]

    def written(self, members: list[_Member]) -> list[gs.Tensor]:
        """Return members as tensors, writing the splits that make them."""
        return [self._part(m) if isinstance(m, _Part) else m for m in members]

    def _part(self, part: _Part) -> gs.Tensor:
        found = self._parts.get(id(part.split))
        if found is None:
            found = self._parts[id(part.split)] = _split(self._editor, part.split)
        return found[part.index]


def _whole(tensor: gs.Tensor) -> int | None:
    values = constant_values(tensor)
    return int(values.reshape(-1)[0]) if values is not None and values.size == 1 else None


def _sizes(editor: Editor, node: gs.Node) -> list[int] | str:
    """Return the sizes of the parts that a SplitToSequence makes, or why they are not known."""
    dims, axis = editor.dims(node.inputs[0]), int(node.attrs.get("axis", 0))
    length = dims[axis] if dims is not None and -len(dims) <= axis < len(dims) else None
    given = input_of(node, 1)
    if given is not None:
        values = constant_values(given)
        if values is None:
            return f"the sizes '{given.name}' are computed"
        if values.ndim == 1:
            return [int(value) for value in values]
        if _squeezes(node) and values.reshape(-1)[0] != 1:
            return f"it would drop an axis of size {values.reshape(-1)[0]}"
    if not isinstance(length, int):
        return f"the size of '{node.inputs[0].name}' along axis {axis} is not known"
    step = 1 if given is None else _whole(given) or 1
    whole, rest = divmod(length, step)
    return [step] * whole + ([rest] if rest else [])


def _squeezes(node: gs.Node) -> bool:
    """Whether the parts lose the axis.

    ONNX has keepdims ignored where sizes are given. ONNX Runtime does so for a list of sizes
    alone, and PyTorch relies on it: `unbind` is a split into parts of 1 without keepdims.
    """
    given = input_of(node, 1)
    values = constant_values(given) if given is not None else None
    return not node.attrs.get("keepdims", 1) and (values is None or values.ndim == 0)


def _split(editor: Editor, node: gs.Node) -> list[gs.Tensor]:
    """Write the Split (and Squeeze) of a SplitToSequence; return its parts."""
    source, axis = node.inputs[0], int(node.attrs.get("axis", 0))
    sizes = _sizes(editor, node)
    assert not isinstance(sizes, str)  # said by `members`
    writer = Writer(editor, node, editor.dtype(source))
    parts = [_part_variable(editor, source, axis, size) for size in sizes]
    editor.add(
        "Split", [source, writer.sizes("sizes", *sizes)], parts, node, {"axis": axis}, node.name
    )
    if not _squeezes(node):
        return list(parts)
    axes = writer.sizes("axis", axis)
    return [writer.write("Squeeze", [part, axes]) for part in parts]


def _part_variable(editor: Editor, source: gs.Tensor, axis: int, size: int) -> gs.Variable:
    dims = editor.dims(source)
    if dims is not None:
        at = axis % len(dims)
        dims = (*dims[:at], size, *dims[at + 1 :])
    return editor.variable(f"{source.name}_part", editor.dtype(source), dims)


def _objection(editor: Editor, node: gs.Node, count: int) -> str | None:
    """Return why a reader of a sequence of `count` known members must stay, or None."""
    if node.op == "SequenceLength":
        result = node.outputs[0]
        return f"'{result.name}' is an output" if editor.is_kept(result) else None
    if node.op == "ConcatFromSequence":
        return None if count else "the sequence is empty"
    position = _whole(node.inputs[1])
    if position is None:
        return f"the position '{node.inputs[1].name}' is computed"
    return None if -count <= position < count else f"it reads member {position} of {count}"


def _read(editor: Editor, node: gs.Node, members: "list[_Member]", sequences: _Sequences) -> None:
    """Let a reader to which there is no `_objection` read the members themselves."""
    if node.op == "SequenceLength":
        result = node.outputs[0]
        editor.replace_uses(result, gs.Constant(result.name, np.asarray(len(members), np.int64)))
        editor.remove(node)
        return
    if node.op == "SequenceAt":
        (member,) = sequences.written([members[_whole(node.inputs[1]) or 0]])
        if editor.bypass(node, member) is not None:
            editor.replace(node, "Identity", [member])
        return
    tensors, axis = sequences.written(members), int(node.attrs["axis"])
    if node.attrs.get("new_axis", 0):
        writer = Writer(editor, node, editor.dtype(tensors[0]))
        axes = writer.sizes("axis", axis)
        tensors = [writer.write("Unsqueeze", [tensor, axes]) for tensor in tensors]
    editor.replace(node, "Concat", tensors, {"axis": axis})
