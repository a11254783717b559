"""Samples of models of which inputs decide shapes by their values, from every kind of source."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_models import model, save
from onnx import TensorProto, helper, numpy_helper
from shape_values import DECIDING

from trtforge.errors import DataError
from trtforge.graph.data import ArrayData
from trtforge.graph.model import Model
from trtforge.graph.sources import open_source
from trtforge.graph.sources.source import DataSource
from trtforge.graph.sources.value_rows import ValueRows, open_arrays
from trtforge.pipeline.compare import VerifyOptions, verify
from trtforge.pipeline.corners import corner_shapes
from trtforge.pipeline.run import BuildOptions, BuildResult, build_recipe
from trtforge.precision.streaming import Stream
from trtforge.recipe.calibration import Calibration
from trtforge.recipe.schema import ShapeRange
from trtforge.verify.cases import Case, cases_from

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
X = np.arange(6 * 20, dtype=np.float32).reshape(6, 20)
K = np.array([[3], [3], [5], [5], [5], [1]], np.int64)


def span(*bounds: tuple[int, ...], values: bool = False) -> ShapeRange:
    low, mid, high = bounds
    return ShapeRange(min=low, opt=mid, max=high, values=values)


PROFILE = {
    "x": span((1, 20), (2, 20), (4, 20)),
    "k": span((1,), (4,), (20,), values=True),
}


def topk() -> Model:
    return Model(DECIDING["topk"].graph)


def arrays(folder: Path, **named: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, **named)
    return path


def fed(source: DataSource | ValueRows, batch: int) -> list[tuple[int, list[int]]]:
    """Rows and values of each batch; the rows of all together are those of X."""
    batches = list(source.batches(batch))
    np.testing.assert_array_equal(np.concatenate([one["x"] for one in batches]), X)
    assert all(list(one) == ["x", "k"] for one in batches), "values stand last"
    return [(len(one["x"]), one["k"].tolist()) for one in batches]


def test_a_batch_ends_where_values_change(tmp_path: Path) -> None:
    path = arrays(tmp_path, k=K, x=X, labels=np.arange(6))
    source = open_arrays(path, topk().contract, [PROFILE], labels=True)
    assert isinstance(source, ValueRows)
    assert fed(source, 32) == [(2, [3]), (3, [5]), (1, [1])]
    assert fed(source, 2) == [(2, [3]), (2, [5]), (1, [5]), (1, [1])]
    assert (source.count, source.static_batch, source.is_synthetic) == (6, 1, False)
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert [len(one["x"]) for one in source.batches(2, limit=5, start=3)] == [2]


def test_values_that_the_data_lacks_are_those_of_opt(tmp_path: Path) -> None:
    path = arrays(tmp_path, x=X)
    source = open_arrays(path, topk().contract, [PROFILE])
    assert fed(source, 4) == [(4, [4]), (2, [4])]
    other = PROFILE | {"k": span((1,), (5,), (20,), values=True)}
    digests = {source.digest, open_arrays(path, topk().contract, [other]).digest}
    assert len(digests) == 2, "other values are other samples"


def test_without_value_inputs_it_is_an_array_file(tmp_path: Path) -> None:
    source = open_arrays(arrays(tmp_path, x=X, k=K[:, 0]), topk().contract, [{"x": PROFILE["x"]}])
    assert isinstance(source, ArrayData)


def test_rows_of_values_are_told_from_samples_where_no_profile_tells(tmp_path: Path) -> None:
    path = arrays(tmp_path, x=X, k=K)
    source = open_arrays(path, topk().contract)
    assert isinstance(source, ValueRows)
    assert fed(source, 32) == [(2, [3]), (3, [5]), (1, [1])]
    save(topk().proto, tmp_path)
    options = VerifyOptions(against=tmp_path / "model.onnx", data=path)
    report = verify(tmp_path / "model.onnx", options).checks["graph"]
    assert (report.verdict, report.cases["data"]) == ("pass", 4)
    calibration = Calibration(data="data.npz")
    opened = open_source(calibration, topk().contract, lambda text: tmp_path / text, model=topk())
    assert fed(opened, 2) == [(2, [3]), (2, [5]), (1, [5]), (1, [1])]


@pytest.mark.parametrize(
    ("named", "code", "words"),
    [
        ({"x": X, "k": K[:, 0]}, "TF0504", "array 'k' has 1 dimensions [6], the model's"),
        ({"x": X, "k": K[:5]}, "TF0506", "different numbers of samples"),
        ({"x": X, "k": np.hstack([K, K])}, "TF0504", "dimension 1 of array 'k' is 2"),
        ({"x": X, "k": K.astype(np.float32)}, "TF0505", "'k' is float32"),
    ],
)
def test_rows_that_do_not_fit(named: dict[str, Any], code: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_arrays(arrays(tmp_path, **named), topk().contract, [PROFILE])
    assert (caught.value.code, words in caught.value.message) == (code, True), caught.value


def test_a_model_of_values_alone_has_no_samples(tmp_path: Path) -> None:
    nodes = [helper.make_node("ConstantOfShape", ["k"], ["y"])]
    graph = Model(model(nodes, {"k": (INT64, [1])}, {"y": (FLOAT, ["a"])}))
    with pytest.raises(DataError, match="every input of the model decides shapes") as caught:
        open_arrays(arrays(tmp_path, k=K), graph.contract, [{"k": PROFILE["k"]}])
    assert (caught.value.code, caught.value.exit_status) == ("TF0510", 2)
    assert caught.value.where is not None
    assert caught.value.where.file == str(tmp_path / "data.npz")


def test_samples_of_a_fixed_batch_have_equal_values(tmp_path: Path) -> None:
    graph = Model(DECIDING["slice"].graph)  # x is [8, 6], k int32[1]
    profile = {"k": span((1,), (4,), (8,), values=True)}
    x = np.zeros((16, 6), np.float32)
    k = np.repeat(np.array([[2], [7]], np.int32), 8, axis=0)
    source = open_arrays(arrays(tmp_path, x=x, k=k), graph.contract, [profile])
    assert [one["k"].tolist() for one in source.batches(1)] == [[2], [7]]
    k[3] = 5
    source = open_arrays(arrays(tmp_path, x=x, k=k), graph.contract, [profile])
    with pytest.raises(DataError, match="differ in the values of k") as caught:
        list(source.batches(1))
    assert caught.value.code == "TF0504"


def source_of(data: Any, folder: Path, **more: Any) -> DataSource:
    calibration = Calibration.model_validate({"data": data} | more)
    return open_source(
        calibration, topk().contract, lambda text: folder / text, model=topk(), profiles=[PROFILE]
    )


def test_every_kind_of_source_gives_values(tmp_path: Path) -> None:
    arrays(tmp_path, x=X, k=K)
    folder = tmp_path / "folder"
    folder.mkdir()
    np.savez(folder / "0.npz", x=X[:2], k=K[:2])
    for index in range(2, 6):
        np.savez(folder / f"{index}.npz", x=X[index], k=K[index])
    script = "import numpy as np\nd = np.load(__file__[:-7] + 'data.npz')\n"
    script += (
        "def load_data():\n    for x, k in zip(d['x'], d['k']):\n        yield dict(x=x, k=k)\n"
    )
    (tmp_path / "load.py").write_text(script)
    for data in ("data.npz", "folder", "load.py"):
        assert fed(source_of(data, tmp_path), 8) == [(2, [3]), (3, [5]), (1, [1])], data


def test_synthetic_samples_have_the_values_of_opt(tmp_path: Path) -> None:
    source = source_of(None, tmp_path, synthetic=True, samples=3)
    found = [(one["x"].shape, one["k"].tolist()) for one in source.batches(1)]
    assert found == [((1, 20), [4])] * 3


def test_samples_are_observed_with_their_own_values(tmp_path: Path) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []
    source = source_of(arrays(tmp_path, x=X, k=K).name, tmp_path)
    stream = Stream(topk(), source, 0, 6)
    stream.run(["y"], lambda name, values: seen.append((name, values.shape)))
    assert seen == [("y", (1, int(k[0]))) for k in K]


def cases(folder: Path, *profiles: dict[str, ShapeRange], **named: np.ndarray) -> list[Case]:
    contract = topk().contract
    data = open_arrays(arrays(folder, **named), contract, profiles, labels=True)
    corners = list(corner_shapes(contract, profiles).items())
    return list(cases_from(data, corners, topk()))


def shown(found: list[Case]) -> list[tuple[str, tuple[int, ...], list[int], int | None]]:
    return [(one.name, one.feeds["x"].shape, one.feeds["k"].tolist(), one.rows) for one in found]


def test_cases_have_the_values_of_data_and_of_corners(tmp_path: Path) -> None:
    found = cases(tmp_path, PROFILE, x=X, k=K, labels=np.arange(6))
    assert shown(found) == [
        ("data 0..1", (2, 20), [3], 2),
        ("data 2..4", (3, 20), [5], 3),
        ("data 5..5", (1, 20), [1], 1),
        ("corner min", (1, 20), [1], None),
        ("corner opt", (2, 20), [4], None),
        ("corner max", (4, 20), [20], None),
        ("random", (2, 20), [4], None),
    ]
    assert [one.group for one in found[3:]] == ["corner"] * 3 + ["random"]
    labels = [one.labels.tolist() for one in found[:3] if one.labels is not None]
    assert labels == [[0, 1], [2, 3, 4], [5]]


def test_rows_fill_the_batch_of_the_profile_that_takes_their_values(tmp_path: Path) -> None:
    few = {"x": span((1, 20), (1, 20), (2, 20)), "k": span((1,), (3,), (4,), values=True)}
    many = {"x": span((3, 20), (4, 20), (9, 20)), "k": span((5,), (5,), (9,), values=True)}
    found = shown(cases(tmp_path, few, many, x=X, k=K))
    assert [one for one in found if one[0].startswith("data")] == [
        ("data 0..1", (2, 20), [3], 2),
        ("data 2..4", (3, 20), [5], 3),
        ("data 5..5", (1, 20), [1], 1),
    ]
    corners = [(name, shape[0], k) for name, shape, k, _ in found if "corner" in name]
    assert corners == [
        ("corner 0.min", 1, [1]),
        ("corner 0.opt", 1, [3]),
        ("corner 0.max", 2, [4]),
        ("corner 1.min", 3, [5]),
        ("corner 1.opt", 4, [5]),
        ("corner 1.max", 9, [9]),
    ]


def quantizable(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.standard_normal((20, 20)).astype(np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="matmul"),
        helper.make_node("Relu", ["m"], ["r"], name="relu"),
        helper.make_node("TopK", ["r", "k"], ["y", "i"], name="topk"),
    ]
    inputs = {"k": (INT64, [1]), "x": (FLOAT, ["N", 20])}
    return save(model(nodes, inputs, {"y": (FLOAT, ["N", "a"])}, [weights]), folder)


def built(folder: Path, extra: str, target: str = "tensorrt_rtx") -> BuildResult:
    quantizable(folder)
    path = folder / "recipe.yaml"
    path.write_text(
        "version: 1\nname: m\nmodel: {onnx: model.onnx}\nshapes:\n"
        "  x: {min: [1, 20], opt: [2, 20], max: [4, 20]}\n"
        "  k: {min: [1], opt: [4], max: [20], values: true}\n"
        f"targets: [{{name: t, backend: {target}}}]\n{extra}"
    )
    return build_recipe(path, BuildOptions(folder / "out", store=folder / "store"))


@pytest.mark.parametrize("with_values", [True, False])
def test_a_quantized_build_is_calibrated_and_judged_on_its_values(
    with_values: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((64, 20)).astype(np.float32)
    k = {"k": rng.integers(1, 21, (64, 1))} if with_values else {}
    arrays(tmp_path, x=x, **k)
    extra = "calibration: {data: data.npz}\nprecision: {type: fp16, quantize: int8}\n"
    result = built(tmp_path, extra + "verify: {data: data.npz, tolerance: {sqnr_db: 20}}\n")
    assert result.verdicts["graph_parity"]["verdict"] == "pass"
    manifest = json.loads((result.bundle / "manifest.json").read_text())
    assert manifest["calibration"]["samples"] == 64
    assert next((result.bundle / "engines").rglob("*.engine")).stat().st_size > 0


def test_float_types_are_chosen_by_samples_with_values(tmp_path: Path) -> None:
    arrays(tmp_path, x=np.tile(X, (6, 1)), k=np.tile(K, (6, 1)))
    extra = "calibration: {data: data.npz}\nprecision: {type: fp16}\nverify: {data: data.npz}\n"
    assert built(tmp_path, extra, "onnxruntime").verdicts["graph_parity"]["verdict"] == "pass"


def test_other_values_are_calibrated_anew(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays(tmp_path, x=rng.standard_normal((64, 20)).astype(np.float32))
    extra = "calibration: {data: data.npz}\nprecision: {type: fp16, quantize: int8}\n"
    first = built(tmp_path, extra, "onnxruntime")
    again = built(tmp_path, extra, "onnxruntime")
    path = tmp_path / "recipe.yaml"
    path.write_text(path.read_text().replace("opt: [4]", "opt: [5]"))
    options = BuildOptions(tmp_path / "out", store=tmp_path / "store")
    changed = build_recipe(path, options)
    made = [{row.name: row.outcome for row in one.stages} for one in (first, again, changed)]
    assert [one["calibrate"] for one in made] == ["ran", "hit", "ran"]


def test_a_budget_is_measured_on_samples_with_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((64, 20)).astype(np.float32)
    arrays(tmp_path, x=x, k=rng.integers(1, 21, (64, 1)))
    extra = "calibration: {data: data.npz}\nprecision: {quantize: int8, budget: {sqnr_db: 20}}\n"
    result = built(tmp_path, extra, "onnxruntime")
    assert result.verdicts["graph_parity"]["verdict"] == "pass"
    assert result.budget
