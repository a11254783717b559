"""Techniques that make a quantized model more accurate: one per file, one line here.

Each is a class with `name` and `apply(job: TechniqueJob) -> None`, which edits `job.model` (an FP32
model that still computes what it did, but for `bias-correction`, `rounding` and `gptq`) and, where
it fixes scales, `job.cache`. Those of BEFORE reshape the float graph before it is calibrated; those
of AFTER need the ranges.
"""

BEFORE: dict[str, str] = {
    "equalize": "trtforge.precision.techniques.equalize:Equalize",
    "smoothquant": "trtforge.precision.techniques.equalize:SmoothQuant",
}
"""In the order in which they run: name -> "module:Class"."""

AFTER: dict[str, str] = {
    "refine-scales": "trtforge.precision.techniques.refine_scales:RefineScales",
    "mse-weights": "trtforge.precision.techniques.mse_weights:MseWeights",
    "rounding": "trtforge.precision.techniques.rounding:Rounding",
    "bias-correction": "trtforge.precision.techniques.bias_correction:BiasCorrection",
    "gptq": "trtforge.precision.techniques.gptq:Gptq",
}

DEFAULT: dict[str, tuple[str, ...]] = {
    "int8": ("equalize", "smoothquant", "mse-weights", "bias-correction"),
    "fp8": ("bias-correction",),
    "int8_weight_only": (),
    "int4_weight_only": (),
}
"""What `techniques: default` stands for, by `precision.quantize`."""

FOR_FIXED_LAYERS = ("rounding", "bias-correction")
"""They change the float model to suit one fixed set of quantized layers. Where a budget chooses
that set they are left out; the search corrects the biases of each mix (`precision.mixes`)."""
