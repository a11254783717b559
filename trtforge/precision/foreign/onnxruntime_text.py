"""ONNX Runtime's `calibration.cache`: lines `name value`, the value being a magnitude.

`write_calibration_table` writes max(highest, lowest) there, and not the larger magnitude: the range
of a tensor whose negative side is the larger one comes out too small, and that of one that is never
positive is lost. The JSON beside it has both ends.
"""

import math
import re
from collections.abc import Iterable

from trtforge.errors import DataError, Place
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.foreign.content import Content, malformed
from trtforge.precision.foreign.scales import from_magnitudes
from trtforge.precision.trt_text import fits_on_a_line

WHAT = "calibration table of ONNX Runtime (text)"

ONE_SIDED = (
    "ONNX Runtime wrote the larger of highest and lowest, not the larger magnitude: ranges of "
    "tensors with a large negative side are too small; convert its JSON instead"
)

_LINE = re.compile(r"(.+) ([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf))")


def mismatch(content: Content) -> str:
    """Say why the content is not of this format."""
    if content.text is None:
        return "it is not UTF-8 text"
    if content.text.lstrip().startswith('{"'):
        return "it looks like JSON that was cut off"
    first = content.text.lstrip("\r\n").partition("\n")[0].rstrip("\r")
    return "" if _LINE.fullmatch(first) else "its first line is not '<tensor> <number>'"


def read(content: Content) -> CalibrationCache:
    """Read the magnitudes.

    Raises:
        DataError: a line is malformed, a tensor stands twice, a number is not finite (TF0551).
    """
    pairs = []
    for number, line in enumerate((content.text or "").split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            reason = f"{line[:80]!r} is not '<tensor> <number>'"
            raise malformed(content.path, WHAT, reason, number)
        pairs.append((match.group(1), match.group(2)))
    return one_sided(content, pairs, "ONNX Runtime's calibration table (text)")


def dump(cache: CalibrationCache, header: str | None) -> str:
    """Return lines in the order of names; the values are the larger magnitudes.

    Raises:
        DataError: TF0553, a name holds a line break.
    """
    del header
    for name in cache.ranges:
        if not fits_on_a_line(name):
            raise DataError(
                "TF0553",
                f"the tensor name {name!r} does not fit on one line",
                "rename the tensor, or write JSON: give an output that ends in .json",
                Place(node=name),
            )
    return "".join(f"{name} {found.amax!r}\n" for name, found in sorted(cache.ranges.items()))


def one_sided(content: Content, pairs: Iterable[tuple[str, str]], origin: str) -> CalibrationCache:
    """A cache from names and numbers as text; negative ones are left out with a warning.

    Raises:
        DataError: a number is none or not finite, or a tensor stands twice (TF0551).
    """
    found: dict[str, float] = {}
    warnings = [ONE_SIDED]
    seen = set()
    for name, text in pairs:
        value = _number(text)
        if value is None:
            raise malformed(content.path, WHAT, f"the value of '{name}' is {text!r}")
        if name in seen:
            raise malformed(content.path, WHAT, f"tensor '{name}' stands twice")
        seen.add(name)
        if value < 0:
            warnings.append(f"tensor '{name}' is left out: its largest value, {text}, is negative")
        else:
            found[name] = value
    return from_magnitudes(found, "unknown", origin, warnings)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
