"""A store that others clear, and a clock that jumps, while a build runs."""

import time
from pathlib import Path

import pytest
from engine_models import matmul, save

from trtforge import open_bundle
from trtforge.pipeline.events import Event, StageFinished
from trtforge.pipeline.run import BuildOptions, build_recipe
from trtforge.pipeline.store import Store

RECIPE = """
version: 1
name: small
model: {onnx: model.onnx}
precision: {type: fp16}
targets: [{name: rtx, backend: tensorrt_rtx}, {name: cpu, backend: onnxruntime}]
verify: {tolerance: {sqnr_db: 30}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    save(matmul(), tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_results_may_be_pruned_while_a_build_needs_them(recipe: Path, tmp_path: Path) -> None:
    removed: list[int] = []

    def prune(event: Event) -> None:
        if isinstance(event, StageFinished):
            removed.append(Store(tmp_path / "store").prune()[0])

    options = BuildOptions(out=tmp_path / "out", store=tmp_path / "store")
    result = build_recipe(recipe, options, prune)
    assert sum(removed) >= 5
    files = open_bundle(result.bundle).manifest.files
    assert {"model.onnx", "engines/rtx/model.engine", "reports/report.html"} <= files.keys()
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


def test_without_hard_links_a_build_trusts_that_results_stay(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", no_links)
    options = BuildOptions(out=tmp_path / "out", store=tmp_path / "store")
    assert open_bundle(build_recipe(recipe, options).bundle).manifest.name == "small"


@pytest.mark.parametrize("jump_s", [-3.2e8, 3.2e8])
def test_the_clock_may_jump_by_ten_years_between_stages(
    recipe: Path, tmp_path: Path, jump_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a build that runs is taken for a leftover, and no duration is odd."""
    now, jumps = time.time, [0]

    def jump(event: Event) -> None:
        if isinstance(event, StageFinished):
            jumps[0] += 1
            Store(tmp_path / "store")  # another build begins, and sweeps

    monkeypatch.setattr(time, "time", lambda: now() + jump_s * jumps[0])
    options = BuildOptions(out=tmp_path / "out", store=tmp_path / "store")
    result = build_recipe(recipe, options, jump)
    assert jumps[0] >= 6
    assert all(0 <= row.seconds < 60 for row in result.stages)
    again = build_recipe(recipe, options)
    assert again.bundle == result.bundle
    assert {row.outcome for row in again.stages} == {"hit"}
