"""What TensorRT's messages mean for the person who reads them: pattern, plain reason, remedy."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Remedy:
    """What to do about a message; `reason` replaces a text that says nothing to the user."""

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
        r"must have type FP8, FP4, Int4, Int8, or UInt8",
        "leave biases unquantized (ONNX Runtime's quantizer: extra_options QuantizeBias=False)",
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
    Remedy(r"libnvinfer_lean", "the lean runtime is not part of this package"),
)


def explain(message: str, remedies: tuple[Remedy, ...]) -> tuple[str, str | None]:
    """Return the reason to show for `message` and the remedy, None where none is known."""
    for remedy in remedies:
        if re.search(remedy.pattern, message.strip()):
            return remedy.reason or message.strip(), remedy.hint
    return message.strip(), None
