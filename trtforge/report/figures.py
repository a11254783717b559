"""Numbers as people read them."""

import math
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_LONGEST = 120
"""Characters of a name that are shown; exporters write paths of several hundred."""


def number(value: Any) -> float | None:
    """Return a figure of a JSON report as a float; "inf", "-inf" and "nan" are floats too."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def plain(value: Any, digits: int = 4) -> str:
    """Return a number with so many significant digits, "-" for none."""
    found = number(value)
    if found is None:
        return "-"
    if math.isnan(found):
        return "NaN"
    if math.isinf(found):
        return "∞" if found > 0 else "−∞"
    return f"{found:.{digits}g}".replace("-", "−", 1) if found < 0 else f"{found:.{digits}g}"


def decibel(value: Any) -> str:
    """Return a level in dB: "24.3 dB", "identical" for an infinite SQNR."""
    found = number(value)
    if found is None or math.isnan(found):
        return plain(value)
    if found == math.inf:
        return "identical"
    return "−∞ dB" if found == -math.inf else f"{found:.1f} dB".replace("-", "−")


def percent(value: Any) -> str:
    """Return a share of 0..1 in percent, 100 % only when it is exactly 1 (and 0 % only for 0)."""
    found = number(value)
    if found is None or not math.isfinite(found):
        return plain(value)
    text = f"{found * 100:.2f}"
    if text == "100.00" and found < 1:
        return "> 99.99 %"
    if text == "0.00" and found > 0:
        return "< 0.01 %"
    return f"{text.rstrip('0').rstrip('.')} %"


def points(value: Any) -> str:
    """Return a difference of shares in percentage points: "1 point", "0.5 points"."""
    found = number(value)
    if found is None or not math.isfinite(found):
        return plain(value)
    return "1 point" if found == 0.01 else f"{plain(found * 100)} points"


def size(value: Any) -> str:
    """Return bytes in the largest unit that leaves a number of at least 1."""
    found = number(value)
    if found is None or not math.isfinite(found) or found < 0:
        return "-"
    power = 0
    while found >= 1024 and power < len(_UNITS) - 1:
        found, power = found / 1024, power + 1
    return f"{found:.0f} B" if power == 0 else f"{found:.1f} {_UNITS[power]}"


def count(value: Any) -> str:
    """Return a count with thin groups of three digits, or in millions and billions when large."""
    found = number(value)
    if found is None or not math.isfinite(found):
        return "-"
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(found) >= unit:
            return f"{found / unit:.4g} {name}"
    return f"{found:,.0f}".replace(",", " ")


def seconds(value: Any) -> str:
    """Return a duration: "0.12 s", "3 min 5 s"."""
    found = number(value)
    if found is None or not math.isfinite(found):
        return "-"
    if found < 60:
        return f"{found:.2f} s"
    return f"{int(found // 60)} min {int(found % 60)} s"


def shape(dims: Any) -> str:
    """Return a shape: "1 × 3 × 224 × 224", "scalar" for no dimensions, "?" for unknown ones."""
    if not isinstance(dims, list | tuple):
        return "-"
    return " × ".join("?" if size is None else str(size) for size in dims) or "scalar"


def power(exponent: int) -> str:
    """Return a power of two: "2⁻¹²"."""
    return "2" + str(exponent).translate(_RAISED)


def short(text: Any, most: int = _LONGEST) -> str:
    """Return a text of at most so many characters: of a longer one its beginning and its end."""
    whole = str(text)
    if len(whole) <= most:
        return whole
    return f"{whole[: most // 2]}…{whole[1 - most // 2 :]}"
