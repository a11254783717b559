"""What the weights of two models differ in: values, names and bytes, in whatever form."""

from pathlib import Path

import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from trtforge.graph import diff_values, diff_weights, external
from trtforge.graph.diff import ModelDiff, diff_models
from trtforge.graph.model import Model


def diff(before: ModelProto, after: ModelProto) -> ModelDiff:
    return diff_models(Model(before), Model(after))


def of_weights(*tensors: TensorProto) -> ModelProto:
    return mg.model(
        [mg.node("Relu", ["x"], ["y"])], [mg.info("x", [2])], [mg.info("y", [2])], tensors
    )


@pytest.mark.parametrize(
    ("before", "after", "differing", "max_abs"),
    [
        (np.float32([1, 2, 3]), np.float32([1, 2.5, 1]), 2, 2.0),
        (np.float32([0.0]), np.float32([-0.0]), 1, 0.0),
        (np.float32([np.inf, 1]), np.float32([np.inf, 3]), 1, 2.0),
        (np.float32([np.inf]), np.float32([1]), 1, np.inf),
        (np.float32([np.nan, 1]), np.float32([1, 3]), 2, np.nan),
        (np.float16([65504]), np.float16([-65504]), 1, 131008.0),
        (np.int64([2**63 - 1]), np.int64([-(2**63)]), 1, 2**64 - 1),
        (np.int64([2**53]), np.int64([2**53 + 1]), 1, 1),
        (np.uint8([0, 255]), np.uint8([255, 0]), 2, 255),
        (np.array([True, False]), np.array([True, True]), 1, 1.0),
        (np.array(["a", "b"]), np.array(["a", "bb"]), 1, None),
        (np.complex64([1j]), np.complex64([4]), 1, abs(1j - 4)),
        (np.float64([1e308]), np.float64([-1e308]), 1, np.inf),
        (np.float32([1, 2]), np.float16([1, 2.5]), None, 0.5),
        (np.float32([1, 2]), np.int32([1, 2]), None, None),
    ],
)
def test_values(
    before: np.ndarray, after: np.ndarray, differing: int | None, max_abs: float | None
) -> None:
    found = diff(of_weights(mg.tensor("w", before)), of_weights(mg.tensor("w", after)))
    (change,) = found.initializers.changed
    assert change.values is not None
    assert change.values.differing == differing
    assert change.values.elements == before.size
    if max_abs is None:
        assert change.values.max_abs is None
    else:
        np.testing.assert_equal(change.values.max_abs, max_abs)
    assert change.digest_before != change.digest_after
    assert diff(of_weights(mg.tensor("w", before)), of_weights(mg.tensor("w", before))).identical


def test_figures_that_json_has_not_are_text() -> None:
    found = diff(
        of_weights(mg.tensor("w", np.float32([np.inf, 1]))),
        of_weights(mg.tensor("w", np.float32([1, 1]))),
    )
    assert found.as_json()["initializers"]["changed"][0]["values"]["max_abs"] == "inf"


@pytest.mark.parametrize("name", ["INT4", "FLOAT4E2M1", "BFLOAT16", "FLOAT8E4M3FN"])
def test_values_of_small_types(name: str) -> None:
    kind = getattr(TensorProto, name)
    models = [of_weights(helper.make_tensor("w", kind, [3], v)) for v in ([1, 2, 3], [1, 2, 1])]
    (change,) = diff(*models).initializers.changed
    assert change.values == diff_values.ValueDifference(3, 1, 2.0)


def test_another_shape_has_no_values_to_compare() -> None:
    w = np.float32([1, 2, 3, 4])
    (change,) = diff(
        of_weights(mg.tensor("w", w)), of_weights(mg.tensor("w", w.reshape(2, 2)))
    ).initializers.changed
    assert change.values is None
    assert (change.before.dims, change.after.dims) == ((4,), (2, 2))


def test_values_are_compared_in_pieces_to_the_last_element(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff_values, "_PIECE_ELEMENTS", 7)
    before = mg.weights(100)
    after = before.copy()
    after[[0, 6, 7, 99]] += np.float32([1, 2, 3, 4])
    found = diff(of_weights(mg.tensor("w", before)), of_weights(mg.tensor("w", after)))
    values = found.initializers.changed[0].values
    assert values is not None
    assert values.differing == 4
    assert values.max_abs == pytest.approx(4, abs=1e-5)


def test_renamed_weights_are_found_by_their_bytes() -> None:
    same, other, big = mg.weights(4), mg.weights(4, seed=1), mg.weights(64, seed=2)
    tail = big.copy()
    tail[-1] += 1  # begins as `big` does
    before = of_weights(mg.tensor("a", same), mg.tensor("b", other), mg.tensor("big", big))
    after = of_weights(
        mg.tensor("c", same), mg.tensor("d", mg.weights(4, seed=3)), mg.tensor("tail", tail)
    )
    found = diff(before, after).initializers
    assert [(old.path, new.path) for old, new in found.renamed] == [("a", "c")]
    assert [facts.path for facts in found.removed] == ["b", "big"]
    assert [facts.path for facts in found.added] == ["d", "tail"]
    assert found.bytes == (288, 288)
    assert not found.changed


def test_a_weight_has_one_new_name_only() -> None:
    same = mg.weights(4)
    found = diff(
        of_weights(mg.tensor("a", same), mg.tensor("b", same)), of_weights(mg.tensor("c", same))
    ).initializers
    assert [(old.path, new.path) for old, new in found.renamed] == [("a", "c")]
    assert [facts.path for facts in found.removed] == ["b"]


def test_equal_bytes_of_another_type_are_no_renaming() -> None:
    found = diff(
        of_weights(mg.tensor("a", np.int32([0]))), of_weights(mg.tensor("b", np.float32([0])))
    ).initializers
    assert not found.renamed
    assert len(found.added) == len(found.removed) == 1


def sparse(name: str, values: list[float], indices: list[int]) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(
        mg.tensor(name, values, np.float32), mg.tensor("", indices, np.int64), [9]
    )


def test_sparse_weights() -> None:
    models = []
    for values, indices in (([1, 2], [0, 4]), ([1, 5], [0, 4]), ([1, 2], [0, 5])):
        proto = of_weights()
        proto.graph.sparse_initializer.append(sparse("s", values, indices))
        models.append(proto)
    (change,) = diff(models[0], models[1]).initializers.changed
    assert change.before.dtype == "sparse float32"
    assert change.before.dims == (9,)
    assert change.values == diff_values.ValueDifference(2, 1, 3.0)
    (change,) = diff(models[0], models[2]).initializers.changed
    assert change.values is None, "the values are the same, their places are not"
    assert diff(models[0], models[0]).identical


def test_external_weights_are_compared_and_never_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diff_values, "CHUNK_BYTES", 1 << 16)
    monkeypatch.setattr(diff_values, "_PIECE_ELEMENTS", 1 << 14)
    released = []
    release = external.ExternalFiles.release
    monkeypatch.setattr(
        external.ExternalFiles, "release", lambda self: (released.append(1), release(self))
    )
    big = mg.weights(1 << 18)
    other = big.copy()
    other[-1] += 1
    paths = []
    for folder, values in (("a", big), ("b", other)):
        (tmp_path / folder).mkdir()
        proto = of_weights(mg.tensor("w", values), mg.tensor(f"{folder}.same", big))
        paths.append(mg.save_external(proto, tmp_path / folder / "m.onnx"))
    models = [Model.load(path) for path in paths]
    released.clear()
    found = diff_models(*models).initializers
    assert found.changed[0].values is not None
    assert found.changed[0].values.differing == 1
    assert [(old.path, new.path) for old, new in found.renamed] == [("a.same", "b.same")]
    assert len(released) >= 2 * big.nbytes // (1 << 16), "pages are given back on the way"


def test_weights_that_begin_otherwise_are_not_read_for_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a whole tensor was read")

    monkeypatch.setattr(diff_weights.hashlib, "sha256", refuse)
    found = diff(
        of_weights(mg.tensor("a", mg.weights(64))),
        of_weights(mg.tensor("b", mg.weights(64, seed=1))),
    ).initializers
    assert len(found.added) == len(found.removed) == 1
