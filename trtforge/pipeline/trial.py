"""One typed graph after the other, with some nodes kept wide, and the verdict on each."""

import tempfile
from collections.abc import Iterable, Mapping
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from onnx import NodeProto, TensorProto

from trtforge.errors import MissingError
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.cast import typed
from trtforge.precision.emulate import emulate
from trtforge.precision.opgroups import CONTROL_FLOW
from trtforge.precision.typeinfo import element_types
from trtforge.recipe.precision import KeepRule
from trtforge.verify.cases import Case, cases_from
from trtforge.verify.compute_types import producers
from trtforge.verify.layers import LayerProfile, compare_layers
from trtforge.verify.parity import compare
from trtforge.verify.types import ParityReport

if TYPE_CHECKING:
    from trtforge.engine.backend import Feeds, Outputs, Runner
    from trtforge.pipeline.debug_subject import Subject

_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)

_BATCH = 8
"""Samples per case, where the model's batch is free."""


class Trials:
    """Evaluations of one subject; the reference runs once, the same set of nodes is judged once.

    Args:
        subject: what is typed.
        backend: `onnxruntime` to judge by emulation; else what builds and runs an engine each time.

    Attributes:
        candidates: nodes of which something is narrow, with their operators, in graph order.
        evaluations: typed graphs judged so far.
    """

    def __init__(self, subject: "Subject", backend: str = "onnxruntime") -> None:
        self._subject = subject
        self._backend = backend
        if backend != "onnxruntime":
            _require_gpu(backend)
        self._reports: dict[frozenset[str], ParityReport] = {}
        self._profiles: dict[frozenset[str], LayerProfile] = {}
        self._latest: tuple[frozenset[str], Model] | None = None
        self._cases = _cases(subject)
        self._reference = _Remembered(subject, self._cases)
        self.candidates = self._candidates()
        self._sources = _sources(subject.model)

    def __enter__(self) -> Self:
        """Make a folder for engines."""
        self._folder = tempfile.TemporaryDirectory(prefix="trtforge-debug-")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    @property
    def evaluations(self) -> int:
        """Typed graphs judged so far."""
        return len(self._reports)

    def rules(self, name: str) -> tuple[KeepRule, ...]:
        """Return the keep rules that widen one node, and what stands in its bodies."""
        own = KeepRule(name=escape(name))
        if self.candidates.get(name) in CONTROL_FLOW:
            return own, KeepRule(path=f"{escape(name)}/*")
        return (own,)

    def in_graph_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return candidates as the graph computes them."""
        wanted = set(names)
        return tuple(name for name in self.candidates if name in wanted)

    def feeding(self, name: str, within: frozenset[str]) -> list[str]:
        """Return the candidates outside a set that feed a node, directly or through the set."""
        found: dict[str, None] = {}
        seen: set[str] = set()
        pending = [name]
        while pending:
            for source in self._sources.get(pending.pop(), ()):
                if source in within and source not in seen:
                    seen.add(source)
                    pending.append(source)
                elif source in self.candidates and source not in within:
                    found[source] = None
        return list(found)

    def report(self, widened: frozenset[str]) -> ParityReport:
        """Judge the graph that is typed with some nodes kept wide."""
        if widened not in self._reports:
            runner = self._runner(widened)
            bounds = self._subject.question.tolerances
            self._reports[widened] = compare(self._reference, runner, self._cases, bounds)
        return self._reports[widened]

    def profile(self, widened: frozenset[str]) -> LayerProfile:
        """Compare every tensor of that graph, emulated, with the model before typing."""
        if widened not in self._profiles:
            feeds = (dict(case.feeds) for case in self._cases)
            twin = emulate(self._typed(widened))
            self._profiles[widened] = compare_layers(self._subject.model, twin, feeds)
        return self._profiles[widened]

    def _typed(self, widened: frozenset[str]) -> Model:
        if self._latest is None or self._latest[0] != widened:
            subject = self._subject
            # The first rule that selects a node counts: these go before the recipe's own.
            rules = [rule for name in self.in_graph_order(widened) for rule in self.rules(name)]
            keep = (*rules, *subject.precision.keep)
            precision = subject.precision.model_copy(update={"keep": keep})
            made = typed(subject.model, subject.cache, precision, subject.ranges)
            self._latest = (widened, made.model)
        return self._latest[1]

    def _candidates(self) -> dict[str, str]:
        self.candidates = {}
        model = self._typed(frozenset())
        made = producers(emulate(model).proto).values()
        types = element_types(model.proto)
        nodes = model.proto.graph.node
        present = {_label(node) for node in nodes}
        narrow = {maker.node for maker in made if maker.type != "fp32"}
        narrow |= {  # what only moves narrow constants shows no rounding in the emulated graph
            _label(node)
            for node in nodes
            if any(types.get(name) in _NARROW for name in (*node.input, *node.output))
        }
        found = {}
        for node in self._subject.model.proto.graph.node:
            label = _label(node)
            # What typing spelled out, as it does with Attention, has its name no longer; bodies
            # are widened with the node that they belong to.
            is_narrow = label in narrow or label not in present or node.op_type in CONTROL_FLOW
            if label and is_narrow and node.op_type != "Constant":
                found[label] = node.op_type
        return found

    def _runner(self, widened: frozenset[str]) -> "Runner":
        from trtforge.engine.onnxruntime import OnnxRuntimeRunner

        model = self._typed(widened)
        if self._backend == "onnxruntime":
            return OnnxRuntimeRunner(emulate(model), name="typed (emulated)")
        return self._engine(model)

    def _engine(self, model: Model) -> "Runner":
        from trtforge.engine.backend import BuildRequest, get_backend
        from trtforge.engine.engine_worker import EngineSource
        from trtforge.engine.profiles import profile_shapes
        from trtforge.engine.runner import EngineRunner

        folder = Path(self._folder.name) / str(self.evaluations)
        folder.mkdir()
        model.save(folder / "model.onnx")
        request = BuildRequest(
            onnx=folder / "model.onnx",
            output=folder / "model.engine",
            log=folder / "build.log",
            backend=self._backend,
            profiles=profile_shapes(self._subject.profiles),
        )
        get_backend(self._backend).build(request, None)
        return EngineRunner(EngineSource(request.output, self._backend))


def _sources(model: Model) -> dict[str, tuple[str, ...]]:
    """The nodes that each node of the main graph reads from."""
    nodes = model.proto.graph.node
    made = {name: _label(node) for node in nodes for name in node.output if name}
    return {
        _label(node): tuple(made[name] for name in node.input if name in made) for node in nodes
    }


def _label(node: NodeProto) -> str:
    """A node's name among rules: its own, or that of its first output."""
    return str(node.name or next((name for name in node.output if name), ""))


class _Remembered:
    """The original's outputs on a few cases, computed once."""

    def __init__(self, subject: "Subject", cases: list[Case]) -> None:
        path = subject.question.reference
        self.name = f"{path.name} (original)"
        session = Session(Model.load(path))
        # The cases live as long as this does, so that an id stands for its feeds.
        self._outputs: Mapping[int, Outputs] = {
            id(case.feeds): session.run(dict(case.feeds)) for case in cases
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def infer(self, feeds: "Feeds") -> "Outputs":
        return dict(self._outputs[id(feeds)])


def _cases(subject: "Subject") -> list[Case]:
    question = subject.question
    corners = [(name, dict(shapes)) for name, shapes in question.corners.items()]
    cases = cases_from(
        question.data,
        corners,
        Model.load(question.reference),
        question.seed,
        batch=_BATCH,
        limit=question.samples,
    )
    if question.data is None:
        return list(cases)
    return [case for case in cases if case.group == "data"]


def _require_gpu(backend: str) -> None:
    from trtforge.engine.runner import EngineRunner

    if (reason := EngineRunner.unavailable_reason()) is not None:
        hint = "leave --backend out: the emulator needs no GPU"
        raise MissingError("TF0718", f"{backend} engines cannot be run: {reason}", hint)
