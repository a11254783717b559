"""What engines say of their layers: the inspector's JSON in both forms, written here by hand.

No engine was loaded for these: the forms are those of NVIDIA's documentation (Engine Inspector;
Migrating IEngineInspector Usage from TensorRT 10.x to 11.x).
"""

from pathlib import Path
from typing import Any

import pytest

from trtforge.engine.environment import driver
from trtforge.engine.inspector import engine_layers, engine_types, inspect_engine
from trtforge.engine.views import engine_information
from trtforge.errors import MissingError


def before_11() -> dict[str, Any]:
    """An INT8 convolution, a pointwise kernel in FP16, a reformat, an FP16 product."""

    def tensor(name: str, dims: list[int], text: str) -> dict[str, Any]:
        return {"Name": name, "Location": "Device", "Dimensions": dims, "Format/Datatype": text}

    int8 = "Thirty-two wide channel vectorized row major Int8 format"
    half = "Channel major FP16 format where channel % 8 == 0"
    return {
        "Layers": [
            {
                "Name": "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1",
                "LayerType": "Reformat",
                "Inputs": [tensor("image", [2, 3, 8, 8], "Row major linear FP32")],
                "Outputs": [tensor("reformatted", [2, 3, 8, 8], int8)],
            },
            {
                "Name": "conv1 + relu1",
                "LayerType": "CaskConvolution",
                "Inputs": [tensor("reformatted", [2, 3, 8, 8], int8)],
                "Outputs": [tensor("r", [2, 16, 8, 8], half)],
                "ParameterType": "Convolution",
                "Weights": {"Type": "Int8", "Count": 432},
                "Bias": {"Type": "Float", "Count": 16},
                "Metadata": "[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]",
            },
            {
                "Name": "PWN(gelu of conv1)",
                "LayerType": "PointWiseV2",
                "Inputs": [tensor("r", [2, 16, 8, 8], half)],
                "Outputs": [tensor("g", [2, 16, 8, 8], half)],
                "Metadata": "[ONNX Layer: gelu]",
            },
            {
                "Name": "fc",
                "LayerType": "MatrixMultiply",
                "Inputs": [tensor("g", [2, 1024], "Half"), tensor("w", [1024, 5], "Half")],
                "Outputs": [tensor("scores", [2, 5], "Half")],
                "Metadata": "[ONNX Layer: fc]",
            },
        ],
        "Bindings": ["image", "scores"],
    }


def from_11() -> dict[str, Any]:
    """The same engine as TensorRT 11 tells it."""
    document = before_11()
    for layer in document["Layers"]:
        for tensor in (*layer["Inputs"], *layer["Outputs"]):
            text = tensor.pop("Format/Datatype")
            kind = {"Int8": "Int8", "FP16": "Half", "FP32": "Float", "Half": "Half"}
            tensor["Datatype"] = next(name for word, name in kind.items() if word in text)
            tensor["Format"] = "Row major linear"
    del document["Bindings"]
    document["I/O Tensors"] = [
        {"Name": "image", "IOMode": "Input", "DataType": "Float", "Dimensions": [2, 3, 8, 8]},
        {"Name": "scores", "IOMode": "Output", "DataType": "Half", "Dimensions": [2, 5]},
    ]
    return document


@pytest.mark.parametrize("form", [before_11, from_11])
def test_both_forms_say_the_same(form: Any) -> None:
    layers = engine_layers(form())
    assert layers is not None
    found = engine_types(layers)
    assert found.layers == 4
    assert found.nodes == {"int8": 1, "fp16": 2}  # the reformat computes nothing
    assert found.products == {"conv1": "int8", "relu1": "int8", "fc": "fp16"}
    assert found.weights_bytes == {"int8": 432, "fp32": 16 * 4}
    assert found.activations_bytes == {
        "int8": 2 * 3 * 64,
        "fp16": 2 * (2 * (2 * 16 * 64) + 2 * 5),
    }
    assert [layer.is_product for layer in layers] == [False, True, False, True]


def test_dynamic_shapes_leave_sizes_and_types_open() -> None:
    document = before_11()
    for layer in document["Layers"]:
        for tensor in layer["Outputs"]:
            tensor["Dimensions"] = [-1, *tensor["Dimensions"][1:]]
            tensor["Format/Datatype"] = "N/A due to dynamic shapes"
    found = engine_types(engine_layers(document) or ())
    assert found.activations_bytes is None
    assert found.products["conv1"] == "int8"  # its operands still say so
    assert found.products["fc"] == "unknown"


def test_an_engine_that_knows_names_only_says_no_type() -> None:
    for document in ({"Layers": ["conv1 + relu1", "fc"]}, ["conv1 + relu1"]):
        layers = engine_layers(document)
        assert layers is not None
        assert set(engine_types(layers).nodes) == {"unknown"}
        assert engine_types(layers).products == {}


def test_a_kernel_that_the_library_named_tells_its_products() -> None:
    def kernel(name: str, kinds: list[str]) -> dict[str, Any]:
        return {
            "Name": name,
            "LayerType": "runtime_fusion",
            "Inputs": [{"Name": "i", "Datatype": kind, "Dimensions": [4, 4]} for kind in kinds],
            "Outputs": [{"Name": "o", "Datatype": "Half", "Dimensions": [4, 4]}],
            "Metadata": "[ONNX Layer: fc]",
        }

    def product(name: str, kinds: list[str]) -> dict[str, str]:
        return dict(engine_types(engine_layers([kernel(name, kinds)]) or ()).products)

    weight_only = ["Half", "Int8", "Half"]
    assert product("__myl_CastMulCastFc_myl0_3", weight_only) == {"fc": "fp16"}
    assert product("__myl_Fc_myl0_1", ["FP8", "FP8"]) == {"fc": "fp8"}
    assert product("__myl_Fc_myl0_1", ["Int8", "Int8", "Float"]) == {"fc": "int8"}
    assert product("__myl_MulAddRelu_myl0_1", ["Int8", "Int8"]) == {}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("BFloat16", "bf16"),
        ("Row major linear BF16 format", "bf16"),
        ("Row major linear FP16 format (kLINEAR)", "fp16"),
        ("Float", "fp32"),
        ("Row major linear FP32", "fp32"),
        ("FP8", "fp8"),
        ("UInt8", "uint8"),
        ("Four wide channel vectorized row major Int8 format", "int8"),
        ("Int4", "int4"),
        ("Int64", "int64"),
        ("Bool", "bool"),
        ("N/A due to dynamic shapes", "unknown"),
    ],
)
def test_types_are_found_in_texts(text: str, kind: str) -> None:
    layer = {"Name": "l", "Outputs": [{"Name": "o", "Format/Datatype": text, "Dimensions": []}]}
    (found,) = engine_layers([layer]) or ()
    assert found.type == kind


@pytest.mark.parametrize(
    "document",
    [None, 3, "text", [], {}, {"Layers": []}, {"Layers": 3}, [3], [{}], {"Layers": [{"Name": 1}]}],
)
def test_other_documents_are_none(document: Any) -> None:
    assert engine_layers(document) is None


@pytest.mark.parametrize(
    "layer",
    [
        {"Name": "l"},
        {"Name": "l", "Inputs": 3, "Outputs": [4, {}], "Weights": 5, "Metadata": 6},
        {"Name": "l", "LayerType": None, "Outputs": [{"Dimensions": ["a"], "Format": []}]},
        {"Name": "l", "Weights": {"Count": "9"}, "Bias": {"Type": "Float"}},
    ],
)
def test_malformed_layers_do_no_harm(layer: Any) -> None:
    found = engine_types(engine_layers([layer]) or ())
    assert found.layers == 1
    assert found.weights_bytes is None


def test_without_a_driver_nothing_is_loaded(tmp_path: Path) -> None:
    if driver().reason is None:
        pytest.skip("not run: this machine has a driver")
    with pytest.raises(MissingError, match="no NVIDIA driver"):
        engine_information(tmp_path / "any.engine", "tensorrt_rtx")
    with pytest.raises(MissingError, match=r"cannot load any\.engine: no NVIDIA driver"):
        inspect_engine({"engine": "any.engine", "backend": "tensorrt_rtx"})
