"""Specs of NVIDIA TAO Deploy (`gen_trt_engine`) and files like them."""

from collections.abc import Mapping
from typing import Any

from trtforge.recipe.migration.precision import PrecisionFlags
from trtforge.recipe.migration.profiles import Profiles
from trtforge.recipe.migration.result import Draft, malformed

_SKIPPED: dict[str, str] = {
    "trt_engine": "the engine is engines/<target>/model.engine in the bundle",
    "gpu_id": "set CUDA_VISIBLE_DEVICES",
    "verbose": "use `trtforge build -v`",
    "results_dir": "use `trtforge build --out`",
    "cal_batch_size": "samples are measured one by one: the batch changes nothing",
    "force_ptq": "a model with Q/DQ keeps its pairs",
}
_SECTIONS = ("tensorrt", "calibration")


def from_tao(spec: Mapping[str, Any], draft: Draft) -> None:
    """Put a spec into a draft.

    Args:
        spec: the file's data, or its section `gen_trt_engine`.
        draft: the recipe.

    Raises:
        UsageError: TF0120, a value cannot be read.
    """
    given = dict(spec.get("gen_trt_engine", spec))
    for name in _SECTIONS:
        section = given.pop(name, None)
        if isinstance(section, Mapping):
            given.update(section)
    if isinstance(section := given.pop("calibration", None), Mapping):
        given.update(section)
    precision = PrecisionFlags(draft)
    onnx = given.pop("onnx_file", None)
    if onnx is not None:
        draft.put(f"onnx_file: {onnx}", "model.onnx", str(onnx))
    _shapes(given, draft)
    _types(given, precision)
    _calibration(given, draft, precision)
    precision.close()
    for key, value in given.items():
        text = f"{key}: {value}"
        if key in _SKIPPED:
            draft.skip(text, _SKIPPED[key])
        elif key == "workspace_size":
            draft.put(text, "targets.0.workspace_mib", int(value), "MiB, as TAO counts")
        else:
            draft.refuse(text, "no key of a TAO spec is known by this name here")


def _shapes(given: dict[str, Any], draft: Draft) -> None:
    sizes = {bound: given.pop(f"{bound}_batch_size", None) for bound in ("min", "opt", "max")}
    image = [given.pop(f"input_{side}", None) for side in ("channel", "height", "width")]
    name = given.pop("input_name", None)
    batch = given.pop("batch_size", None)
    if batch is not None and int(batch) > 0:
        sizes = {bound: size or int(batch) for bound, size in sizes.items()}
    if not any(sizes.values()):
        return
    text = ", ".join(f"{bound}_batch_size: {size}" for bound, size in sizes.items() if size)
    if None in image:
        draft.refuse(text, "without input_channel, input_height and input_width the shape is open")
        return
    profiles = Profiles(draft)
    for bound, size in sizes.items():
        if size:
            profiles.put(0, str(name), bound, [int(size), *(int(side) for side in image)])
    profiles.close()
    if name is None:  # as in most specs: the image is the first input, whatever its name
        draft.values["shapes"] = [[draft.values["shapes"][str(name)]]]
    draft.note(text, "shapes", "of the first input" if name is None else f"of input '{name}'")


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
        precision.layers("layers_precision", ",".join(str(one) for one in layers))


def _calibration(given: dict[str, Any], draft: Draft, precision: PrecisionFlags) -> None:
    cache, folder = given.pop("cal_cache_file", None), given.pop("cal_image_dir", None)
    batches, size = given.pop("cal_batches", None), given.get("cal_batch_size")
    if folder:
        draft.refuse(
            f"cal_image_dir: {folder}",
            "how the images are prepared is not in the spec: give calibration.data: {images: ...} "
            "with resize, mean and std, or an .npz",
        )
    if cache and not folder:
        precision.calibrate_with(f"cal_cache_file: {cache}", str(cache))
    elif cache:
        draft.skip(f"cal_cache_file: {cache}", "TAO writes it; a build writes its own")
    if batches and size:
        draft.put(f"cal_batches: {batches}", "calibration.samples", int(batches) * int(size))
    elif batches:
        draft.refuse(f"cal_batches: {batches}", "give calibration.samples instead")
