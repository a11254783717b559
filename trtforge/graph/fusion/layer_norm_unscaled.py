"""Layer normalization without a scale becomes one operator, too."""

from trtforge.graph.fusion.layer_norm import FuseLayerNorm


class FuseUnscaledLayerNorm(FuseLayerNorm):
    """Fuse LayerNormalization also where its scale must be made, of ones.

    Matches: what layer-norm matches, with or without a scale.
    Rewrites to: LayerNormalization
    (https://onnx.ai/onnx/operators/onnx__LayerNormalization.html, opset 17).
    Refuses when: as layer-norm does for all other reasons.
    """

    name = "layer-norm-unscaled"
    takes_unscaled = True
