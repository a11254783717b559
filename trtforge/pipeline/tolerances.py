"""Bounds given as text on a command line."""

from collections.abc import Sequence

from trtforge.errors import UsageError
from trtforge.recipe.schema import Tolerance


def parse_tolerances(texts: Sequence[str]) -> tuple[Tolerance, dict[str, Tolerance]]:
    """Read `sqnr_db=30` (every output) and `logits.sqnr_db=30` (one output).

    Raises:
        UsageError: a text is not of that form, the bound is unknown, or its value out of range.
    """
    from pydantic import ValidationError

    everywhere: dict[str, float] = {}
    single: dict[str, dict[str, float]] = {}
    for text in texts:
        left, equals, value = text.partition("=")
        output, _, bound = left.strip().rpartition(".")
        known = ", ".join(Tolerance.model_fields)
        number = _number(value)
        if not equals or bound not in Tolerance.model_fields or number is None:
            raise UsageError(
                "TF0716", f"'{text}' is not a tolerance", f"write BOUND=NUMBER; bounds are: {known}"
            )
        (single.setdefault(output, {}) if output else everywhere)[bound] = number
    try:
        outputs = {name: Tolerance.model_validate(bounds) for name, bounds in single.items()}
        return Tolerance.model_validate(everywhere), outputs
    except ValidationError as error:
        first = error.errors()[0]
        message = f"tolerance {'.'.join(map(str, first['loc']))}={first['input']}: {first['msg']}"
        raise UsageError("TF0717", message, "give a number in the bound's range") from error


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
