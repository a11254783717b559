"""The error of every tensor of a typed graph, for `trtforge verify --layers` and for builds."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.errors import ForgeError
from trtforge.pipeline.judge import Question

if TYPE_CHECKING:
    from trtforge.verify.layers import LayerProfile

LAYER_SAMPLES = 4
"""Samples that builds compare: where an error comes from shows on the first already, and each
costs a run of both graphs with every tensor kept, about three times a plain run."""

_AT_MOST_BYTES = 256 << 20
"""Models above this size are not profiled in builds: both graphs are in memory at once."""


def profile_layers(
    question: Question, typed: Path, samples: int | None = LAYER_SAMPLES
) -> "LayerProfile":
    """Compare every tensor that a typed ONNX file and its original have in common.

    Args:
        question: the original and the data; without data one set of random inputs is used.
        typed: the typed ONNX file; it runs as `precision.emulate` gives it.
        samples: how many samples of the data to use, None for all.

    Raises:
        GraphError: a graph is refused.
        ParityError: the graphs have no tensor in common.
    """
    from trtforge.graph.model import Model
    from trtforge.precision.emulate import emulate
    from trtforge.verify.cases import cases_from
    from trtforge.verify.layers import compare_layers

    reference = question.reference_model()
    corners = [(name, dict(shapes)) for name, shapes in question.corners.items()]
    cases = cases_from(question.data, corners, reference, question.seed, batch=1, limit=samples)
    wanted = "random" if question.data is None else "data"
    feeds = (case.feeds for case in cases if case.group == wanted)
    candidate = emulate(Model.load(typed), wide_ends=question.narrowed)
    return compare_layers(reference, candidate, feeds)


def layers_json(question: Question, typed: Path) -> dict[str, Any]:
    """Return what a build stores as `layers.json`: a profile of few samples, or why there is none.

    It costs at most LAYER_SAMPLES runs of both graphs; models of more than 256 MiB are left out,
    and a profile that cannot be made does not fail a build.
    """
    from trtforge.graph.model import source_files
    from trtforge.verify.layers import LAYERS_SCHEMA

    size = sum(file.stat().st_size for file in source_files(question.reference))
    if size > _AT_MOST_BYTES:
        reason = "the model is bigger than 256 MiB: `trtforge verify --layers` makes the profile"
    else:
        try:
            return profile_layers(question, typed).as_json()
        except ForgeError as error:
            reason = str(error)
    nothing = {"samples": 0, "layers": [], "first_jump": None, "missing": []}
    return {"schema": LAYERS_SCHEMA, **nothing, "reason": reason}
