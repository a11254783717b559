"""Values of other tools' flags: shapes, sizes, precisions."""

import re
from collections.abc import Iterator

from trtforge.recipe.migration.result import malformed

FLOATS: dict[str, str] = {
    **dict.fromkeys(("fp32", "float32", "float"), "fp32"),
    **dict.fromkeys(("fp16", "float16", "half"), "fp16"),
    **dict.fromkeys(("bf16", "bfloat16"), "bf16"),
}
"""How tools write float types -> how recipes do."""

_UNITS = {"": 1 << 20, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
"""trtexec, --memPoolSize: MiB where no unit is given ("B", "K", "M", "G"), from its --help."""


def shapes(flag: str, text: str) -> Iterator[tuple[str, list[int]]]:
    """Read `input:1x3x224x224,mask:1x128,k:scalar`; a name may hold colons.

    Raises:
        UsageError: TF0120, a shape cannot be read.
    """
    for part in _parts(text):
        name, colon, dims = part.rpartition(":")
        numbers = dims.lower().split("x") if dims not in ("", "scalar") else []
        if not colon or not name or not all(number.strip().isdigit() for number in numbers):
            raise malformed(flag, "shapes such as input:1x3x224x224,mask:1x128")
        yield name.strip().strip("'\""), [int(number) for number in numbers]


def _parts(text: str) -> Iterator[str]:
    """Split at commas outside of quotes: trtexec quotes names that hold commas."""
    for part in re.findall(r"""(?:'[^']*'|"[^"]*"|[^,])+""", text):
        if part.strip():
            yield part.strip()


def pairs(flag: str, text: str, example: str) -> Iterator[tuple[str, str]]:
    """Read `name:value,other:value`.

    Raises:
        UsageError: TF0120, a pair has no value.
    """
    for part in _parts(text):
        name, colon, value = part.rpartition(":")
        if not colon or not name or not value:
            raise malformed(flag, example)
        yield name.strip().strip("'\""), value.strip()


def mebibytes(flag: str, text: str) -> float:
    """Read a size: `1024` and `1024M` are MiB, `1G` is 1024.

    Raises:
        UsageError: TF0120, it is no size.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([BKMG]?)(?:i?B)?\s*", text.upper())
    if not found:
        raise malformed(flag, "a size such as 1024 (MiB), 512M or 4G")
    return float(found[1]) * _UNITS[found[2]] / (1 << 20)


def whole(flag: str, text: str | None) -> int:
    """Read a whole number.

    Raises:
        UsageError: TF0120, it is none.
    """
    if text is None or not re.fullmatch(r"-?[0-9]+", text.strip()):
        raise malformed(flag, "a whole number")
    return int(text)
