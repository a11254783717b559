"""Which operators TensorRT's ONNX parser takes, and what to do about those that it does not."""

STANDARD: frozenset[str] = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
    BatchNormalization BlackmanWindow Cast CastLike Ceil Celu Clip Concat Constant
    ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div
    Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
    GridSample GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax
    Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression Not OneHot Or PRelu Pad
    Pow QuantizeLinear RMSNormalization RNN RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    ReverseSequence RotaryEmbedding Round STFT Scan Scatter ScatterElements ScatterND Selu
    Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth
    Split Sqrt Squeeze Sub Sum Swish Tan Tanh TensorScatter ThresholdedRelu Tile TopK
    Transpose Trilu Unsqueeze Upsample Where Xor
    """.split()
)
"""Operators of ai.onnx.

Source: `OnnxParser.supports_operator` of TensorRT-RTX 1.7.1.116, asked for each operator of onnx
1.23.2. The test tests/conformance/test_graph_support_table.py asks again.
"""

PLUGINS: frozenset[str] = frozenset({"CausalConvWithState", "LinearAttention", "NonZero", "RoiAlign"})
"""Operators of ai.onnx that the parser knows and hands to a plugin that TensorRT-RTX lacks.

Source: the errors of TensorRT-RTX 1.7.1.116 for onnx's own test models; asked again as above.
"""

CONTRIB: frozenset[str] = frozenset(
    {
        "DequantizeLinear",
        "GatherND",
        "Gelu",
        "GroupQueryAttention",
        "MatMulNBits",
        "QuantizeLinear",
        "RotaryEmbedding",
        "SkipSimplifiedLayerNormalization",
        "Trilu",
    }
)
"""Operators of com.microsoft that the parser takes as what they are.

It looks at names alone: com.microsoft's Attention is read as that of ONNX and refused, and
MultiHeadAttention ends the process of TensorRT-RTX 1.7.1.116. Both are left out here.
"""

NAMED: frozenset[str] = frozenset(
    {
        "ParametricSoftplus",
        "ScaledTanh",
        "SimplifiedLayerNormalization",
        "TRT_FP4DynamicQuantize",
        "TRT_FP8DequantizeLinear",
        "TRT_FP8QuantizeLinear",
        "TRT_INT4DequantizeLinear",
        "TRT_MXFP8DynamicQuantize",
    }
)
"""Further names that the parser takes, whatever their domain. Source: as above."""

_SYMMETRIC = "run the readiness passes (`passes.use: default`), which write it as Q/DQ"
_SEQUENCES = "export the model without sequences of tensors: use Concat, Split or stacked tensors"
_OUTSIDE = "end the model before this node and do the rest outside of the engine"
_TRAINING = "export the model for inference: losses and random sampling belong to training"

REMEDIES: dict[str, str] = {
    "Bernoulli": _TRAINING,
    "BitShift": "multiply or divide by a power of two",
    "Compress": "select with Where or TopK, whose results have a known size",
    "ConcatFromSequence": _SEQUENCES,
    "ConvInteger": "quantize statically (ONNX Runtime's quantizer: quantize_static)",
    "DeformConv": "write the sampling as GridSample, or keep the layer outside of the engine",
    "DynamicQuantizeLinear": "quantize statically (ONNX Runtime's quantizer: quantize_static)",
    "MatMulInteger": "quantize statically (ONNX Runtime's quantizer: quantize_static)",
    "MaxRoiPool": _OUTSIDE,
    "Multinomial": _TRAINING,
    "NegativeLogLikelihoodLoss": _TRAINING,
    "NonZero": "select with Where or TopK, whose results have a known size",
    "QLinearConv": _SYMMETRIC,
    "QLinearMatMul": _SYMMETRIC,
    "RoiAlign": "write the sampling as GridSample, or keep the layer outside of the engine",
    "SequenceAt": _SEQUENCES,
    "SequenceConstruct": _SEQUENCES,
    "SequenceEmpty": _SEQUENCES,
    "SequenceInsert": _SEQUENCES,
    "SequenceMap": _SEQUENCES,
    "SoftmaxCrossEntropyLoss": _TRAINING,
    "SplitToSequence": _SEQUENCES,
    "Unique": _OUTSIDE,
}
"""What to do about operators that the parser does not take, where that can be said."""

DEFAULT_REMEDY = "rewrite it with supported operators, or end the model before it"
