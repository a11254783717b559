"""What `trtforge quantize` does: an ONNX file in, a quantized one out, without a recipe."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.disk import check_outputs, is_same
from trtforge.errors import UsageError
from trtforge.pipeline.events import Sink, Warned, ignore
from trtforge.pipeline.settings import Asked, casts_by_data, needs_ranges, sections
from trtforge.pipeline.steps import Steps, files_read
from trtforge.precision.techniques.job import chosen_techniques

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtforge.graph.model import Model
    from trtforge.graph.passes import Optimized
    from trtforge.pipeline.budget_samples import Data
    from trtforge.pipeline.budget_setting import Held
    from trtforge.pipeline.ranges import Ready, Wanted
    from trtforge.precision.cache import CalibrationCache
    from trtforge.precision.cast import TypedModel
    from trtforge.precision.harm import SensitivityReport
    from trtforge.recipe.schema import Precision

    _Samples = tuple[Data, Data | None]


@dataclass(frozen=True)
class QuantizeOptions:
    """How one ONNX file is quantized.

    Attributes:
        asked: precision and calibration.
        optimize: clean up and fuse the graph first.
        prove: prove that the cleaned graph computes the same.
        cache: where to write the calibration cache; None for nowhere.
        sensitivity: rank the layers by the harm that quantizing them does.
    """

    asked: Asked = field(default_factory=Asked)
    optimize: bool = True
    prove: bool = False
    cache: Path | None = None
    sensitivity: bool = False


@dataclass(frozen=True)
class QuantizeResult:
    """What became of a model.

    Attributes:
        output: the file written.
        typed: the quantized model and the reasons for everything in it.
        precision: what was asked for; with a budget, what it came to.
        cache: the ranges; None where none were needed.
        techniques: what was done for accuracy, a line each.
        sizes: nodes, and bytes of weights, of the graph `before` and `after`.
        proof: of the cleaned graph, as JSON data; None when it was not cleaned.
        seconds: wall time of each step.
        sensitivity: the layers ranked; None when that was not asked for.
        budget: the search that chose the mix of types; None when there was none.
    """

    output: Path
    typed: "TypedModel"
    precision: "Precision"
    cache: "CalibrationCache | None"
    techniques: tuple[str, ...]
    sizes: dict[str, dict[str, int]]
    proof: dict[str, Any] | None
    seconds: dict[str, float]
    sensitivity: "SensitivityReport | None" = None
    budget: "Held | None" = None

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON data."""
        from trtforge.pipeline.ranges import calibration_facts

        return {
            "output": str(self.output),
            "precision": self.precision.model_dump(mode="json"),
            "sizes": self.sizes,
            "calibration": None if self.cache is None else calibration_facts(self.cache),
            "techniques": list(self.techniques),
            **self.typed.as_json(),
            "proof": self.proof,
            "sensitivity": None if self.sensitivity is None else self.sensitivity.as_json(),
            "budget": None if self.budget is None else self.budget.as_json(),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def quantize_file(
    source: Path, out: Path, options: QuantizeOptions, emit: Sink = ignore
) -> QuantizeResult:
    """Quantize one ONNX file.

    Args:
        source: the model.
        out: the file to write, whole or not at all; weights may go to a file beside it.
        options: precision, calibration, what else to do.
        emit: told what happens.

    Raises:
        UsageError: an option is wrong.
        DataError: the data does not fit the model, has too few samples, or a reused cache is stale.
        GraphError: the model is refused.
        MissingError: the output cannot be written.
        ParityError: TF0754, nothing of what was asked for would be in it; nothing is written.
        BudgetError: TF0560, no mix that was tried meets the budget; nothing is written.
    """
    _check_samples(options)
    precision, calibration = sections(options.asked)
    chosen_techniques(precision)
    _check_outputs(source, out, options, precision)
    from trtforge.graph.model import Model
    from trtforge.pipeline.casting import require_asked_for
    from trtforge.pipeline.ranges import Wanted

    steps = Steps(emit)
    original = Model.load(source)
    wanted = Wanted(
        precision, calibration, Path, options.asked.profiles(original.contract), options.cache
    )
    samples = _samples_of_budget(original, wanted, options.asked)
    with steps.step("optimize"):
        cleaned = clean(original, options, steps)
    ready = _measured(cleaned.model, wanted, options, steps)
    held = None if samples is None else _held(source, ready, wanted, samples, steps)
    make = _by_ranges(ready, wanted, steps) if held is None else held.typed
    with steps.step("quantize"):
        result = make()
        if held is None:
            require_asked_for(source, result, precision)
        if options.cache is not None and ready.cache is not None:
            ready.cache.save(options.cache)
        result.model.save(out)
    ranked = _ranked(ready, precision, steps) if options.sensitivity else None
    for text in (*result.warnings, *(() if held is None else held.warnings)):
        emit(Warned(text))
    return QuantizeResult(
        out,
        result,
        precision if held is None else held.precision,
        ready.cache,
        ready.techniques,
        {"before": sizes(original), "after": sizes(result.model)},
        cleaned.report.as_json()["proof"] if options.optimize else None,
        steps.seconds,
        ranked,
        held,
    )


def clean(model: "Model", options: QuantizeOptions, steps: Steps) -> "Optimized":
    """Run the passes that are good for quantization; none where the options say so.

    Raises:
        GraphError: the model cannot be edited.
        UsageError: a shape does not fit the model.
    """
    from trtforge.graph.passes import PassRequest, run_passes
    from trtforge.pipeline.corners import free_shapes
    from trtforge.pipeline.passes import dropped_passes
    from trtforge.pipeline.rooms import given_shapes

    corners = free_shapes(model.contract, given_shapes(model.contract, options.asked.shapes))
    request = PassRequest(
        use="default" if options.optimize else "none",
        drop=dropped_passes(options.asked.quantize),
        shapes=tuple(corners.values()),
        prove=options.prove and options.optimize,
    )
    optimized = run_passes(model, request, lambda text: steps.tell(None, text))
    report = optimized.report
    steps.note = (
        f"{report.nodes_before} -> {report.nodes_after} nodes, proof {report.proof.verdict}"
    )
    return optimized


def list_techniques() -> list[dict[str, Any]]:
    """Return the techniques: name, when it runs, for what it is a default, what it does."""
    from importlib import import_module
    from inspect import getdoc

    from trtforge.precision.techniques import AFTER, BEFORE, DEFAULT

    def described(where: str) -> str:
        module, _, name = where.partition(":")
        text = getdoc(getattr(import_module(module), name)) or ""
        return text.partition("\n\n")[0].replace("\n", " ")

    return [
        {
            "name": name,
            "runs": "before calibration" if name in BEFORE else "after calibration",
            "default_for": [kind for kind, names in DEFAULT.items() if name in names],
            "does": described(where),
        }
        for name, where in (BEFORE | AFTER).items()
    ]


def _check_samples(options: QuantizeOptions) -> None:
    asked = options.asked
    if asked.held_out is not None and asked.budget is None:
        raise UsageError(
            "TF0110", "--held-out judges what a budget chose, and there is none", "give --budget"
        )
    data = None if asked.data is None else Path(asked.data)
    if asked.held_out is not None and data is not None and is_same(asked.held_out, data):
        raise UsageError(
            "TF0110",
            f"--held-out names the very samples of --data, '{data}', which were searched on",
            "give others, or leave it out",
        )
    needing = ["--sensitivity"] if options.sensitivity else []
    needing += ["--budget"] if asked.budget is not None else []
    if needing and asked.data is None and not asked.synthetic:
        raise UsageError("TF0110", f"{needing[0]} runs the model on samples", "give --data FILE")


def _check_outputs(
    source: Path, out: Path, options: QuantizeOptions, precision: "Precision"
) -> None:
    """Refuse what cannot end well before any work is done."""
    check_outputs([out, options.cache], files_read(options.asked, source))
    if options.cache is not None and not needs_ranges(precision):
        raise UsageError(
            "TF0109",
            f"{precision.quantize} measures no ranges, so there is no cache to write",
            "leave --cache out",
        )


def _measured(model: "Model", wanted: "Wanted", options: QuantizeOptions, steps: Steps) -> "Ready":
    from trtforge.pipeline.ranges import Ready, make_ready

    precision = wanted.precision
    has_work = needs_ranges(precision) or chosen_techniques(precision) or options.sensitivity
    if not (has_work or casts_by_data(precision, wanted.calibration)):
        return Ready(model, None, None)
    with steps.step("calibrate"), steps.resumable(options.cache):
        steps.tell(None, "opening the data")
        ready = make_ready(model, wanted, steps.tell)
        steps.note = ready.summary
    return ready


def _by_ranges(ready: "Ready", wanted: "Wanted", steps: Steps) -> "Callable[[], TypedModel]":
    """Measure what the float types must hold; return what makes the typed model."""
    from trtforge.pipeline.casting import ranges_summary, type_ranges
    from trtforge.precision.cast import typed

    ranges = None
    if casts_by_data(wanted.precision, wanted.calibration):
        with steps.step("ranges"):
            ranges = type_ranges(ready.model, ready.source, wanted, steps.tell, ready.cache)
            steps.note = "" if ranges is None else ranges_summary(ranges)
    return lambda: typed(ready.model, ready.cache, wanted.precision, ranges)


def _samples_of_budget(original: "Model", wanted: "Wanted", asked: Asked) -> "_Samples | None":
    """Open the samples of the search, and those that judge; refuse what cannot be held on them."""
    if wanted.precision.budget is None:
        return None
    from trtforge.graph.sources.value_rows import open_arrays
    from trtforge.pipeline.budget_samples import Data, labels_of, search_data
    from trtforge.pipeline.measures import measure_of
    from trtforge.pipeline.ranges import open_data

    budget, contract, judging = wanted.precision.budget, original.contract, None
    source = open_data(original, wanted)
    assert source is not None, "checked before the work"
    labels = labels_of(None if asked.data is None else Path(asked.data), contract)
    if asked.held_out is not None:
        found = open_arrays(asked.held_out, contract, labels=True)
        judging = Data(found, None, "--held-out", found.labels)
    role = "--data" if asked.data is not None else "synthetic samples"
    searched = search_data(Data(source, asked.samples, role, labels), judging, wanted.precision)
    measure_of(budget, Path(), searched.labels)  # the user's code may be wrong
    return searched, judging


def _held(
    source: Path,
    ready: "Ready",
    wanted: "Wanted",
    samples: "_Samples",
    steps: Steps,
) -> "Held":
    from trtforge.pipeline.budget_setting import Setting, held_on

    with steps.step("budget"):
        steps.tell(None, "running the original")
        setting = Setting(source, wanted.precision, Path(), samples[0], ready.source, samples[1])
        held = held_on(setting, ready.model, ready.cache, steps.tell)
        steps.note = held.answer.summary()
    return held


def _ranked(ready: "Ready", precision: "Precision", steps: Steps) -> "SensitivityReport":
    from trtforge.precision.sensitivity import sensitivity

    assert ready.source is not None, "checked before the work"
    with steps.step("sensitivity"):
        report = sensitivity(
            ready.model, ready.cache, ready.source, precision, on_progress=steps.tell
        )
        steps.note = f"{len(report.layers)} layers on {report.samples} samples"
    return report


def sizes(model: "Model") -> dict[str, int]:
    """Count nodes, and bytes of weights."""
    from trtforge.graph.weights import storage_bytes

    graph = model.proto.graph
    weights = sum(map(storage_bytes, graph.initializer))
    return {"nodes": len(graph.node), "weights_bytes": weights}
