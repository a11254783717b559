"""Standard operators that TensorRT does not take, in standard operators that it takes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values, is_standard
from trtforge.graph.readiness.bodies import FunctionBody, function_of
from trtforge.graph.readiness.forward_types import learn_types
from trtforge.graph.readiness.operators import PLUGINS, STANDARD
from trtforge.graph.readiness.writing import Writer

_OWN_PASSES = frozenset(
    {"Bernoulli", "ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "SequenceMap"}
)
"""Operators with a function body of which another pass, or none, makes something better."""


class DecomposeUnsupported:
    """Write operators as their definition.

    Matches: operators of ONNX that TensorRT does not take and that have a function body without
    branches in the standard (CenterCropPad, SwiGLU, NegativeLogLikelihoodLoss,
    SoftmaxCrossEntropyLoss; https://onnx.ai/onnx/operators/); Det of 2x2 and 3x3 matrices;
    AffineGrid of a constant size.
    Rewrites to: that body; the sum over permutations; a constant grid times theta.
    Refuses when: the body holds branches, or was written for an operator set whose operators
    have changed since, or types, sizes or ranks that it depends on are not known.

    The definition of the opset that the model is in.
    """

    name = "decompose-unsupported"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        concerned = [node for node in editor.nodes() if _is_concerned(node)]
        if concerned:
            learn_types(editor)  # of what an earlier decomposition has left
        for node in concerned:
            rule = _RULES.get(node.op)
            if rule is not None:
                _finish(editor, node, rule(editor, node))
            elif node.op not in _OWN_PASSES:
                body = function_of(editor, node)
                if body is not None:
                    _finish(editor, node, _inlined(body))


def _is_concerned(node: gs.Node) -> bool:
    return is_standard(node) and node.op not in STANDARD and node.op not in PLUGINS


Plan = Callable[[], None]


def _finish(editor: Editor, node: gs.Node, plan: Plan | str) -> None:
    if isinstance(plan, str):
        editor.refuse(node, plan)
    else:
        editor.match(node, f"{node.op} in operators that TensorRT takes")
        plan()


def _inlined(body: "FunctionBody | str") -> Plan | str:
    return body if isinstance(body, str) else body.write


def _det(editor: Editor, node: gs.Node) -> Plan | str:
    dims, dtype = editor.dims(node.inputs[0]), editor.dtype(node.inputs[0])
    if dims is None or dtype is None:
        return "the size of its matrices is not known"
    if dims[-2:] not in ((2, 2), (3, 3)):
        return f"its matrices are {dims[-2]} x {dims[-1]}, not 2 x 2 or 3 x 3"
    size = int(dims[-1] or 0)

    def write() -> None:
        writer = Writer(editor, node, dtype)
        places = [writer.size(f"index{index}", index) for index in range(size)]
        rows = [writer.write("Gather", [node.inputs[0], place], axis=-2) for place in places]
        cells = [
            [writer.write("Gather", [row, place], axis=-1) for place in places] for row in rows
        ]

        def minor(one: int, two: int) -> gs.Tensor:
            last = cells[-2:]
            down = writer.write("Mul", [last[0][one], last[1][two]])
            up = writer.write("Mul", [last[0][two], last[1][one]])
            return writer.write("Sub", [down, up])

        if size == 2:
            terms = [
                writer.write("Mul", [cells[0][0], cells[1][1]]),
                writer.write("Mul", [cells[0][1], cells[1][0]]),
            ]
            writer.finish("Sub", terms)
            return
        first = writer.write("Mul", [cells[0][0], minor(1, 2)])
        second = writer.write("Mul", [cells[0][1], minor(0, 2)])
        third = writer.write("Mul", [cells[0][2], minor(0, 1)])
        writer.finish("Add", [writer.write("Sub", [first, second]), third])

    return write


def _affine_grid(editor: Editor, node: gs.Node) -> Plan | str:
    """grid[n, h, w] = theta[n] (x, y, 1): all points at once are base (points, 3) theta'."""
    size, dtype = constant_values(node.inputs[1]), editor.dtype(node.inputs[0])
    if size is None:
        return f"its size ('{node.inputs[1].name}') is computed"
    if dtype is None:
        return "the element type is not known"
    space = [int(value) for value in size.reshape(-1)[2:]]
    base = _base_grid(space, bool(node.attrs.get("align_corners", 0)), dtype)

    def write() -> None:
        writer = Writer(editor, node, dtype)
        turned = writer.write("Transpose", [node.inputs[0]], perm=[0, 2, 1])
        points = editor.constant(f"{node.outputs[0].name}_base", base)
        moved = writer.write("MatMul", [points, turned])
        writer.finish("Reshape", [moved, writer.sizes("shape", -1, *space, len(space))])

    return write


def _base_grid(space: list[int], align_corners: bool, dtype: Any) -> np.ndarray:
    """The points of a grid over [-1, 1], one row (x, y(, z), 1) each; the last axis is x.

    Source: https://onnx.ai/onnx/operators/onnx__AffineGrid.html
    """
    axes = []
    for count in space:
        if align_corners:
            axes.append(np.linspace(-1.0, 1.0, count) if count > 1 else np.array([-1.0]))
        else:
            axes.append((2 * np.arange(count) + 1) / count - 1)
    mesh = np.meshgrid(*axes, indexing="ij")
    columns = [plane.reshape(-1) for plane in reversed(mesh)]
    return np.stack([*columns, np.ones_like(columns[0])], axis=-1).astype(dtype)


_RULES: dict[str, Callable[[Editor, gs.Node], Plan | str]] = {
    "AffineGrid": _affine_grid,
    "Det": _det,
}
