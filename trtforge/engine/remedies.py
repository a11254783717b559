"""What TensorRT's messages mean for the person who reads them: pattern, plain reason, remedy."""

import re
from dataclasses import dataclass

_NO_GPU = re.compile(r"catchCudaError.*cudaError 35\b")
"""What TensorRT-RTX adds to messages on a machine without an NVIDIA driver."""


@dataclass(frozen=True)
class Remedy:
    r"""What to do about a message.

    `reason` replaces a text that says nothing to the user; \1 in it is the pattern's first group.
    """

    pattern: str
    hint: str
    reason: str | None = None


PARSER_REMEDIES: tuple[Remedy, ...] = (
    Remedy(
        r"Plugin not found",
        "rewrite the operator with standard ONNX operators or as an ONNX function; "
        "TensorRT-RTX takes no plugins",
        "the operator is neither known to TensorRT nor a registered plugin",
    ),
    Remedy(
        r"Non-zero zero point is not supported",
        "quantize symmetrically, with zero point 0, as `precision.quantize: int8` does",
        "quantization with a zero point other than 0 is not supported",
    ),
    Remedy(
        r"input has type (\w+) but must have type FP8, FP4, Int4, Int8, or UInt8",
        "leave biases unquantized (ONNX Runtime's quantizer: extra_options QuantizeBias=False)",
        r"it dequantizes \1, and only FP8, FP4, INT4, INT8 and UINT8 can be",
    ),
    Remedy(
        r"input has type UInt8 but must have type",
        "put the Cast to a float type first, right behind the input",
        "TensorRT converts UINT8 and does nothing else with it",
    ),
    Remedy(
        r"operator in training mode",
        "export the model for inference, in PyTorch after `model.eval()`",
        "the operator is in training mode",
    ),
    Remedy(
        r"was not found in plugin registry",
        "rewrite it with supported operators, or end the model before it and do the rest outside",
        "the operator is not supported by this version",
    ),
    Remedy(
        r"Failed to import initializer",
        "look that the external data file lies beside the model, and that the type is one of "
        "FP32, FP16, BF16, FP8 E4M3, INT8, INT32, INT64, BOOL",
    ),
    Remedy(
        r"Failed to convert ONNX date type",
        "TensorRT has no such type; cast the tensor to FP32 or INT32 in the graph",
        "the ONNX data type has no counterpart in TensorRT",
    ),
    Remedy(
        r"broadcast dimensions must be conformable",
        "check the shapes of this node's inputs (`polygraphy inspect model --show layers`)",
    ),
    Remedy(
        r"requires inputs with type",
        "put a Cast to FP32 or FP16 before this node",
    ),
    Remedy(
        r"Node input was not registered",
        "give the Loop or If around it all its inputs (a Loop a trip count and the condition "
        "`true`), or export the model without it",
        "it reads what the Loop or If around it does not give it",
    ),
    Remedy(
        r"convertOnnxDims|Failed to convert ONNX dimensions",
        "TensorRT's tensors have 8 dimensions at most: merge some with a Reshape",
        "an input, output or weight has dimensions that TensorRT has not",
    ),
    Remedy(
        r"Invalid number of output channels: -1|[Kk]ernel weights .*(dynamic|build.time)",
        "make its weights a constant, or give them a fixed shape",
        "its weights have no fixed shape",
    ),
    Remedy(
        r"Kernel weight dimension failed to broadcast",
        "check the shape of its weights against its input and `group`",
        "its weights are for another number of channels than its input has",
    ),
    Remedy(
        r"condition: \(kernelSize\)\.nbDims == 2",
        "merge axes with a Reshape, or do it outside of the engine",
        "it works on more than three axes beside batch and channels",
    ),
    Remedy(
        r"Unknown activation type: (\w+)",
        "use Tanh, Sigmoid, Relu or another that TensorRT has in recurrent layers",
        r"a recurrent layer has the activation \1, which TensorRT has not",
    ),
    Remedy(
        r"must be (?:a )?(?:build[- ]time constant|an initializer)",
        "make that input a constant of the model",
    ),
    Remedy(
        r"^(false|0)$",
        "rewrite it with supported operators",
        "the operator is not supported by this version",
    ),
)

BUILDER_REMEDIES: tuple[Remedy, ...] = (
    Remedy(r"within workspace limit|OutOfMemory \(Requested size was", "raise workspace_mib"),
    Remedy(
        r"HW-specific datatypes: \S*fp8",
        "leave GPUs below 8.9 out of compute_capabilities, or quantize to int8",
    ),
    Remedy(
        r"HW-specific datatypes: \S*b16",
        "leave GPUs below 8.0 out of compute_capabilities, or use fp16",
    ),
    Remedy(r"FP32 GEMM is not supported", "leave 7.5 out of compute_capabilities, or use fp16"),
    Remedy(
        r"not supported by a dedicated kernel",
        "use fp16 or bf16 for Attention, or export it as MatMul and Softmax (opset 22 or older)",
    ),
    Remedy(
        r"Assertion !layerImpls\.empty\(\) failed\. (\S+) has no runners that implement it",
        "end the model before this layer and do the rest outside of the engine",
        r"it has no implementation of layer '\1'",
    ),
    Remedy(
        r"Error during shape inference of\s+\S+ = (\w+)\(([^)\s]*)\)",
        "try another precision.type, or precision.keep for the layers around it (in BF16 stacked "
        "recurrent layers: keep LSTM in fp32)",
        r"its compiler loses the shape of \1(\2)",
    ),
    Remedy(
        r"CHECK_GE\(smem_limit, ",
        "raise tactic_shared_memory_kib, or remove it",
        "its kernels need more shared memory than tactic_shared_memory_kib allows",
    ),
    Remedy(
        r"(\w+) input of I(\w+)Layer must be a build time constant",
        r"make that input a constant of the model",
        r"the \1 of a \2 is no constant",
    ),
    Remedy(r"libnvinfer_lean", "the lean runtime is not part of this package"),
)


def explain(message: str, remedies: tuple[Remedy, ...]) -> tuple[str, str | None]:
    """Return the reason to show for `message` and the remedy, None where none is known."""
    for remedy in remedies:
        if found := re.search(remedy.pattern, message.strip()):
            reason = found.expand(remedy.reason) if remedy.reason else one_line(message)
            return reason, remedy.hint
    return one_line(message), None


def one_line(message: str) -> str:
    """Return a message without its line ends, and without its lines about the missing GPU."""
    lines = [" ".join(line.split()) for line in message.splitlines()]
    return " ".join(line for line in lines if line and not _NO_GPU.search(line))
