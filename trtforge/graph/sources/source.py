"""What calibration and verification need of data, wherever it comes from."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

Feeds = dict[str, np.ndarray]


class DataSource(Protocol):
    """Where samples come from."""

    @property
    def count(self) -> int:
        """Number of samples, at least 1."""

    @property
    def digest(self) -> str:
        """Digest of the samples: `sha256:` and 64 hexadecimal digits."""

    @property
    def description(self) -> str:
        """What it is, in a few words: a file's name, a folder and its preprocessing."""

    @property
    def is_synthetic(self) -> bool:
        """Whether the samples were made up."""

    @property
    def static_batch(self) -> int | None:
        """The batch size that the model fixes, None when it is free."""

    def batches(self, batch: int, limit: int | None = None, start: int = 0) -> Iterator[Feeds]:
        """Feeds of up to `batch` samples each, of the samples start..limit.

        A batch is shorter where the next sample has another shape. A model with a static batch
        gets its own size instead.
        """
