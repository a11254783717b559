"""What a backend would not take is refused before anything is built; what is doubtful is said."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtforge.engine.backend import require_builder
from trtforge.engine.environment import driver
from trtforge.engine.flavour import FLAVOURS
from trtforge.engine.options import require_driver_for
from trtforge.errors import GraphError, MissingError, Place, Problem
from trtforge.recipe.schema import Precision, Recipe, Target

if TYPE_CHECKING:
    from trtforge.graph.model import Model

_MOST_SHOWN = 50
"""A model of the wrong kind has the same to say of a thousand nodes."""


def require_targets(recipe: Recipe) -> None:
    """Refuse targets that cannot be built on this machine, before any work.

    Raises:
        MissingError: one problem per such target, and how to build the others (exit 3).
    """
    if problems := missing_here(recipe):
        raise MissingError.of(problems)


def missing_here(recipe: Recipe) -> list[Problem]:
    """Return what keeps each target from being built on this machine; nothing is imported."""
    problems = []
    missing: dict[str, MissingError] = {}
    for target in recipe.targets:
        try:
            require_builder(target.backend)
            if target.backend in FLAVOURS:
                require_driver_for(FLAVOURS[target.backend], target.options.given)
        except MissingError as error:
            missing[target.name] = error
    others = [f"--target {one.name}" for one in recipe.targets if one.name not in missing]
    for name, lack in missing.items():
        (problem,) = lack.problems
        if len(recipe.targets) > 1:
            problem = replace(problem, message=f"target '{name}': {problem.message}")
        if others:
            hint = f"{problem.hint}; without it: `{' '.join(others)}`"
            problem = replace(problem, hint=hint)
        problems.append(problem)
    return problems


def refuse_unsupported(model: "Model", backends: Sequence[str], file: Path) -> None:
    """Look through a model for what backends do not take.

    Args:
        model: as the passes left it.
        backends: those that will build it.
        file: the original, for the message.

    Raises:
        GraphError: TF0415; carries one problem per node and reason.
    """
    from trtforge.graph.readiness.support import support_problems

    problems = [
        Problem(
            "TF0415",
            f"{backend} does not take {_subject(found.operator, found.node)}: {found.reason}",
            found.remedy,
            Place(file=file.name, node=found.node),
        )
        for backend in backends
        for found in support_problems(model, backend)
    ]
    if len(problems) > _MOST_SHOWN:
        rest = len(problems) - _MOST_SHOWN
        problems[_MOST_SHOWN:] = [
            Problem("TF0415", f"and {rest} more", "see `trtforge optimize --explain`")
        ]
    if problems:
        raise GraphError.of(problems)


def target_warnings(precision: Precision, target: Target) -> tuple[str, ...]:
    """Return what a user should know of a precision on a target, though nothing refuses it."""
    said = []
    if target.backend == "onnxruntime":
        if precision.type == "bf16":
            said.append(
                "ONNX Runtime has hardly an operator in BF16 on a CPU (1.31); it is judged "
                "through emulation, but to run it there use fp32 or fp16"
            )
        if precision.quantize == "fp8":
            said.append(
                "ONNX Runtime (1.31) runs FP8 on a CPU with graph optimizations off or basic "
                "only; beyond, it refuses the model or computes wrong numbers"
            )
    if target.backend == "tensorrt_rtx" and precision.quantize == "int8":
        said.append(
            "TensorRT-RTX (1.7) builds products of INT8 activations and weights, but its support "
            "matrix lists INT8 for weights alone: measure the engine beside an int8_weight_only one"
        )
    if precision.quantize == "int8_weight_only" and "7.5" in target.compute_capabilities:
        said.append(
            "GPUs of compute capability 7.5 have no INT8 weight-only products (TensorRT-RTX's "
            "support matrix): the engine gets smaller, not faster"
        )
    return tuple(said)


def runs_elsewhere(target: Target) -> str | None:
    """Return why an engine just built cannot run on this machine's GPU, None where it can."""
    if target.options.runtime_platform == "windows_amd64" and sys.platform != "win32":
        return "it is built for Windows"
    here = [gpu.compute_capability for gpu in driver().gpus[:1]]
    listed = target.compute_capabilities
    if here and listed and here[0] not in listed:
        return f"it is built for compute capability {', '.join(listed)}; this GPU has {here[0]}"
    return None


def _subject(operator: str, node: str) -> str:
    return f"{operator} node '{node}'" if operator else f"'{node}'"
