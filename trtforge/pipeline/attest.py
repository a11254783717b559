"""`trtforge attest`: which types a model, a bundle or an engine really computes in."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.errors import (
    EXIT_MISSING,
    EXIT_OK,
    EXIT_PARITY,
    READABLE,
    BuildError,
    MissingError,
    Place,
    UsageError,
)
from trtforge.pipeline.attest_requirements import judge, parse_requirement
from trtforge.pipeline.attest_views import (
    ENGINE,
    NETWORK,
    View,
    engine_view,
    network_view,
    not_attested,
    onnx_view,
)
from trtforge.pipeline.attesting import TYPED_ONNX, Check, judge_attest
from trtforge.pipeline.file_kinds import run_kind_of

if TYPE_CHECKING:
    from trtforge.bundle.read import Bundle

_MOST_BYTES = 256 << 20
"""A layers.json has some hundred bytes per layer."""


@dataclass(frozen=True)
class AttestOptions:
    """What is looked at, and what it must have.

    Attributes:
        shapes: `name=1x3x224x224` texts for dynamic inputs of an ONNX file.
        require: `macs.int8>=0.8` texts.
        backend: whose parser reads an ONNX file, and which runs an engine; None: tensorrt_rtx, or
            for an engine what the build.json beside it says.
        parse: whether to let the backend's parser read an ONNX file.
        allow_host_code: let code inside version-compatible engines run on the CPU.
    """

    shapes: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    backend: str | None = None
    parse: bool = True
    allow_host_code: bool = False


@dataclass(frozen=True)
class AttestResult:
    """What was seen, and the verdict.

    Attributes:
        subject: as it was named.
        kind: onnx, bundle, engine or layers.
        shapes: the input shapes that MACs and activations are for.
        values: of the inputs that decide shapes, likewise.
        views: what was looked at.
        checks: what was judged.
        reasons: what failed, beside the checks.
        per_node: the nodes of the typed ONNX; empty without one.
    """

    subject: Path
    kind: str
    shapes: Mapping[str, Sequence[int]]
    views: tuple[View, ...]
    checks: tuple[Check, ...]
    reasons: tuple[str, ...] = ()
    per_node: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    values: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Fail if anything failed; not_run if nothing, or not all that is required, was seen."""
        verdicts = [check.verdict for check in self.checks]
        if "fail" in verdicts or self.reasons:
            return "fail"
        if not any(view.attested for view in self.views):
            return "not_run"
        keys = {(check.what, check.type, check.min, check.max) for check in self.checks}
        passed = {
            (check.what, check.type, check.min, check.max)
            for check in self.checks
            if check.verdict == "pass"
        }
        return "not_run" if keys - passed else "pass"

    @property
    def exit_status(self) -> int:
        """0 pass, 5 fail, 3 when something could not be seen here: a skip is not a pass."""
        return {"pass": EXIT_OK, "fail": EXIT_PARITY}.get(self.verdict, EXIT_MISSING)

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON data."""
        return {
            "subject": str(self.subject),
            "kind": self.kind,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            **({"values": dict(self.values)} if self.values else {}),
            "views": [view.as_json() for view in self.views],
            "checks": [check.as_json() for check in self.checks],
            "per_node": [dict(node) for node in self.per_node],
        }


@dataclass(frozen=True)
class _Seen:
    """What was found before anything that the user requires is judged."""

    views: tuple[View, ...]
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    per_node: tuple[Mapping[str, Any], ...] = ()
    checks: tuple[Check, ...] = ()
    reasons: tuple[str, ...] = ()
    values: Mapping[str, Sequence[int]] = field(default_factory=dict)


def attest_path(subject: Path | str, options: AttestOptions | None = None) -> AttestResult:
    """Attest an ONNX file, a bundle, an engine, or a file of layer information.

    A bundle's digests are checked first, and what its recipe asks for is judged again.

    Raises:
        UsageError: there is nothing there, it is none of these, or an option is wrong.
        IntegrityError: a bundle's file is changed, missing or unexpected.
        GraphError: an ONNX file is refused.
        MissingError: a file cannot be read.
    """
    path, options = Path(subject), options or AttestOptions()
    wanted = [parse_requirement(text) for text in options.require]
    kind = _kind_of(path)
    look = {"onnx": _onnx, "bundle": _bundle, "engine": _engine, "layers": _layers}[kind]
    seen = look(path, options)
    checks = [*seen.checks]
    for requirement in wanted:
        checks += judge(requirement, seen.views)
    reasons = list(seen.reasons)
    for view in seen.views:
        if view.contradictions and not view.name.startswith(ENGINE) and kind == "onnx":
            reasons.append(f"the {view.name} contradicts the {TYPED_ONNX}")
    return AttestResult(
        path,
        kind,
        seen.shapes,
        seen.views,
        tuple(checks),
        tuple(reasons),
        seen.per_node,
        seen.values,
    )


def _kind_of(path: Path) -> str:
    """Return onnx, bundle, engine or layers, by a path's name and first byte.

    Raises:
        UsageError: there is nothing there, or a folder that is no bundle.
        MissingError: it cannot be read.
    """
    kind = run_kind_of(path)
    if kind != "engine":
        return kind
    head = _read(path, 64).lstrip()
    return "layers" if head[:1] in (b"{", b"[") else "engine"


def _onnx(path: Path, options: AttestOptions) -> _Seen:
    from trtforge.graph.model import Model
    from trtforge.pipeline.corners import free_shapes
    from trtforge.pipeline.rooms import given_shapes
    from trtforge.precision.attest import attest

    model = Model.load(path)
    given = given_shapes(model.contract, options.shapes)
    shapes = free_shapes(model.contract, given)["opt"]
    attestation = attest(model, shapes)
    attested = attestation.as_json()
    views = [onnx_view(attested)]
    if options.parse:
        views.append(_parsed(path, options, shapes, (attested, attestation.elements)))
    return _Seen(tuple(views), shapes, tuple(attested["per_node"]))


def _parsed(
    path: Path,
    options: AttestOptions,
    shapes: Mapping[str, tuple[int, ...]],
    counted: tuple[Mapping[str, Any], Mapping[str, int]],
) -> View:
    from trtforge.engine.views import parsed_network

    try:
        layers = parsed_network(path, options.backend or "tensorrt_rtx", shapes)
    except (MissingError, BuildError) as error:
        return not_attested(NETWORK, error.message)
    return network_view(layers, *counted)


def _bundle(path: Path, options: AttestOptions) -> _Seen:
    from trtforge.bundle.read import open_bundle
    from trtforge.recipe.load import load_recipe

    bundle = open_bundle(path)
    recipe = load_recipe(bundle.file("recipe.yaml"), check_files=False).recipe
    attested, elements, reason = _bundled_onnx(bundle)
    views, networks = [onnx_view(attested, reason)], {}
    for target in bundle.manifest.targets:
        if target.engine is None:
            continue
        layers = _json(bundle.file(f"engines/{target.name}/layers.json"))
        networks[target.name] = _described(layers, Path(target.engine))
        views.append(network_view(layers, attested, elements, f"{NETWORK} {target.name}"))
        engine = bundle.file(target.engine)
        own = replace(options, backend=options.backend or target.backend)
        views.append(_inspected(engine, own, attested, f"{ENGINE} {target.name}"))
    warnings = _json(bundle.file("reports/precision.json"))["warnings"]
    judged = judge_attest(recipe.precision, recipe.verify.attest, attested, networks, warnings)
    checks = tuple(Check(**check) for check in judged["checks"])
    others = [
        f"the {NETWORK} {name} contradicts the {TYPED_ONNX}"
        for name, view in judged["networks"].items()
        if view["contradictions"]
    ]
    return _Seen(
        tuple(views),
        attested["shapes"],
        tuple(attested["per_node"]),
        checks,
        tuple(others),
        attested.get("values", {}),
    )


def _bundled_onnx(bundle: "Bundle") -> tuple[dict[str, Any], Mapping[str, int], str | None]:
    """Return the attestation of a bundle's ONNX, counted anew, or as its build recorded it."""
    recorded: dict[str, Any] = _json(bundle.file("reports/attest.json"))
    if not bundle.manifest.model.included:
        return recorded, {}, "as the build recorded it: the bundle holds no ONNX file"
    from trtforge.graph.model import Model
    from trtforge.precision.attest import attest, shapes_from_json

    attestation = attest(Model.load(bundle.file("model.onnx")), shapes_from_json(recorded))
    return attestation.as_json(), attestation.elements, None


def _inspected(
    engine: Path, options: AttestOptions, attested: Mapping[str, Any] | None, name: str = ENGINE
) -> View:
    """Return the view of an engine on this machine's GPU, or why there is none."""
    from trtforge.engine.environment import driver
    from trtforge.engine.views import engine_information

    if (reason := driver().reason) is not None:
        return not_attested(name, reason)
    try:
        backend = options.backend or "tensorrt_rtx"
        told = engine_information(engine, backend, allow_host_code=options.allow_host_code)
        return engine_view(told, attested, name)
    except (MissingError, BuildError) as error:
        return not_attested(name, error.message)
    except ValueError:
        return not_attested(name, "its library tells no layer information of the known forms")


def _engine(path: Path, options: AttestOptions) -> _Seen:
    """Attest a single engine, and the network beside it where a build.json says they belong."""
    from trtforge.pipeline.engine_files import built_beside, runnable

    built = built_beside(path)
    told = options.backend or (built or {}).get("backend")
    backend = runnable(path, told, None, allow_host_code=options.allow_host_code).backend
    views = [_inspected(path, replace(options, backend=backend), None)]
    beside = path.parent / "layers.json"
    if built is not None and beside.is_file():
        layers = _json(beside)
        _described(layers, beside)
        views.append(network_view(layers, None))
    return _Seen(tuple(views))


def _layers(path: Path, options: AttestOptions) -> _Seen:
    del options
    document = _json(path)
    first = document[0] if isinstance(document, list) and document else None
    if isinstance(first, dict) and "onnx_nodes" in first:
        _described(document, path)
        return _Seen((network_view(document, None),))
    try:
        return _Seen((engine_view(document, None),))
    except ValueError as error:
        raise _no_layers(path) from error


def _described(layers: Any, file: Path) -> Any:
    """Check that a layers.json is a description of a network; return its types."""
    from trtforge.engine.network_types import network_types

    try:
        return network_types(layers)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise _no_layers(file) from error


def _no_layers(file: Path) -> UsageError:
    return UsageError(
        "TF0751",
        f"'{file}' holds no layer information",
        "give the layers.json of a bundle, or what the engine inspector writes as JSON "
        "(trtexec --exportLayerInfo with --profilingVerbosity=detailed)",
        Place(file=str(file)),
    )


def _json(path: Path) -> Any:
    content = _read(path, _MOST_BYTES + 1)
    try:
        if len(content) > _MOST_BYTES:
            raise ValueError("too large")
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _no_layers(path) from error


def _read(path: Path, most: int) -> bytes:
    where = Place(file=str(path))
    try:
        with path.open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        message = f"'{path}' cannot be read: {error.strerror}"
        raise MissingError("TF0303", message, READABLE, where) from error
