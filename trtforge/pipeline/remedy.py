"""What failed of a build's verdicts, and what its recipe can do about it."""

from collections.abc import Mapping
from typing import Any

from trtforge.recipe.schema import Recipe

_RECORDED = "give verify.data: random inputs have other ranges than the calibration's; else "


def failures(verdicts: Mapping[str, Any]) -> list[str]:
    """Return what failed, one phrase each."""
    return [
        f"{name}: {report.get('reason') or 'failed'}"
        for name, report in _named(verdicts).items()
        if report["verdict"] == "fail"
    ]


def remedy(recipe: Recipe, verdicts: Mapping[str, Any]) -> str:
    """Return what to try, for the first verdict that failed.

    Args:
        recipe: what was asked for.
        verdicts: the documents of stage `verify`; at least one failed.
    """
    if verdicts["graph_parity"]["verdict"] != "fail":
        if verdicts["attest"]["verdict"] == "fail":
            said = verdicts["attest"].get("remedy")
            return said or "`precision` in the report says what was kept and why"
        return "the typed graph is right and the engine is not: report it with the bundle's log"
    if "NaN or Inf" in str(verdicts["graph_parity"]["reason"]) and recipe.precision.type == "fp16":
        return (
            "values leave the range of FP16: use precision.type bf16, or keep the nodes that "
            "overflow with precision.keep"
        )
    if recipe.precision.quantize == "int4_weight_only":
        return (
            "use precision.block_size 32, or int8_weight_only, or keep sensitive nodes with "
            "precision.keep"
        )
    if recipe.precision.quantize in ("int8", "fp8"):
        other = "minmax" if _method(recipe) == "entropy" else "entropy"
        random = "" if recipe.verify.data is not None else _RECORDED
        return (
            f"{random}calibrate on more or other samples or with calibration.method {other}, "
            "or keep sensitive nodes with precision.keep"
        )
    if recipe.precision.type != "fp32":
        return "keep sensitive nodes in fp32 with precision.keep, or loosen verify.tolerance"
    return "loosen verify.tolerance only if you know why they differ"


def _named(verdicts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    engines = {f"engine parity, {name}": r for name, r in verdicts["engine_parity"].items()}
    return {"graph parity": verdicts["graph_parity"], "attest": verdicts["attest"], **engines}


def _method(recipe: Recipe) -> str:
    return recipe.calibration.method if recipe.calibration is not None else "entropy"
