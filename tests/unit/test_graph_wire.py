"""Weights stay in the model file: what is read, held, handed over and written is what was there."""

from itertools import pairwise
from pathlib import Path

import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from trtforge.errors import GraphError
from trtforge.graph import loading
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.graph.weights import HELD_BYTES, is_external, is_held, tensor_array
from trtforge.graph.wire import WireError, fill, skim

SIZES = (200, 160, 130, 12)
X = mg.weights(3, SIZES[0], seed=9)


def mlp(opset: int = 18) -> ModelProto:
    """Layers above and below the size that is held; odd names put the bytes at odd places."""
    nodes, initializers = [], []
    for index, (rows, columns) in enumerate(pairwise(SIZES)):
        name = "w" * (index + 1)
        values = mg.weights(rows, columns, seed=index) / np.float32(np.sqrt(rows))
        initializers.append(mg.tensor(name, values))
        nodes.append(mg.node("MatMul", [f"h{index}" if index else "x", name], [f"h{index + 1}"]))
    nodes[-1].output[0] = "y"
    initializers[0].doc_string = "the first"  # a field behind the raw data
    inputs, outputs = [mg.info("x", ["N", SIZES[0]])], [mg.info("y", ["N", SIZES[-1]])]
    model = mg.model(nodes, inputs, outputs, initializers, opset=opset, doc_string="all of it")
    model.metadata_props.add(key="k", value="v")
    return model


def written(proto: ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(mlp(), tmp_path / "m.onnx")


def expected() -> np.ndarray:
    value = X
    for tensor in mlp().graph.initializer:
        value = value @ numpy_helper.to_array(tensor)
    return value


@pytest.mark.parametrize("least", [1, 1000, 20_000, 10**9])
def test_taking_weights_out_and_putting_them_back_gives_the_same_bytes(least: int) -> None:
    content = mlp().SerializeToString(deterministic=True)
    skeleton, taken = skim(memoryview(content), least)
    assert len(skeleton) + sum(raw.length for raw in taken) <= len(content)
    for raw in taken:
        bare = ModelProto.FromString(skeleton).graph.initializer[raw.initializer]
        assert not bare.HasField("raw_data")
        assert raw.length >= least
    lengths = {raw.initializer: raw.length for raw in taken}
    offsets = {raw.initializer: raw.offset for raw in taken}
    parts = [
        content[offsets[part] : offsets[part] + lengths[part]] if isinstance(part, int) else part
        for part in fill(skeleton, lengths)
    ]
    assert b"".join(parts) == content


def test_no_prefix_of_a_model_is_read_beyond_its_end(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    for length in range(0, len(content), 997):
        try:
            _, taken = skim(memoryview(content[:length]), 1000)
        except WireError:
            continue
        assert all(raw.offset + raw.length <= length for raw in taken)
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(GraphError) as caught:
        Model.load(tmp_path / "cut.onnx")
    assert caught.value.code == "TF0402"


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 40, b"\x3b\x01", b"\x3a\xff\xff\xff\xff\x7f", b"\0\0"]
)
def test_garbage_is_a_wire_error(garbage: bytes) -> None:
    with pytest.raises(WireError):
        skim(memoryview(garbage), 1)


def test_big_weights_stay_in_the_file_and_small_ones_in_the_model(file: Path) -> None:
    model = Model.load(file)
    held = {tensor.name: is_held(tensor) for tensor in model.proto.graph.initializer}
    assert held == {"w": True, "ww": True, "www": False}
    assert len(model.proto.SerializeToString()) < HELD_BYTES
    for tensor in mlp().graph.initializer:
        np.testing.assert_array_equal(model.initializer(tensor.name), numpy_helper.to_array(tensor))
    model.files.release()
    np.testing.assert_array_equal(
        model.initializer("w"), numpy_helper.to_array(mlp().graph.initializer[0])
    )


def test_a_mapped_file_is_read_like_a_small_one(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Model.load(file)
    monkeypatch.setattr(loading, "_MAP_BYTES", 0)
    mapped = Model.load(file)
    assert mapped.digest() == whole.digest()
    np.testing.assert_allclose(Session(mapped).run({"x": X})["y"], expected(), rtol=1e-4, atol=1e-4)


def test_saving_writes_what_protobuf_would_write(file: Path, tmp_path: Path) -> None:
    assert Model.load(file).save(tmp_path / "n.onnx") == (tmp_path / "n.onnx",)
    assert (tmp_path / "n.onnx").read_bytes() == file.read_bytes()
    assert Model.load(file).digest() == Model(mlp()).digest()


def test_a_full_disk_while_weights_are_streamed_leaves_the_old_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, before = Model.load(file), file.read_bytes()

    def chunks(*_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trtforge.graph.copying.tensor_chunks", chunks)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        model.save(file)
    assert getattr(caught.value, "code", "") == "TF0301"
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("outputs", [None, ["h1"]])
def test_sessions_compute_with_the_weights_of_the_file(
    file: Path, optimize: bool, outputs: list[str] | None
) -> None:
    found = Session(Model.load(file), optimize=optimize, outputs=outputs).run({"x": X})
    np.testing.assert_allclose(found["y"], expected(), rtol=1e-4, atol=1e-4)
    if outputs:
        first = X @ numpy_helper.to_array(mlp().graph.initializer[0])
        np.testing.assert_allclose(found["h1"], first, rtol=1e-4, atol=1e-4)


def test_weights_at_odd_addresses_reach_native_code_aligned(file: Path) -> None:
    model = Model.load(file)
    arrays = [tensor_array(model.initializers[name], model.files) for name in ("w", "ww")]
    assert not all(array.flags.aligned for array in arrays)  # else this shows nothing
    session = Session(model)
    assert all(value.data_ptr() % 4 == 0 for value in session._weights)


def test_computed_weights_are_held_once_and_saved_inside(file: Path, tmp_path: Path) -> None:
    model = Model.load(file)
    graph = model.to_graph()
    doubled = next(node.inputs[1] for node in graph.nodes if node.inputs[1].name == "w")
    doubled.values = doubled.values * np.float32(2)
    made = model.with_graph(graph)
    assert is_held(made.initializers["w"])
    assert made.initializer("w").base is not None  # a view of the array that the graph holds
    assert np.shares_memory(made.initializer("w"), doubled.values)
    np.testing.assert_array_equal(made.initializer("w"), 2 * model.initializer("w"))
    made.save(tmp_path / "n.onnx")
    assert not any(map(is_external, onnx.load(tmp_path / "n.onnx").graph.initializer))
    again = Model.load(tmp_path / "n.onnx")
    assert again.digest() == made.digest() != model.digest()
    np.testing.assert_allclose(
        Session(again).run({"x": X})["y"], 2 * expected(), rtol=1e-4, atol=1e-4
    )


def test_computed_weights_of_a_model_with_external_data_go_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtforge.graph.saving.KEEP_EXTERNAL_BYTES", 1000)
    model = Model.load(mg.save_external(mlp(), tmp_path / "m.onnx"))
    graph = model.to_graph()
    for node in graph.nodes:
        node.inputs[1].values = node.inputs[1].values.astype(np.float16).astype(np.float32)
    made = model.with_graph(graph)
    assert not any(is_external(t) and not is_held(t) for t in made.proto.graph.initializer)
    files = made.save(tmp_path / "n.onnx")
    assert [path.name for path in files] == ["n.onnx", "n.onnx.data"]
    assert Model.load(files[0]).digest() == made.digest()


def test_models_made_of_one_model_keep_their_own_weights(file: Path) -> None:
    model = Model.load(file)
    made = []
    for factor in (2, 3):
        graph = model.to_graph()
        constant = next(node.inputs[1] for node in graph.nodes if node.inputs[1].name == "ww")
        constant.values = constant.values * np.float32(factor)
        made.append(model.with_graph(graph))
    for factor, one in zip((2, 3), made, strict=True):
        np.testing.assert_array_equal(one.initializer("ww"), factor * model.initializer("ww"))


def test_a_file_cannot_name_held_bytes_itself(tmp_path: Path) -> None:
    proto = mlp()
    forged = proto.graph.initializer[2]
    forged.ClearField("raw_data")
    forged.data_location = onnx.TensorProto.EXTERNAL
    forged.external_data.add(key="location", value="\0held:0")
    with pytest.raises(GraphError) as caught:
        Model.load(written(proto, tmp_path / "m.onnx"))
    assert (caught.value.code, caught.value.where.node) == ("TF0404", "www")


@pytest.mark.parametrize("change", [-4, 4])
def test_weights_of_the_wrong_length_are_refused(tmp_path: Path, change: int) -> None:
    proto = mlp()
    raw = proto.graph.initializer[0].raw_data
    proto.graph.initializer[0].raw_data = raw[:change] if change < 0 else raw + b"\0" * change
    with pytest.raises(GraphError) as caught:
        Model.load(written(proto, tmp_path / "m.onnx"))
    assert caught.value.code in ("TF0402", "TF0403")
    assert "'w'" in caught.value.message or "name: w)" in caught.value.message


def test_the_checker_still_sees_what_it_judges(tmp_path: Path) -> None:
    proto = mlp()
    proto.graph.initializer[0].data_type = 99
    with pytest.raises(GraphError):
        Model.load(written(proto, tmp_path / "a.onnx"))
    proto = mlp()
    proto.graph.initializer[0].float_data.append(1.0)
    with pytest.raises(GraphError) as caught:
        Model.load(written(proto, tmp_path / "b.onnx"))
    assert caught.value.code == "TF0403"
    assert "one and only one value field" in caught.value.message


def test_a_nan_at_the_end_of_a_held_weight_is_found(tmp_path: Path) -> None:
    proto = mlp()
    values = np.array(numpy_helper.to_array(proto.graph.initializer[0]))
    values[-1, -1] = np.nan
    proto.graph.initializer[0].CopyFrom(mg.tensor("w", values))
    with pytest.raises(GraphError) as caught:
        Model.load(written(proto, tmp_path / "m.onnx"))
    assert caught.value.code == "TF0405"
    assert "1 NaN" in caught.value.message
