"""What `trtforge calibrate MODEL` does: the calibration cache of an ONNX file without a recipe."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trtforge.disk import check_outputs
from trtforge.errors import UsageError
from trtforge.pipeline.events import Sink, Warned, ignore
from trtforge.pipeline.settings import Asked, needs_ranges, sections
from trtforge.pipeline.steps import Steps, files_read

if TYPE_CHECKING:
    from trtforge.graph.model import Model
    from trtforge.pipeline.ranges import Wanted
    from trtforge.precision.cache import CalibrationCache


@dataclass(frozen=True)
class MeasureOptions:
    """How the activations of one ONNX file are measured.

    Attributes:
        asked: precision and calibration.
        tensors: `quantized` for those that quantization needs, `all` for every float tensor.
        shard: (index from 0, of): which part of the samples is measured.
        optimize: clean up and fuse the graph first, as `trtforge quantize` does.
    """

    asked: Asked = field(default_factory=Asked)
    tensors: Literal["quantized", "all"] = "quantized"
    shard: tuple[int, int] = (0, 1)
    optimize: bool = True


def calibrate_model(
    source: Path, out: Path, options: MeasureOptions, emit: Sink = ignore
) -> "CalibrationCache":
    """Measure the activations of one ONNX file and write the cache.

    A run that was interrupted leaves its state beside `out`, and the same call goes on from there.
    Of the techniques only those run that reshape the graph before it is calibrated; all shards must
    be given the same data for them.

    Args:
        source: the model.
        out: the cache to write, whole or not at all.
        options: what to measure, on which data.
        emit: told what happens.

    Raises:
        UsageError: an option is wrong.
        DataError: the data does not fit the model, or has fewer samples than asked for.
        GraphError: the model is refused, or a tensor is NaN or infinite.
        MissingError: the cache cannot be written.
        KeyboardInterrupt: Ctrl-C; what was measured is kept.
    """
    from trtforge.graph.model import Model
    from trtforge.pipeline.quantizing import QuantizeOptions, clean
    from trtforge.pipeline.ranges import Wanted

    asked = options.asked
    if asked.techniques is None:  # a cache of the plain graph can be reused without the data
        asked = replace(asked, techniques="none")
    precision, calibration = sections(asked)
    if calibration is None or calibration.reuse is not None:
        raise UsageError("TF0108", "there is no data to measure", "give --data FILE or --synthetic")
    if not needs_ranges(precision) and options.tensors == "quantized":
        raise UsageError(
            "TF0112",
            f"{precision.quantize} needs no ranges, so there is nothing to measure",
            "choose int8 or fp8, or --tensors all",
        )
    check_outputs([out], files_read(asked, source))
    steps = Steps(emit)
    model = Model.load(source)
    with steps.step("optimize"):
        model = clean(model, QuantizeOptions(asked, options.optimize), steps).model
    profiles = asked.profiles(model.contract)
    wanted = Wanted(precision, calibration, Path, profiles, out)
    with steps.step("calibrate"), steps.resumable(out):
        cache = _measured(model, wanted, options, steps)
        cache.save(out)
    for text in cache.warnings:
        emit(Warned(text))
    return cache


def _measured(
    model: "Model", wanted: "Wanted", options: MeasureOptions, steps: Steps
) -> "CalibrationCache":
    from trtforge.pipeline import ranges
    from trtforge.precision.calibrate import calibrate
    from trtforge.precision.quantize import candidate_tensors
    from trtforge.precision.techniques.job import TechniqueJob, with_reshaping

    data, calibration = ranges.open_data(model, wanted), wanted.calibration
    assert data is not None, "there is data, or it is made up"
    assert calibration is not None, "it says so"
    job = TechniqueJob(model, data, wanted.precision, calibration.samples, on_progress=steps.tell)
    ranges.run_before(job)
    tensors = (
        float_tensors(job.model)
        if options.tensors == "all"
        else candidate_tensors(job.model, wanted.precision)
    )
    request = replace(ranges.request_of(wanted, tensors), shard=options.shard)
    measured = with_reshaping(calibrate(job.model, data, request, steps.tell), job)
    cache = ranges.with_synthetic_warning(measured)
    steps.note = "; ".join((ranges.cache_summary(cache), *job.notes))
    return cache


def shard_of(text: str | None) -> tuple[int, int]:
    """Read `K/N`, K from 1, as (index from 0, number of shards).

    Raises:
        UsageError: TF0111, it is not of this form.
    """
    if text is None:
        return (0, 1)
    index, slash, of = text.partition("/")
    if not (slash and index.isdecimal() and of.isdecimal() and 1 <= int(index) <= int(of)):
        raise UsageError("TF0111", f"'{text}' is not a shard", "write 1/4 for the first of four")
    return int(index) - 1, int(of)


def float_tensors(model: "Model") -> tuple[str, ...]:
    """Return every FP32 tensor of the main graph that depends on the inputs, in graph order."""
    from onnx import TensorProto

    from trtforge.precision.typeinfo import element_types

    types = element_types(model.proto)
    graph = model.proto.graph
    varying = {spec.name for spec in model.contract.inputs}
    names = [spec.name for spec in model.contract.inputs]
    for node in graph.node:
        if varying.intersection(node.input):
            varying.update(filter(None, node.output))
            names += filter(None, node.output)
    return tuple(name for name in names if types.get(name) == TensorProto.FLOAT)
