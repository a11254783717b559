"""Every tensor that two graphs have in common, compared: where does the error come from?

Both graphs run in ONNX Runtime with those tensors exposed, sample by sample; statistics are taken
as the values come, and nothing is kept.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Literal

import numpy as np
from pydantic import ConfigDict, Field

from trtforge.errors import ParityError
from trtforge.graph.execute import Feeds, Session
from trtforge.graph.memory import give_back
from trtforge.graph.model import Model
from trtforge.verify.channels import WORSE_THAN_DB, ChannelFit, rescaled_db
from trtforge.verify.compute_types import Producer, producers
from trtforge.verify.jumps import Jump, find_drops
from trtforge.verify.types import Number, ReportPart

LAYERS_SCHEMA: Final = "trtforge.layers/1"

MEMORY_BYTES = 512 << 20
"""Values of both graphs that are held at a time, where the graph's tensors can be split so."""

_BLOCK = 1 << 15
"""Elements taken at a time: 128 KiB per operand, so that a block is read from memory once."""

_SAFE = (1e-15, 1e15)
"""Magnitudes whose squares FP32 can sum over a block (it holds 1e-38..3e38); others take FP64."""

_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


class LayerError(ReportPart):
    """How far one tensor of the candidate is from the reference.

    Attributes:
        tensor: its name, the same in both graphs.
        node: the candidate's node that computes it.
        op: that node's operator.
        type: the type it computes in: fp32, fp16, bf16, int8, ...
        sqnr_db: signal-to-quantization-noise ratio, dB; inf when identical, -inf where a value is
            NaN or Inf on one side only.
        max_abs: largest absolute error of the values that are finite on both sides.
        reference_amax: largest finite magnitude of the reference.
        nonfinite: values that are NaN or Inf in the candidate and finite in the reference.
        rescaled_db: SQNR once each channel is scaled to fit, where that explains the error, as it
            does behind `equalize`; None elsewhere.
    """

    tensor: str
    node: str
    op: str
    type: str
    sqnr_db: Number
    max_abs: Number
    reference_amax: Number
    nonfinite: int
    rescaled_db: Number | None = None

    @property
    def counted_db(self) -> float:
        """The SQNR that tells of errors: scaled channels are none."""
        return self.sqnr_db if self.rescaled_db is None else self.rescaled_db


class LayerProfile(ReportPart):
    """The error of every common float tensor, in graph order.

    Attributes:
        schema_tag: the format's name, "schema" in JSON.
        samples: sets of inputs that both graphs ran on.
        layers: one entry per tensor.
        first_jump: where the error first jumps (see `jumps.find_drops`).
        missing: tensors of the reference that the candidate lacks or has in another shape.
        drops: all nodes where it grows; not part of the JSON.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, ser_json_inf_nan="strings"
    )

    schema_tag: Literal["trtforge.layers/1"] = Field(LAYERS_SCHEMA, alias="schema")
    samples: int
    layers: tuple[LayerError, ...]
    first_jump: Jump | None = None
    missing: tuple[str, ...] = ()
    drops: tuple[Jump, ...] = Field((), exclude=True)

    @property
    def jumps(self) -> tuple[Jump, ...]:
        """Every place where the error jumps, in graph order."""
        return tuple(drop for drop in self.drops if drop.is_jump)

    def worst(self, count: int) -> tuple[LayerError, ...]:
        """Return the tensors of the lowest SQNR, the worst first; of equals the first computed."""
        return tuple(sorted(self.layers, key=lambda layer: layer.counted_db)[:count])


@dataclass
class TensorStats:
    """What has been seen of one tensor so far."""

    signal: float = 0.0
    noise: float = 0.0
    max_abs: float = 0.0
    amax: float = 0.0
    nonfinite: int = 0
    mismatched: int = 0

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Add one pair of arrays of one shape; two passes over each block, both in cache."""
        left, right = _flat(reference), _flat(candidate)
        wide = np.result_type(left, right)
        error = np.empty(min(_BLOCK, left.size), wide)
        with np.errstate(all="ignore"):
            for start in range(0, left.size, _BLOCK):
                first, second = left[start : start + _BLOCK], right[start : start + _BLOCK]
                self._add_block(first, second, error[: first.size])

    def _add_block(self, first: np.ndarray, second: np.ndarray, error: np.ndarray) -> None:
        np.subtract(first, second, out=error)
        largest = max(float(error.max()), -float(error.min()))
        amax = max(float(first.max()), -float(first.min()))
        if not (_is_safe(largest) and _is_safe(amax)):  # NaN is not safe either
            self._add_slowly(first.astype(np.float64), second.astype(np.float64))
            return
        # Not np.dot: BLAS wakes its threads for it, which takes longer than the block.
        self.signal += float(np.einsum("i,i->", first, first))
        self.noise += float(np.einsum("i,i->", error, error))
        self.max_abs, self.amax = max(self.max_abs, largest), max(self.amax, amax)

    def _add_slowly(self, first: np.ndarray, second: np.ndarray) -> None:
        finite = np.isfinite(first) & np.isfinite(second)
        if not finite.all():
            one, two = first[~finite], second[~finite]
            same = (one == two) | (np.isnan(one) & np.isnan(two))
            self.mismatched += int(np.count_nonzero(~same))
            lost = np.abs(one[np.isfinite(one)])
            self.nonfinite += lost.size
            self.amax = max(self.amax, float(lost.max(initial=0.0)))
            first, second = first[finite], second[finite]
        error = first - second
        self.signal += float(np.einsum("i,i->", first, first))
        self.noise += float(np.einsum("i,i->", error, error))
        self.max_abs = max(self.max_abs, float(np.abs(error).max(initial=0.0)))
        self.amax = max(self.amax, float(np.abs(first).max(initial=0.0)))

    @property
    def sqnr_db(self) -> float:
        """10*log10(sum(ref^2) / sum((ref-cand)^2)); inf and -inf as in `metrics.sqnr_db`."""
        if self.mismatched:
            return -math.inf
        if self.noise == 0.0:
            return math.inf
        return 10.0 * math.log10(self.signal / self.noise) if self.signal else -math.inf


def compare_layers(
    reference: Model,
    candidate: Model,
    feeds: Iterable[Feeds],
    *,
    memory_bytes: int = MEMORY_BYTES,
    threads: int | None = None,
) -> LayerProfile:
    """Compare every float tensor that two graphs both compute.

    Args:
        reference: what is right.
        candidate: a graph for ONNX Runtime; a typed one as `precision.emulate` gives it.
        feeds: sets of inputs, for both graphs.
        memory_bytes: values held at a time, about; more tensors than fit take turns, and both
            graphs run once more for each turn. One tensor of both graphs is held in any case.
        threads: threads within one operator; None leaves it to ONNX Runtime.

    Raises:
        GraphError: ONNX Runtime refuses a graph, or an input is missing.
        ParityError: TF0741, there are no inputs to run on, or no tensor is common to both.
    """
    made = producers(candidate.proto)
    names = _common(reference, candidate)
    rest = iter(feeds)
    first = next(rest, None)
    if first is None or not names:
        lacking = "no inputs to run on" if names else "no tensor that both graphs compute"
        raise ParityError(
            "TF0741",
            f"tensors cannot be compared: there is {lacking}",
            "compare it with the model that it was made of, on at least one set of inputs",
        )
    both = _Pair(reference, candidate, names, threads)
    floats = both.floats(names)
    groups = list(_groups(floats, both.sizes(first), memory_bytes // 2))
    run = _Run({name: TensorStats() for name in floats})
    if len(groups) == 1:
        run.all(both, floats, chain([first], rest))
    else:
        del both
        samples = [first, *rest]
        for group in groups:
            run.all(_Pair(reference, candidate, group, threads), group, samples)
    give_back()
    return _profile(reference, run, made)


class _Pair:
    """Both graphs, loaded."""

    def __init__(
        self, reference: Model, candidate: Model, names: Sequence[str], threads: int | None
    ) -> None:
        self.reference = Session(reference, outputs=names, threads=threads)
        same = candidate is reference
        self.candidate = (
            self.reference if same else Session(candidate, outputs=names, threads=threads)
        )

    def floats(self, names: Sequence[str]) -> tuple[str, ...]:
        sides = (self.reference.output_forms, self.candidate.output_forms)
        return tuple(name for name in names if all(side[name][0] in _FLOATS for side in sides))

    def sizes(self, feeds: Feeds) -> dict[str, int]:
        """Bytes of each tensor as ONNX Runtime infers them; the mean of the others where it cannot.

        So the bound on memory is an estimate where shapes are computed at run time.
        """
        symbols: dict[object, int] = {}
        for name, dims in self.reference.input_dims.items():
            symbols.update(zip(dims, feeds[name].shape, strict=False) if name in feeds else ())
        known: dict[str, int] = {}
        for name, (_, dims) in self.reference.output_forms.items():
            sides = [dim if isinstance(dim, int) else symbols.get(dim) for dim in dims]
            if None not in sides:
                known[name] = 4 * math.prod(side for side in sides if side is not None)
        mean = sum(known.values()) // max(len(known), 1)
        return {name: known.get(name, mean) for name in self.reference.output_names}


def _common(reference: Model, candidate: Model) -> tuple[str, ...]:
    """Tensors computed in both main graphs, in the order of the candidate."""
    known = {name for node in reference.proto.graph.node for name in node.output if name}
    computed = (name for node in candidate.proto.graph.node for name in node.output)
    return tuple(name for name in computed if name in known)


def _groups(
    names: Sequence[str], sizes: Mapping[str, int], at_most: int
) -> Iterator[tuple[str, ...]]:
    group: list[str] = []
    room = at_most
    for name in names:
        if group and sizes[name] > room:
            yield tuple(group)
            group, room = [], at_most
        group.append(name)
        room -= sizes[name]
    yield tuple(group)


@dataclass
class _Run:
    """The statistics of one comparison, filled group by group."""

    stats: dict[str, TensorStats]
    samples: int = 0
    reshaped: dict[str, None] = field(default_factory=dict)
    fits: dict[str, ChannelFit] = field(default_factory=dict)

    def all(self, both: _Pair, names: Sequence[str], feeds: Iterable[Feeds]) -> None:
        self.samples = 0
        for sample in feeds:
            expected = both.reference.run(sample, names)
            found = both.candidate.run(sample, names)
            self.samples += 1
            for name in names:
                left, right = expected.pop(name), found.pop(name)
                if left.shape == right.shape:
                    self._add(name, left, right)
                else:
                    self.reshaped[name] = None

    def _add(self, name: str, left: np.ndarray, right: np.ndarray) -> None:
        stats = self.stats[name]
        stats.add(left, right)
        if -math.inf < stats.sqnr_db < WORSE_THAN_DB and left.ndim > 1:
            self.fits.setdefault(name, ChannelFit()).add(left, right)


def _profile(reference: Model, run: _Run, made: Mapping[str, Producer]) -> LayerProfile:
    layers = tuple(
        LayerError(
            tensor=name,
            node=made[name].node,
            op=made[name].op,
            type=made[name].type,
            sqnr_db=stats.sqnr_db,
            max_abs=stats.max_abs,
            reference_amax=stats.amax,
            nonfinite=stats.nonfinite,
            rescaled_db=rescaled_db(stats.sqnr_db, run.fits.get(name)),
        )
        for name, stats in run.stats.items()
        if name not in run.reshaped
    )
    drops = find_drops({layer.tensor: layer.counted_db for layer in layers}, made)
    nodes = (node for node in reference.proto.graph.node if node.op_type != "Constant")
    computed = (name for node in nodes for name in node.output if name)
    missing = [name for name in computed if name not in made or name in run.reshaped]
    return LayerProfile(
        samples=run.samples,
        layers=layers,
        first_jump=next((drop for drop in drops if drop.is_jump), None),
        missing=tuple(missing),
        drops=drops,
    )


def _is_safe(magnitude: float) -> bool:
    return magnitude == 0.0 or _SAFE[0] < magnitude < _SAFE[1]


def _flat(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1)
    return flat.astype(np.float32) if flat.dtype == np.float16 else flat
