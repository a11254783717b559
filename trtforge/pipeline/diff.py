"""`trtforge diff`: two things of one kind, and what changed between them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trtforge.errors import Place, UsageError
from trtforge.pipeline.file_kinds import kind_of

DIFF_SCHEMA = "trtforge.diff/1"

_HINTS = {
    "engine": "compare the layers.json of their builds, or what trtexec --exportLayerInfo writes",
    "calibration cache": "compare them with `trtforge calib diff`",
    "calibration cache (TensorRT text)": "compare them with `trtforge calib diff`",
}


class Difference(Protocol):
    """What the comparison of one kind of things returns."""

    @property
    def identical(self) -> bool:
        """Whether nothing changed."""

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""


@dataclass(frozen=True)
class DiffResult:
    """Two things of one kind, and what changed between them.

    Attributes:
        kind: what both are, as `inspect` calls it.
        before: the first one.
        after: the second one.
        difference: what changed.
    """

    kind: str
    before: Path
    after: Path
    difference: Difference

    @property
    def identical(self) -> bool:
        """Whether nothing changed."""
        return self.difference.identical

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "kind": self.kind,
            "before": str(self.before),
            "after": str(self.after),
            "identical": self.identical,
            **self.difference.as_json(),
        }


def diff_paths(before: Path, after: Path) -> DiffResult:
    """Compare two things of one kind.

    Raises:
        UsageError: TF0712, TF0713, TF0719 one is not there or is nothing known; TF0721 they are
            not of one kind; TF0722 things of their kind cannot be compared.
        GraphError: an ONNX file is refused.
    """
    kinds = kind_of(before), kind_of(after)
    if kinds[0] != kinds[1]:
        raise UsageError(
            "TF0721",
            f"'{before}' and '{after}' are not of one kind: {kinds[0]} and {kinds[1]}",
            "compare two ONNX files, two bundles, or the layers of two engines",
            Place(file=str(after)),
        )
    compare = COMPARISONS.get(kinds[0])
    if compare is None:
        raise UsageError(
            "TF0722",
            f"two of kind '{kinds[0]}' cannot be compared; supported: {', '.join(COMPARISONS)}",
            _HINTS.get(kinds[0], "compare two ONNX files"),
            Place(file=str(before)),
        )
    return DiffResult(kinds[0], before, after, compare(before, after))


def _diff_onnx(before: Path, after: Path) -> Difference:
    from trtforge.graph.diff import diff_models
    from trtforge.graph.model import Model

    return diff_models(Model.load(before), Model.load(after))


def _diff_bundles(before: Path, after: Path) -> Difference:
    from trtforge.pipeline.layer_documents import diff_bundles

    return diff_bundles(before, after)


def _diff_engine_layers(before: Path, after: Path) -> Difference:
    from trtforge.pipeline.layer_documents import diff_layer_files

    return diff_layer_files(before, after)


COMPARISONS: Mapping[str, Callable[[Path, Path], Difference]] = {
    "onnx": _diff_onnx,
    "bundle": _diff_bundles,
    "engine layers": _diff_engine_layers,
}
"""Kind -> what compares two of it; its JSON is shown by `report.changes.SECTIONS`."""
