"""Slices that take a tensor apart along an axis become one Split."""

from collections import defaultdict

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.layout import Range, from_the_front, ranges_of

_SIZES_AS_INPUT = 13
"""Split takes the sizes of its parts as an input since this opset.

Source: https://onnx.ai/onnx/operators/onnx__Split.html
"""

_PARTS_AT_MOST = 64

_Cut = tuple[Range, gs.Node]


class SlicesToSplit:
    """Write Slices that cover an axis, each place once, as one Split.

    Matches: two or more Slices of one tensor (https://onnx.ai/onnx/operators/onnx__Slice.html)
    along one axis of known size, step 1, whose ranges follow one another from its beginning to
    its end.
    Rewrites to: one Split with these sizes (https://onnx.ai/onnx/operators/onnx__Split.html).
    Refuses when: places are left out or taken twice.
    """

    name = "slices-to-split"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        groups: dict[tuple[int, int], list[_Cut]] = defaultdict(list)
        for node in editor.nodes("Slice"):
            dims, ranges = editor.dims(node.inputs[0]), ranges_of(editor, node)
            if dims is None or ranges is None or len(ranges) != 1:
                continue
            ((axis, taken),) = ranges.items()
            dim = dims[axis] if axis < len(dims) else None
            cut = from_the_front(taken, dim) if isinstance(dim, int) else None
            if cut is not None and cut.step == 1:
                groups[id(node.inputs[0]), axis].append((cut, node))
        for (_, axis), cuts in groups.items():
            if 2 <= len(cuts) <= _PARTS_AT_MOST:
                _split(editor, axis, cuts)


def _split(editor: Editor, axis: int, cuts: list[_Cut]) -> None:
    first = min((node for _, node in cuts), key=lambda node: int(node.position))
    source = first.inputs[0]
    ordered = sorted(cuts, key=lambda cut: cut[0])
    dims = editor.dims(source)
    assert dims is not None
    ends = [0, *(cut.end for cut, _ in ordered)]
    if [cut.start for cut, _ in ordered] != ends[:-1] or ends[-1] != dims[axis]:
        editor.refuse(first, f"the Slices of '{source.name}' leave places out, or overlap")
        return
    sizes = [cut.end - cut.start for cut, _ in ordered]
    editor.match(first, f"{len(cuts)} Slices take '{source.name}' apart")
    results = [node.outputs[0] for _, node in ordered]
    inputs, attrs = [source], {"axis": axis}
    if editor.opset >= _SIZES_AS_INPUT:
        inputs.append(editor.constant(f"{results[0].name}_split", np.asarray(sizes, np.int64)))
        editor.add("Split", inputs, results, first, attrs, first.name)
    else:
        editor.add("Split", inputs, results, first, {**attrs, "split": sizes}, first.name)
    for _, node in cuts:
        editor.remove(node)
