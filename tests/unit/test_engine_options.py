"""Options of a target: refused by the backend that lacks them, applied and read back by others."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from engine_option_samples import EXAMPLES
from pydantic import ValidationError

from trtforge.engine import options
from trtforge.engine.environment import driver
from trtforge.engine.flavour import FLAVOURS
from trtforge.errors import BuildError, MissingError
from trtforge.recipe.engine_options import REFUSED, EngineOptions, option_laws
from trtforge.recipe.schema import Target


def test_every_option_has_an_example() -> None:
    assert set(EXAMPLES) == set(EngineOptions.model_fields)


def test_only_what_is_given_counts() -> None:
    assert EngineOptions().given == {}
    assert EngineOptions(refit="all", sparsity=False).given == {"refit": "all"}
    assert EngineOptions(**EXAMPLES).given == EXAMPLES


@pytest.mark.parametrize("key", sorted(EXAMPLES))
def test_tensorrt_takes_every_option_and_onnxruntime_none(key: str) -> None:
    needs = {"exclude_lean_runtime": "version_compatible", "tiling_l2_bytes": "tiling"}.get(key)
    given = {name: EXAMPLES[name] for name in (key, needs) if name is not None}
    Target(name="t", backend="tensorrt", options=given)
    with pytest.raises(ValidationError, match=f"onnxruntime has no ({'|'.join(given)}): "):
        Target(name="t", backend="onnxruntime", options=given)


@pytest.mark.parametrize("key", sorted(REFUSED["tensorrt_rtx"]))
def test_rtx_refuses_what_it_would_ignore_and_says_what_to_do(key: str) -> None:
    target = {"backend": "tensorrt_rtx", "options": {key: EXAMPLES[key]}}
    broken = next(one for one in option_laws(target, ("targets", 0)) if one.loc[-1] == key)
    assert broken.loc == ("targets", 0, "options", key)
    assert broken.message.startswith(f"tensorrt_rtx has no {key}: ")
    assert "remove" in broken.hint or "instead" in broken.hint or "use" in broken.hint


@pytest.mark.parametrize("key", ["exclude_lean_runtime", "tiling_l2_bytes"])
def test_options_that_mean_nothing_alone(key: str) -> None:
    with pytest.raises(ValidationError, match=f"{key} without"):
        EngineOptions(**{key: EXAMPLES[key]})


def test_the_lean_runtime_of_this_system_does_not_go_to_another() -> None:
    """Source: NvInfer.h, RuntimePlatform: EXCLUDE_LEAN_RUNTIME must be set."""
    windows = {"runtime_platform": "windows_amd64"}
    with pytest.raises(ValidationError, match="the lean runtime of this system"):
        EngineOptions(**windows, version_compatible=True)
    assert EngineOptions(**windows, version_compatible=True, exclude_lean_runtime=True).given
    assert EngineOptions(runtime_platform="same_as_build", version_compatible=True).given


APPLY = """
import json, sys
import tensorrt_rtx as trt
from trtforge.engine.options import apply_options

class Quiet(trt.ILogger):
    def __init__(self): trt.ILogger.__init__(self)
    def log(self, severity, message): pass

logger = Quiet()
builder = trt.Builder(logger)
done = {}
for key, value in json.loads(sys.argv[1]).items():
    config = builder.create_builder_config()
    before = config.flags
    apply_options(trt, config, {key: value})
    done[key] = config.flags != before
config = builder.create_builder_config()
for key, value in {"max_aux_streams": -3, "hardware_compatibility": "ampere_plus"}.items():
    try:
        apply_options(trt, config, {key: value})
    except Exception as error:
        done[key] = str(error)
print(json.dumps(done))
"""


def test_a_real_configuration_takes_each_option() -> None:
    """Most do nothing in TensorRT-RTX; its configuration object takes them like TensorRT's."""
    taken = {
        key: value
        for key, value in EXAMPLES.items()
        # TensorRT-RTX drops the one with a warning; the other goes with version_compatible alone.
        if key not in ("hardware_compatibility", "exclude_lean_runtime")
    }
    asked = subprocess.run(
        [sys.executable, "-c", APPLY, json.dumps(taken)], capture_output=True, text=True, check=True
    )
    found = json.loads(asked.stdout)
    for key in ("max_aux_streams", "hardware_compatibility"):
        assert f"did not take {key}: " in found.pop(key)
    flags = {*options.FLAGS, "refit", "timing_cache"} & set(taken)
    assert {key for key, changed in found.items() if changed is True} == flags


def test_a_version_without_the_setting_is_named() -> None:
    old = SimpleNamespace(__name__="tensorrt", __version__="10.3.0", BuilderFlag=SimpleNamespace())
    with pytest.raises(BuildError) as caught:
        options.apply_options(old, SimpleNamespace(), {"tiling": "fast"})
    assert caught.value.code == "TF0619"
    assert caught.value.message == "tensorrt 10.3.0 has no setting for tiling"
    with pytest.raises(BuildError, match="no setting for weight_streaming"):
        options.apply_options(old, SimpleNamespace(), {"weight_streaming": True})


def test_a_flag_that_the_library_drops_is_an_error() -> None:
    trt = SimpleNamespace(
        __name__="tensorrt", __version__="11.0", BuilderFlag=SimpleNamespace(STRICT_NANS=3)
    )
    config = SimpleNamespace(set_flag=lambda flag: None, get_flag=lambda flag: False)
    with pytest.raises(BuildError, match="did not take strict_nans: True"):
        options.apply_options(trt, config, {"strict_nans": True})


@pytest.mark.skipif(driver().reason is None, reason="not run: this machine has a driver")
@pytest.mark.parametrize("key", ["refit", "strip_weights"])
def test_what_rtx_builds_with_a_driver_alone_is_refused_without_one(key: str) -> None:
    with pytest.raises(MissingError, match=f"builds with {key} only on a machine with a GPU"):
        options.require_driver_for(FLAVOURS["tensorrt_rtx"], {key: EXAMPLES[key]})
    options.require_driver_for(FLAVOURS["tensorrt"], {key: EXAMPLES[key]})
