"""What passes did and what was proved about it, as plain values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from trtforge.errors import ParityError


@dataclass(frozen=True)
class Note:
    """Why a place in the graph was rewritten, or why it was left alone.

    Attributes:
        kind: matched or refused.
        node: the name of the node concerned (of its first output when it has none).
        reason: one sentence.
    """

    kind: Literal["matched", "refused"]
    node: str
    reason: str

    def as_json(self) -> dict[str, str]:
        """Return plain JSON data."""
        return {"kind": self.kind, "node": self.node, "reason": self.reason}


@dataclass(frozen=True)
class PassResult:
    """What one application of a pass did.

    Attributes:
        rewrites: how many places were rewritten; 0 means that the graph is unchanged.
        notes: what matched and what was refused.
    """

    rewrites: int
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class PassOutcome:
    """What one pass did over all rounds.

    Attributes:
        name: as in the table of passes.
        rewrites: places rewritten, over all rounds.
        nodes: by how much the number of nodes grew through it; mostly negative.
        bytes: by how much the constants that nodes read grew through it.
        seconds: wall time over all rounds.
        rolled_back: whether the pass was taken back.
        reason: why it was taken back.
        notes: every match, and what was refused in the end; each once, in order.
    """

    name: str
    rewrites: int = 0
    nodes: int = 0
    bytes: int = 0
    seconds: float = 0.0
    rolled_back: bool = False
    reason: str | None = None
    notes: tuple[Note, ...] = ()

    def adding(
        self, result: PassResult, *, nodes: int = 0, bytes: int = 0, seconds: float = 0.0
    ) -> "PassOutcome":
        """Return the outcome after one more application.

        What was refused before is looked at again each time: only the last refusals stand.
        """
        matched = (note for note in self.notes if note.kind == "matched")
        return replace(
            self,
            rewrites=self.rewrites + result.rewrites,
            nodes=self.nodes + nodes,
            bytes=self.bytes + bytes,
            seconds=self.seconds + seconds,
            notes=tuple(dict.fromkeys((*matched, *result.notes))),
        )

    def noting(self, note: Note) -> "PassOutcome":
        """Return the outcome with one more note."""
        return replace(self, notes=(*self.notes, note))

    def as_json(self, *, times: bool = True) -> dict[str, Any]:
        """Return plain JSON data, with or without what differs from run to run."""
        timed = {"seconds": round(self.seconds, 4)} if times else {}
        return {
            "name": self.name,
            "rewrites": self.rewrites,
            "nodes": self.nodes,
            "bytes": self.bytes,
            "rolled_back": self.rolled_back,
            "reason": self.reason,
            **timed,
            "notes": [note.as_json() for note in self.notes],
        }


@dataclass(frozen=True)
class Proof:
    """The numerical comparison of the original with the result.

    Attributes:
        verdict: pass, fail or not_run.
        reason: why it failed or did not run.
        cases: how many sets of inputs were compared.
        max_abs: largest absolute difference over all outputs and cases.
        min_sqnr_db: smallest signal-to-noise ratio, dB; +inf when identical.
        scope: what was compared; None for the outputs of the whole model.
        left_out: how many kinds of rewrites could not be compared by themselves.
    """

    verdict: Literal["pass", "fail", "not_run"]
    reason: str | None = None
    cases: int = 0
    max_abs: float = 0.0
    min_sqnr_db: float = math.inf
    scope: str | None = None
    left_out: int = 0

    @classmethod
    def of_all(cls, proofs: "Sequence[Proof]", scope: str | None, cases: int) -> "Proof":
        """Join proofs: pass when all passed, fail when one failed, not_run when there is none."""
        if not proofs:
            return cls("not_run", "nothing could be compared", scope=scope)
        failed = next((proof for proof in proofs if proof.verdict == "fail"), None)
        return cls(
            "fail" if failed else "pass",
            failed.reason if failed else None,
            cases=cases,
            max_abs=max(proof.max_abs for proof in proofs),
            min_sqnr_db=min(proof.min_sqnr_db for proof in proofs),
            scope=scope,
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data; JSON has no infinities, so they are text."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "cases": self.cases,
            "max_abs": json_number(self.max_abs),
            "min_sqnr_db": json_number(self.min_sqnr_db),
            "scope": self.scope,
            "left_out": self.left_out,
        }


def json_number(value: float) -> float | str:
    """Return a number as JSON can hold it: inf, -inf and nan become text."""
    return value if math.isfinite(value) else str(value)


@dataclass(frozen=True)
class OptimizeReport:
    """What happened to a model.

    Attributes:
        nodes_before: nodes of the outermost graph; likewise after.
        opset_before: the operator set it was written in; likewise after.
        initializer_bytes_before: bytes of its initializers; likewise after.
        rounds: how often the sequence of passes ran until nothing changed.
        passes: one outcome per pass, in order.
        proof: the comparison of the original with the result.
    """

    nodes_before: int
    nodes_after: int
    opset_before: int
    opset_after: int
    initializer_bytes_before: int
    initializer_bytes_after: int
    rounds: int
    passes: tuple[PassOutcome, ...]
    proof: Proof

    def require_proof(self) -> None:
        """Hold the result to what strict promises: every pass stands, and all of it is proven.

        Raises:
            ParityError: TF0416, with each pass that was taken back and why; or with what of a
                model too big to run as a whole could not be compared.
        """
        back = [outcome for outcome in self.passes if outcome.rolled_back]
        if back:
            names = ", ".join(f"'{outcome.name}'" for outcome in back)
            raise ParityError(
                "TF0416",
                f"strict: taken back: {names}: {back[0].reason}",
                "drop it by name, or do without strict; please report it",
                details="\n".join(f"{outcome.name}: {outcome.reason}" for outcome in back),
            )
        if self.proof.verdict != "pass":
            said = f"{self.proof.verdict}: {self.proof.reason}"
            hint = "the graph must be proven under strict; see why it was not"
            raise ParityError("TF0416", f"strict: the proof says {said}", hint)
        if self.proof.left_out:
            said = f"strict: a part of the rewrites is not proven: {self.proof.scope}"
            hint = (
                "drop passes by name, or do without strict: the model is too big to run as a whole"
            )
            raise ParityError("TF0416", said, hint)

    def as_json(self, *, times: bool = True) -> dict[str, Any]:
        """Return plain JSON data, with or without what differs from run to run."""
        return {
            "nodes_before": self.nodes_before,
            "nodes_after": self.nodes_after,
            "opset_before": self.opset_before,
            "opset_after": self.opset_after,
            "initializer_bytes_before": self.initializer_bytes_before,
            "initializer_bytes_after": self.initializer_bytes_after,
            "rounds": self.rounds,
            "passes": [outcome.as_json(times=times) for outcome in self.passes],
            "proof": self.proof.as_json(),
        }
