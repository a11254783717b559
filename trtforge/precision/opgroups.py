"""Groups of ONNX operators that precision treats alike; the names are the operators' own."""


def _operators(names: str) -> frozenset[str]:
    return frozenset(names.split())


MOVERS = _operators(
    "Identity Reshape Transpose Squeeze Unsqueeze Flatten Slice Gather GatherElements GatherND "
    "Concat Split Expand Tile Pad DepthToSpace SpaceToDepth ReverseSequence Trilu Where "
    "ScatterND ScatterElements Compress"
)
"""They move values without changing them, so they are exact in every type."""

POINTWISE = _operators(
    "Add Sub Mul Div Neg Abs Sqrt Reciprocal Pow Exp Log Floor Ceil Round Min Max Clip Mod Sum "
    "Relu LeakyRelu PRelu Sigmoid HardSigmoid HardSwish Tanh Elu Selu Softplus Erf Gelu Mish Swish "
    "Softsign Sign Sin Cos Tan Mean"
)
"""Cheap arithmetic, one result per position: not worth a cast on each side."""

REDUCTIONS = _operators(
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum "
    "ReduceLogSumExp ReduceProd GlobalAveragePool GlobalMaxPool"
)
"""Cheap as well: they read each value once."""

CONVERTERS = frozenset(["Cast", "QuantizeLinear", "DequantizeLinear", "ConstantOfShape"])
"""They define their float type themselves (by attribute or scale), so no cast is ever needed."""

TYPE_BLIND = frozenset(["Shape", "Size"])
"""They read a tensor's shape and never its values: any type will do."""

OWN_TYPE = _operators(
    "Constant RandomNormal RandomUniform RandomNormalLike RandomUniformLike Bernoulli "
    "Multinomial EyeLike HannWindow HammingWindow BlackmanWindow MelWeightMatrix DFT STFT"
)
"""They create float values of a type named in an attribute; rare, and left as they are."""

REFUSED_BY_TARGET: dict[str, frozenset[str]] = {
    "fp16": frozenset(),
    "bf16": _operators("ConvTranspose GRU HardSwish LpNormalization LpPool Mish"),
}
"""Forms that ONNX has and TensorRT-RTX 1.7 refuses, in its parser or its builder (found by
building one node of each; the other operators of these groups build)."""

CONTROL_FLOW = frozenset(["If", "Loop", "Scan", "SequenceMap"])
"""They have no type of their own: their bodies do the work. What a SequenceMap maps is part of a
sequence's type, so its body stays FP32; the others' bodies are typed like any graph."""

SEQUENCES = _operators(
    "SequenceConstruct SequenceEmpty SequenceAt SequenceInsert SequenceErase SequenceLength "
    "SplitToSequence ConcatFromSequence Optional OptionalGetElement OptionalHasElement"
)
"""A sequence's element type is part of its own type, so it is left alone."""

TRIGONOMETRY = frozenset(["Sin", "Cos", "Tan"])
"""Their argument loses its phase when it is rounded: 1000 radians in FP16 are off by 0.25."""

INDEX_ARITHMETIC = (
    MOVERS | POINTWISE | frozenset(["Range", "Cast", "ConstantOfShape", "CumSum", "MatMul"])
)
"""What computes shapes, positions and masks from integers."""

MULTIPLY_ACCUMULATE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators that are quantized and whose multiply-accumulates are counted."""
