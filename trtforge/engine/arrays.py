"""Named arrays in a file between processes: .npz for the bytes, a list for names and types.

Types that numpy has only through ml_dtypes (bfloat16, float8) lose their name in .npz; names such
as `file` cannot be keywords of `numpy.savez`. So members are numbered and named here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from trtforge.errors import BuildError

Array = np.ndarray[Any, np.dtype[Any]]


def store(path: Path, arrays: Mapping[str, Array]) -> list[dict[str, str]]:
    """Write `arrays`; returns what `load` needs beside the file, as plain JSON data.

    Raises:
        BuildError: TF0616, an array holds no numbers.
    """
    members = {
        str(index): _plain(name, array) for index, (name, array) in enumerate(arrays.items())
    }
    with path.open("wb") as file:
        np.savez(file, **members)  # type: ignore[arg-type]
    return [{"name": name, "dtype": array.dtype.name} for name, array in arrays.items()]


def load(path: Path, members: Sequence[Mapping[str, str]]) -> dict[str, Array]:
    """Read what `store` wrote, in the same order and with the same types."""
    with np.load(path, allow_pickle=False) as file:
        return {
            member["name"]: _typed(file[str(index)], member["dtype"])
            for index, member in enumerate(members)
        }


def _plain(name: str, array: Array) -> Array:
    if array.dtype.kind in "biufc":
        # The name of a type does not tell its bytes' order.
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.names is not None or not hasattr(ml_dtypes, array.dtype.name):
        raise BuildError(
            "TF0616", f"'{name}' holds {array.dtype}, not numbers", hint="feed arrays of numbers"
        )
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)


def numpy_type(name: str) -> np.dtype[Any]:
    """Return the type of a name such as `float16`, `bfloat16` or `float8_e4m3fn`."""
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name, name))
    return dtype


def _typed(array: Array, name: str) -> Array:
    dtype = numpy_type(name)
    return array if array.dtype == dtype else array.view(dtype)
