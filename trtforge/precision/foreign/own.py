"""trtforge's own calibration cache, as one format among others."""

from trtforge.precision.cache import CalibrationCache
from trtforge.precision.foreign.content import Content

WHAT = "trtforge's calibration cache"


def mismatch(content: Content) -> str:
    """Say why the content is not of this format."""
    if content.json_reason:
        return content.json_reason
    schema = str(content.data.get("schema"))
    return "" if schema.startswith("trtforge.calibration/") else "it has no schema of trtforge's"


def read(content: Content) -> CalibrationCache:
    """Read the cache.

    Raises:
        DataError: it is malformed (TF0520).
    """
    return CalibrationCache.load(content.path)


def dump(cache: CalibrationCache, header: str | None) -> str:
    """Return the cache as text; there is no header."""
    del header
    return cache.as_text()
