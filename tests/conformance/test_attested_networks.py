"""What TensorRT-RTX's parser makes of typed graphs agrees with what is attested of them."""

from pathlib import Path

import pytest
from engine_models import conv_net
from precision_samples import SHAPES, net, ranges

from trtforge.engine.network_types import layer_counts, network_types
from trtforge.engine.views import parsed_network
from trtforge.errors import BuildError
from trtforge.graph.model import Model
from trtforge.pipeline.attesting import contradictions, network_view
from trtforge.precision.attest import attest
from trtforge.precision.cast import typed
from trtforge.recipe.schema import Precision


@pytest.mark.parametrize("name", ["cnn", "transformer", "control_flow"])
@pytest.mark.parametrize(
    "precision",
    [
        {"type": "fp16"},
        {"type": "bf16"},
        {"type": "fp16", "quantize": "int8"},
        {"type": "fp16", "quantize": "int8_weight_only"},
    ],
    ids=lambda asked: "-".join(asked.values()),
)
def test_no_typed_graph_contradicts_its_network(
    name: str, precision: dict[str, str], tmp_path: Path
) -> None:
    asked = Precision.model_validate(precision)
    cache = ranges(name) if asked.quantize == "int8" else None
    path = tmp_path / "model.onnx"
    typed(net(name), cache, asked).model.save(path)
    attested = attest(Model.load(path), SHAPES[name]).as_json()
    layers = parsed_network(path, "tensorrt_rtx", SHAPES[name])
    found = network_view(attested, network_types(layers))
    assert found["contradictions"] == []
    assert found["macs"] == attested["macs"]
    kinds = {kind for counts in found["layers"].values() for kind in counts}
    assert asked.type in kinds


def test_a_network_of_another_type_is_told_node_by_node(tmp_path: Path) -> None:
    """The FP32 network beside the FP16 graph: as if the parser had dropped the casts."""
    path = tmp_path / "model.onnx"
    source = Model(conv_net())
    shapes = {"image": (4, 3, 16, 16)}
    source.save(path)
    network = network_types(parsed_network(path, "tensorrt_rtx", shapes))
    half = attest(typed(source, None, Precision(type="fp16")).model, shapes).as_json()
    found = {(one["node"], one["onnx"], one["network"]) for one in contradictions(half, network)}
    assert {("conv", "fp16", "fp32"), ("fc", "fp16", "fp32")} <= found
    assert ("", "fp16", "none") in found
    assert network_view(half, network)["macs"] == {"fp32": sum(half["macs"].values())}


def test_the_network_has_the_weights_and_shapes_of_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    Model(conv_net()).save(path)
    layers = parsed_network(path, "tensorrt_rtx", {"image": (4, 3, 16, 16)})
    outputs = {tensor["name"]: tensor["shape"] for one in layers for tensor in one["outputs"]}
    assert outputs["c"] == [4, 8, 16, 16]
    assert network_types(layers).weights_bytes["fp32"] == 4 * (8 * 3 * 3 * 3 + 8 * 5)
    assert layer_counts(layers)["CONVOLUTION"] == {"fp32": 1}


def test_a_model_that_the_parser_refuses_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(BuildError):
        parsed_network(path, "tensorrt_rtx", {})
