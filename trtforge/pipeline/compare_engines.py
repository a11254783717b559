"""Compares an engine with another engine, each in a worker and perhaps a library of its own."""

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from trtforge.engine.backend import ProfileShapes, ValueTriple, profiles_from_json
from trtforge.engine.profiles import covering_profile
from trtforge.errors import ParityError
from trtforge.pipeline.judge import (
    LACKS_WEIGHTS,
    EngineCandidate,
    NarrowEnds,
    runner_of,
    tolerances_of,
)
from trtforge.pipeline.tolerances import parse_tolerances
from trtforge.verify.types import ParityReport

if TYPE_CHECKING:
    from trtforge.engine.backend import Feeds, Outputs, Runner
    from trtforge.graph.model import Model
    from trtforge.pipeline.compare import VerifyOptions
    from trtforge.verify.cases import Case

_FLOATS = ("float32", "float16", "bfloat16", "float8_e4m3fn")


def judge_engines(
    candidate: EngineCandidate, reference: EngineCandidate, options: "VerifyOptions"
) -> ParityReport:
    """Compare an engine with another on this machine's GPU; `not_run` where there is none.

    They are fed alike: at the corners of the candidate's profiles, where the reference takes them,
    and with recorded data. Where one has FP32 inputs or outputs and the other narrower ones, they
    are compared in FP32.

    Raises:
        ParityError: TF0773, they take no shape in common; TF0774, their inputs or outputs differ.
        DataError: the data does not fit.
        MissingError, BuildError: an engine is not loaded, or does not run.
    """
    sides = [runner_of(one) for one in (candidate, reference)]
    reason = sides[0].unavailable_reason()
    if reason is None and (candidate.lacks_weights or reference.lacks_weights):
        reason = LACKS_WEIGHTS
    if reason is not None:
        names = [f"{one.path.name} ({one.backend})" for one in (reference, candidate)]
        return ParityReport.not_run(reason, reference=names[0], candidate=names[1])
    with sides[0], sides[1]:
        mine, theirs = (one.interface for one in sides)
        _require_alike(candidate, mine, theirs)
        loaded = [
            _Loaded(side, f"{one.path.name} ({one.backend})")
            for side, one in zip(sides, (candidate, reference), strict=True)
        ]
        return _compared(loaded, (mine, theirs), candidate, options)


def _compared(
    sides: "list[_Loaded]",
    interfaces: tuple[dict[str, Any], dict[str, Any]],
    candidate: EngineCandidate,
    options: "VerifyOptions",
) -> ParityReport:
    from trtforge.recipe.schema import Precision, Verify
    from trtforge.verify.parity import compare

    mine, theirs = (_widened(*pair) for pair in zip(sides, _narrow(*interfaces), strict=True))
    tolerance, outputs = parse_tolerances(options.tolerance)
    wanted = Verify.model_construct(tolerance=tolerance, outputs=outputs)
    asked = Precision()
    tolerances = tolerances_of(wanted, asked.type, asked.quantize)
    return compare(theirs, mine, _cases(interfaces, candidate, options), tolerances)


def _cases(
    interfaces: tuple[dict[str, Any], dict[str, Any]],
    candidate: EngineCandidate,
    options: "VerifyOptions",
) -> "Iterator[Case]":
    from trtforge.graph.sources.value_rows import open_arrays
    from trtforge.verify.cases import cases_from

    model = _stand_in(interfaces)
    data = None
    if options.data is not None:
        data = open_arrays(options.data, model.contract, labels=True)
    corners = _common_corners(candidate, interfaces)
    return cases_from(data, list(corners.items()), model, options.seed, limit=options.samples)


def _common_corners(
    candidate: EngineCandidate, interfaces: tuple[dict[str, Any], dict[str, Any]]
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Corners of the first engine's profiles that the second takes too."""
    from trtforge.graph.inputs import Values

    mine, theirs = (profiles_from_json(one["profiles"]) for one in interfaces)
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for index, profile in enumerate(mine):
        for place, corner in ((1, "opt"), (0, "min"), (2, "max")):
            shapes = {
                name: Values(triple[place]) if isinstance(triple, ValueTriple) else triple[place]
                for name, triple in profile.items()
            }
            if covering_profile(theirs, shapes) is not None and shapes not in found.values():
                found[f"{index}.{corner}" if len(mine) > 1 else corner] = shapes
    if not found:
        raise ParityError(
            "TF0773",
            f"'{candidate.path.name}' and the reference take no shape in common",
            "build them with profiles that overlap",
        )
    return found


def _stand_in(interfaces: tuple[dict[str, Any], dict[str, Any]]) -> "Model":
    """A model with the engines' inputs and nothing else, for what makes inputs and reads data."""
    from onnx import helper

    from trtforge.engine.arrays import numpy_type
    from trtforge.graph.model import Model

    mine, theirs = interfaces
    profiles = profiles_from_json(mine["profiles"])
    wide = _narrow(mine, theirs)[0]
    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(numpy_type("float32" if name in wide else kind)),
            mine["deciding"].get(name) or _dims(name, profiles),
        )
        for name, kind in mine["inputs"].items()
    ]
    graph = helper.make_graph([], "engine", inputs, [])
    return Model(helper.make_model(graph))


def _dims(name: str, profiles: ProfileShapes) -> list[int | None]:
    """Dimensions of an input: a number where all profiles have the same."""
    shapes = [shape for profile in profiles for shape in profile[name]]
    return [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True)]


def _require_alike(
    candidate: EngineCandidate, mine: Mapping[str, Any], theirs: Mapping[str, Any]
) -> None:
    """Refuse engines that cannot be fed and read alike."""
    for side in ("inputs", "outputs"):
        pairs = (mine[side], theirs[side])
        if set(pairs[0]) != set(pairs[1]):
            shown = [", ".join(sorted(one)) for one in pairs]
            message = f"the {side} differ: {shown[0]} here, {shown[1]} in the reference"
            break
        unequal = [
            name
            for name, kind in pairs[0].items()
            if kind != pairs[1][name] and not {kind, pairs[1][name]} <= set(_FLOATS)
        ]
        if unequal:
            kinds = [one[unequal[0]] for one in pairs]
            message = f"'{unequal[0]}' is {kinds[0]} here and {kinds[1]} in the reference"
            break
    else:
        return
    raise ParityError(
        "TF0774",
        f"'{candidate.path.name}' cannot be compared with the reference: {message}",
        "compare engines of the same model",
    )


def _narrow(*interfaces: Mapping[str, Any]) -> list[dict[str, str]]:
    """Inputs and outputs of each whose type is narrower than FP32 and not both engines'."""
    types = [{**one["inputs"], **one["outputs"]} for one in interfaces]
    differing = {name for name in types[0] if len({one[name] for one in types}) > 1}
    return [
        {name: one[name] for name in sorted(differing) if one[name] != "float32"} for one in types
    ]


def _widened(side: "_Loaded", narrow: Mapping[str, str]) -> "Runner":
    return NarrowEnds(side, narrow) if narrow else side


class _Loaded:
    """A runner that is entered already, and is left by someone else."""

    def __init__(self, runner: "Runner", name: str) -> None:
        self.name = name
        self._runner = runner

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def infer(self, feeds: "Feeds") -> "Outputs":
        return self._runner.infer(feeds)
