"""Sources that can only be read from the front: Python code, Polygraphy's JSON, random samples.

They are read once when they are opened: that counts the samples and marks each one, so that
another pass that gives other samples is noticed at the first of them.
"""

from abc import abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing
from hashlib import blake2b, sha256
from typing import Any

from trtforge.errors import DataError, Place
from trtforge.graph.sources.checks import no_samples
from trtforge.graph.sources.request import SourceRequest
from trtforge.graph.sources.rows import RowSource, split
from trtforge.graph.sources.source import Feeds

_MARK_BYTES = 16
_MOST = 1_000_000
"""A source that yields more than this without being asked to is taken for an endless one."""


class ItemSource(RowSource):
    """A source of items, each one or several samples, always the same ones in the same order.

    Args:
        request: the model's inputs, and how many samples are wanted.
        description: what the data is, in a few words.
        where: the place named in errors.

    Raises:
        DataError: an item is no sample of the model, there are none, or there is no end of them
            (TF0545).
    """

    def __init__(self, request: SourceRequest, description: str, where: Place) -> None:
        super().__init__(request.contract, description, where)
        marks = bytearray()
        with closing(self._read()) as samples:
            for sample in samples:
                marks += _mark(sample)
                if len(marks) == (request.wanted or _MOST) * _MARK_BYTES:
                    break
        self.count = len(marks) // _MARK_BYTES
        if not marks:
            raise no_samples(where)
        if self.count == _MOST and request.wanted is None:
            raise DataError(
                "TF0545",
                f"the data has {_MOST} samples and goes on",
                "say how many to use: set calibration.samples",
                where,
            )
        self._marks = bytes(marks)
        self.digest = f"sha256:{sha256(marks).hexdigest()}"

    @abstractmethod
    def items(self) -> Iterator[tuple[Any, Place]]:
        """Start from the front: yield items and where they come from."""

    def samples(self, first: int) -> Generator[Feeds, None, None]:
        """Yield the samples from `first` on, as long as they are those of the first pass.

        Raises:
            DataError: TF0543, another sample than in the first pass, or fewer of them.
        """
        number = 0
        with closing(self._read()) as samples:
            for sample in samples:
                mark = self._marks[number * _MARK_BYTES : (number + 1) * _MARK_BYTES]
                if mark and mark != _mark(sample):
                    raise self._changed(f"sample {number} is another one in the next pass")
                if number >= first:
                    yield sample
                number += 1
        if number < self.count:
            raise self._changed(
                f"the first pass gave {self.count} samples and the next one {number}"
            )

    def _read(self) -> Generator[Feeds, None, None]:
        number = 0
        for item, where in self.items():
            for sample in split(item, self.specs, number, where):
                yield sample
                number += 1

    def _changed(self, message: str) -> DataError:
        return DataError(
            "TF0543",
            f"the data is not the same each time it is read: {message}",
            "make the samples anew at each call, with a fixed seed and without shuffling; an "
            "iterator that is used up gives nothing the second time",
            self.where,
        )


def _mark(sample: Feeds) -> bytes:
    digest = blake2b(digest_size=_MARK_BYTES)
    for name, array in sorted(sample.items()):
        digest.update(f"{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.digest()
