"""Writing several nodes in the place of one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dims


class Writer:
    """Adds standard nodes before a node, whose place they take.

    Args:
        editor: of the graph.
        at: the node to be replaced.
        dtype: the type that is computed in.
    """

    def __init__(self, editor: Editor, at: gs.Node, dtype: Any) -> None:
        self._editor, self._at, self._dtype = editor, at, dtype
        self._base = at.name or at.outputs[0].name

    def number(self, role: str, value: float) -> gs.Tensor:
        """Make a constant of the type that is computed in."""
        return self._editor.constant(f"{self._base}_{role}", np.asarray(value, self._dtype))

    def size(self, role: str, value: int) -> gs.Tensor:
        """Make a constant of INT64 and rank 0."""
        return self._editor.constant(f"{self._base}_{role}", np.asarray(value, np.int64))

    def sizes(self, role: str, *values: int) -> gs.Tensor:
        """Make a constant of INT64, as shapes and axes are."""
        return self._editor.constant(f"{self._base}_{role}", np.asarray(values, np.int64))

    def write(
        self,
        op: str,
        inputs: Sequence[gs.Tensor],
        dims: Dims | None = None,
        *,
        dtype: Any = None,
        **attributes: Any,
    ) -> gs.Tensor:
        """Add a node with one new output, which is returned."""
        made = self._editor.variable(f"{self._base}_{op.lower()}", dtype or self._dtype, dims)
        self._editor.add(op, inputs, [made], self._at, attributes, f"{made.name}/{op}")
        return made

    def finish(self, op: str, inputs: Sequence[gs.Tensor], **attributes: Any) -> None:
        """Let a last node compute the first output of the node that is replaced."""
        self._editor.replace(self._at, op, inputs, attributes)

    def give(
        self, op: str, inputs: Sequence[gs.Tensor], result: gs.Tensor, **attributes: Any
    ) -> None:
        """Add a node that computes a tensor which was computed by the node that is replaced."""
        self._editor.add(op, inputs, [result], self._at, attributes, f"{result.name}/{op}")
