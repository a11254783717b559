"""The table of passes, in the order in which they run.

To add one: a file under cleanup/ or fusion/ (or readiness/), and a line here.
"""

_CLEANUP, _FUSION = "trtforge.graph.cleanup", "trtforge.graph.fusion"
_READINESS = "trtforge.graph.readiness"

PASSES: dict[str, str] = {
    "inline-functions": f"{_CLEANUP}.functions:InlineFunctions",
    "constant-to-initializer": f"{_CLEANUP}.constant_to_initializer:ConstantToInitializer",
    "identity": f"{_CLEANUP}.identity:RemoveIdentity",
    "contrib-to-standard": f"{_READINESS}.contrib:ContribToStandard",
    "qoperator-to-qdq": f"{_READINESS}.qoperator:QOperatorToQdq",
    "symmetric-quantization": f"{_READINESS}.symmetric:SymmetricQuantization",
    "float-quantization": f"{_READINESS}.float_quantization:FloatQuantization",
    "asymmetric-to-float": f"{_READINESS}.float_quantization:AsymmetricToFloat",
    "quantized-bias": f"{_READINESS}.quantized_bias:FloatBiases",
    "dynamic-quantization": f"{_READINESS}.dynamic_quantization:DynamicQuantization",
    "sequences-to-tensors": f"{_READINESS}.sequences:SequencesToTensors",
    "decompose-unsupported": f"{_READINESS}.decompose:DecomposeUnsupported",
    "double-to-float": f"{_READINESS}.double_to_float:DoubleToFloat",
    "shape-folding": f"{_CLEANUP}.shape_folding:FoldShapes",
    "constant-folding": f"{_CLEANUP}.constant_folding:FoldConstants",
    "constant-condition": f"{_CLEANUP}.constant_condition:TakeConstantBranch",
    "no-op": f"{_CLEANUP}.no_op:RemoveNoOps",
    "common-subexpressions": f"{_CLEANUP}.common_subexpressions:MergeCommonSubexpressions",
    "cast-chains": f"{_CLEANUP}.cast_chains:MergeCasts",
    "gemm-between-reshapes": f"{_CLEANUP}.gemm_between_reshapes:UnwrapGemm",
    "reshape-chains": f"{_CLEANUP}.reshape_chains:MergeReshapes",
    "transpose-chains": f"{_CLEANUP}.transpose_chains:MergeTransposes",
    "slice-chains": f"{_CLEANUP}.slice_chains:MergeSlices",
    "parts": f"{_CLEANUP}.parts:TakeParts",
    "expand-before-broadcast": f"{_CLEANUP}.expand_before_broadcast:RemoveExpand",
    "sigmoid": f"{_FUSION}.sigmoid:FuseSigmoid",
    "clip": f"{_FUSION}.clip:FuseClip",
    "softplus": f"{_FUSION}.softplus:FuseSoftplus",
    "leaky-relu": f"{_FUSION}.leaky_relu:FuseLeakyRelu",
    "gelu": f"{_FUSION}.gelu:FuseGelu",
    "swish": f"{_FUSION}.swish:FuseSwish",
    "mish": f"{_FUSION}.mish:FuseMish",
    "hard-swish": f"{_FUSION}.hard_swish:FuseHardSwish",
    "hard-sigmoid": f"{_FUSION}.hard_sigmoid:FuseHardSigmoid",
    "instance-norm": f"{_FUSION}.instance_norm:FuseInstanceNorm",
    "layer-norm": f"{_FUSION}.layer_norm:FuseLayerNorm",
    "rms-norm": f"{_FUSION}.rms_norm:FuseRmsNorm",
    "layer-norm-unscaled": f"{_FUSION}.layer_norm:FuseUnscaledLayerNorm",
    "rms-norm-unscaled": f"{_FUSION}.rms_norm:FuseUnscaledRmsNorm",
    "group-norm": f"{_FUSION}.group_norm:FuseGroupNorm",
    "pad-conv": f"{_FUSION}.pad_conv:FusePadConv",
    "pad-pool": f"{_FUSION}.pad_pool:FusePadPool",
    "conv-batchnorm": f"{_FUSION}.conv_batchnorm:FuseConvBatchNorm",
    "conv-mul-add": f"{_FUSION}.conv_mul_add:FuseConvMulAdd",
    "gemm-constants": f"{_FUSION}.gemm_constants:FoldGemmFactors",
    "matmul-bias": f"{_FUSION}.matmul_bias:FuseMatMulBias",
    "gemm-transpose": f"{_FUSION}.gemm_transpose:FuseGemmTranspose",
    "gemm-batchnorm": f"{_FUSION}.gemm_batchnorm:FuseGemmBatchNorm",
    "gemm-mul-add": f"{_FUSION}.gemm_mul_add:FuseGemmMulAdd",
    "batchnorm-chain": f"{_FUSION}.batchnorm_chain:MergeBatchNorms",
    "batchnorm-before-linear": f"{_FUSION}.batchnorm_before:FuseBatchNormBefore",
    "mul-add-before-linear": f"{_FUSION}.mul_add_before:FuseMulAddBefore",
    "softmax-guard": f"{_FUSION}.softmax_guard:RemoveSoftmaxGuard",
    "attention-scale": f"{_FUSION}.attention_scale:MoveAttentionScale",
    "rotary-embedding": f"{_FUSION}.rotary_embedding:FuseRotaryEmbedding",
    "attention": f"{_FUSION}.attention:FuseAttention",
    # What spells out a fusion's pattern otherwise comes after the fusions.
    "activation-chains": f"{_CLEANUP}.activation_chains:MergeActivations",
    "constant-arithmetic": f"{_CLEANUP}.constant_arithmetic:MergeConstantArithmetic",
    "take-one": f"{_CLEANUP}.take_one:TakeOne",
    "slices-to-split": f"{_CLEANUP}.slices_to_split:SlicesToSplit",
    "scale-folding": f"{_CLEANUP}.scale_folding:FoldScales",
    "transpose-motion": f"{_CLEANUP}.transpose_motion:MoveTransposes",
    "unused-imports": f"{_CLEANUP}.unused_imports:RemoveUnusedImports",
    "dead-code": f"{_CLEANUP}.dead_code:RemoveDeadCode",
    "duplicate-initializers": f"{_CLEANUP}.duplicate_initializers:MergeDuplicates",
}
"""Name -> "module:class"."""

OPTIONAL: frozenset[str] = frozenset(
    {
        "asymmetric-to-float",
        *("sigmoid", "softplus", "hard-sigmoid", "hard-swish", "swish"),
        *("layer-norm-unscaled", "rms-norm-unscaled"),
        *("rotary-embedding", "attention"),
    }
)
"""Passes that run only when they are asked for by name: engines get larger or slower to build with
them, see docs/fusions.md."""

DEFAULT_PASSES: tuple[str, ...] = tuple(name for name in PASSES if name not in OPTIONAL)

READINESS: frozenset[str] = frozenset(
    name for name, where in PASSES.items() if where.startswith(_READINESS)
)
"""Passes that serve TensorRT's parsers alone; ONNX Runtime runs faster without them."""

NEEDS: dict[str, str] = {
    "constant-to-initializer": "Constant",
    "identity": "Identity Dropout",
    "symmetric-quantization": "QuantizeLinear DequantizeLinear",
    "float-quantization": "QuantizeLinear",
    "asymmetric-to-float": "QuantizeLinear DequantizeLinear",
    "quantized-bias": "DequantizeLinear",
    "dynamic-quantization": "DynamicQuantizeLinear ConvInteger MatMulInteger",
    "sequences-to-tensors": "ConcatFromSequence SequenceAt SequenceLength",
    "constant-condition": "If",
    "cast-chains": "Cast",
    "gemm-between-reshapes": "Gemm",
    "reshape-chains": "Flatten Reshape Squeeze Transpose Unsqueeze",
    "transpose-chains": "Transpose",
    "slice-chains": "Slice Concat Pad",
    "parts": "Concat Gather Slice Split",
    "sigmoid": "Div Reciprocal",
    "clip": "Clip Max Min",
    "softplus": "Log Where",
    "leaky-relu": "Max Where",
    "gelu": "Erf Tanh",
    "swish": "Sigmoid",
    "mish": "Tanh",
    "hard-swish": "Clip HardSigmoid",
    "hard-sigmoid": "Clip",
    "instance-norm": "Pow Sqrt",
    "layer-norm": "Pow Sqrt",
    "rms-norm": "Pow Sqrt",
    "layer-norm-unscaled": "Pow Sqrt",
    "rms-norm-unscaled": "Pow Sqrt",
    "group-norm": "InstanceNormalization",
    "pad-conv": "Pad",
    "pad-pool": "Pad",
    "conv-batchnorm": "BatchNormalization",
    "gemm-constants": "Gemm",
    "gemm-transpose": "Transpose",
    "gemm-batchnorm": "BatchNormalization",
    "batchnorm-chain": "BatchNormalization",
    "batchnorm-before-linear": "BatchNormalization",
    "softmax-guard": "Softmax",
    "attention-scale": "Softmax",
    "attention": "Softmax",
    "activation-chains": "Abs BitwiseNot Ceil Clip Floor Neg Not Relu Round Sign",
    "take-one": "Split Squeeze",
    "slices-to-split": "Slice",
    "transpose-motion": "Transpose",
}
"""Name -> operators without any of which the pass has nothing to do; then it is not even loaded."""
