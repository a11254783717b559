"""The language of the hostile graphs: ONNX text, random weights, changes that text cannot say."""

import functools
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx.parser
from onnx import ModelProto, numpy_helper

Arrays = dict[str, Any]
Sizes = dict[str, int]

DEFAULT_SIZES: tuple[Sizes, Sizes] = ({"N": 2, "M": 3, "L": 5}, {"N": 3, "M": 1, "L": 4})
"""What the dynamic dimensions are in the first and in the second run."""


@dataclass(frozen=True)
class Hostile:
    """A graph made to break an optimizer.

    Attributes:
        proto: the model.
        sizes: of dynamic dimensions, by name, once for every shape to run at.
        given: inputs that need values other than random ones.
        refused: the code with which the gate refuses it, None when it must come through.
    """

    proto: ModelProto
    sizes: tuple[Sizes, ...] = DEFAULT_SIZES
    given: Mapping[str, Any] = field(default_factory=dict)
    refused: str | None = None


Builder = Callable[[], Hostile]


def hostile(
    text: str,
    *,
    opset: int = 18,
    ir_version: int = 8,
    imports: str = "",
    functions: str = "",
    weights: Mapping[str, Any] | None = None,
    change: Callable[[ModelProto], None] | None = None,
    **options: Any,
) -> Builder:
    """Describe a graph; it is parsed when the result is called.

    Args:
        text: inputs, outputs, initializers and nodes in ONNX's textual syntax.
        opset: of the standard operators.
        ir_version: of the model.
        imports: further operator sets, as `, "domain": 1`.
        functions: local functions, in the same syntax.
        weights: further initializers by name; a tuple of dims means random values.
        change: what cannot be said in text.
        options: further fields of `Hostile`.
    """
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}{imports}]>\ng '
    return functools.partial(_made, f"{header}{text}\n{functions}", weights or {}, change, options)


def _made(
    text: str,
    weights: Mapping[str, Any],
    change: Callable[[ModelProto], None] | None,
    options: Mapping[str, Any],
) -> Hostile:
    proto = onnx.parser.parse_model(text)
    for name, values in weights.items():
        array = random_weights(name, values) if isinstance(values, tuple) else np.asarray(values)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    if change is not None:
        change(proto)
    return Hostile(proto, **options)


def random_weights(name: str, dims: tuple[int, ...]) -> np.ndarray:
    """Return float32 weights that depend on the name; positive where it ends in "_pos"."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(dims)
    return (np.abs(values) + 0.5 if name.endswith("_pos") else values).astype(np.float32)
