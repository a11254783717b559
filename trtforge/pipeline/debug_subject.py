"""What `trtforge debug` looks into: an ONNX file, a recipe or a bundle, ready to be typed anew."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trtforge.errors import Place, UsageError
from trtforge.pipeline.compare import VerifyOptions
from trtforge.pipeline.events import Sink, Warned, ignore
from trtforge.pipeline.judge import Question
from trtforge.pipeline.question import question_of

if TYPE_CHECKING:
    from trtforge.graph.model import Model
    from trtforge.pipeline.stage import Job
    from trtforge.precision.cache import CalibrationCache
    from trtforge.precision.float_ranges import FloatRanges
    from trtforge.recipe.precision import Precision
    from trtforge.recipe.schema import Profile

_BEFORE_TYPING = ("import", "optimize", "calibrate", "budget")


@dataclass(frozen=True)
class DebugOptions:
    """What is looked into, and how far.

    Attributes:
        against: the original; needed for a bundle and for an ONNX file that is typed already.
        data: .npz with inputs, in place of the recipe's verification data.
        tolerance: `bound=value` or `output.bound=value` texts, before the recipe's own.
        type: the type of the typed graph, in place of the recipe's; fp16 for an FP32 ONNX file.
        samples: of the data, at most.
        evaluations: typed graphs that may be tried.
        backend: `onnxruntime` judges by emulation; `tensorrt_rtx` and `tensorrt` build an engine
            for each evaluation and run it on this machine's GPU.
        overrides: `a.b=c` texts that change the recipe.
        store: the store's folder; None for the default.
    """

    against: Path | None = None
    data: Path | None = None
    tolerance: tuple[str, ...] = ()
    type: Literal["fp16", "bf16"] | None = None
    samples: int = 8
    evaluations: int = 40
    backend: str = "onnxruntime"
    overrides: tuple[str, ...] = ()
    store: Path | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """A model before it is typed, and how it is judged.

    Attributes:
        model: cleaned and, with a recipe, as its techniques left it.
        cache: ranges, where something is quantized by them.
        precision: what is asked for.
        question: the original, data and bounds.
        profiles: of the engines.
        recipe: the file that rules can be written into; None without one.
        ranges: what the float types were chosen by, where they were chosen by data.
    """

    model: "Model"
    cache: "CalibrationCache | None"
    precision: "Precision"
    question: Question
    profiles: "tuple[Profile, ...]" = ()
    recipe: Path | None = None
    ranges: "FloatRanges | None" = None


def subject_of(path: Path, options: DebugOptions, emit: Sink = ignore) -> Subject:
    """Find out what a path names, and prepare it as a build does: cleaned, and calibrated.

    Raises:
        UsageError: TF0712, TF0713: it is nothing known; TF0761, TF0768: the original is needed;
            TF0762: no type but FP32 is asked for; TF0763: a quantized ONNX file, whose ranges are
            not known, or quantization that is to be judged without data.
        RecipeError, DataError, GraphError, MissingError: what preparing it raises.
    """
    where = Place(str(path))
    hint = "name an ONNX file, a recipe (.yaml) or a bundle's folder"
    if not path.exists():
        raise UsageError("TF0712", f"'{path}' does not exist", hint, where)
    if path.suffix.lower() in (".yaml", ".yml"):
        subject = _of_recipe(path, options, emit)
    elif path.suffix.lower() == ".onnx":
        subject = _of_onnx(path, options)
    elif (path / "manifest.json").is_file():
        subject = _of_bundle(path, options, emit)
    else:
        raise UsageError("TF0713", f"'{path}' is none of what can be debugged", hint, where)
    asked = subject.precision
    if asked.type == "fp32" and asked.quantize == "none":
        message = f"nothing of '{path}' is typed: its precision is fp32"
        raise UsageError("TF0762", message, "give --type fp16 or bf16", where)
    if asked.quantize in ("int8", "fp8") and subject.question.data is None:
        message = f"{asked.quantize} is judged on recorded inputs only, and there are none"
        raise UsageError("TF0763", message, "name them with --data", where)
    return subject


def _of_onnx(path: Path, options: DebugOptions) -> Subject:
    from trtforge.graph.model import Model
    from trtforge.precision.attest import declared_precision
    from trtforge.recipe.precision import Precision

    model = Model.load(path)
    declared = declared_precision(model)
    kind = options.type or "fp16"
    if declared.quantize != "none":
        raise UsageError(
            "TF0763",
            f"'{path}' is quantized, and an ONNX file does not tell by which ranges",
            "name its recipe or its bundle instead",
            Place(str(path)),
        )
    if declared.type != "fp32":
        if options.against is None:
            raise _original_needed(f"'{path}' is typed already")
        kind = options.type or ("bf16" if declared.type == "bf16" else "fp16")
        typed, model = model, Model.load(options.against)
        sides = [sorted(spec.name for spec in one.contract.outputs) for one in (typed, model)]
        if sides[0] != sides[1]:
            raise UsageError(
                "TF0768",
                f"the outputs differ: {sides[0]} here, {sides[1]} in '{options.against}'",
                f"--against must name the model that '{path}' comes from",
                Place(str(path)),
            )
    precision = Precision(type=kind)
    asked = VerifyOptions(data=options.data, tolerance=options.tolerance, samples=options.samples)
    question = question_of(asked, options.against or path, precision)
    return Subject(model, None, precision, question)


def _of_recipe(path: Path, options: DebugOptions, emit: Sink) -> Subject:
    from trtforge.pipeline.run import BuildOptions, job_of

    job = job_of(path, BuildOptions(overrides=options.overrides, store=options.store), emit)
    return replace(_prepared(job, options, options.against or job.model_path), recipe=path)


def _of_bundle(path: Path, options: DebugOptions, emit: Sink) -> Subject:
    """Prepare the original as the bundle's own recipe and calibration say."""
    from trtforge.bundle.read import open_bundle
    from trtforge.pipeline.stage import Job
    from trtforge.pipeline.store import Store, default_root
    from trtforge.recipe.load import load_recipe

    if options.against is None:
        raise _original_needed("a bundle does not hold the model that it was made of")
    bundle = open_bundle(path)
    caches = [name for name in bundle.manifest.files if name.startswith("calibration/")]
    cache = next((name for name in caches if name.endswith(".json")), None)
    loaded = load_recipe(bundle.file("recipe.yaml"), options.overrides, check_files=False)
    recipe = loaded.recipe
    changes: dict[str, object] = {
        "model": recipe.model.model_copy(update={"onnx": str(options.against.resolve())}),
        "verify": recipe.verify.model_copy(update={"data": None}),
    }
    if recipe.calibration is not None and cache is not None:
        reused = {"data": None, "reuse": str(bundle.file(cache).resolve()), "accept_stale": True}
        changes["calibration"] = recipe.calibration.model_copy(update=reused)
    store = Store(options.store or default_root(), warn=lambda text: emit(Warned(text)))
    job = Job(loaded, recipe.model_copy(update=changes), store, emit)
    return _prepared(job, options, options.against)


def _prepared(job: "Job", options: DebugOptions, original: Path) -> Subject:
    from trtforge.pipeline.execution import Effort, run_stages
    from trtforge.pipeline.plan import stages_of
    from trtforge.pipeline.stages.precision import measured_ranges, prepared, settled

    stages = [stage for stage in stages_of(job.recipe) if stage.kind in _BEFORE_TYPING]
    entries, _ = run_stages(job, stages, Effort())
    model, cache = prepared(entries)
    precision, _ = settled(job, entries)
    # What the ends are declared as changes nothing between them.
    changes = {"io_types": "keep", "type": options.type or precision.type, "budget": None}
    precision = precision.model_copy(update=changes)
    recipe = job.recipe
    data = options.data
    if data is None and recipe.verify.data is not None:
        data = job.loaded.resolve(recipe.verify.data)
    asked = VerifyOptions(data=data, tolerance=options.tolerance, samples=options.samples)
    question = question_of(asked, original, precision, recipe)
    # They were judged for the recipe's type.
    ranges = measured_ranges(entries) if options.type in (None, recipe.precision.type) else None
    return Subject(model, cache, precision, question, recipe.shapes, ranges=ranges)


def _original_needed(why: str) -> UsageError:
    return UsageError("TF0761", f"{why}: the original is needed", "name it with --against")
