"""How far to even out the ranges of channels, by what rounding would do to the readers' outputs.

A tensor that is quantized has one step for all its channels, D = max_j(A_j / s_j) / 127, where A_j
is the largest magnitude of channel j and s_j what the channel is divided by. With P_j = E[x_j^2],
r_j the share of values that are not 0, and weights W, the noise at a reader's output o is

    sum_j min(r_j D^2 / 12, P_j / s_j^2) s_j^2 W_oj^2  +  d_o^2 / 12 sum_j P_j / s_j^2,
    d_o = max_j |W_oj| s_j / 127,

the first part from rounding activations (zeros are exact, and nothing is lost but the value
itself), the second from rounding weights. s_j = A_j^a with a in 0..1, as in SmoothQuant (G. Xiao et
al., 2022, eq. 4), with the a of least noise rather than one for all; the same holds between
convolutions, where M. Nagel et al., "Data-Free Quantization through Weight Equalization and Bias
Correction" (2019), section 4.1, take both ranges alike. There a = 1 is free when the reader is
depthwise, since its weights have one step per channel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.precision.scales import LARGEST
from trtforge.precision.techniques.channels import (
    ChannelGroup,
    Doubles,
    InputWeights,
    input_weights,
)

EXPONENTS = tuple(np.linspace(0.0, 1.0, 11).tolist())

_LEAST_GAIN = 0.05
"""Share of the modelled noise that must go away: the model is no better than that."""

_SMALLEST_SHARE = 0.01
"""Channels below this share of the largest one's range, about one INT8 level, count as that: they
carry next to nothing, and samples to come may find them larger."""


@dataclass
class ChannelStatistics:
    """What was seen of the channels of one tensor.

    Attributes:
        largest: largest magnitudes, shape (channels,).
        squares: sums of squares.
        nonzeros: how many values were not 0.
        count: how many values each channel had.
    """

    largest: Doubles
    squares: Doubles
    nonzeros: Doubles
    count: int = 0

    @classmethod
    def empty(cls, channels: int) -> "ChannelStatistics":
        """Nothing seen yet."""
        return cls(np.zeros(channels), np.zeros(channels), np.zeros(channels))

    def add(self, values: np.ndarray, axis: int) -> None:
        """Look at the values of one run."""
        rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        self.largest = np.maximum(self.largest, np.maximum(rows.max(1), -rows.min(1)))
        self.squares += np.einsum("ij,ij->i", rows, rows)
        self.nonzeros += np.count_nonzero(rows, axis=1)
        self.count += rows.shape[1]

    @property
    def power(self) -> Doubles:
        """Mean squares."""
        return self.squares / max(self.count, 1)

    @property
    def density(self) -> Doubles:
        """Share of values that are not 0."""
        return self.nonzeros / max(self.count, 1)


@dataclass(frozen=True, eq=False)
class Measured:
    """A tensor of a group that will be quantized.

    Attributes:
        seen: its channels.
        readers: the quantized nodes that multiply it with weights.
        is_added: whether it is quantized as an operand of an addition as well.
    """

    seen: ChannelStatistics
    readers: tuple[gs.Node, ...]
    is_added: bool


def best_scale(group: ChannelGroup, tensors: Sequence[Measured]) -> tuple[Doubles, float] | None:
    """Choose what to divide a group's channels by.

    Args:
        group: the channels.
        tensors: those of its tensors that will be quantized, at least one.

    Returns:
        The scale, shape (channels,), of geometric mean 1, and the noise that it leaves as a share
        of what there was; None where nothing pays.
    """
    spread = np.zeros(group.channels)
    for tensor in tensors:
        top = tensor.seen.largest.max()
        if top > 0:
            spread = np.maximum(spread, tensor.seen.largest / top)
    if not spread.max() > 0:
        return None
    spread = np.maximum(spread, _SMALLEST_SHARE)
    models = [_NoiseModel(tensor) for tensor in tensors]
    scales = [spread**exponent for exponent in EXPONENTS]
    noises = [float(sum(model.noise(scale) for model in models)) for scale in scales]
    best = int(np.argmin(noises))
    if noises[best] > noises[0] * (1 - _LEAST_GAIN):
        return None
    scale = scales[best]
    return scale / np.exp(np.log(scale).mean()), noises[best] / noises[0]


class _NoiseModel:
    """The noise that rounding one tensor and its readers' weights makes, over the signal."""

    def __init__(self, tensor: Measured) -> None:
        self._tensor = tensor
        self._readers = [_Reader(input_weights(node), tensor.seen) for node in tensor.readers]

    def noise(self, scale: Doubles) -> float:
        seen = self._tensor.seen
        step = float((seen.largest / scale).max()) / LARGEST["int8"]
        rounding = np.minimum(seen.density * step**2 / 12 * scale**2, seen.power)
        total = 0.0
        for reader in self._readers:
            total += reader.noise(rounding, scale)
        if self._tensor.is_added:
            total += float(rounding.sum()) / max(float(seen.power.sum()), 1e-300)
        return float(total)


class _Reader:
    def __init__(self, weights: InputWeights, seen: ChannelStatistics) -> None:
        self._channel = weights.channel
        self._largest = np.abs(weights.values).max(axis=2).astype(np.float64)
        squares = np.einsum("oit,oit->oi", weights.values, weights.values)
        self._squares = np.bincount(
            weights.channel.ravel(), squares.ravel(), minlength=len(seen.largest)
        )
        self._taps = weights.values.shape[2]
        self._power = seen.power
        self._signal = max(float(self._squares @ seen.power), 1e-300)

    def noise(self, rounding: Doubles, scale: Doubles) -> float:
        from_activations = float(self._squares @ rounding)
        steps = (self._largest * scale[self._channel]).max(axis=1) / LARGEST["int8"]
        reduced = (self._power / scale**2)[self._channel].sum(axis=1)
        from_weights = float((steps**2 / 12) @ reduced) * self._taps
        return float((from_activations + from_weights) / self._signal)
