"""Compares a typed graph or an engine with the original model, on the recipe's cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from trtforge.recipe.schema import QuantizedType, Tolerance, Verify
from trtforge.verify.types import Bounds, ParityReport, Tolerances

if TYPE_CHECKING:
    from trtforge.engine.backend import Feeds, Outputs, Runner
    from trtforge.engine.runner import EngineRunner
    from trtforge.graph.model import Model
    from trtforge.verify.cases import Samples

_HEAVY_BYTES = 32 << 20
"""From this size on, a typed model and its original together are not loaded at the same time."""

_TURN_BYTES = 64 << 20
"""Inputs and outputs that are kept while the two take turns; one session costs a second per GB."""

LACKS_WEIGHTS = "its weights are stripped, and there is no ONNX file to put them back from"
"""Why an engine is not run."""


@dataclass(frozen=True)
class Question:
    """What is compared, and by which measure.

    Attributes:
        reference: the original ONNX model; it runs in ONNX Runtime in FP32, as written.
        corners: corner name -> input name -> shape.
        tolerances: the bounds.
        data: recorded inputs, None when there are none.
        samples: how many samples of the data to use, None for all.
        seed: seed of the random inputs.
        narrowed: inputs and outputs that are FP16 or BF16 on purpose where the original's are FP32,
            with their types (`float16`); samples are rounded to them.
        is_emulated: the reference is itself typed, so that it runs by `precision.emulate`; its
            inputs and outputs are among `narrowed` where they are not FP32.
    """

    reference: Path
    corners: Mapping[str, Mapping[str, tuple[int, ...]]]
    tolerances: Tolerances
    data: "Samples | None" = None
    samples: int | None = None
    seed: int = 0
    narrowed: Mapping[str, str] = field(default_factory=dict)
    is_emulated: bool = False

    def reference_model(self) -> "Model":
        """Load the reference as it is to be run."""
        from trtforge.graph.model import Model
        from trtforge.precision.emulate import emulate

        model = Model.load(self.reference)
        return emulate(model, wide_ends=self.narrowed) if self.is_emulated else model


def tolerances_of(verify: Verify, precision: str, quantize: QuantizedType) -> Tolerances:
    """Return the recipe's bounds, with the documented defaults of its precision behind them."""
    from trtforge.verify.tolerance import fallback_for

    fallback, reason = fallback_for(quantize if quantize != "none" else precision)
    return Tolerances(
        default=_bounds(verify.tolerance),
        outputs={name: _bounds(value) for name, value in verify.outputs.items()},
        fallback=fallback,
        fallback_reason=reason,
    )


def judge_graph(question: Question, typed: Path) -> ParityReport:
    """Compare a typed ONNX with the original, every FP16/BF16 operator rounded exactly.

    ONNX Runtime's CPU provider computes FP16 graphs in FP32, so the typed graph runs through
    `precision.emulate` (design.md section 2). Heavy models take turns: only one of the two is in
    memory at a time.
    """
    from trtforge.engine.onnxruntime import OnnxRuntimeRunner
    from trtforge.graph.model import Model, source_files
    from trtforge.precision.emulate import emulate

    candidate = OnnxRuntimeRunner(
        lambda: emulate(Model.load(typed), wide_ends=question.narrowed),
        name=f"{typed.name} (emulated)",
    )
    files = (*source_files(question.reference), *source_files(typed))
    heavy = sum(file.stat().st_size for file in files) >= _HEAVY_BYTES
    return _judge(question, candidate, _TURN_BYTES if heavy else None)


@dataclass(frozen=True)
class EngineCandidate:
    """An engine that is to be judged.

    Attributes:
        path: its file.
        backend: that it was built with.
        options: of its target; weights that they strip are put back before it runs.
        typed: the ONNX that it was built from; None where there is none.
        allow_host_code: let code inside a version-compatible engine run on the CPU.
        weights: the ONNX whose weights are put into it; None for `typed`, where it lacks them.
        python: the interpreter that runs it, with another library; None for this one.
    """

    path: Path
    backend: str
    options: Mapping[str, Any] = field(default_factory=dict)
    typed: Path | None = None
    allow_host_code: bool = False
    weights: Path | None = None
    python: Path | None = None

    @property
    def lacks_weights(self) -> bool:
        """Whether its weights were stripped, and are nowhere to be put back from."""
        return bool(self.options.get("strip_weights")) and not (self.weights or self.typed)


def judge_engine(question: Question, engine: EngineCandidate) -> ParityReport:
    """Compare an engine with the original on this machine's GPU; `not_run` where there is none."""
    runner = runner_of(engine)
    reason = runner.unavailable_reason()
    if reason is None and engine.lacks_weights:
        reason = LACKS_WEIGHTS
    if reason is not None:
        candidate = f"{engine.path.name} ({engine.backend})"
        return ParityReport.not_run(reason, reference=question.reference.name, candidate=candidate)
    return _judge(question, NarrowEnds(runner, question.narrowed) if question.narrowed else runner)


def runner_of(engine: EngineCandidate) -> "EngineRunner":
    """Return what runs an engine: with the weights that it lacks, streamed as the library thinks.

    Raises:
        UsageError, MissingError: TF0775, its interpreter does not do.
    """
    from trtforge.engine.engine_worker import EngineSource
    from trtforge.engine.runner import EngineRunner
    from trtforge.engine.supervisor import WORKER_PROGRAM
    from trtforge.pipeline.engine_files import worker_of

    own = engine.typed if engine.options.get("strip_weights") else None
    return EngineRunner(
        EngineSource(
            engine.path,
            engine.backend,
            engine.allow_host_code,
            engine.weights or own,
            "auto" if engine.options.get("weight_streaming") else None,
            WORKER_PROGRAM if engine.python is None else worker_of(engine.python),
        )
    )


class NarrowEnds:
    """A runner with narrow inputs and outputs that takes and gives FP32 arrays.

    Args:
        runner: what computes.
        narrowed: the inputs and outputs in question, with the runner's types of them.
    """

    def __init__(self, runner: "Runner", narrowed: Mapping[str, str]) -> None:
        self.name = runner.name
        self._runner = runner
        self._narrowed = narrowed

    def __enter__(self) -> Self:
        """Enter the runner."""
        self._runner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.__exit__(kind, error, trace)

    def infer(self, feeds: "Feeds") -> "Outputs":
        """Round the inputs, compute, and widen the outputs; values beyond the type become Inf."""
        import numpy as np

        from trtforge.engine.arrays import numpy_type

        given = dict(feeds)
        with np.errstate(over="ignore"):
            for name in self._narrowed.keys() & given.keys():
                given[name] = given[name].astype(numpy_type(self._narrowed[name]))
        outputs = dict(self._runner.infer(given))
        for name in self._narrowed.keys() & outputs.keys():
            outputs[name] = outputs[name].astype(np.float32)
        return outputs


def _judge(question: Question, candidate: "Runner", turn_bytes: int | None = None) -> ParityReport:
    from trtforge.engine.onnxruntime import OnnxRuntimeRunner
    from trtforge.verify.cases import cases_from
    from trtforge.verify.parity import compare

    model = question.reference_model()
    cases = cases_from(
        question.data,
        [(name, dict(shapes)) for name, shapes in question.corners.items()],
        model,
        seed=question.seed,
        limit=question.samples,
    )
    reference = OnnxRuntimeRunner(model, name=f"{question.reference.name} (original)")
    return compare(reference, candidate, cases, question.tolerances, turn_bytes=turn_bytes)


def _bounds(tolerance: Tolerance) -> Bounds:
    return Bounds(**tolerance.model_dump())


def overall(reports: Sequence[ParityReport]) -> str:
    """Return fail if any report fails, pass if at least one passed, otherwise not_run."""
    verdicts = {report.verdict for report in reports}
    if "fail" in verdicts:
        return "fail"
    return "pass" if "pass" in verdicts else "not_run"
