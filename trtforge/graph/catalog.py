"""The table of passes, in the order in which they run.

To add one: a file under cleanup/ or fusion/ (or readiness/), and a line here.
"""

_CLEANUP, _FUSION = "trtforge.graph.cleanup", "trtforge.graph.fusion"
_READINESS = "trtforge.graph.readiness"

PASSES: dict[str, str] = {
    "inline-functions": f"{_CLEANUP}.functions:InlineFunctions",
    "constant-to-initializer": f"{_CLEANUP}.constant_to_initializer:ConstantToInitializer",
    "identity": f"{_CLEANUP}.identity:RemoveIdentity",
    "qoperator-to-qdq": f"{_READINESS}.qoperator:QOperatorToQdq",
    "symmetric-quantization": f"{_READINESS}.symmetric:SymmetricQuantization",
    "quantized-bias": f"{_READINESS}.quantized_bias:FloatBiases",
    "dynamic-quantization": f"{_READINESS}.dynamic_quantization:DynamicQuantization",
    "double-to-float": f"{_READINESS}.double_to_float:DoubleToFloat",
    "shape-folding": f"{_CLEANUP}.shape_folding:FoldShapes",
    "constant-folding": f"{_CLEANUP}.constant_folding:FoldConstants",
    "constant-condition": f"{_CLEANUP}.constant_condition:TakeConstantBranch",
    "no-op": f"{_CLEANUP}.no_op:RemoveNoOps",
    "common-subexpressions": f"{_CLEANUP}.common_subexpressions:MergeCommonSubexpressions",
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
    "group-norm": f"{_FUSION}.group_norm:FuseGroupNorm",
    "conv-batchnorm": f"{_FUSION}.conv_batchnorm:FuseConvBatchNorm",
    "conv-mul-add": f"{_FUSION}.conv_mul_add:FuseConvMulAdd",
    "dead-code": f"{_CLEANUP}.dead_code:RemoveDeadCode",
    "duplicate-initializers": f"{_CLEANUP}.duplicate_initializers:MergeDuplicates",
}
"""Name -> "module:class"."""

OPTIONAL: frozenset[str] = frozenset()
"""Passes that run only when they are asked for by name."""

DEFAULT_PASSES: tuple[str, ...] = tuple(name for name in PASSES if name not in OPTIONAL)
