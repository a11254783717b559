"""What quantization did with each node, and why."""

from dataclasses import dataclass
from typing import Any, Literal

from trtforge.precision.engine_size import EngineSize

Action = Literal["quantized", "kept", "passes"]


@dataclass(frozen=True)
class Decision:
    """What was done with one node, and why.

    Attributes:
        node: its name; may be empty.
        op: its operator.
        tensor: the activation that carries a pair, or the first of two; empty where none does.
        action: quantized; kept, in floats; or passes, where it hands a scale on.
        reason: in words.
    """

    node: str
    op: str
    tensor: str
    action: Action
    reason: str

    def as_json(self) -> dict[str, str]:
        """Return the decision as plain JSON data."""
        return {
            "node": self.node,
            "op": self.op,
            "tensor": self.tensor,
            "action": self.action,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class QuantizeReport:
    """What quantization did, node by node in graph order.

    Attributes:
        quantize: the quantized type.
        decisions: the places that were judged: weighted operators, products, residual additions.
        explained: those and everything else that may have or pass a pair, such as Concat and
            pooling, in graph order; empty where the decisions say it all.
        engine: how large an INT8 engine will be beside the FP16 one; None for other types.
    """

    quantize: str
    decisions: tuple[Decision, ...]
    explained: tuple[Decision, ...] = ()
    engine: EngineSize | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON data."""
        judged = {id(decision) for decision in self.decisions}
        others = [one.as_json() for one in self.explained if id(one) not in judged]
        return {
            "quantize": self.quantize,
            "decisions": [decision.as_json() for decision in self.decisions],
            "others": others,
        }
