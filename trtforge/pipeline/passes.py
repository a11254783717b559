"""Graph passes that are good for most models and bad for quantized ones."""

HARMFUL_TO_QUANTIZATION = ("batchnorm-before-linear", "mul-add-before-linear")
"""Passes that are left out where activations are quantized. They move the scale of each input
channel from the activation, which has one step for all its channels, into the weights: the channels
of what is then quantized differ in range, and the narrow ones get few of the 256 levels. Where
channels differ by a factor e (one standard deviation of the log), Conv-Relu-BatchNormalization-Conv
falls from 37 to 10 dB."""


def dropped_passes(quantize: str) -> tuple[str, ...]:
    """Return the passes that do quantization harm; none where activations stay floats."""
    return HARMFUL_TO_QUANTIZATION if quantize in ("int8", "fp8") else ()
