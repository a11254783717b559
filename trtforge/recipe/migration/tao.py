"""Specs of NVIDIA TAO Deploy (`gen_trt_engine`) and files like them."""

import re
from collections.abc import Mapping
from typing import Any

from trtforge.errors import UsageError
from trtforge.recipe.migration.precision import PrecisionFlags
from trtforge.recipe.migration.profiles import Profiles
from trtforge.recipe.migration.result import Draft, malformed

_GIVEN = "--data is measured in its place"
_PIXELS = "it says how TAO prepares images, which a recipe says in calibration.data"

_SKIPPED: dict[str, str] = {
    "trt_engine": "the engine is engines/<target>/model.engine in the bundle",
    "engine_file": "the engine is engines/<target>/model.engine in the bundle",
    "gpu_id": "set CUDA_VISIBLE_DEVICES",
    "verbose": "use `trtforge build -v`",
    "results_dir": "use `trtforge build --out`",
    "cal_batch_size": "samples are measured one by one: the batch changes nothing",
    "force_ptq": "a model with Q/DQ keeps its pairs",
    "img_mode": _PIXELS,
    "preprocess_mode": _PIXELS,
    "image_mean": _PIXELS,
    "opset_version": "the ONNX file has one of its own",
    "on_cpu": "the model is exported already",
    "timing_cache": "set targets[].options.timing_cache",
}
_SECTIONS = ("tensorrt", "trt_config", "calibration")
_CALIBRATION = (
    "cal_cache_file",
    "cal_image_dir",
    "cal_data_file",
    "cal_batches",
    "cal_num_batches",
)


def from_tao(spec: Mapping[str, Any], draft: Draft) -> None:
    """Put a spec into a draft.

    Args:
        spec: the file's data, or its section `gen_trt_engine`.
        draft: the recipe.

    Raises:
        UsageError: TF0120, a value cannot be read.
    """
    section = spec.get("gen_trt_engine", spec)
    if not isinstance(section, Mapping):
        raise malformed("gen_trt_engine", "keys such as onnx_file and tensorrt")
    given = _resolved(section, spec)
    for name in _SECTIONS:  # the second may lie in the first
        if isinstance(part := given.pop(name, None), Mapping):
            given.update(part)
    precision = PrecisionFlags(draft)
    onnx = given.pop("onnx_file", None)
    if onnx is not None:
        draft.put(f"onnx_file: {onnx}", "model.onnx", str(onnx))
    _shapes(given, draft)
    _types(given, precision)
    precision.close()
    for key, value in given.items():
        text = f"{key}: {value}"
        if value is None:
            draft.skip(text, "it is empty")
        elif key in _SKIPPED:
            draft.skip(text, _SKIPPED[key])
        elif key in ("workspace_size", "max_workspace_size"):
            draft.put(text, "targets.0.workspace_mib", _number(key, value), "MiB, as TAO counts")
        else:
            draft.refuse(text, "no key of a TAO spec is known by this name here")
    if section is not spec and len(spec) > 1:
        others = ", ".join(str(key) for key in spec if key != "gen_trt_engine")
        draft.skip(others, "no engine is built by these sections")


def _resolved(section: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Put in what `${results_dir}` stands for, and leave out what is to be filled in (`???`)."""

    def value_of(found: re.Match[str]) -> str:
        here: Any = spec
        for key in found[1].split("."):
            here = here.get(key) if isinstance(here, Mapping) else None
        if not isinstance(here, str | int) or "${" in str(here):
            raise UsageError(
                "TF0121",
                f"'{found[0]}' stands for a value that the spec does not give",
                "write it out",
            )
        return str(here)

    given = dict[str, Any]()
    for key, value in section.items():
        if isinstance(value, Mapping):
            given[key] = _resolved(value, spec)
        elif value != "???":
            is_text = isinstance(value, str)
            given[key] = re.sub(r"\$\{([\w.]+)\}", value_of, value) if is_text else value
    return given


def _number(key: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise malformed(f"{key}: {value}", "a whole number") from None


def _shapes(given: dict[str, Any], draft: Draft) -> None:
    sizes = {bound: given.pop(f"{bound}_batch_size", None) for bound in ("min", "opt", "max")}
    sides = ("channel", "height", "width")
    image = [given.pop(f"input_{side}", given.pop(side, None)) for side in sides]
    batch = given.pop("batch_size", None)
    name, dims = _input(draft)
    name = given.pop("input_name", name)
    image = [own if side is None else side for side, own in zip(image, dims, strict=True)]
    if batch is not None and _number("batch_size", batch) > 0:
        sizes = {bound: size or batch for bound, size in sizes.items()}
    if not any(sizes.values()):
        return
    text = ", ".join(f"{bound}_batch_size: {size}" for bound, size in sizes.items() if size)
    if None in image:
        draft.refuse(text, "without input_channel, input_height and input_width the shape is open")
        return
    profiles = Profiles(draft)
    for bound, size in sizes.items():
        if size:
            shape = [_number(f"{bound}_batch_size", size)]
            profiles.put(0, str(name), bound, [*shape, *(_number("input", side) for side in image)])
    profiles.close()
    if name is None:  # as in most specs: the image is the first input, whatever its name
        draft.values["shapes"] = [[draft.values["shapes"][str(name)]]]
    draft.note(text, "shapes", "of the first input" if name is None else f"of input '{name}'")


def _input(draft: Draft) -> tuple[str | None, list[int | None]]:
    """The image that the model takes, where it is here: its name, channels, height and width."""
    for name, tensor in (draft.model.inputs if draft.model else {}).items():
        if tensor.dims is not None and len(tensor.dims) == 4:
            return name, list(tensor.dims[1:])
    return None, [None, None, None]


def _types(given: dict[str, Any], precision: PrecisionFlags) -> None:
    kind = str(given.pop("data_type", "fp32")).lower()
    text = f"data_type: {kind}"
    if kind in ("fp16", "bf16", "int8", "fp8"):
        precision.wish(text, kind)
    elif kind in ("fp32", "float32"):
        precision.draft.put(text, "precision.type", "fp32")
    else:
        raise malformed(text, "fp32, fp16, bf16, int8 or fp8")
    layers = given.pop("layers_precision", None)
    if layers:
        listed = layers if isinstance(layers, list) else [layers]
        precision.layers("layers_precision", ",".join(str(one) for one in listed))
    found = {key: given.pop(key, None) for key in _CALIBRATION}
    if kind in ("int8", "fp8"):
        _calibration(found, given.get("cal_batch_size"), precision)
        return
    for key, value in found.items():
        if value:
            precision.draft.skip(f"{key}: {value}", f"nothing is calibrated for {kind}")


def _calibration(found: Mapping[str, Any], size: Any, precision: PrecisionFlags) -> None:
    draft, cache, folder = precision.draft, found["cal_cache_file"], found["cal_image_dir"]
    if folder and draft.data is not None:
        draft.skip(f"cal_image_dir: {folder}", _GIVEN)
    elif folder:
        draft.refuse(
            f"cal_image_dir: {folder}",
            "how the images are prepared is not in the spec: give calibration.data: {images: ...} "
            "with resize, mean and std, or an .npz",
        )
    if cache and not folder:
        precision.calibrate_with(f"cal_cache_file: {cache}", str(cache))
    elif cache:
        draft.skip(f"cal_cache_file: {cache}", "TAO writes it; a build writes its own")
    data = found["cal_data_file"]
    if data and draft.data is not None:
        draft.skip(f"cal_data_file: {data}", _GIVEN)
    elif data:
        draft.refuse(f"cal_data_file: {data}", "write its tensors as .npz, and give --data")
    key = "cal_num_batches" if found["cal_num_batches"] else "cal_batches"
    if (batches := found[key]) and size:
        samples = _number(key, batches) * _number("cal_batch_size", size)
        draft.put(f"{key}: {batches}", "calibration.samples", samples)
    elif batches:
        draft.refuse(f"{key}: {batches}", "give calibration.samples instead")
