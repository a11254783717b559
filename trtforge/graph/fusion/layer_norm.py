"""Layer normalization that is spelled out becomes one operator."""

from trtforge.graph.fusion.trailing_norm import FuseTrailingNorm


class FuseLayerNorm(FuseTrailingNorm):
    """Fuse the nodes of a LayerNormalization.

    Matches: (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon), then, where they are there,
    * scale + bias, in all spellings of spelled_norm.py, TensorFlow's multiplied-out one too; mean
    over the last axis or the last few. A Cast of x to FP32 before and the Cast of n back after it
    go in as well: the operator computes its statistics in FP32 (stash_type 1) and multiplies by
    the scale in the type of x, as those nodes do.
    Rewrites to: LayerNormalization
    (https://onnx.ai/onnx/operators/onnx__LayerNormalization.html, opset 17). A scale that varies
    along other axes than the normalized ones stays outside, as does what is added then.
    Refuses when: there is no scale that fits (the operator needs one, and engines with a scale of
    ones are larger, docs/fusions.md; the pass layer-norm-unscaled does it), the axes are not the
    last ones or their sizes not known, epsilon is added outside the root, the variance is an
    unbiased one, a value in between is an output or used elsewhere, or x is FP64, which the
    operator would compute in FP32.
    """

    name = "layer-norm"
    operator = "LayerNormalization"
    opset = 17


class FuseUnscaledLayerNorm(FuseLayerNorm):
    """Fuse LayerNormalization also where its scale must be made, of ones.

    Matches: what layer-norm matches, with or without a scale.
    Rewrites to: LayerNormalization
    (https://onnx.ai/onnx/operators/onnx__LayerNormalization.html, opset 17).
    Refuses when: as layer-norm does for all other reasons.
    """

    name = "layer-norm-unscaled"
    takes_unscaled = True
