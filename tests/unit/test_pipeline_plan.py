"""Plans: which stages a recipe has, and why one runs."""

import json
from pathlib import Path

import pytest

from trtforge.cli.main import _run
from trtforge.errors import MissingError
from trtforge.pipeline import support
from trtforge.pipeline.plan import plan, stages_of, why_missed
from trtforge.pipeline.run import BuildOptions, job_of


def job(digits: Path, name: str, tmp_path: Path, *overrides: str):
    return job_of(digits / f"{name}.yaml", BuildOptions(overrides=overrides, store=tmp_path))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fp32", ["import", "optimize", "precision", "build:rtx", "verify", "report"]),
        ("int8", ["import", "optimize", "calibrate", "precision", "build:rtx", "verify", "report"]),
    ],
)
def test_the_stages_of_a_recipe(
    name: str, expected: list[str], digits: Path, tmp_path: Path
) -> None:
    stages = stages_of(job(digits, name, tmp_path).recipe)
    assert [stage.name for stage in stages] == expected
    done: set[str] = set()
    for stage in stages:
        assert set(stage.consumes) <= done, f"{stage.name} comes before its inputs"
        done.add(stage.name)


def test_nothing_built_yet(digits: Path, tmp_path: Path) -> None:
    rows = plan(job(digits, "int8", tmp_path))
    assert (rows[0].name, rows[0].outcome, rows[0].why) == ("import", "run", "not built before")
    assert {row.outcome for row in rows[1:]} == {"unknown"}
    assert rows[1].why == "depends on what import makes"


class Fake:
    name = "verify"


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (None, {}, "not built before"),
        ({"a": 1}, {"a": 1}, "its stored result is gone"),
        (
            {"recipe": {"verify": {"tolerance": {"sqnr_db": 20}}}},
            {"recipe": {"verify": {"tolerance": {"sqnr_db": 30}}}},
            "recipe.verify.tolerance.sqnr_db: 20 -> 30",
        ),
        ({"sources": {"model": "a"}}, {"sources": {"model": "b"}}, "model changed"),
        (
            {"inputs": {"precision": {"model.onnx": "a"}}},
            {"inputs": {"precision": {"model.onnx": "b"}}},
            "precision/model.onnx changed",
        ),
        ({"code": {"graph": "1"}}, {"code": {"graph": "2"}}, "trtforge's own graph code changed"),
        ({"versions": {}}, {"versions": {"onnx": "2"}}, "versions.onnx: none -> 2"),
        (
            {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1},
            {"a": 2, "b": 2, "c": 2, "d": 2, "e": 2},
            "a: 1 -> 2; b: 1 -> 2; c: 1 -> 2; and 2 more",
        ),
    ],
)
def test_the_reason_for_a_miss(before: dict | None, after: dict, why: str) -> None:
    last = {} if before is None else {"verify": before}
    assert why_missed(Fake(), after, last) == why  # type: ignore[arg-type]


def test_an_external_data_byte_changes_the_first_key(digits: Path, tmp_path: Path) -> None:
    import onnx

    folder = tmp_path / "recipe"
    folder.mkdir()
    model = onnx.load(digits / "model.onnx")
    onnx.save(
        model, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    text = (digits / "fp32.yaml").read_text()
    (folder / "r.yaml").write_text(text.replace("test.npz", str(digits / "test.npz")))

    def first_key() -> str | None:
        return plan(job_of(folder / "r.yaml", BuildOptions(store=tmp_path / "store")))[0].key

    before = first_key()
    assert first_key() == before
    data = bytearray((folder / "w.bin").read_bytes())
    data[100] ^= 1
    (folder / "w.bin").write_bytes(data)
    assert first_key() != before


def test_the_key_holds_the_code_of_the_rooms_that_make_the_result(
    digits: Path, tmp_path: Path
) -> None:
    from trtforge.pipeline.stage import code_digest, key_document

    this = job(digits, "int8", tmp_path)
    first = stages_of(this.recipe)[0]
    document = key_document(first, this, {})
    assert document["code"] == {room: code_digest(room) for room in ("graph", "pipeline")}
    assert code_digest("graph") != code_digest("precision")
    for stage in stages_of(this.recipe):
        for room in stage.rooms:
            assert (Path(__file__).parents[2] / "trtforge" / room / "__init__.py").is_file()


def test_a_plan_says_what_is_missing_here(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def require_builder(backend: str) -> None:
        if backend == "tensorrt":
            raise MissingError("TF0602", "backend 'tensorrt' is not installed", "install it")

    monkeypatch.setattr(support, "require_builder", require_builder)
    monkeypatch.setenv("TRTFORGE_CACHE", str(tmp_path / "store"))
    asked = ["plan", str(digits / "fp16.yaml"), "--set"]
    targets = "targets=[{name: dc, backend: tensorrt}, {name: cpu, backend: onnxruntime}]"
    assert _run([*asked, targets]) == 0
    told = capfd.readouterr()
    assert "build:dc" in told.out
    assert (
        "warning: a build would stop: target 'dc': backend 'tensorrt' is not installed "
        "(install it; without it: `--target cpu`)" in told.err
    )
    assert _run([*asked, targets, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert [problem["code"] for problem in document["missing"]] == ["TF0602"]
    assert _run([*asked, "targets.0.name=rtx", "--target", "cpu", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["missing"] == []
