"""Root-mean-square normalization without a scale becomes one operator, too."""

from trtforge.graph.fusion.rms_norm import FuseRmsNorm


class FuseUnscaledRmsNorm(FuseRmsNorm):
    """Fuse RMSNormalization also where its scale must be made, of ones.

    Matches: what rms-norm matches, with or without a scale.
    Rewrites to: RMSNormalization
    (https://onnx.ai/onnx/operators/onnx__RMSNormalization.html, opset 23).
    Refuses when: as rms-norm does for all other reasons.
    """

    name = "rms-norm-unscaled"
    takes_unscaled = True
