"""Constant nodes become initializers, where every other pass looks for weights."""

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor

_NUMBERS: dict[str, Any] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


class ConstantToInitializer:
    """Turn Constant nodes into initializers of the same name.

    Matches: Constant with a tensor, a number or a list of numbers
    (https://onnx.ai/onnx/operators/onnx__Constant.html, opset 1 on).
    Rewrites to: an initializer named as the node's output; bytes stay where they are.
    Refuses when: the value is sparse or text, or the output is an output of the graph.
    """

    name = "constant-to-initializer"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Constant"):
            output = node.outputs[0]
            values = _values(node)
            if values is None:
                editor.refuse(node, "its value is sparse or text")
            elif editor.is_kept(output):
                editor.refuse(node, f"'{output.name}' is an output")
            else:
                editor.match(node, f"'{output.name}' is now an initializer")
                editor.replace_uses(output, gs.Constant(output.name, values))
                editor.remove(node)


def _values(node: gs.Node) -> Any:
    for key, value in node.attrs.items():
        if key == "value" and isinstance(value, gs.Constant):
            return value._values  # lazy values stay lazy
        if key in _NUMBERS:
            return np.asarray(value, dtype=_NUMBERS[key])
    return None
