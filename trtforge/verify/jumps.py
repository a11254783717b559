"""Where an error comes into being, told from where it merely passes through."""

import math
from collections.abc import Mapping

from pydantic import Field

from trtforge.verify.compute_types import SIGNIFICANT_BITS, Producer
from trtforge.verify.types import Number, ReportPart

JUMP_DB = 10.0
"""A node whose output is worse than its worst input by so much has lost something of its own.

Two errors of equal size that meet cost 3 dB, four cost 6 dB; so a sum of a few branches is none."""

_SUMMING_DB = 40.0
"""FP32 sums in another order differ by more than one rounding: sqrt(K) of them for K terms, which
is 40 dB for K of 10 000 (N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2002,
section 4.2, random errors)."""


_MOVERS = frozenset(
    [
        *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather"),
        *("GatherElements", "GatherND", "Concat", "Split", "Expand", "Tile"),
    ]
)


class Jump(ReportPart):
    """A node whose output is much worse than what it read.

    Attributes:
        tensor: the output.
        node: the node's name.
        op: its operator.
        from_db: SQNR of its worst input, or what its type can give where that is less, dB.
        to_db: SQNR of the output, dB; -inf where it became NaN or Inf.
        after: nodes upstream where the error jumps as well; not part of the JSON.
    """

    tensor: str
    node: str
    op: str
    from_db: Number
    to_db: Number
    after: frozenset[str] = Field(frozenset(), exclude=True)

    @property
    def is_nonfinite(self) -> bool:
        """Whether values became NaN or Inf here."""
        return self.to_db == -math.inf

    @property
    def is_jump(self) -> bool:
        """Whether it is more than what passing through arithmetic costs."""
        return self.drop_db > JUMP_DB

    @property
    def drop_db(self) -> float:
        """How much was lost, dB."""
        return self.from_db - self.to_db


def find_drops(sqnr_db: Mapping[str, float], made: Mapping[str, Producer]) -> tuple[Jump, ...]:
    """Find the nodes where an error starts or grows, however little, in graph order.

    A node's output is measured against the lowest of its inputs' SQNRs, where an input counts as no
    better than one rounding to the node's type would leave it: 6.02 dB per significant bit (of
    FP32: less `_SUMMING_DB`). A drop of more than `JUMP_DB` is a *jump*: FP16 arithmetic on exact
    inputs is none, while an overflow, a cancellation and a lost epsilon are. An input that is not
    compared counts as what it is computed from and as its own type leaves it; but what moves
    constants alone, as an embedding does, may have them as BF16 leaves them.

    Args:
        sqnr_db: SQNR of each compared tensor, dB.
        made: the producer of each tensor of the candidate, in graph order.
    """
    levels: dict[str, float] = {}
    behind: dict[str, frozenset[str]] = {}
    drops: dict[str, Jump] = {}
    for name, maker in made.items():
        worst = min((levels.get(source, math.inf) for source in maker.inputs), default=math.inf)
        upstream = frozenset().union(*(behind.get(one, frozenset()) for one in maker.inputs))
        level = min(worst, attainable_db(maker.type))
        if maker.op in _MOVERS and worst == math.inf:
            # What constants were rounded to does not show: it may have been the coarsest type.
            level = attainable_db("bf16") if name in sqnr_db else worst
        levels[name] = sqnr_db.get(name, level)
        # A fault is told once: the casts behind a node have its name.
        if name in sqnr_db and level > levels[name] and maker.node not in drops:
            drops[maker.node] = Jump(
                tensor=name,
                node=maker.node,
                op=maker.op,
                from_db=level,
                to_db=levels[name],
                after=upstream,
            )
        jumps = maker.node in drops and drops[maker.node].is_jump
        behind[name] = upstream | {maker.node} if jumps else upstream
    return tuple(drops.values())


def attainable_db(kind: str) -> float:
    """SQNR that a single operation of a type can be expected to leave, dB."""
    bits = SIGNIFICANT_BITS.get(kind, 24)
    lost = _SUMMING_DB if bits == 24 else 0.0
    return 20.0 * math.log10(2.0) * bits - lost
