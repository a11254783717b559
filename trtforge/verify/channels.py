"""Tensors whose channels were scaled on purpose: how close they are once that is undone.

`equalize` and `smoothquant` (docs/quantization.md) multiply each channel of a tensor by a positive
number and divide the weights of its readers by it. Such a tensor is far from the original's and
carries no error for that.
"""

import math
from dataclasses import dataclass, field

import numpy as np

WORSE_THAN_DB = 20.0
"""Tensors that are closer than that need no explanation."""

GAIN_DB = 10.0
"""Scaling channels to fit takes off that much of an error at least, or the error is another one:
a node that loses so much is a jump (see `jumps`)."""

_LEAST_VALUES = 3
"""Of a channel: one is always fitted, and of three that are unlike a third of the noise is."""


@dataclass
class _Sums:
    products: np.ndarray
    squares: np.ndarray
    values: int


@dataclass
class ChannelFit:
    """What has been seen of the channels of one tensor: those of axis 1, and of the last axis."""

    signal: float = 0.0
    _axes: dict[int, _Sums] = field(default_factory=dict)

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add one pair of finite arrays of one shape, of rank 2 or more."""
        left, right = reference.astype(np.float64), candidate.astype(np.float64)
        self.signal += float(np.sum(np.square(left)))
        for axis in {1, left.ndim - 1}:
            first = np.moveaxis(left, axis, 0).reshape(left.shape[axis], -1)
            second = np.moveaxis(right, axis, 0).reshape(left.shape[axis], -1)
            products = np.einsum("ci,ci->c", first, second)
            squares = np.einsum("ci,ci->c", second, second)
            known = self._axes.get(axis)
            if known is None:
                self._axes[axis] = _Sums(products, squares, first.shape[1])
            elif known.products.shape == products.shape:
                known.products += products
                known.squares += squares
                known.values += first.shape[1]

    @property
    def sqnr_db(self) -> float:
        """SQNR after each channel is multiplied by the positive number that fits it best, dB."""
        return max((self._fitted(sums) for sums in self._axes.values()), default=-math.inf)

    def _fitted(self, sums: _Sums) -> float:
        if sums.values < _LEAST_VALUES or not self.signal:
            return -math.inf
        explained = np.maximum(sums.products, 0) ** 2 / np.maximum(sums.squares, 1e-300)
        noise = self.signal - float(explained.sum())
        # Below the rounding of these sums nothing can be told.
        return 10.0 * math.log10(self.signal / max(noise, 1e-14 * self.signal))


def rescaled_db(plain_db: float, fit: ChannelFit | None) -> float | None:
    """Return the SQNR that counts where scaled channels explain an error, None where they do not.

    Args:
        plain_db: SQNR of the tensor as it is.
        fit: of its channels; None where it was close enough.
    """
    if fit is None or math.isinf(plain_db):
        return None
    found = fit.sqnr_db
    return found if found >= max(plain_db, 0.0) + GAIN_DB else None
