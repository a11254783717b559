"""What changed among the weights of two models, read piece by piece through mapped views.

Where and in which field a tensor's bytes are stored is no difference; its type, its shape and its
values are. Nothing is held in memory but two pieces at a time.
"""

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from onnx import GraphProto, TensorProto

from trtforge.graph.diff_values import ValueDifference, compare_values, dtype_name
from trtforge.graph.external import ExternalFiles
from trtforge.graph.weights import CHUNK_BYTES, storage_bytes, tensor_chunks

_HEAD_BYTES = 64
"""Tensors that begin with other bytes are told apart without reading on."""


@dataclass(frozen=True)
class WeightFacts:
    """One initializer.

    Attributes:
        path: its name, with the path of its subgraph before it.
        dtype: numpy's name of the element type, or "string"; sparse ones begin with "sparse ".
        dims: its shape.
        bytes: how many its values take in ONNX's storage.
    """

    path: str
    dtype: str
    dims: tuple[int, ...]
    bytes: int

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "path": self.path,
            "dtype": self.dtype,
            "dims": list(self.dims),
            "bytes": self.bytes,
        }


@dataclass(frozen=True)
class WeightChange:
    """An initializer that kept its name and is of another type, another shape or other values.

    Attributes:
        before: as it was.
        after: as it is.
        values: how the values differ; None when they cannot be compared one by one.
        digest_before: "sha256:..." of its bytes.
        digest_after: the same of what it is now.
    """

    before: WeightFacts
    after: WeightFacts
    values: ValueDifference | None
    digest_before: str
    digest_after: str

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "before": {**self.before.as_json(), "digest": self.digest_before},
            "after": {**self.after.as_json(), "digest": self.digest_after},
            "values": None if self.values is None else self.values.as_json(),
        }


@dataclass(frozen=True)
class WeightsDiff:
    """What changed among the initializers of two models, those of subgraphs included.

    Attributes:
        count: how many there were, and are.
        bytes: how many bytes they took, and take.
        added: those that are new by name and content.
        removed: those that are gone by name and content.
        renamed: those that have another name or place, but type, shape and bytes as before.
        changed: those that kept their name only.
    """

    count: tuple[int, int]
    bytes: tuple[int, int]
    added: tuple[WeightFacts, ...] = ()
    removed: tuple[WeightFacts, ...] = ()
    renamed: tuple[tuple[WeightFacts, WeightFacts], ...] = ()
    changed: tuple[WeightChange, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether nothing changed."""
        return not (self.added or self.removed or self.renamed or self.changed)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "count": {"before": self.count[0], "after": self.count[1]},
            "bytes": {"before": self.bytes[0], "after": self.bytes[1]},
            "added": [facts.as_json() for facts in self.added],
            "removed": [facts.as_json() for facts in self.removed],
            "renamed": [
                {"before": old.as_json(), "after": new.as_json()} for old, new in self.renamed
            ],
            "changed": [change.as_json() for change in self.changed],
        }


@dataclass(frozen=True, eq=False)
class Weight:
    """One initializer of one model, and what is needed to read it.

    Attributes:
        path: its name, with the path of its subgraph before it.
        name: its name alone.
        dims: its shape; that of the dense tensor when it is sparse.
        tensors: itself; values and indices when it is sparse.
        files: what holds the bytes that are not in the model.
    """

    path: str
    name: str
    dims: tuple[int, ...]
    tensors: tuple[TensorProto, ...]
    files: ExternalFiles

    @cached_property
    def facts(self) -> WeightFacts:
        """What it is, without its values."""
        dtype = dtype_name(self.tensors[0])
        return WeightFacts(
            self.path,
            dtype if len(self.tensors) == 1 else f"sparse {dtype}",
            self.dims,
            sum(map(_stored_bytes, self.tensors)),
        )

    @property
    def layout(self) -> tuple[Any, ...]:
        """What is equal for two weights whose values can be compared one by one."""
        return (self.dims, *((t.data_type, tuple(t.dims)) for t in self.tensors))

    @cached_property
    def head(self) -> bytes:
        """The first bytes of its values."""
        return b"".join(
            bytes(next(_pieces(t, self.files), b"")[:_HEAD_BYTES]) for t in self.tensors
        )

    @cached_property
    def digest(self) -> str:
        """Return "sha256:..." of its values in ONNX's byte order."""
        digest = hashlib.sha256()
        for tensor in self.tensors:
            for piece in _pieces(tensor, self.files):
                digest.update(piece)
            self.files.release()
        return f"sha256:{digest.hexdigest()}"


def weights_of(graph: GraphProto, prefix: str, files: ExternalFiles) -> Iterator[Weight]:
    """Yield the initializers of one graph, without those of its subgraphs.

    Args:
        graph: the graph.
        prefix: what stands before their names in paths, "" for the outermost graph.
        files: what holds the bytes that are not in the model.
    """
    for tensor in graph.initializer:
        name = tensor.name
        yield Weight(prefix + name, name, tuple(tensor.dims), (tensor,), files)
    for sparse in graph.sparse_initializer:
        name = sparse.values.name
        parts = (sparse.values, sparse.indices)
        yield Weight(prefix + name, name, tuple(sparse.dims), parts, files)


def compare_weights(
    before: Mapping[tuple[int, str], Weight], after: Mapping[tuple[int, str], Weight]
) -> WeightsDiff:
    """Compare the initializers of two models.

    Args:
        before: by subgraph and name; the same number means the same subgraph.
        after: the same of the other model.

    Raises:
        GraphError: TF0402, TF0404, bytes of a tensor cannot be had.
    """
    changed = []
    for key, old in before.items():
        new = after.get(key)
        if new is not None and (change := _change(old, new)) is not None:
            changed.append(change)
    removed = [weight for key, weight in before.items() if key not in after]
    added = [weight for key, weight in after.items() if key not in before]
    renamed = _renamed(removed, added)
    gone, come = {id(old) for old, _ in renamed}, {id(new) for _, new in renamed}
    return WeightsDiff(
        (len(before), len(after)),
        (_total_bytes(before), _total_bytes(after)),
        tuple(weight.facts for weight in added if id(weight) not in come),
        tuple(weight.facts for weight in removed if id(weight) not in gone),
        tuple((old.facts, new.facts) for old, new in renamed),
        tuple(changed),
    )


def _change(old: Weight, new: Weight) -> WeightChange | None:
    """What changed in an initializer that is in both models."""
    values = None
    if old.layout == new.layout:
        files = (old.files, new.files)
        found = [
            compare_values(first, second, files)
            for first, second in zip(old.tensors, new.tensors, strict=True)
        ]
        if not any(found):
            return None
        values = found[0]
    elif len(old.tensors) == len(new.tensors) == 1 and old.dims == new.dims:
        values = compare_values(old.tensors[0], new.tensors[0], (old.files, new.files))
    return WeightChange(old.facts, new.facts, values, old.digest, new.digest)


def _renamed(removed: Sequence[Weight], added: Sequence[Weight]) -> list[tuple[Weight, Weight]]:
    """Pair those of equal bytes; where several are equal, those of one bare name come first."""
    begins = [{(weight.layout, weight.head) for weight in side} for side in (removed, added)]
    both = begins[0] & begins[1]  # of the others not a byte more is read
    gone = [weight for weight in removed if (weight.layout, weight.head) in both]
    come = [weight for weight in added if (weight.layout, weight.head) in both]
    pairs = _paired(gone, come, lambda weight: (weight.layout, weight.digest, weight.name))
    done = {id(weight) for pair in pairs for weight in pair}
    gone = [weight for weight in gone if id(weight) not in done]
    come = [weight for weight in come if id(weight) not in done]
    return pairs + _paired(gone, come, lambda weight: (weight.layout, weight.digest))


def _paired(
    gone: Sequence[Weight], come: Sequence[Weight], key: Callable[[Weight], tuple[Any, ...]]
) -> list[tuple[Weight, Weight]]:
    """Pair, in order, those for which the key is the same."""
    waiting: dict[tuple[Any, ...], deque[Weight]] = defaultdict(deque)
    for weight in come:
        waiting[key(weight)].append(weight)
    return [(old, waiting[key(old)].popleft()) for old in gone if waiting.get(key(old))]


def _total_bytes(weights: Mapping[tuple[int, str], Weight]) -> int:
    return sum(weight.facts.bytes for weight in weights.values())


def _stored_bytes(tensor: TensorProto) -> int:
    return storage_bytes(tensor) or sum(map(len, tensor.string_data))


def _pieces(tensor: TensorProto, files: ExternalFiles) -> Iterator[bytes | memoryview]:
    """A tensor's bytes, strings too; pages of mapped files are given back on the way."""
    if tensor.data_type == TensorProto.STRING:
        for text in tensor.string_data:
            yield len(text).to_bytes(8, "little") + text
        return
    for piece in tensor_chunks(tensor, files):
        yield piece
        if len(piece) >= CHUNK_BYTES:
            files.release()
