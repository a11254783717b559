"""What `trtforge verify` and `debug` compare, by which measure, and on which inputs."""

from pathlib import Path
from typing import TYPE_CHECKING

from trtforge.pipeline.judge import Question, tolerances_of
from trtforge.pipeline.tolerances import parse_tolerances
from trtforge.recipe.schema import Precision, Recipe, Tolerance, Verify

if TYPE_CHECKING:
    from trtforge.pipeline.compare import VerifyOptions
    from trtforge.verify.cases import Samples


def question_of(
    options: "VerifyOptions",
    reference: Path,
    precision: Precision,
    recipe: Recipe | None = None,
    *,
    is_own: bool = False,
) -> Question:
    """Return the comparison; a bundle's own recipe gives profiles and bounds.

    A reference with BF16, which ONNX Runtime does not compute, is emulated; so is a bundle's own
    typed ONNX with narrow inputs or outputs, as its data is the original's.

    Args:
        options: data, tolerances, samples and seed.
        reference: the ONNX file.
        precision: of the candidate, which tells the bounds where none are given.
        recipe: of the candidate's bundle.
        is_own: whether the reference is that bundle's own typed ONNX.
    """
    from trtforge.graph.model import Model
    from trtforge.graph.sources.value_rows import open_arrays
    from trtforge.pipeline.corners import corner_shapes, free_shapes
    from trtforge.precision.attest import declared_precision
    from trtforge.precision.ends import narrow_ends, with_wide_ends

    model = Model.load(reference)
    contract, ends = model.contract, narrow_ends(model.contract)
    is_emulated = declared_precision(model).type == "bf16" or (is_own and bool(ends))
    profiles = recipe.shapes if recipe is not None else ()
    corners = corner_shapes(contract, profiles) if profiles else free_shapes(contract)
    data = None
    if options.data is not None:
        wide = with_wide_ends(contract) if is_emulated else contract
        data = open_arrays(options.data, wide, profiles, labels=True)
    tolerance, outputs = parse_tolerances(options.tolerance)
    if recipe is not None:
        tolerance = _filled(tolerance, recipe.verify.tolerance, data)
        outputs = {
            name: _filled(outputs.get(name, Tolerance()), bounds, data)
            for name, bounds in recipe.verify.outputs.items()
        } | {name: bounds for name, bounds in outputs.items() if name not in recipe.verify.outputs}
    wanted = Verify.model_construct(tolerance=tolerance, outputs=outputs)
    return Question(
        reference=reference,
        corners=corners,
        tolerances=tolerances_of(wanted, precision.type, precision.quantize),
        data=data,
        samples=options.samples,
        seed=options.seed,
        narrowed=ends if is_emulated else {},
        is_emulated=is_emulated,
    )


def _filled(given: Tolerance, recipe: Tolerance, data: "Samples | None") -> Tolerance:
    """Return the bounds given, else the recipe's; accuracy only where labels tell it."""
    bounds = recipe.model_dump() | given.model_dump(exclude_none=True)
    if data is None or data.labels is None:
        bounds["accuracy_drop"] = given.accuracy_drop
    return Tolerance(**bounds)
