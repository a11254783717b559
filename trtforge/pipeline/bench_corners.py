"""`trtforge bench --corners`: a bundle at min, opt and max of every profile."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.errors import EXIT_BUDGET, EXIT_OK, UsageError
from trtforge.pipeline.bench import BenchOptions, BenchResult, bench
from trtforge.pipeline.events import Sink, ignore
from trtforge.pipeline.file_kinds import run_kind_of

if TYPE_CHECKING:
    from trtforge.graph.contract import IoContract
    from trtforge.graph.inputs import Shapes


@dataclass(frozen=True)
class Corner:
    """One corner of a profile.

    Attributes:
        name: `min`, `opt` or `max`; of several profiles `0.min`, ...
        shapes: of all inputs; Values of those that decide shapes.
        result: what was measured there.
    """

    name: str
    shapes: "Shapes"
    result: BenchResult


@dataclass(frozen=True)
class CornersResult:
    """What was measured at each corner."""

    subject: str
    corners: tuple[Corner, ...]

    @property
    def exit_status(self) -> int:
        """6 when a limit is missed anywhere."""
        return EXIT_BUDGET if any(one.result.missed for one in self.corners) else EXIT_OK

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        from trtforge.precision.attest import shapes_as_json

        corners = [
            {"corner": one.name, **shapes_as_json(one.shapes), **one.result.as_json()}
            for one in self.corners
        ]
        return {"subject": self.subject, "corners": corners}


def bench_corners(
    subject: Path,
    options: BenchOptions,
    emit: Sink = ignore,
    others: Mapping[str, object] | None = None,
) -> CornersResult:
    """Measure a bundle's engine, or its typed ONNX, at every corner of its profiles.

    A query holds one batch of the corner's size. Corners that are equal are measured once.

    Args:
        subject: the bundle.
        options: how each corner is measured.
        emit: told what happens.
        others: further options of the command line that do not go with corners, where given.

    Raises:
        UsageError: TF0149, it is no bundle, or an option gives other shapes; and as `bench`.
    """
    _check(subject, options, others or {})
    from trtforge.bundle.read import open_bundle
    from trtforge.graph.model import Model
    from trtforge.pipeline.corners import corner_shapes

    bundle = open_bundle(subject)
    if not bundle.manifest.model.included:
        raise UsageError("TF0142", f"bundle '{subject}' holds no ONNX file", "build it with one")
    contract = Model.load(bundle.file("model.onnx")).contract
    found = []
    for name, shapes in corner_shapes(contract, bundle.manifest.profiles).items():
        load = replace(options.load, samples_per_query=_batch(contract, shapes))
        at = replace(options, corner=shapes, load=load)
        found.append(Corner(name, shapes, bench(subject, at, emit)))
    return CornersResult(str(subject), tuple(found))


def _check(subject: Path, options: BenchOptions, others: Mapping[str, object]) -> None:
    if run_kind_of(subject) != "bundle":
        raise UsageError("TF0149", f"'{subject}' has no profiles", "--corners is of bundles")
    given = {
        "--data": options.data,
        "--shape": options.shapes,
        "--against": options.against,
        "--target-ms": options.target_ms,
        **others,
    }
    for name, value in given.items():
        if value:
            raise UsageError(
                "TF0149",
                f"--corners measures each corner at its own shapes, and takes no {name}",
                f"leave {name} or --corners out",
            )


def _batch(contract: "IoContract", shapes: "Mapping[str, tuple[int, ...]]") -> int:
    """Samples in a query: the first size of the first input that leaves it open, or has one."""
    from trtforge.graph.inputs import Values

    sized = [
        (not isinstance(spec.dims[0], int), shapes[spec.name][0])
        for spec in contract.inputs
        if spec.dims and not isinstance(shapes[spec.name], Values)
    ]
    return max(1, next((size for is_open, size in sized if is_open), sized[0][1] if sized else 1))
