"""Laws of targets: what a backend or a GPU does not have is refused before any work."""

from collections.abc import Iterator, Sequence
from typing import Any

from trtforge.recipe import codes
from trtforge.recipe.broken import Broken, get, items
from trtforge.recipe.engine_options import option_laws
from trtforge.recipe.nodes import Loc

WEIGHT_ONLY = ("int8_weight_only", "int4_weight_only")

_OLDEST = {"fp8": (8, 9), "bf16": (8, 0), "int4_weight_only": (8, 0)}
"""First compute capability with tensor cores for a type, or that takes such weights.

Sources: CUDA C++ Programming Guide, "Arithmetic Instructions" and the tensor core table of the
compute capabilities appendix; for INT4, TensorRT-RTX's support matrix ("INT4 WoQ GEMM": no for 7.5,
yes from 8.6) and Model-Optimizer's ("GPUs: Ampere and later"). The TensorRT-RTX builder refuses
older ones in its own words ("contains HW-specific datatypes")."""


def target_laws(target: Any, loc: Loc = ()) -> Iterator[Broken]:
    """Yield options of one target that its backend does not have."""
    backend = get(target, "backend")
    listed = items(get(target, "compute_capabilities"))
    if listed and backend in ("tensorrt", "onnxruntime"):
        yield Broken(
            (*loc, "compute_capabilities"),
            codes.CONTRADICTION,
            f"compute_capabilities is for tensorrt_rtx, not for '{backend}'",
            "remove it; tensorrt builds for the GPU at hand"
            if backend == "tensorrt"
            else "remove it; onnxruntime builds no engine",
        )
    for index, value in enumerate(listed):
        if isinstance(value, str) and value in listed[:index]:
            yield Broken(
                (*loc, "compute_capabilities", index),
                codes.DUPLICATE,
                f"compute capability {value} is given twice",
                "remove one of them",
            )
    for key in ("workspace_mib", "tf32", "memory_limit_mib"):
        if backend == "onnxruntime" and get(target, key):
            yield Broken(
                (*loc, key),
                codes.CONTRADICTION,
                f"{key} is an option of the TensorRT builders; onnxruntime builds no engine",
                "remove it",
            )
    yield from option_laws(target, loc)


def unique_names(targets: Sequence[Any]) -> Iterator[Broken]:
    """Yield targets that have the name of an earlier one."""
    names = [get(target, "name") for target in targets]
    for index, name in enumerate(names):
        if isinstance(name, str) and name in names[:index]:
            yield Broken(
                ("targets", index, "name"),
                codes.DUPLICATE,
                f"two targets have the name '{name}'",
                "each engine gets a folder named after its target; choose another name, "
                f"such as '{name}-{index + 1}'",
            )


def hardware_laws(data: Any, target: Any, loc: Loc) -> Iterator[Broken]:
    """Yield types that a GPU which the target names does not have."""
    rules = (rule for key in ("keep", "force") for rule in items(get(data, "precision", key)))
    kept = (get(rule, "type") for rule in rules)
    used = (get(data, "precision", "quantize"), get(data, "precision", "type"), *kept)
    for kind in dict.fromkeys(k for k in used if isinstance(k, str) and k in _OLDEST):
        for index, value in enumerate(items(get(target, "compute_capabilities"))):
            capability = _capability(value)
            if capability is not None and capability < _OLDEST[kind]:
                oldest = ".".join(map(str, _OLDEST[kind]))
                word = "INT4" if kind in WEIGHT_ONLY else kind.upper()
                yield Broken(
                    (*loc, "compute_capabilities", index),
                    codes.CONTRADICTION,
                    f"GPUs of compute capability {value} have no {word}",
                    f"{word} needs {oldest} or later; remove {value} from this target",
                )


def _capability(value: Any) -> tuple[int, int] | None:
    major, dot, minor = value.partition(".") if isinstance(value, str) else ("", "", "")
    if not (dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        return None
    return int(major), int(minor)
