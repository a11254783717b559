"""Initializers with the same content become one."""

from collections import defaultdict
from collections.abc import Hashable, Iterator

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values

_SAMPLES = 64
"""So many evenly spaced bytes tell most tensors apart before whole tensors are compared."""

_PIECE_BYTES = 1 << 20


class MergeDuplicates:
    """Merge initializers of the same type, shape and bytes.

    Matches: two or more such initializers that only nodes of one graph read.
    Rewrites to: the first of them, by order of use; all readers read it.
    Refuses when: an initializer is an output, is sparse or holds text.

    Initializers are part of the graph: https://onnx.ai/onnx/repo-docs/IR.html#graphs, any opset.
    """

    name = "duplicate-initializers"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        groups: dict[Hashable, list[gs.Constant]] = defaultdict(list)
        for tensor in _constants(editor):
            groups[editor.dtype(tensor), tuple(tensor.shape)].append(tensor)
        for group in groups.values():
            if len(group) > 1:
                _merge(editor, group)


def _constants(editor: Editor) -> Iterator[gs.Constant]:
    seen: set[int] = set()
    for node in editor.nodes():
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant) and id(tensor) not in seen:
                seen.add(id(tensor))
                if tensor.name and not editor.is_kept(tensor) and editor.is_local(tensor):
                    yield tensor


def _merge(editor: Editor, group: list[gs.Constant]) -> None:
    alike: dict[bytes, list[gs.Constant]] = defaultdict(list)
    for tensor in group:
        sample = _sample(tensor)
        if sample is None:
            continue
        kept = next((one for one in alike[sample] if _equal(_bytes(one), _bytes(tensor))), None)
        if kept is None:
            alike[sample].append(tensor)
        else:
            editor.replace_uses(tensor, kept)
            editor.match(tensor.name, f"the same as '{kept.name}'")


def _sample(tensor: gs.Constant) -> bytes | None:
    """Return what tells a tensor apart; looked up once, as its values never change."""
    if not hasattr(tensor, "sample"):
        values = constant_values(tensor)
        if values is None or values.dtype.hasobject:
            tensor.sample = None
        else:
            content = _bytes(tensor)
            tensor.sample = content[:: max(1, content.size // _SAMPLES)].tobytes()
    sample: bytes | None = tensor.sample
    return sample


def _bytes(tensor: gs.Constant) -> np.ndarray:
    values = constant_values(tensor)
    assert values is not None  # it has a sample
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _equal(one: np.ndarray, two: np.ndarray) -> bool:
    """Compare bytes, piece by piece, so that mapped weights are not in memory as a whole."""
    return all(
        np.array_equal(one[start : start + _PIECE_BYTES], two[start : start + _PIECE_BYTES])
        for start in range(0, one.size, _PIECE_BYTES)
    )
