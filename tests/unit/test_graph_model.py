"""Loading, saving and editing keep what the user gave, and refuse what is unsound."""

import errno
import os
from pathlib import Path

import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import ModelProto, StringStringEntryProto, TensorProto, helper

from trtforge.errors import GraphError, MissingError
from trtforge.graph import saving
from trtforge.graph.execute import Session
from trtforge.graph.model import IoContract, Model, TensorSpec, source_digest, source_files


def refusal(path: Path) -> GraphError:
    with pytest.raises(GraphError) as caught:
        Model.load(path)
    assert caught.value.where is not None
    assert caught.value.where.file == str(path)
    assert caught.value.exit_status == 4
    return caught.value


def listing(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(mg.conv_bn(), str(path))
    return path


def external_entries(proto: ModelProto, name: str) -> dict[str, str]:
    found = next(t for t in proto.graph.initializer if t.name == name)
    return {entry.key: entry.value for entry in found.external_data}


# The contract


def test_contract_names_types_and_dims(file: Path) -> None:
    model = Model.load(file)
    x = TensorSpec("x", "float32", ("N", 3, 6, 6))
    assert model.contract == IoContract((x,), (TensorSpec("y", "float32", ("N", 4, 6, 6)),))
    assert model.contract.input("x").is_dynamic
    assert model.opset == 18
    assert model.contract.as_json()["inputs"][0]["dims"] == ["N", 3, 6, 6]


def test_contract_leaves_out_inputs_that_have_initializers() -> None:
    proto = mg.model(
        [mg.node("Add", ["x", "w"], ["y"])],
        [mg.info("x", [2]), mg.info("w", [2])],
        [mg.info("y", [2])],
        [mg.tensor("w", mg.weights(2))],
        ir_version=3,
    )
    assert [spec.name for spec in Model(proto).contract.inputs] == ["x"]


def test_contract_tells_an_unknown_shape_from_a_scalar() -> None:
    proto = mg.model([mg.node("Relu", ["x"], ["y"])], [mg.info("x", None)], [mg.info("y", [])])
    contract = Model(proto).contract
    assert contract.inputs[0].is_dynamic
    assert not contract.inputs[0].rank_known
    assert not contract.outputs[0].is_dynamic


def test_unknown_input_is_answered_with_the_nearest(file: Path) -> None:
    with pytest.raises(GraphError, match="no input 'X1'"):
        Model.load(file).contract.input("X1")


# What is refused at the gate


def test_missing_file(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere.onnx")
    assert error.code == "TF0401"
    assert "does not exist" in error.message


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == "TF0401"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty (0 bytes)"),
        (b"\0" * 4096, "not an ONNX model"),
        (b"hello world", "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (np.random.default_rng(0).bytes(4096), "not an ONNX model"),
    ],
)
def test_bytes_that_are_no_model(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    error = refusal(path)
    assert error.code == "TF0402"
    assert says in error.message


def test_every_truncation_is_refused(file: Path) -> None:
    content = file.read_bytes()
    for length in range(1, len(content) - 1, max(1, len(content) // 40)):
        file.write_bytes(content[:length])
        assert refusal(file).code in ("TF0402", "TF0403", "TF0406"), length


def test_a_model_that_the_checker_refuses(tmp_path: Path) -> None:
    proto = mg.model([mg.node("Relu", ["nothing"], ["y"])], [], [mg.info("y", [1])])
    onnx.save(proto, str(tmp_path / "m.onnx"))
    error = refusal(tmp_path / "m.onnx")
    assert error.code == "TF0403"
    assert "nothing" in (error.details or "")


def test_an_output_without_a_shape_gets_the_one_that_follows(tmp_path: Path) -> None:
    """As some exporters leave it; ONNX Runtime and TensorRT take such models."""
    proto = mg.model(
        [mg.node("Relu", ["x"], ["y"])], [mg.info("x", ["N", 4])], [mg.info("y", None)]
    )
    onnx.save(proto, str(tmp_path / "m.onnx"))
    (output,) = Model.load(tmp_path / "m.onnx").contract.outputs
    assert (output.dims, output.rank_known) == (("N", 4), True)


def test_a_shape_that_nothing_tells_is_named(tmp_path: Path) -> None:
    proto = mg.model([mg.node("Relu", ["x"], ["y"])], [mg.info("x", None)], [mg.info("y", [1])])
    onnx.save(proto, str(tmp_path / "m.onnx"))
    error = refusal(tmp_path / "m.onnx")
    assert (error.code, error.details) == ("TF0403", None)
    assert "input 'x' has no shape" in error.message


def test_no_outputs(tmp_path: Path) -> None:
    onnx.save(
        mg.model([mg.node("Relu", ["x"], ["y"])], [mg.info("x", [1])], []), str(tmp_path / "m")
    )
    assert refusal(tmp_path / "m").code == "TF0406"


def test_sequence_inputs_are_refused(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [2])
    nodes = [mg.node("SequenceLength", ["s"], ["y"])]
    onnx.save(mg.model(nodes, [sequence], [mg.info("y", [], np.int64)]), str(tmp_path / "m"))
    error = refusal(tmp_path / "m")
    assert error.code == "TF0406"
    assert "'s' is not a tensor" in error.message


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_nan_weights_are_named_and_counted(tmp_path: Path, dtype: type) -> None:
    proto = mg.conv_bn()
    bad = mg.weights(4, 3, 3, 3).astype(dtype)
    bad[1, 2, 0, :2] = np.nan
    bad[0, 0, 0, 0] = np.inf
    proto.graph.initializer.append(mg.tensor("bad", bad))
    proto.graph.node.append(mg.node("Conv", ["x", "bad"], ["z"]))
    onnx.save(proto, str(tmp_path / "m.onnx"))
    error = refusal(tmp_path / "m.onnx")
    assert error.code == "TF0405"
    assert error.message == "tensor 'bad' holds 2 NaN and 1 Inf among 108 values"


def test_nan_in_a_constant_node_is_found(tmp_path: Path) -> None:
    nodes = [
        mg.node("Constant", [], ["k"], value=mg.tensor("", [np.nan], np.float32)),
        mg.node("Add", ["x", "k"], ["y"]),
    ]
    onnx.save(mg.model(nodes, [mg.info("x", [1])], [mg.info("y", [1])]), str(tmp_path / "m"))
    assert "'k'" in refusal(tmp_path / "m").message


def test_infinity_in_a_mask_is_no_damage(tmp_path: Path) -> None:
    proto = mg.model(
        [mg.node("Add", ["x", "mask"], ["y"])],
        [mg.info("x", [2])],
        [mg.info("y", [2])],
        [mg.tensor("mask", [0, -np.inf], np.float32)],
    )
    onnx.save(proto, str(tmp_path / "m"))
    assert Model.load(tmp_path / "m").initializer("mask")[1] == -np.inf


# External data


def test_external_weights_are_mapped_not_read(tmp_path: Path) -> None:
    path = mg.save_external(mg.conv_bn(), tmp_path / "m.onnx")
    model = Model.load(path)
    values = model.initializer("W")
    assert np.array_equal(values, mg.weights(4, 3, 3, 3))
    assert not values.flags.owndata
    assert not values.flags.writeable
    assert all(not t.raw_data for t in model.proto.graph.initializer)
    assert source_files(path) == (path, tmp_path / "w.data")


def test_missing_data_file(tmp_path: Path) -> None:
    path = mg.save_external(mg.conv_bn(), tmp_path / "m.onnx")
    (tmp_path / "w.data").unlink()
    error = refusal(path)
    assert error.code == "TF0404"
    assert "'w.data' is missing" in error.message
    with pytest.raises(GraphError, match=r"w\.data"):
        source_digest(path)


def test_truncated_data_file(tmp_path: Path) -> None:
    path = mg.save_external(mg.conv_bn(), tmp_path / "m.onnx")
    content = (tmp_path / "w.data").read_bytes()
    (tmp_path / "w.data").write_bytes(content[:-1])
    error = refusal(path)
    assert error.code == "TF0404"
    assert "too short" in error.message
    assert f"of {len(content) - 1}" in error.message
    (tmp_path / "w.data").write_bytes(b"")
    assert refusal(path).code == "TF0404"


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../w.data", "sub/../../w.data", "C:\\w.data", "..\\w.data", ""]
)
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "w.data").write_bytes(b"\0" * 4096)
    path = mg.save_external(mg.conv_bn(), inside / "m.onnx")
    proto = onnx.load(str(path), load_external_data=False)
    for found in proto.graph.initializer:
        found.external_data[0].value = location
    path.write_bytes(proto.SerializeToString())
    error = refusal(path)
    assert error.code == "TF0404"
    assert "outside the model's folder" in error.message or "names no file" in error.message


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    path = mg.save_external(mg.conv_bn(), inside / "m.onnx")
    (inside / "w.data").rename(tmp_path / "w.data")
    (inside / "w.data").symlink_to(tmp_path / "w.data")
    error = refusal(path)
    assert error.code == "TF0404"
    assert "link" in error.message


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("offset", "-4", "negative"),
        ("offset", "many", "not a number"),
        ("length", "3", "length is 3 bytes"),
        ("offset", "99999999999999", "too short"),
    ],
)
def test_impossible_extents(tmp_path: Path, key: str, value: str, says: str) -> None:
    path = mg.save_external(mg.conv_bn(), tmp_path / "m.onnx")
    proto = onnx.load(str(path), load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = value
    path.write_bytes(proto.SerializeToString())
    assert says in refusal(path).message


def test_nan_in_external_weights_is_found(tmp_path: Path) -> None:
    proto = mg.conv_bn()
    proto.graph.initializer[1].CopyFrom(mg.tensor("b", [1, np.nan, 2, 3], np.float32))
    assert refusal(mg.save_external(proto, tmp_path / "m.onnx")).code == "TF0405"


# Saving


def test_small_external_weights_come_inside(tmp_path: Path) -> None:
    path = mg.save_external(mg.conv_bn(), tmp_path / "m.onnx")
    out = tmp_path / "out"
    out.mkdir()
    assert Model.load(path).save(out / "n.onnx") == (out / "n.onnx",)
    assert Model.load(out / "n.onnx").digest() == Model.load(path).digest()
    assert listing(out) == ["n.onnx"]


def tied(tmp_path: Path) -> Path:
    """Two initializers that share one extent, and one that does not."""
    proto = mg.model(
        [
            mg.node("MatMul", ["x", "A"], ["h"]),
            mg.node("MatMul", ["h", "B"], ["i"]),
            mg.node("MatMul", ["i", "C"], ["y"]),
        ],
        [mg.info("x", ["N", 40])],
        [mg.info("y", ["N", 40])],
        [mg.tensor(name, mg.weights(40, 40, seed=i)) for i, name in enumerate("ABC")],
    )
    path = mg.save_external(proto, tmp_path / "m.onnx")
    light = onnx.load(str(path), load_external_data=False)
    first, second = light.graph.initializer[:2]
    del second.external_data[:]
    second.external_data.extend(first.external_data)
    path.write_bytes(light.SerializeToString())
    return path


def test_big_external_weights_stay_outside_and_tied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "KEEP_EXTERNAL_BYTES", 1000)
    model = Model.load(tied(tmp_path))
    out = tmp_path / "out"
    out.mkdir()
    written = model.save(out / "n.onnx")
    assert written == (out / "n.onnx", out / "n.onnx.data")
    assert (out / "n.onnx.data").stat().st_size == 2 * 40 * 40 * 4
    again = Model.load(out / "n.onnx")
    assert external_entries(again.proto, "A") == external_entries(again.proto, "B")
    assert external_entries(again.proto, "A") != external_entries(again.proto, "C")
    assert again.digest() == model.digest()
    assert mg.largest_difference(model, again, {"x": (3, 40)}) == 0
    edited = model.with_graph(model.to_graph())
    edited.save(out / "n.onnx")
    assert (out / "n.onnx.data").stat().st_size == 2 * 40 * 40 * 4


def test_heavy_weights_leave_the_model_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "INLINE_LIMIT_BYTES", 400)
    monkeypatch.setattr(saving, "EXTERNAL_THRESHOLD_BYTES", 100)
    monkeypatch.setattr("trtforge.graph.skeleton.EXTERNAL_THRESHOLD_BYTES", 100)
    model = Model.load(file)
    written = model.save(tmp_path / "n.onnx")
    assert [path.name for path in written] == ["n.onnx", "n.onnx.data"]
    again = Model.load(written[0])
    assert external_entries(again.proto, "W")["location"] == "n.onnx.data"
    assert external_entries(again.proto, "b") == {}
    assert again.digest() == model.digest()
    assert mg.largest_difference(model, again, {"x": (1, 3, 6, 6)}) == 0


def test_a_model_may_be_saved_over_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "KEEP_EXTERNAL_BYTES", 1000)
    first = Model.load(tied(tmp_path))
    first.save(tmp_path / "n.onnx")
    model = Model.load(tmp_path / "n.onnx")
    digest, expected = model.digest(), np.array(model.initializer("C"))
    smaller = model.to_graph()
    smaller.outputs = [next(n for n in smaller.nodes if n.name == "/MatMul_h").outputs[0]]
    smaller.outputs[0].dtype, smaller.outputs[0].shape = np.dtype(np.float32), ["N", 40]
    smaller.cleanup()
    model.with_graph(smaller).save(tmp_path / "n.onnx")
    assert np.array_equal(model.initializer("C"), expected)
    assert model.digest() == digest
    assert Model.load(tmp_path / "n.onnx").digest() != digest


def test_saving_is_byte_for_byte_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "KEEP_EXTERNAL_BYTES", 1000)
    source = tied(tmp_path)
    contents = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        files = Model.load(source).save(folder / "n.onnx")
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    assert source_digest(tmp_path / "a/n.onnx") == source_digest(tmp_path / "b/n.onnx")


def test_digests_see_external_bytes_and_not_file_names(tmp_path: Path, file: Path) -> None:
    inside = Model.load(file)
    outside = mg.save_external(mg.conv_bn(), tmp_path / "other name.onnx")
    assert Model.load(outside).digest() == inside.digest()
    before, content = source_digest(outside), (tmp_path / "w.data").read_bytes()
    changed = bytearray(content)
    changed[100] ^= 1
    (tmp_path / "w.data").write_bytes(changed)
    assert source_digest(outside) != before
    assert Model.load(outside).digest() != inside.digest()
    (tmp_path / "w.data").write_bytes(content)
    assert source_digest(outside) == before


def test_numbers_stored_in_typed_fields_have_the_same_digest() -> None:
    raw, typed = mg.conv_bn(), mg.conv_bn()
    typed.graph.initializer[1].CopyFrom(
        helper.make_tensor("b", TensorProto.FLOAT, [4], mg.weights(4).tolist())
    )
    assert Model(raw).digest() == Model(typed).digest()
    assert np.array_equal(Model(typed).initializer("b"), mg.weights(4))


def test_an_invalid_model_is_not_written(tmp_path: Path) -> None:
    proto = mg.conv_bn()
    del proto.graph.initializer[:1]
    with pytest.raises(GraphError, match=r"onnx\.checker") as caught:
        Model(proto).save(tmp_path / "m.onnx")
    assert str(caught.value.where) == str(tmp_path / "m.onnx")
    assert listing(tmp_path) == []


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        Model(mg.conv_bn()).save(tmp_path / "no" / "m.onnx")
    assert (caught.value.code, caught.value.exit_status) == ("TF0302", 3)


def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    user = os.geteuid()
    try:
        if user == 0:  # root may write anywhere
            os.seteuid(65534)
        with pytest.raises(MissingError) as caught:
            Model(mg.conv_bn()).save(tmp_path / "m.onnx")
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
    assert caught.value.code == "TF0302"


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "TF0301"), (errno.EROFS, "TF0302"), (errno.EACCES, "TF0302")],
)
def test_failing_writes_leave_the_old_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    before = file.read_bytes()

    def fail(self: Path, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    model = Model(mg.conv_bn(opset=17))
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(MissingError) as caught:
        model.save(file)
    assert caught.value.code == code
    assert file.read_bytes() == before
    assert listing(file.parent) == [file.name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not run: there is no /dev/full here")
def test_full_disk_while_streaming_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "KEEP_EXTERNAL_BYTES", 1000)
    model = Model.load(tied(tmp_path))
    out = tmp_path / "out"
    out.mkdir()
    real_open = Path.open

    def full(self: Path, *args: object, **kwargs: object) -> object:
        target = Path("/dev/full") if self.suffix == ".data" and "wb" in args else self
        return real_open(target, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(MissingError, match="no space left"):
        model.save(out / "n.onnx")
    assert listing(out) == []


# The round trip through GraphSurgeon


def described() -> ModelProto:
    """A model with everything that GraphSurgeon drops."""
    proto = mg.conv_bn(value_info=[mg.info("c", ["N", 4, 6, 6])])
    proto.doc_string, proto.model_version = "a model", 7
    proto.producer_name, proto.producer_version, proto.domain = "maker", "1.2", "org.example"
    proto.metadata_props.append(StringStringEntryProto(key="stride", value="32"))
    graph = proto.graph
    graph.doc_string = "a graph"
    graph.metadata_props.append(StringStringEntryProto(key="g", value="1"))
    graph.input[0].doc_string = "an image"
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    graph.value_info[0].doc_string = "in between"
    graph.initializer[0].doc_string = "trained"
    graph.initializer.append(mg.tensor("unused", mg.weights(2)))
    first = graph.node[0]
    first.doc_string = "the stem"
    first.metadata_props.append(StringStringEntryProto(key="scope", value="stem"))
    first.attribute[0].doc_string = "same size"
    annotation = graph.quantization_annotation.add(tensor_name="c")
    annotation.quant_parameter_tensor_names.append(
        StringStringEntryProto(key="SCALE_TENSOR", value="b")
    )
    proto.opset_import.append(helper.make_opsetid("org.example", 3))
    proto.functions.append(
        helper.make_function(
            "org.example",
            "Twice",
            ["a"],
            ["b"],
            [mg.node("Add", ["a", "a"], ["b"])],
            [helper.make_opsetid("", 18)],
            doc_string="2a",
        )
    )
    proto.functions[0].metadata_props.append(StringStringEntryProto(key="f", value="1"))
    graph.node.append(helper.make_node("Twice", ["y"], ["z"], name="tw", domain="org.example"))
    graph.output.append(mg.info("z", ["N", 4, 6, 6]))
    return proto


def test_the_round_trip_changes_nothing() -> None:
    proto = described()
    onnx.checker.check_model(proto)
    model = Model(proto)
    assert model.with_graph(model.to_graph()).proto == proto


def test_subgraphs_survive_the_round_trip() -> None:
    def body(op: str, name: str) -> onnx.GraphProto:
        return helper.make_graph(
            [mg.node(op, ["x", f"{name}.k"], [f"{name}.r"], name=f"{name}/op")],
            name,
            [],
            [mg.info(f"{name}.r", [3])],
            [mg.tensor(f"{name}.k", mg.weights(3))],
        )

    shared = mg.tensor("k", mg.weights(3, seed=5))
    then, other = body("Add", "then"), body("Mul", "else")
    then.node[0].input[1] = "k"
    del then.initializer[:]
    proto = mg.model(
        [mg.node("If", ["flag"], ["y"], then_branch=then, else_branch=other)],
        [mg.info("x", [3]), mg.info("flag", [], bool)],
        [mg.info("y", [3])],
        [shared],
    )
    onnx.checker.check_model(proto)
    model = Model(proto)
    after = model.with_graph(model.to_graph())
    assert after.proto == proto
    assert mg.largest_difference(model, after, {}) == 0


def test_empty_lists_and_unusual_attributes_survive() -> None:
    sparse = helper.make_sparse_tensor(
        mg.tensor("v", [1.0, 2.0], np.float32), mg.tensor("i", [0, 2], np.int64), [3]
    )
    proto = mg.model(
        [
            mg.node("Constant", [], ["s"], sparse_value=sparse),
            mg.node("Add", ["x", "s"], ["y"]),
            mg.node("Elu", ["y"], ["z"], alpha=2.0),
            mg.node("ReduceMean", ["z"], ["r"], axes=[0], keepdims=0),
        ],
        [mg.info("x", [3])],
        [mg.info("r", [])],
        opset=13,
    )
    proto.graph.node[3].attribute[0].ClearField("ints")
    model = Model(proto)
    assert model.with_graph(model.to_graph()).proto == proto


def test_external_weights_stay_outside_through_the_round_trip(tmp_path: Path) -> None:
    model = Model.load(mg.save_external(mg.conv_bn(), tmp_path / "m.onnx"))
    after = model.with_graph(model.to_graph())
    assert after.proto == model.proto
    graph = model.to_graph()
    assert np.array_equal(graph.nodes[0].inputs[1].values, mg.weights(4, 3, 3, 3))


def test_old_models_that_list_weights_as_inputs() -> None:
    proto = mg.conv_bn(opset=9, ir_version=3)
    proto.graph.input.extend(mg.info(t.name, list(t.dims)) for t in proto.graph.initializer)
    onnx.checker.check_model(proto)
    model = Model(proto)
    after = model.with_graph(model.to_graph())
    onnx.checker.check_model(after.proto)
    assert after.contract == model.contract
    assert mg.largest_difference(model, after, {"x": (2, 3, 6, 6)}) == 0


def test_unusual_element_types_survive() -> None:
    import ml_dtypes

    kept = {
        "bf16": mg.weights(3).astype(ml_dtypes.bfloat16),
        "fp8": mg.weights(3).astype(ml_dtypes.float8_e4m3fn),
        "int4": np.array([1, -3, 7], dtype=ml_dtypes.int4),
        "bool": np.array([True, False, True]),
    }
    nodes = [mg.node("Cast", [name], [f"{name}.y"], to=TensorProto.FLOAT) for name in kept]
    outputs = [mg.info(f"{name}.y", [3]) for name in kept]
    initializers = [mg.tensor(name, values) for name, values in kept.items()]
    model = Model(mg.model(nodes, [], outputs, initializers, opset=21, ir_version=10))
    graph = model.to_graph()
    for node in graph.nodes:
        node.inputs[0].values = node.inputs[0].values  # loaded, hence written anew
    after = model.with_graph(graph)
    for name, values in kept.items():
        assert after.initializer(name).dtype == values.dtype
        assert np.array_equal(after.initializer(name), values)
        assert after.initializers[name].data_type == model.initializers[name].data_type


def test_initializer_of_an_unknown_name() -> None:
    with pytest.raises(GraphError, match="no initializer 'w'") as caught:
        Model(mg.conv_bn()).initializer("w")
    assert caught.value.code == "TF0409"


# Above protobuf's limit


@pytest.mark.slow
def test_a_model_above_two_gigabytes(tmp_path: Path) -> None:
    side, count = 12_000, 4  # 4 x 576 MB, one sparse file, all tensors tied to it
    with (tmp_path / "w.data").open("wb") as stream:
        stream.truncate(side * side * 4)
    initializers = []
    for index in range(count):
        big = TensorProto(name=f"W{index}", data_type=TensorProto.FLOAT, dims=[side, side])
        big.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "w.data"), ("length", str(side * side * 4))):
            big.external_data.add(key=key, value=value)
        initializers.append(big)
    nodes = [
        mg.node("MatMul", [f"x{i}" if i else "x", f"W{i}"], [f"x{i + 1}"]) for i in range(count)
    ]
    proto = mg.model(
        nodes, [mg.info("x", [1, side])], [mg.info(f"x{count}", [1, side])], initializers
    )
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    model = Model.load(tmp_path / "m.onnx")
    after = model.with_graph(model.to_graph())
    out = tmp_path / "out"
    out.mkdir()
    files = after.save(out / "m.onnx")
    assert files[1].stat().st_size == side * side * 4
    assert Session(Model.load(out / "m.onnx")).input_names == ("x",)
