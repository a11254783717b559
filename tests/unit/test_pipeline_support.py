"""What is said of a precision on a target before the build."""

import sys

import pytest

from trtforge.engine.environment import Driver, Gpu, driver
from trtforge.engine.targets import check_types
from trtforge.errors import BuildError, MissingError
from trtforge.pipeline import support
from trtforge.pipeline.plan import stages_of
from trtforge.pipeline.support import require_targets, runs_elsewhere, target_warnings
from trtforge.recipe.schema import Precision, Recipe, Target


def said(backend: str, capabilities: tuple[str, ...] = (), **precision: object) -> tuple[str, ...]:
    target = Target(name="t", backend=backend, compute_capabilities=capabilities)
    return target_warnings(Precision.model_validate(precision), target)


@pytest.mark.parametrize(
    ("backend", "precision", "words"),
    [
        ("onnxruntime", {"type": "bf16"}, "hardly an operator in BF16"),
        ("onnxruntime", {"quantize": "fp8"}, "optimizations off or basic"),
        ("tensorrt_rtx", {"quantize": "int8"}, "lists INT8 for weights alone"),
    ],
)
def test_doubts_are_told(backend: str, precision: dict[str, object], words: str) -> None:
    (warning,) = said(backend, **precision)
    assert words in warning


def test_int8_weights_on_turing_are_taken_with_a_warning() -> None:
    (warning,) = said("tensorrt_rtx", ("7.5", "8.6"), quantize="int8_weight_only")
    assert "smaller, not faster" in warning
    assert said("tensorrt_rtx", ("8.6",), quantize="int8_weight_only") == ()


@pytest.mark.parametrize("backend", ["tensorrt_rtx", "tensorrt", "onnxruntime"])
@pytest.mark.parametrize("quantize", ["none", "int8_weight_only", "int4_weight_only"])
def test_what_every_target_takes_is_passed_over(backend: str, quantize: str) -> None:
    assert said(backend, type="fp16", quantize=quantize) == ()


def test_weight_only_is_planned_without_a_calibration() -> None:
    facts = {"version": 1, "name": "n", "model": {"onnx": "m.onnx"}}
    targets = [{"name": "cpu", "backend": "onnxruntime"}]
    for quantize, calibrated in (("int4_weight_only", False), ("fp8", True)):
        recipe = Recipe.model_validate(
            {
                **facts,
                "targets": targets,
                "precision": {"quantize": quantize},
                "calibration": {"data": "c.npz"},
            }
        )
        kinds = [stage.kind for stage in stages_of(recipe)]
        assert ("calibrate" in kinds) is calibrated


def test_int4_weights_of_a_network_are_refused_for_turing() -> None:
    layer = {"name": "w", "type": "CONSTANT", "onnx_nodes": [], "outputs": [{"dtype": "int4"}]}
    check_types([layer], ("8.6", "12.0"), "m.onnx")
    with pytest.raises(BuildError, match="INT4 needs compute capability") as caught:
        check_types([layer], ("7.5", "8.6"), "m.onnx")
    assert caught.value.code == "TF0607"


def recipe_of(*targets: dict[str, object]) -> Recipe:
    return Recipe.model_validate(
        {"version": 1, "name": "r", "model": {"onnx": "m.onnx"}, "targets": list(targets)}
    )


def test_what_cannot_be_built_here_is_told_of_all_targets_with_a_way_to_build_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def require_builder(backend: str) -> None:
        if backend == "tensorrt":
            raise MissingError("TF0602", "backend 'tensorrt' is not installed", "install it")

    monkeypatch.setattr(support, "require_builder", require_builder)
    rtx, cpu = {"name": "rtx", "backend": "tensorrt_rtx"}, {"name": "cpu", "backend": "onnxruntime"}
    dc, lab = {"name": "dc", "backend": "tensorrt"}, {"name": "lab", "backend": "tensorrt"}
    require_targets(recipe_of(rtx, cpu))
    with pytest.raises(MissingError) as caught:
        require_targets(recipe_of(rtx, dc, lab, cpu))
    assert [problem.message for problem in caught.value.problems] == [
        "target 'dc': backend 'tensorrt' is not installed",
        "target 'lab': backend 'tensorrt' is not installed",
    ]
    assert caught.value.hint == "install it; without it: `--target rtx --target cpu`"
    with pytest.raises(MissingError) as alone:
        require_targets(recipe_of(dc))
    assert alone.value.message == "backend 'tensorrt' is not installed"
    assert alone.value.hint == "install it"


@pytest.mark.skipif(driver().reason is None, reason="not run: this machine has a driver")
def test_an_option_that_needs_a_driver_is_refused_before_the_work() -> None:
    rtx = {"name": "rtx", "backend": "tensorrt_rtx", "options": {"refit": "all"}}
    with pytest.raises(MissingError, match="builds with refit only on a machine with a GPU"):
        require_targets(recipe_of(rtx))


@pytest.mark.parametrize(
    ("gpu", "target", "reason"),
    [
        ("8.9", {"compute_capabilities": ["8.6", "8.9"]}, None),
        ("9.0", {"compute_capabilities": []}, None),
        ("9.0", {"compute_capabilities": ["8.6", "8.9"]}, "8.6, 8.9; this GPU has 9.0"),
        (None, {"compute_capabilities": ["8.6"]}, None),
    ],
)
def test_an_engine_for_other_gpus_is_not_run_here(
    gpu: str | None,
    target: dict[str, object],
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus = () if gpu is None else (Gpu("Test", gpu),)
    monkeypatch.setattr(support, "driver", lambda: Driver("13.0", gpus, None))
    said = runs_elsewhere(Target(name="t", backend="tensorrt_rtx", **target))
    assert (said is None) if reason is None else (reason in str(said))


def test_an_engine_for_windows_is_run_on_windows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target(name="t", backend="tensorrt", options={"runtime_platform": "windows_amd64"})
    monkeypatch.setattr(sys, "platform", "linux")
    assert runs_elsewhere(target) == "it is built for Windows"
    monkeypatch.setattr(sys, "platform", "win32")
    assert runs_elsewhere(target) is None
