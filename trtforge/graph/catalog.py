"""The table of passes, in the order in which they run.

To add one: a file under cleanup/ or fusion/ (or readiness/), and a line here.
"""

_CLEANUP, _FUSION = "trtforge.graph.cleanup", "trtforge.graph.fusion"

PASSES: dict[str, str] = {
    "inline-functions": f"{_CLEANUP}.functions:InlineFunctions",
    "constant-to-initializer": f"{_CLEANUP}.constant_to_initializer:ConstantToInitializer",
    "identity": f"{_CLEANUP}.identity:RemoveIdentity",
    "shape-folding": f"{_CLEANUP}.shape_folding:FoldShapes",
    "constant-folding": f"{_CLEANUP}.constant_folding:FoldConstants",
    "constant-condition": f"{_CLEANUP}.constant_condition:TakeConstantBranch",
    "no-op": f"{_CLEANUP}.no_op:RemoveNoOps",
    "common-subexpressions": f"{_CLEANUP}.common_subexpressions:MergeCommonSubexpressions",
    "conv-batchnorm": f"{_FUSION}.conv_batchnorm:FuseConvBatchNorm",
    "conv-mul-add": f"{_FUSION}.conv_mul_add:FuseConvMulAdd",
    "dead-code": f"{_CLEANUP}.dead_code:RemoveDeadCode",
    "duplicate-initializers": f"{_CLEANUP}.duplicate_initializers:MergeDuplicates",
}
"""Name -> "module:class"."""

OPTIONAL: frozenset[str] = frozenset()
"""Passes that run only when they are asked for by name."""

DEFAULT_PASSES: tuple[str, ...] = tuple(name for name in PASSES if name not in OPTIONAL)
