"""What `trtforge cast` does: an ONNX file in, a strongly typed FP16 or BF16 one out."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.disk import check_outputs
from trtforge.errors import ParityError, Place, UsageError
from trtforge.pipeline.events import Sink, Warned, ignore
from trtforge.pipeline.settings import Asked, sections
from trtforge.pipeline.steps import Steps, files_read

if TYPE_CHECKING:
    from trtforge.graph.model import Model
    from trtforge.graph.sources.source import DataSource
    from trtforge.pipeline.ranges import Wanted
    from trtforge.precision.cache import CalibrationCache
    from trtforge.precision.cast import TypedModel
    from trtforge.precision.float_ranges import FloatRanges
    from trtforge.recipe.schema import Precision


@dataclass(frozen=True)
class CastOptions:
    """How one ONNX file is cast.

    Attributes:
        asked: precision, and calibration where there is data.
        optimize: clean up and fuse the graph first.
    """

    asked: Asked = field(default_factory=Asked)
    optimize: bool = True


@dataclass(frozen=True)
class CastResult:
    """What became of a model.

    Attributes:
        output: the file written.
        typed: the cast model and the reasons for everything that stayed wide.
        precision: what was asked for.
        ranges: what was measured; None without data.
        sizes: nodes, and bytes of weights, of the graph `before` and `after`.
        seconds: wall time of each step.
    """

    output: Path
    typed: "TypedModel"
    precision: "Precision"
    ranges: "FloatRanges | None"
    sizes: dict[str, dict[str, int]]
    seconds: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON data."""
        return {
            "output": str(self.output),
            "precision": self.precision.model_dump(mode="json"),
            "sizes": self.sizes,
            "ranges": None if self.ranges is None else ranges_facts(self.ranges),
            "cast": self.typed.cast.as_json(),
            "warnings": list(self.typed.warnings),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def require_asked_for(source: Path, typed: "TypedModel", precision: "Precision") -> None:
    """Refuse a model that holds nothing of the type that was asked for.

    A file that is called INT8 and computes in FP32 is the mistake that nobody sees.

    Raises:
        ParityError: TF0754, with the most common reason.
    """
    from trtforge.precision.shortfall import nothing_of

    if missing := nothing_of(typed.model, typed.quantize, typed.cast.nodes, precision):
        said = [text for text in typed.warnings if text.startswith("nothing ")]
        raise ParityError(
            "TF0754",
            f"'{source.name}' would have nothing in {missing}, and is not written"
            + (f": {said[0]}" if said else ""),
            "see why with --explain and another type, or ask for none of it"
            if typed.cast.nodes or typed.quantize.decisions
            else "it has no FP32 nodes to type; name the FP32 model that it was made of, if any",
            Place(file=str(source)),
        )


def cast_file(source: Path, out: Path, options: CastOptions, emit: Sink = ignore) -> CastResult:
    """Cast one ONNX file to FP16 or BF16.

    Args:
        source: the FP32 model.
        out: the file to write, whole or not at all; weights may go to a file beside it.
        options: the type, the data, what else to do.
        emit: told what happens.

    Raises:
        UsageError: an option is wrong.
        DataError: the data does not fit the model, or has fewer samples than asked for.
        GraphError: the model is refused.
        MissingError: the output cannot be written.
        ParityError: TF0754, nothing of the type would be in it; nothing is written.
    """
    precision, calibration = sections(options.asked)
    if calibration is None and options.asked.samples is not None:
        raise UsageError(
            "TF0108", "--samples chooses among samples, and there are none", "give --data FILE"
        )
    check_outputs([out], files_read(options.asked, source))
    from trtforge.graph.model import Model
    from trtforge.pipeline.quantizing import QuantizeOptions, clean, sizes
    from trtforge.precision.cast import typed
    from trtforge.precision.shortfall import none_to_cast

    steps = Steps(emit)
    original = Model.load(source)
    model = original
    if options.optimize:
        with steps.step("optimize"):
            model = clean(original, QuantizeOptions(options.asked), steps).model
    ranges = None
    if calibration is not None:
        from trtforge.pipeline.ranges import SYNTHETIC_WARNING, Wanted, open_data

        wanted = Wanted(precision, calibration, Path, options.asked.profiles(original.contract))
        with steps.step("measure"):
            steps.tell(None, "opening the data")
            data = open_data(model, wanted)
            ranges = type_ranges(model, data, wanted, steps.tell)
            steps.note = "" if ranges is None else f"{len(ranges)} tensors"
        if data is not None and data.is_synthetic:
            emit(Warned(SYNTHETIC_WARNING))
    with steps.step("cast"):
        result = typed(model, None, precision, ranges)
        require_asked_for(source, result, precision)
        result.model.save(out)
    notes = none_to_cast(result.cast.nodes, precision)
    result = replace(result, warnings=(*result.warnings, *notes))
    for text in result.warnings:
        emit(Warned(text))
    before_and_after = {"before": sizes(original), "after": sizes(result.model)}
    return CastResult(out, result, precision, ranges, before_and_after, steps.seconds)


def type_ranges(
    model: "Model",
    source: "DataSource | None",
    wanted: "Wanted",
    tell: Callable[[float | None, str], None],
    cache: "CalibrationCache | None" = None,
) -> "FloatRanges | None":
    """Measure what FP16 or BF16 must be able to hold; None where nothing is cast or no data is.

    Args:
        model: the FP32 model, as it will be quantized and cast.
        source: the samples.
        wanted: precision and calibration. `calibration.samples` counts where nothing is quantized;
            otherwise a few samples do, as the calibrated tensors saw them all.
        tell: told the fraction done (0..1) or None, and a line of text.
        cache: what calibration saw of the quantized tensors.
    """
    precision, calibration = wanted.precision, wanted.calibration
    if source is None or calibration is None or precision.type not in ("fp16", "bf16"):
        return None
    from trtforge.precision.range_check import ranges_for_types

    samples = calibration.samples if precision.quantize == "none" else None
    ranges = ranges_for_types(model, source, precision, samples, tell)
    return ranges if cache is None else ranges.joined(cache.ranges)


def ranges_facts(ranges: "FloatRanges") -> dict[str, Any]:
    """What a reader should know about where ranges come from, as JSON data."""
    shown = ranges.as_json()
    return {
        "samples": shown["samples"],
        "tensors": len(ranges),
        "wide_values": len(ranges.wide_values),
        "wide_results": len(ranges.wide_results),
        "emulated_sqnr_db": shown["sqnr_db"],
    }


def ranges_summary(ranges: "FloatRanges") -> str:
    """Say in a few words what was measured."""
    plural = "" if ranges.samples == 1 else "s"
    said = f"{len(ranges)} tensors over {ranges.samples} sample{plural}"
    if ranges.sqnr_db is None:
        return said
    return f"{said}; SQNR of the worst output, emulated: {ranges.sqnr_db:.1f} dB"
