"""Initializers with the same content become one."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor, constant_values
from trtforge.graph.report import Note

_SAMPLES = 64
"""So many evenly spaced bytes tell most tensors apart before whole tensors are compared."""

_PIECE_BYTES = 1 << 20


class MergeDuplicates:
    """Merge initializers of the same type, shape and bytes.

    Matches: two or more such initializers that only nodes of one graph read.
    Rewrites to: the first of them, by order of use; all readers read it.
    Refuses when: an initializer is an output, is sparse or holds text.
    """

    name = "duplicate-initializers"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        groups: dict[tuple[str, tuple[int, ...]], list[gs.Constant]] = defaultdict(list)
        for tensor in _constants(editor):
            groups[str(tensor.dtype), tuple(tensor.shape)].append(tensor)
        for group in groups.values():
            if len(group) > 1:
                _merge(group, editor)


def _constants(editor: Editor) -> Iterator[gs.Constant]:
    seen: set[int] = set()
    for node in editor.nodes():
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant) and id(tensor) not in seen:
                seen.add(id(tensor))
                if tensor.name and not editor.is_kept(tensor) and editor.is_local(tensor):
                    yield tensor


def _merge(group: list[gs.Constant], editor: Editor) -> None:
    alike: dict[bytes, list[tuple[gs.Constant, np.ndarray]]] = defaultdict(list)
    for tensor in group:
        values = constant_values(tensor)
        if values is None or values.dtype.hasobject:
            continue
        content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        sample = content[:: max(1, content.size // _SAMPLES)].tobytes()
        for kept, known in alike[sample]:
            if _equal(known, content):
                editor.replace_uses(tensor, kept)
                editor.rewrites += 1
                editor.notes.append(Note("matched", tensor.name, f"the same as '{kept.name}'"))
                break
        else:
            alike[sample].append((tensor, content))


def _equal(one: np.ndarray, two: np.ndarray) -> bool:
    """Compare bytes, piece by piece, so that mapped weights are not in memory as a whole."""
    return all(
        np.array_equal(one[start : start + _PIECE_BYTES], two[start : start + _PIECE_BYTES])
        for start in range(0, one.size, _PIECE_BYTES)
    )
