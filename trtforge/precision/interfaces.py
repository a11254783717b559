"""What passes between If, Loop and Scan and their bodies: tensors that must be of one type."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

_SCAN_WITHOUT_LENGTHS = 9
"""Before opset 9, Scan has a batch axis and lengths of sequences as its first input."""


@dataclass(frozen=True, eq=False)
class Link:
    """Tensors on both sides of a node's border that hold the same values, so have one type.

    Attributes:
        node: the If, Loop or Scan.
        outer_input: which input of the node goes in, None for none.
        outer_output: which output of the node it becomes, None for none.
        inner_input: which input of the body it is there, None for none.
        inner_outputs: (body, index) of the bodies' outputs.
        is_carried: it goes from one iteration into the next.
    """

    node: gs.Node
    outer_input: int | None
    outer_output: int | None
    inner_input: gs.Variable | None
    inner_outputs: tuple[tuple[gs.Graph, int], ...]
    is_carried: bool = False

    def tensors(self) -> Iterator[gs.Tensor]:
        """Yield all tensors that the link binds, on both sides."""
        if self.outer_input is not None:
            yield self.node.inputs[self.outer_input]
        if self.outer_output is not None:
            yield self.node.outputs[self.outer_output]
        if self.inner_input is not None:
            yield self.inner_input
        for body, index in self.inner_outputs:
            yield body.outputs[index]


def links_of(node: gs.Node, opset: int) -> tuple[Link, ...] | None:
    """Return the links of a node with bodies; None where its kind is not one that can be typed.

    If, Loop and Scan, ONNX operators: https://onnx.ai/onnx/operators/onnx__Loop.html and so on.

    Args:
        node: any node with bodies.
        opset: the model's operator set.
    """
    if node.domain not in (None, "", "ai.onnx"):
        return None
    if node.op == "If":
        bodies = [value for value in node.attrs.values() if isinstance(value, gs.Graph)]
        count = len(node.outputs)
        return tuple(
            Link(node, None, index, None, tuple((body, index) for body in bodies))
            for index in range(count)
        )
    body = node.attrs.get("body")
    if node.op == "Loop" and isinstance(body, gs.Graph):
        # Trip count and condition go in first; the condition comes out of the body first.
        return tuple(_iterated(node, body, states=len(node.inputs) - 2, skip=(2, 2, 1)))
    if node.op == "Scan" and isinstance(body, gs.Graph) and opset >= _SCAN_WITHOUT_LENGTHS:
        scanned = int(node.attrs["num_scan_inputs"])
        return tuple(_iterated(node, body, states=len(node.inputs) - scanned, skip=(0, 0, 0)))
    return None


def _iterated(
    node: gs.Node, body: gs.Graph, states: int, skip: tuple[int, int, int]
) -> Iterator[Link]:
    """Links of a Loop or Scan: states first, then what is sliced on the way in or stacked out."""
    outer, inner, inner_out = skip
    for index in range(states):
        made = (body, inner_out + index)
        result = index if index < len(node.outputs) else None
        yield Link(node, outer + index, result, body.inputs[inner + index], (made,), True)
    for index in range(outer + states, len(node.inputs)):
        yield Link(node, index, None, body.inputs[inner + index - outer], ())
    for index in range(states, len(node.outputs)):
        yield Link(node, None, index, None, ((body, inner_out + index),))
