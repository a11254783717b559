"""Values of tensors that are read, or computed, when they are wanted."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto
from onnx_graphsurgeon.ir.tensor import LazyValues

from trtforge.graph.external import ExternalFiles
from trtforge.graph.weights import is_external, tensor_array

_REMEMBERED_BYTES = 1 << 12
"""Every pass looks at scales, axes and biases; so much more memory each may take."""


class MappedValues(LazyValues):  # type: ignore[misc]
    """Lazy values of a tensor whose bytes may be in an external file."""

    def __init__(self, tensor: TensorProto, files: ExternalFiles) -> None:
        super().__init__(tensor)
        self._files = files
        self._loaded: np.ndarray | None = None

    def load(self) -> np.ndarray:
        """Return the values, read-only; a view of the mapped file where possible."""
        if self._loaded is not None:
            return self._loaded
        values = tensor_array(self.tensor, self._files)
        if values.nbytes <= _REMEMBERED_BYTES and not is_external(self.tensor):
            self._loaded = values
        return values


class ComputedValues(LazyValues):  # type: ignore[misc]
    """Values that are computed when they are wanted, so that big ones need not all be held.

    Args:
        shape: of the values.
        dtype: of the values.
        make: computes them, contiguous; tensors with the same function stay tied to each other.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: "np.dtype[Any]", make: Callable[[], np.ndarray]
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.nbytes = math.prod(shape) * dtype.itemsize
        self.make = make

    def load(self) -> np.ndarray:
        """Return the values, computed anew."""
        return self.make()
