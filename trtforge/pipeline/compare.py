"""`trtforge verify`: bundles, engines and ONNX files, any against the model that they come from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.errors import EXIT_MISSING, EXIT_OK, EXIT_PARITY, ParityError, Place, UsageError
from trtforge.pipeline.file_kinds import RunKind, run_kind_of
from trtforge.pipeline.judge import (
    EngineCandidate,
    Question,
    judge_engine,
    judge_graph,
    overall,
)
from trtforge.pipeline.question import question_of
from trtforge.recipe.load import load_recipe
from trtforge.recipe.schema import Precision
from trtforge.verify.types import ParityReport

if TYPE_CHECKING:
    from trtforge.bundle.manifest import ModelFacts
    from trtforge.bundle.read import Bundle
    from trtforge.verify.layers import LayerProfile

VERIFY_SCHEMA = "trtforge.verify/1"

LAYER_SAMPLES = 8
"""Samples of the data that --layers runs on where --samples does not say."""


@dataclass(frozen=True)
class VerifyOptions:
    """How a candidate is verified.

    Attributes:
        against: the reference: an ONNX file, a bundle whose typed ONNX is taken, or an engine, for
            engines. None: the candidate bundle's own typed ONNX, which only judges its engines.
        data: .npz with inputs, and labels where accuracy is to be shown.
        tolerance: `bound=value` or `output.bound=value` texts; what they leave out comes from the
            recipe in the bundle.
        samples: how many samples of the data to use, None for all.
        backend: for a single engine file: the backend that runs it; None for what the file tells.
        seed: seed of random inputs.
        layers: also compare every tensor of the typed ONNX with the reference's.
        allow_host_code: let code inside version-compatible engines run on the CPU.
        weights: for a single engine file: the ONNX whose weights are put into it.
        against_weights: likewise for an engine to compare with.
        against_python: the interpreter that runs an engine to compare with, where it needs another
            library; None for this one.
    """

    against: Path | None = None
    data: Path | None = None
    tolerance: tuple[str, ...] = ()
    samples: int | None = None
    backend: str | None = None
    seed: int = 0
    layers: bool = False
    allow_host_code: bool = False
    weights: Path | None = None
    against_weights: Path | None = None
    against_python: Path | None = None


@dataclass(frozen=True)
class VerifyResult:
    """What came of it.

    Attributes:
        candidate: as it was named.
        kind: what it is.
        checks: check name -> report: `graph`, and `engine:<target>` for each engine.
        verdict: fail if any check failed, pass if at least one passed, otherwise not_run.
        layers: the error of every tensor, where that was asked for.
    """

    candidate: Path
    kind: RunKind
    checks: Mapping[str, ParityReport]
    verdict: str
    layers: "LayerProfile | None" = None

    @property
    def exit_status(self) -> int:
        """0 pass, 5 fail, 3 when nothing could be run here: a skip is not a pass."""
        return {"pass": EXIT_OK, "fail": EXIT_PARITY}.get(self.verdict, EXIT_MISSING)

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON data."""
        document = {
            "candidate": str(self.candidate),
            "kind": self.kind,
            "verdict": self.verdict,
            "checks": {name: report.as_json() for name, report in self.checks.items()},
        }
        return document if self.layers is None else document | {"layers": self.layers.as_json()}


def verify(candidate: Path | str, options: VerifyOptions | None = None) -> VerifyResult:
    """Compare a bundle, an engine or an ONNX file with the model that it comes from.

    A bundle's digests are checked before anything of it reaches a runtime.

    Raises:
        UsageError: the candidate is none of these, or there is nothing to compare it with.
        IntegrityError: a bundle's file is changed, missing or unexpected.
        DataError: the data does not fit the model.
        GraphError: an ONNX file is refused.
    """
    path, options = Path(candidate), options or VerifyOptions()
    kind = run_kind_of(path)
    against = None if options.against is None else run_kind_of(options.against)
    _check_options(options, kind, against)
    layers = _layers(path, kind, options) if options.layers else None
    if against == "engine":
        checks = _verify_with_engine(path, kind, options)
    elif kind == "bundle":
        checks = _verify_bundle(path, options)
    elif options.against is None:
        raise UsageError(
            "TF0711", f"nothing to compare '{path}' with", "name the original with --against"
        )
    else:
        checks = _verify_file(path, kind, _reference(options.against), options)
    return VerifyResult(path, kind, checks, overall(tuple(checks.values())), layers)


def _check_options(options: VerifyOptions, kind: RunKind, against: RunKind | None) -> None:
    """Refuse options that nothing here takes."""
    if options.weights is not None and kind != "engine":
        raise UsageError(
            "TF0776",
            "--weights is of a single engine file",
            "leave it out: a bundle has its own weights, and an ONNX file lacks none",
        )
    given = {
        "--against-weights": options.against_weights,
        "--against-python": options.against_python,
    }
    for name, value in given.items():
        if value is not None and against != "engine":
            raise UsageError("TF0776", f"{name} is of an engine given to --against", "leave it out")


def _single(path: Path, options: VerifyOptions) -> EngineCandidate:
    from trtforge.pipeline.engine_files import runnable

    return runnable(path, options.backend, options.weights, allow_host_code=options.allow_host_code)


def _verify_with_engine(
    path: Path, kind: RunKind, options: VerifyOptions
) -> dict[str, ParityReport]:
    """Compare an engine, or those of a bundle, with another engine."""
    from trtforge.pipeline.compare_engines import judge_engines
    from trtforge.pipeline.engine_files import runnable

    assert options.against is not None
    if kind == "onnx":
        raise UsageError(
            "TF0715",
            f"'{options.against}' cannot serve as the reference of an ONNX file",
            f"turn them round: trtforge verify {options.against} --against {path}",
        )
    reference = replace(
        runnable(
            options.against,
            None,
            options.against_weights,
            allow_host_code=options.allow_host_code,
        ),
        python=options.against_python,
    )
    if kind == "engine":
        engines = {path.name: _single(path, options)}
    else:
        from trtforge.bundle.read import open_bundle

        engines = _engines_of(open_bundle(path), options)
    return {
        f"engine:{name}": judge_engines(one, reference, options) for name, one in engines.items()
    }


def _layers(path: Path, kind: RunKind, options: VerifyOptions) -> "LayerProfile":
    """Compare every tensor of a typed ONNX file, which may lie in a bundle, with the reference."""
    from trtforge.pipeline.layers import profile_layers

    typed, recipe = path, None
    if kind == "bundle":
        from trtforge.bundle.read import open_bundle

        bundle = open_bundle(path)
        typed = bundle.file("model.onnx") if bundle.manifest.model.included else path
        recipe = load_recipe(bundle.file("recipe.yaml"), check_files=False).recipe
    if kind == "engine" or typed.is_dir() or options.against is None:
        raise UsageError(
            "TF0742",
            "--layers compares a typed ONNX file with its original, and one of them is not given",
            "name the original with --against, and an ONNX file or a bundle that includes one",
        )
    question = question_of(options, _reference(options.against), Precision(), recipe)
    if recipe is not None and recipe.precision.io_types == "convert":
        question = _with_narrow_ends(question, bundle.manifest.model)
    return profile_layers(question, typed, options.samples or LAYER_SAMPLES)


def _verify_file(
    path: Path, kind: RunKind, reference: Path, options: VerifyOptions
) -> dict[str, ParityReport]:
    """Compare a single ONNX file or engine; an engine's precision cannot be read out of it."""
    if kind == "engine":
        question = question_of(options, reference, Precision())
        return {f"engine:{path.name}": judge_engine(question, _single(path, options))}
    from trtforge.graph.model import Model
    from trtforge.precision.attest import declared_precision

    precision = declared_precision(Model.load(path))
    _require_same_inputs(reference, path)
    question = question_of(options, reference, precision)
    reason = _unjudgeable(precision, options)
    return {"graph": ParityReport.not_run(reason) if reason else judge_graph(question, path)}


def _unjudgeable(precision: Precision, options: VerifyOptions) -> str | None:
    """Random inputs lie outside the calibrated ranges and would fail a sound quantized model."""
    if precision.quantize == "none" or options.data is not None:
        return None
    return f"{precision.quantize} is judged on recorded inputs only: name them with --data"


def _verify_bundle(path: Path, options: VerifyOptions) -> dict[str, ParityReport]:
    from trtforge.bundle.read import open_bundle

    bundle = open_bundle(path)
    facts = bundle.manifest
    typed = bundle.file("model.onnx") if facts.model.included else None
    reference = _reference(options.against) if options.against is not None else typed
    if reference is None:
        raise UsageError(
            "TF0714",
            f"bundle '{path}' holds no ONNX file to compare its engines with",
            "name the original with --against",
        )
    recipe = load_recipe(bundle.file("recipe.yaml"), check_files=False).recipe
    is_own = options.against is None
    question = question_of(options, reference, recipe.precision, recipe, is_own=is_own)
    if recipe.precision.io_types == "convert" and options.against is not None:
        question = _with_narrow_ends(question, facts.model)
    if typed is not None and options.against is not None:
        _require_same_inputs(reference, typed, question.narrowed)
    checks: dict[str, ParityReport] = {}
    if reason := _unjudgeable(recipe.precision, options):
        engines = [f"engine:{target.name}" for target in facts.targets if target.engine is not None]
        return {name: ParityReport.not_run(reason) for name in ("graph", *engines)}
    if typed is None:
        checks["graph"] = ParityReport.not_run("the bundle holds no ONNX file")
    elif options.against is None:
        checks["graph"] = ParityReport.not_run("no reference: name the original with --against")
    else:
        checks["graph"] = judge_graph(question, typed)
    for name, engine in _engines_of(bundle, options).items():
        checks[f"engine:{name}"] = judge_engine(question, engine)
    return checks


def _engines_of(bundle: "Bundle", options: VerifyOptions) -> dict[str, EngineCandidate]:
    """The engines of a bundle, by target."""
    typed = bundle.file("model.onnx") if bundle.manifest.model.included else None
    return {
        target.name: EngineCandidate(
            bundle.file(target.engine),
            target.backend,
            target.options,
            typed,
            options.allow_host_code,
        )
        for target in bundle.manifest.targets
        if target.engine is not None
    }


def _with_narrow_ends(question: Question, typed: "ModelFacts") -> Question:
    """Say which ends the recipe made narrow: their types differ from the reference's on purpose."""
    from trtforge.graph.model import Model
    from trtforge.precision.ends import narrowed

    original = Model.load(question.reference).contract
    return replace(question, narrowed={**question.narrowed, **narrowed(original, typed)})


def _require_same_inputs(
    reference: Path, candidate: Path, narrowed: Mapping[str, str] | None = None
) -> None:
    """Refuse to compare models that cannot be fed the same arrays, but for what was narrowed."""
    from trtforge.graph.model import Model

    wanted = {spec.name: spec for spec in Model.load(reference).contract.inputs}
    given = {spec.name: spec for spec in Model.load(candidate).contract.inputs}
    where = Place(file=str(candidate))
    hint = f"--against must name the model that '{candidate}' comes from"
    if set(wanted) != set(given):
        sides = [", ".join(f"'{name}'" for name in side) or "none" for side in (given, wanted)]
        message = f"the inputs differ: {sides[0]} here, {sides[1]} in '{reference}'"
        raise ParityError("TF0709", message, hint, where)
    for name, spec in wanted.items():
        pairs = zip(spec.dims, given[name].dims, strict=False)
        unequal = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
        retyped = spec.dtype != given[name].dtype and name not in (narrowed or {})
        if unequal or len(spec.dims) != len(given[name].dims) or retyped:
            sides = [f"{one.dtype} {one.dims_text}" for one in (given[name], spec)]
            message = f"input '{name}' is {sides[0]} here and {sides[1]} in '{reference}'"
            raise ParityError("TF0709", message, hint, where)


def _reference(against: Path) -> Path:
    """Return the ONNX file to compare with."""
    kind = run_kind_of(against)
    if kind == "onnx":
        return against
    if kind == "bundle":
        from trtforge.bundle.read import open_bundle

        bundle = open_bundle(against)
        if bundle.manifest.model.included:
            return bundle.file("model.onnx")
    raise UsageError(
        "TF0715",
        f"'{against}' cannot serve as the reference",
        "name an ONNX file, or a bundle that includes its typed ONNX",
    )
