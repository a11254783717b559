"""Initializers with the same content become one."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor, constant_values
from trtforge.graph.report import Note, PassResult


class MergeDuplicates:
    """Merge initializers of the same type, shape and bytes.

    Matches: two or more such initializers read by nodes of the outermost graph.
    Rewrites to: the first of them, by order of use; all readers read it.
    Refuses when: an initializer is an output, is sparse or holds text.
    """

    name = "duplicate-initializers"

    def apply(self, graph: gs.Graph) -> PassResult:
        """Rewrite the outermost graph in place."""
        editor = Editor(graph)
        groups: dict[tuple[str, tuple[int, ...]], list[gs.Constant]] = defaultdict(list)
        for tensor in _constants(graph):
            if not editor.is_kept(tensor):
                groups[str(tensor.dtype), tuple(tensor.shape)].append(tensor)
        for group in groups.values():
            if len(group) > 1:
                _merge(group, editor)
        return editor.finish()


def _constants(graph: gs.Graph) -> Iterator[gs.Constant]:
    seen: set[int] = set()
    for node in graph.nodes:
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant) and id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor


def _merge(group: list[gs.Constant], editor: Editor) -> None:
    first: dict[bytes, gs.Constant] = {}
    for tensor in group:
        values = constant_values(tensor)
        if values is None or values.dtype.hasobject:
            continue
        content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        digest = hashlib.sha256(content.data).digest()
        kept = first.setdefault(digest, tensor)
        if kept is not tensor:
            editor.replace_uses(tensor, kept)
            editor.rewrites += 1
            editor.notes.append(Note("matched", tensor.name, f"the same as '{kept.name}'"))
