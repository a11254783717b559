"""Samples of a .npy or .npz file, one by one; runs under every contender's Python."""

from collections.abc import Iterator
from typing import Any

import numpy as np

Feeds = dict[str, Any]


def feeds(path: str, names: list[str], count: int | None = None) -> Iterator[Feeds]:
    """Yield one sample at a time, by input name."""
    loaded = np.load(path, mmap_mode="r")
    arrays = {names[0]: loaded} if path.endswith(".npy") else {k: loaded[k] for k in names}
    total = len(next(iter(arrays.values())))
    for index in range(total if count is None else count):
        yield {k: np.ascontiguousarray(v[index : index + 1]) for k, v in arrays.items()}


def count(path: str) -> int:
    """Return how many samples a file holds."""
    loaded = np.load(path, mmap_mode="r")
    return len(loaded if path.endswith(".npy") else loaded[loaded.files[0]])
