"""The proof that a rewritten model computes what the original computes.

Both run in ONNX Runtime without optimizations, on seeded inputs, at every shape asked for.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from trtforge.errors import GraphError
from trtforge.graph.execute import Feeds, Session
from trtforge.graph.inputs import Shapes
from trtforge.graph.memory import give_back
from trtforge.graph.model import Model
from trtforge.graph.region_proof import RegionReference, seeded_feeds
from trtforge.graph.report import Proof
from trtforge.graph.weights import model_nodes, storage_bytes
from trtforge.graph.workshop import Known

_MIN_SQNR_DB = {"float32": 80.0, "float16": 40.0, "bfloat16": 25.0}
"""How alike outputs must be, by the narrowest float type that the model computes in.

Reordering sums in FP32 leaves 110 dB and more (unit round-off 2^-24 is 144 dB below the
signal); a forgotten epsilon or bias falls below 70. FP16 and BF16 round at 2^-11 (66 dB) and
2^-8 (48 dB), and errors of a deep network add up.
"""

_NEGLIGIBLE = 1e-6
"""Where the original is (nearly) zero everywhere, a ratio says nothing: absolute, then."""


class Reference:
    """The original's inputs and outputs at each shape.

    It runs once, and its session is gone before a candidate's begins: their weights are never in
    memory together.
    """

    def __init__(self, model: Model, feeds: Sequence[Feeds]) -> None:
        self._model = model
        self._feeds = tuple(feeds)
        session = Session(model)
        self._outputs = [session.run(case) for case in self._feeds]
        del session
        model.files.release()
        give_back()
        self._min_sqnr_db = _MIN_SQNR_DB[_narrowest_type(model)]

    @property
    def cases(self) -> int:
        """How many sets of inputs there are."""
        return len(self._feeds)

    def is_repeatable(self) -> bool:
        """Run the original twice more, in one session: does it agree with itself?

        Random operators start alike in every session, and differ from one run to the next.
        """
        session = Session(self._model)
        return all(proof.verdict == "pass" for _ in range(2) for proof in self._judge(session))

    def compare(self, candidate: Model) -> Proof:
        """Compare a model with the original.

        Returns:
            pass, or fail with the worst output; a model that ONNX Runtime refuses fails too.
        """
        try:
            proofs = list(self._judge(Session(candidate)))
        except GraphError as error:
            return Proof("fail", error.message)
        return Proof.of_all(proofs, None, len(proofs))

    def _judge(self, session: Session) -> Iterator[Proof]:
        for feeds, expected in zip(self._feeds, self._outputs, strict=True):
            yield judged(expected, session.run(feeds), self._min_sqnr_db)


def judged(expected: Feeds, found: Feeds, min_sqnr_db: float) -> Proof:
    """Compare outputs of one run: floats by their ratio in dB, all others exactly."""
    proofs = [_value(name, expected[name], found[name], min_sqnr_db) for name in expected]
    return Proof.of_all(proofs, None, 1)


def _value(name: str, expected: Any, found: Any, min_sqnr_db: float) -> Proof:
    """Compare tensors, or sequences of them (lists), or optionals that are empty (None)."""
    if isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        return _output(name, expected, found, min_sqnr_db)
    if not isinstance(expected, list) or not isinstance(found, list):
        same = expected is None and found is None
        return Proof("pass") if same else Proof("fail", f"'{name}' is of another kind")
    if len(expected) != len(found):
        reason = f"sequence '{name}' has {len(found)} members, not {len(expected)}"
        return Proof("fail", reason, max_abs=math.inf, min_sqnr_db=-math.inf)
    members = [
        _value(f"{name}[{index}]", one, two, min_sqnr_db)
        for index, (one, two) in enumerate(zip(expected, found, strict=True))
    ]
    return Proof.of_all(members, None, 1) if members else Proof("pass")


def _output(name: str, expected: np.ndarray, found: np.ndarray, min_sqnr_db: float) -> Proof:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return Proof(
            "fail",
            f"output '{name}' is {found.dtype.name} {list(found.shape)}, "
            f"not {expected.dtype.name} {list(expected.shape)}",
            max_abs=math.inf,
            min_sqnr_db=-math.inf,
        )
    if expected.dtype.kind not in "fV":
        wrong = int(np.count_nonzero(expected != found))
        reason = f"output '{name}' differs in {wrong} of {expected.size} values"
        return Proof("fail", reason) if wrong else Proof("pass")
    max_abs, sqnr_db = difference(expected, found)
    if sqnr_db >= min_sqnr_db or max_abs <= _NEGLIGIBLE:
        return Proof("pass", max_abs=max_abs, min_sqnr_db=sqnr_db)
    reason = (
        f"output '{name}' differs by up to {max_abs:.3g} "
        f"({sqnr_db:.1f} dB, at least {min_sqnr_db:.0f} dB expected)"
    )
    return Proof("fail", reason, max_abs=max_abs, min_sqnr_db=sqnr_db)


def difference(expected: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Measure how far two arrays of one shape are apart.

    Returns:
        Largest absolute difference, and 10*log10(sum(e^2) / sum((e-f)^2)) in dB. Values that
        are not finite must be the same in both; otherwise (inf, -inf).
    """
    if np.array_equal(expected, found):  # most rewrites move data only
        return 0.0, math.inf
    reference, candidate = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(reference)
    if not np.array_equal(reference[~finite], candidate[~finite], equal_nan=True):
        return math.inf, -math.inf
    signal = reference[finite]
    noise = signal - candidate[finite]
    if not np.isfinite(noise).all():
        return math.inf, -math.inf
    noise_power = float(np.dot(noise, noise))
    if noise_power == 0.0:
        return 0.0, math.inf
    signal_power = float(np.dot(signal, signal))
    ratio = 10.0 * math.log10(signal_power / noise_power) if signal_power else -math.inf
    return float(np.abs(noise).max()), ratio


class Prover:
    """Compares rewritten models with the original, as a whole or place by place.

    A model of few weights runs as a whole. Of a bigger one the rewritten places are compared. A
    place that differs is no verdict by itself, since random values at its borders may be such as
    never occur there; nor is the rest, where places of some kind cannot be compared: then the
    whole model decides, if it fits.

    Args:
        model: the original.
        shapes: where to run it; empty means its static shapes.
        seed: of the inputs.
    """

    def __init__(self, model: Model, shapes: Sequence[Shapes], seed: int) -> None:
        self._model, self._seed = model, seed
        distinct = {tuple(sorted(case.items())): case for case in (shapes or ({},))}
        self._shapes = tuple(distinct.values())
        self._weights = sum(map(storage_bytes, model.proto.graph.initializer))
        self._whole: Reference | None = None
        self._regions: RegionReference | None = None

    @property
    def cases(self) -> int:
        """At how many shapes models are compared."""
        return len(self._shapes)

    def compare(self, candidate: Model, known: Known) -> Proof:
        """Compare a model with the original.

        Args:
            candidate: the rewritten model.
            known: what is known about its tensors.

        Returns:
            pass; fail with the worst output, also when its contract is another; not_run when the
            original does not run here.
        """
        if candidate.contract != self._model.contract:
            return Proof("fail", "its inputs or outputs are no longer the same")
        if self._weights <= _WHOLE_BYTES:
            return self._by_whole(candidate)
        proof = self._by_regions(candidate, known)
        is_settled = proof.verdict == "pass" and not proof.left_out
        if is_settled or self._weights > _WHOLE_AT_MOST_BYTES:
            return proof
        return self._by_whole(candidate)

    def is_repeatable(self) -> bool:
        """Whether the original gives the same results each time, as far as that was tried."""
        return self._whole is None or self._whole.is_repeatable()

    def _by_whole(self, candidate: Model) -> Proof:
        try:
            if self._whole is None:
                seeds = _SEEDS if self._weights <= _WHOLE_BYTES else 1
                feeds = seeded_feeds(self._model, self._shapes, self._seed, seeds)
                self._whole = Reference(self._model, feeds)
        except GraphError as error:
            return Proof("not_run", f"the original does not run here: {error.message}")
        return self._whole.compare(candidate)

    def _by_regions(self, candidate: Model, known: Known) -> Proof:
        least = _MIN_SQNR_DB[_narrowest_type(self._model)]
        try:
            if self._regions is None:
                self._regions = RegionReference(
                    self._model, self._shapes, self._seed, lambda a, b: judged(a, b, least)
                )
            return self._regions.compare(candidate, known)
        except GraphError as error:
            return Proof("fail", error.message)


_SEEDS = 2
"""Sets of inputs at each shape where models run as a whole at every comparison."""

_WHOLE_BYTES = 64 << 20
"""Models with weights up to this size run as a whole."""

_WHOLE_AT_MOST_BYTES = 1500 << 20
"""Models with more weights never do: the proof's memory is bounded."""


def _narrowest_type(model: Model) -> str:
    """The narrowest float type among weights, inputs, outputs and casts."""
    used = {tensor.data_type for tensor in model.proto.graph.initializer}
    for info in (*model.proto.graph.input, *model.proto.graph.output):
        used.add(info.type.tensor_type.elem_type)
    for node in model_nodes(model.proto):
        used.update(a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to")
    if TensorProto.BFLOAT16 in used:
        return "bfloat16"
    return "float16" if TensorProto.FLOAT16 in used else "float32"
