"""Root-mean-square normalization that is spelled out becomes one operator."""

from trtforge.graph.fusion.trailing_norm import FuseTrailingNorm


class FuseRmsNorm(FuseTrailingNorm):
    """Fuse the nodes of an RMSNormalization.

    Matches: x / sqrt(mean(x^2) + epsilon), then, where it is there, * scale, in all spellings of
    spelled_norm.py; mean over the last axis or the last few. As in layer-norm, the casts around it
    go in: x to FP32 before, n back to the type of x before it meets the scale.
    Rewrites to: RMSNormalization
    (https://onnx.ai/onnx/operators/onnx__RMSNormalization.html, opset 23).
    Refuses when: there is no scale that fits (as for layer-norm; the pass rms-norm-unscaled takes
    those), the axes are not the last ones or their sizes not known, epsilon is added outside
    the root, a value in between is an output or used elsewhere, or x is FP64.
    """

    name = "rms-norm"
    operator = "RMSNormalization"
    opset = 23
    is_centred = False


class FuseUnscaledRmsNorm(FuseRmsNorm):
    """Fuse RMSNormalization also where its scale must be made, of ones.

    Matches: what rms-norm matches, with or without a scale.
    Rewrites to: RMSNormalization
    (https://onnx.ai/onnx/operators/onnx__RMSNormalization.html, opset 23).
    Refuses when: as rms-norm does for all other reasons.
    """

    name = "rms-norm-unscaled"
    takes_unscaled = True
