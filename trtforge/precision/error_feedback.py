"""Rounding with error feedback: what rounding one weight spoils, the weights behind it make good.

The layer-wise least squares of E. Frantar et al., "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers" (2022): with H = E[x xT] over the layer's inputs, the error of
a rounded row w_k, divided by U_kk, is taken off the rows behind it in the proportions U_k, where
U is the upper Cholesky factor of the inverse of H.
"""

import numpy as np
import numpy.typing as npt

from trtforge.precision.scales import LARGEST, LOWEST, Floats

Doubles = npt.NDArray[np.float64]

_DAMPING = 0.01
"""Share of H's mean diagonal that is added to it, as in the paper: H is often singular. Another
inputs / samples is added, since a moment of few samples has directions that are only theirs: with
half as many samples as inputs, the paper's damping alone is worse than plain rounding on others."""

_ROWS_AT_ONCE = 64
"""Rows whose errors reach the rest in one matrix product."""


def round_with_feedback(
    weight: Floats, moment: Doubles, scale: Floats, grid: str, samples: int
) -> Floats:
    """Round a weight onto its grid so that the layer's outputs, not the weights, stay close.

    Args:
        weight: (inputs, outputs).
        moment: (inputs, inputs), the mean of x xT over the samples.
        scale: broadcastable to `weight`: the step of each weight.
        grid: int8 or int4.
        samples: how many x the moment is the mean of.

    Returns:
        Same shape: whole multiples of `scale` within the grid. The order in which rows are rounded
        is that of the inputs' power, the strongest first, where the most rows are left to help.
    """
    inputs = len(weight)
    power = np.diagonal(moment)
    mean = float(power.mean())
    if not np.isfinite(mean) or mean <= 0:
        moment, power, mean = np.eye(inputs), np.ones(inputs), 1.0
    damping = _DAMPING + inputs / max(samples, 1)
    order = np.argsort(-power, kind="stable")
    damped = moment[np.ix_(order, order)] + np.eye(inputs) * (damping * mean)
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    steps = np.broadcast_to(scale, weight.shape)[order].astype(np.float64)
    rows = weight[order].astype(np.float64)
    for first in range(0, inputs, _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, inputs)
        errors = _round_rows(
            rows[first:last], steps[first:last], factor[first:last, first:last], grid
        )
        rows[last:] -= factor[first:last, last:].T @ errors
    result = np.empty_like(weight, np.float32)
    result[order] = rows
    return result


def _round_rows(rows: Doubles, steps: Doubles, factor: Doubles, grid: str) -> Doubles:
    """Round rows in place, one after the other; return what the rows behind them must make good."""
    errors = np.empty_like(rows)
    for index in range(len(rows)):
        levels = np.clip(np.rint(rows[index] / steps[index]), LOWEST[grid], LARGEST[grid])
        rounded = levels * steps[index]
        errors[index] = (rows[index] - rounded) / factor[index, index]
        rows[index + 1 :] -= np.outer(factor[index, index + 1 :], errors[index])
        rows[index] = rounded
    return errors
