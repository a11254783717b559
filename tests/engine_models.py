"""Small ONNX models for the engine tests; every one is seeded and builds in well under a second."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CONV_PROFILE = {"image": ((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))}


def weights(name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> TensorProto:
    """Seeded by the name, so that a tensor is the same in every model."""
    rng = np.random.default_rng(sum(name.encode()))
    return numpy_helper.from_array(rng.standard_normal(shape).astype(dtype), name)


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    initializers: list[TensorProto] = (),
    opset: int = 19,
    **options: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        list(initializers),
    )
    imports = [helper.make_opsetid("", opset), *options.pop("imports", [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, **options)


def conv_net() -> onnx.ModelProto:
    """Convolution, ReLU, pooling, matrix product; dynamic batch."""
    return model(
        [
            helper.make_node("Conv", ["image", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
            helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
            helper.make_node("MatMul", ["f", "v"], ["scores"], name="fc"),
        ],
        {"image": (TensorProto.FLOAT, ["N", 3, 16, 16])},
        {"scores": (TensorProto.FLOAT, ["N", 5])},
        [weights("w", (8, 3, 3, 3)), weights("v", (8, 5))],
    )


def matmul() -> onnx.ModelProto:
    """One FP32 matrix product, static shapes."""
    return model(
        [helper.make_node("MatMul", ["x", "v"], ["y"], name="fc")],
        {"x": (TensorProto.FLOAT, [4, 8])},
        {"y": (TensorProto.FLOAT, [4, 16])},
        [weights("v", (8, 16))],
    )


def conv(dtype: int = TensorProto.FLOAT, kind: Any = np.float32) -> onnx.ModelProto:
    """One convolution between casts, in the type given."""
    return model(
        [
            helper.make_node("Cast", ["x"], ["a"], name="to", to=dtype),
            helper.make_node("Conv", ["a", "w"], ["b"], name="conv"),
            helper.make_node("Cast", ["b"], ["y"], name="from", to=TensorProto.FLOAT),
        ],
        {"x": (TensorProto.FLOAT, [1, 8, 8, 8])},
        {"y": (TensorProto.FLOAT, [1, 16, 6, 6])},
        [weights("w", (16, 8, 3, 3), kind)],
        opset=22,
    )


def bf16_conv() -> onnx.ModelProto:
    return conv(TensorProto.BFLOAT16, ml_dtypes.bfloat16)


def fp16_conv() -> onnx.ModelProto:
    return conv(TensorProto.FLOAT16, np.float16)


def fp8_matmul() -> onnx.ModelProto:
    """FP16 matrix product with FP8 Q/DQ on both inputs."""
    scale = numpy_helper.from_array(np.float16(0.05), "s")
    zero = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
    return model(
        [
            helper.make_node("Cast", ["x"], ["h"], name="to", to=TensorProto.FLOAT16),
            helper.make_node("QuantizeLinear", ["h", "s", "z"], ["hq"], name="q"),
            helper.make_node("DequantizeLinear", ["hq", "s", "z"], ["hd"], name="dq"),
            helper.make_node("QuantizeLinear", ["v", "s", "z"], ["vq"], name="wq"),
            helper.make_node("DequantizeLinear", ["vq", "s", "z"], ["vd"], name="wdq"),
            helper.make_node("MatMul", ["hd", "vd"], ["m"], name="fc"),
            helper.make_node("Cast", ["m"], ["y"], name="from", to=TensorProto.FLOAT),
        ],
        {"x": (TensorProto.FLOAT, [16, 32])},
        {"y": (TensorProto.FLOAT, [16, 64])},
        [weights("v", (32, 64), np.float16), scale, zero],
    )


def attention() -> onnx.ModelProto:
    """One FP32 Attention operator (opset 23)."""
    return model(
        [helper.make_node("Attention", ["q", "k", "v"], ["y"], name="attention")],
        {name: (TensorProto.FLOAT, [1, 2, 16, 32]) for name in "qkv"},
        {"y": (TensorProto.FLOAT, [1, 2, 16, 32])},
        opset=23,
    )


def custom_operator() -> onnx.ModelProto:
    return model(
        [helper.make_node("Frobnicate", ["x"], ["y"], name="head/frob", domain="my")],
        {"x": (TensorProto.FLOAT, [4])},
        {"y": (TensorProto.FLOAT, [4])},
        imports=[helper.make_opsetid("my", 1)],
    )


def unsupported_operator() -> onnx.ModelProto:
    return model(
        [helper.make_node("Det", ["x"], ["y"], name="det")],
        {"x": (TensorProto.FLOAT, [4, 4])},
        {"y": (TensorProto.FLOAT, [])},
    )


def asymmetric() -> onnx.ModelProto:
    """A quantizer with zero point 3, which TensorRT does not take."""
    scale = numpy_helper.from_array(np.float32(0.05), "s")
    zero = numpy_helper.from_array(np.int8(3), "z")
    return model(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="dq"),
        ],
        {"x": (TensorProto.FLOAT, [4])},
        {"y": (TensorProto.FLOAT, [4])},
        [scale, zero],
    )


def shape_input() -> onnx.ModelProto:
    """Reshape by a shape that is an input of the model."""
    return model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="reshape")],
        {"x": (TensorProto.FLOAT, [4, 8]), "shape": (TensorProto.INT64, [2])},
        {"y": (TensorProto.FLOAT, ["A", "B"])},
    )


def save(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    onnx.save(proto, path)
    return path


def light_densenet() -> Path:
    """A network of the onnx package that takes the builder several seconds."""
    return Path(onnx.__file__).parent / "backend/test/data/light/light_densenet121.onnx"


def unnamed_unsupported() -> onnx.ModelProto:
    """Two nodes without names; TensorRT-RTX does not take the second."""
    return model(
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("NonZero", ["r"], ["places"]),
        ],
        {"x": (TensorProto.FLOAT, [4, 8])},
        {"places": (TensorProto.INT64, [2, "n"])},
    )


def image_bytes() -> onnx.ModelProto:
    """A UINT8 image, transposed before it is cast."""
    return model(
        [
            helper.make_node("Transpose", ["image"], ["t"], name="planes", perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["t"], ["y"], name="cast", to=TensorProto.FLOAT),
        ],
        {"image": (TensorProto.UINT8, [1, 4, 4, 3])},
        {"y": (TensorProto.FLOAT, [1, 3, 4, 4])},
    )


def suppression() -> onnx.ModelProto:
    """NonMaxSuppression: parsed by TensorRT-RTX, but not built."""
    return model(
        [
            helper.make_node("Relu", ["raw"], ["boxes"], name="relu"),
            helper.make_node(
                "NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["chosen"], name="nms"
            ),
        ],
        {"raw": (TensorProto.FLOAT, [1, 16, 4]), "scores": (TensorProto.FLOAT, [1, 2, 16])},
        {"chosen": (TensorProto.INT64, ["n", 3])},
        [
            numpy_helper.from_array(np.array([5]), "most"),
            numpy_helper.from_array(np.array([0.5], np.float32), "iou"),
        ],
    )


def double_matmul() -> onnx.ModelProto:
    """FP64 throughout."""
    return model(
        [helper.make_node("MatMul", ["x", "v"], ["y"], name="fc")],
        {"x": (TensorProto.DOUBLE, [4, 8])},
        {"y": (TensorProto.DOUBLE, [4, 16])},
        [weights("v", (8, 16), np.float64)],
    )


def output_is_input() -> onnx.ModelProto:
    """One output is an input itself."""
    return model(
        [helper.make_node("MatMul", ["x", "v"], ["y"], name="fc")],
        {"x": (TensorProto.FLOAT, [4, 8])},
        {"x": (TensorProto.FLOAT, [4, 8]), "y": (TensorProto.FLOAT, [4, 16])},
        [weights("v", (8, 16))],
    )
