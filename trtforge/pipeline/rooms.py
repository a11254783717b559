"""One room at a time: what `trtforge optimize` and `trtforge doctor` do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtforge.disk import check_outputs, is_same
from trtforge.errors import UsageError

_PACKAGES = (
    "trtforge",
    "onnx",
    "onnx-graphsurgeon",
    "onnxruntime",
    "polygraphy",
    "numpy",
    "tensorrt-rtx",
    "tensorrt",
    "torch",
)


@dataclass(frozen=True)
class OptimizeOptions:
    """How one ONNX file is optimized.

    Attributes:
        shapes: `name=1x3x224x224` texts for dynamic inputs.
        use: names of the passes to run; empty for the default ones.
        also: names of optional passes to run as well.
        drop: names of passes to leave out.
        prove: compare with the original in ONNX Runtime, and roll back a pass that broke it.
        strict: a pass that was taken back, or a proof that did not pass, is an error.
        opset_limit: the newest operator set that passes may raise the model to; None: the default.
    """

    shapes: tuple[str, ...] = ()
    use: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    prove: bool = True
    strict: bool = False
    opset_limit: int | None = None


def optimize_file(
    source: Path,
    out: Path,
    options: OptimizeOptions,
    on_progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Clean up and fuse one ONNX file.

    Args:
        source: the model.
        out: the file to write; weights may go to a file beside it.
        options: passes, shapes, and whether to prove.
        on_progress: told what is being done.

    Returns:
        The report, as JSON data; under `unsupported` the nodes that TensorRT does not take.

    Raises:
        GraphError: the model is refused.
        UsageError: a shape or a pass name is wrong.
        MissingError: the output cannot be written.
        ParityError: TF0416, strict, and a pass had to be taken back; nothing is written.
    """
    from trtforge.graph.model import Model, source_files
    from trtforge.graph.passes import DEFAULT_OPSET_LIMIT, PassRequest, run_passes
    from trtforge.graph.readiness.support import support_problems
    from trtforge.pipeline.corners import free_shapes

    # Over itself it may go, being the same function; over the weights of another model it may not.
    check_outputs([out], () if is_same(out, source) else source_files(source))
    model = Model.load(source)
    corners = free_shapes(model.contract, given_shapes(model.contract, options.shapes))
    request = PassRequest(
        use=options.use or "default",
        also=options.also,
        drop=options.drop,
        shapes=tuple(corners.values()),
        prove=options.prove,
        opset_limit=options.opset_limit or DEFAULT_OPSET_LIMIT,
    )
    optimized = run_passes(model, request, on_progress)
    if options.strict:
        optimized.report.require_proof()
    optimized.model.save(out)
    problems = support_problems(optimized.model, "tensorrt_rtx")
    report: dict[str, Any] = optimized.report.as_json()
    return {**report, "unsupported": [problem.as_json() for problem in problems]}


_MOST = 2**31 - 1
"""TensorRT counts a dimension in 32 bits."""


def given_shapes(contract: Any, texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that `name=1x3x224x224` texts give inputs.

    Raises:
        UsageError: TF0104 no shape, TF0105 no such input, TF0106 it does not fit the input.
    """
    specs = {spec.name: spec for spec in contract.inputs}
    given: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, dims = text.rpartition("=")
        try:
            shape = tuple(int(dim) for dim in dims.replace(",", "x").split("x"))
        except ValueError:
            shape = ()
        if not equals or not shape or min(shape) < 0 or max(shape) > _MOST:
            raise UsageError("TF0104", f"'{text}' is not a shape", "write NAME=1x3x224x224")
        if given.get(name, shape) != shape:
            raise UsageError("TF0104", f"two shapes are given for '{name}'", "leave one out")
        if name not in specs:
            known = ", ".join(specs)
            raise UsageError("TF0105", f"the model has no input '{name}'", f"inputs: {known}")
        dims_of = specs[name].dims
        if len(shape) != len(dims_of) or any(
            isinstance(dim, int) and dim != size for dim, size in zip(dims_of, shape, strict=False)
        ):
            declared = "x".join(str(dim if dim is not None else "?") for dim in dims_of)
            raise UsageError(
                "TF0106",
                f"shape {shape} does not fit input '{name}'",
                f"the model declares {declared}",
            )
        given[name] = shape
    return given


def doctor_facts() -> dict[str, Any]:
    """Return versions, the GPU and driver, and what each backend can do here."""
    from trtforge.engine.backend import BACKENDS, load_backend
    from trtforge.engine.environment import driver
    from trtforge.pipeline.stage import package_versions
    from trtforge.pipeline.store import default_root

    return {
        "backends": [load_backend(name).available().as_json() for name in BACKENDS],
        "gpu": driver().as_json(),
        "store": str(default_root()),
        "versions": package_versions(*_PACKAGES),
    }


def list_passes() -> list[dict[str, Any]]:
    """Return the table of passes: name, whether it runs by default, and what it does."""
    from inspect import getdoc

    from trtforge.graph.catalog import OPTIONAL, PASSES
    from trtforge.graph.workshop import pass_named

    return [
        {
            "name": name,
            "default": name not in OPTIONAL,
            "does": (getdoc(type(pass_named(name))) or "").partition("\n\n")[0].replace("\n", " "),
        }
        for name in PASSES
    ]
