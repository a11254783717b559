"""Layers by the harm that quantizing each of them does: what to keep in floats, in which order."""

import glob
import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from trtforge.recipe.schema import FloatType

SCHEMA = "trtforge.sensitivity/1"

Measure = Literal["output", "local"]


@dataclass(frozen=True)
class LayerHarm:
    """What quantizing one layer does.

    Attributes:
        node: name of the node; may be empty.
        op: its operator.
        output: the tensor that it computes.
        macs: multiply-accumulates of one run; 0 for an operator that has none.
        macs_share: their share of those of all layers, 0..1.
        local_sqnr_db: SQNR of the layer's output when its inputs are exact; +inf: nothing changes.
        output_sqnr_db: SQNR of the model's outputs, the worst of them, when only this layer is
            quantized; None when it was not measured.
        rank: 1 is the most harmful one.
    """

    node: str
    op: str
    output: str
    macs: int
    macs_share: float
    local_sqnr_db: float
    output_sqnr_db: float | None
    rank: int

    @property
    def harm(self) -> float:
        """Noise over signal by which the layer is ranked, >= 0: 10**(-dB / 10)."""
        judged = self.local_sqnr_db if self.output_sqnr_db is None else self.output_sqnr_db
        # Above 3000 dB the power leaves float64; only an output of zeros gets there.
        return math.inf if judged < -3000 else 10 ** (-judged / 10)

    def as_json(self) -> dict[str, Any]:
        """Return the layer as plain JSON data; an SQNR without bounds is null."""
        return {
            "rank": self.rank,
            "node": self.node,
            "op": self.op,
            "output": self.output,
            "macs": self.macs,
            "macs_share": self.macs_share,
            "local_sqnr_db": _finite(self.local_sqnr_db),
            "output_sqnr_db": _finite(self.output_sqnr_db),
        }


@dataclass(frozen=True)
class BudgetStep:
    """What is left when a layer, and all those of the steps before, stay in floats.

    Attributes:
        layer: the layer that this step keeps.
        macs_kept: share of the layers' multiply-accumulates that are kept in floats, 0..1.
        harm_left: sum of the harms of the layers that are still quantized.
    """

    layer: LayerHarm
    macs_kept: float
    harm_left: float

    @property
    def sqnr_db(self) -> float:
        """SQNR that `harm_left` means, if the layers' noises do not know of each other."""
        return -10 * math.log10(self.harm_left) if self.harm_left > 0 else math.inf


@dataclass(frozen=True)
class SensitivityReport:
    """Layers by harm.

    Attributes:
        method: what they are ranked by.
        quantize: the quantized type.
        type: the type of what is kept.
        samples: how many samples were used.
        layers: the most harmful one first.
    """

    method: Measure
    quantize: str
    type: FloatType
    samples: int
    layers: tuple[LayerHarm, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON data."""
        return {
            "schema": SCHEMA,
            "method": self.method,
            "quantize": self.quantize,
            "type": self.type,
            "samples": self.samples,
            "layers": [layer.as_json() for layer in self.layers],
        }

    def lines(self) -> list[str]:
        """The report as a table, one line per layer."""
        head = f"{'rank':>4}  {'output dB':>9}  {'local dB':>9}  {'MACs':>6}  layer"
        return [head, *(_line(layer) for layer in self.layers)]

    def keep_rules(self, count: int) -> list[str]:
        """Lines of YAML for a recipe's `precision`, which keep the most harmful layers in floats.

        Args:
            count: how many layers.
        """
        lines = ["keep:"]
        for layer in self.layers[:count]:
            if not layer.node:
                lines.append(f"  # {layer.op} that computes '{layer.output}': it has no name")
                continue
            name = json.dumps(glob.escape(layer.node), ensure_ascii=False)
            lines.append(f"  - {{op: {layer.op}, name: {name}, type: {self.type}}}")
        return lines if len(lines) > 1 else []

    def budget(self) -> tuple[BudgetStep, ...]:
        """Layers in the order in which keeping them pays: by harm per multiply-accumulate.

        Harmful layers without multiply-accumulates cost nothing to keep, so they come first; those
        that do no harm come last.
        """
        order = sorted(self.layers, key=_harm_per_mac, reverse=True)
        left = [layer.harm for layer in order]
        kept = 0.0
        steps = []
        for index, layer in enumerate(order):
            kept += layer.macs_share
            steps.append(BudgetStep(layer, min(kept, 1.0), math.fsum(left[index + 1 :])))
        return tuple(steps)


def _harm_per_mac(layer: LayerHarm) -> tuple[float, float]:
    if layer.harm == 0:
        return (0.0, 0.0)
    return (layer.harm / layer.macs if layer.macs else math.inf, layer.harm)


def _line(layer: LayerHarm) -> str:
    output = "-" if layer.output_sqnr_db is None else f"{layer.output_sqnr_db:.1f}"
    return (
        f"{layer.rank:>4}  {output:>9}  {layer.local_sqnr_db:>9.1f}  {layer.macs_share:>6.1%}  "
        f"{layer.op} {layer.node or layer.output}"
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
