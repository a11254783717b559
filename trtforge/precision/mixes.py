"""Mixes of types: which types each node of a model may have, what a mix costs, how to make it."""

import glob
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trtforge.graph.model import Model
from trtforge.precision.attest import attest
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.cast import TypedModel, typed
from trtforge.precision.corrected import corrected
from trtforge.precision.opgroups import (
    CONTROL_FLOW,
    CONVERTERS,
    MOVERS,
    OWN_TYPE,
    SEQUENCES,
    TYPE_BLIND,
)
from trtforge.precision.rules import Spot, selected
from trtforge.precision.streaming import DataSource
from trtforge.precision.switches import LayeredModel, layered
from trtforge.precision.techniques.job import TechniqueJob, chosen_techniques, run_techniques
from trtforge.recipe.precision import KeepRule, Precision

RELATIVE_TIME: dict[str, float] = {"int8": 1.0, "fp8": 1.0, "fp16": 2.0, "bf16": 2.0, "fp32": 4.0}
"""Time of one multiply-accumulate, that of INT8 being 1: the ratios of dense tensor-core throughput
that NVIDIA gives for INT8 or FP8, FP16 and TF32 (A100: 624, 312 and 156 T/s, "A100 Tensor Core GPU"
data sheet; L4: 242, 121 and 60, "L4 Tensor Core GPU" data sheet). Without TF32 an FP32 layer takes
longer still, by 2 (L4) to 8 (A100) times; that makes no other mix the cheapest one unless FP32
layers can be traded for each other and for FP16, and a user reads the cost as what it is, a model.
"""

QUANTIZED = ("int8", "fp8")

Mix = tuple[str, ...]
"""The type of each unit."""

_CORRECTION = "bias-correction"

_NOT_CHOSEN = MOVERS | CONVERTERS | TYPE_BLIND | OWN_TYPE | CONTROL_FLOW | SEQUENCES


@dataclass(frozen=True)
class Unit:
    """A node whose type is chosen.

    Attributes:
        node: its name.
        op: its operator.
        output: the tensor that it computes.
        macs: its multiply-accumulates.
        work: what its cost is in proportion to: its multiply-accumulates, or where it has none
            the elements of its result.
        base: its type where nothing is quantized and no rule names it.
        noises: for each type that it may have, the cheapest first, the noise over signal that it
            brings to the model's outputs by itself.
        is_forced: a force rule names it: it may be quantized, and is of its base type otherwise.
    """

    node: str
    op: str
    output: str
    macs: int
    work: int
    base: str
    noises: Mapping[str, float]
    is_forced: bool = False

    @property
    def types(self) -> tuple[str, ...]:
        """The types that it may have, the cheapest first."""
        return tuple(self.noises)

    def cost(self, kind: str) -> float:
        """Work times relative time."""
        return self.work * RELATIVE_TIME[kind]


@dataclass(frozen=True, eq=False)
class Mixes:
    """A model and the mixes that there are of it.

    Attributes:
        model: the FP32 model.
        cache: its ranges; None where nothing is quantized.
        precision: what the recipe asks for, without its budget.
        units: the nodes whose types are chosen, in graph order.
        fixed_macs: multiply-accumulates of all other nodes, by type.
    """

    model: Model
    cache: CalibrationCache | None
    precision: Precision
    units: tuple[Unit, ...]
    fixed_macs: Mapping[str, int]

    def narrowest(self) -> Mix:
        """Each unit in its cheapest type."""
        return tuple(unit.types[0] for unit in self.units)

    def widest(self) -> Mix:
        """Each unit in its dearest type."""
        return tuple(unit.types[-1] for unit in self.units)

    @property
    def reference(self) -> float:
        """The cost of FP32 everywhere; 1 for a model without any work."""
        work = sum(unit.work for unit in self.units) + sum(self.fixed_macs.values())
        return work * RELATIVE_TIME["fp32"] or 1.0

    def effective(self, mix: Mix) -> Mix:
        """What becomes of a mix: nothing is quantized for itself that has no layer to fuse into."""
        pairs = list(zip(self.units, mix, strict=True))
        if any(kind in QUANTIZED and unit.macs for unit, kind in pairs):
            return mix
        return tuple(unit.base if kind in QUANTIZED else kind for unit, kind in pairs)

    def cost(self, mix: Mix) -> float:
        """The modelled time of a mix, as a share of that of FP32 everywhere: 0..1."""
        fixed = sum(count * _time(kind) for kind, count in self.fixed_macs.items())
        spent = fixed + sum(u.cost(kind) for u, kind in zip(self.units, mix, strict=True))
        return spent / self.reference

    def noise(self, mix: Mix) -> float:
        """The sum of what the units bring by themselves."""
        return math.fsum(u.noises[kind] for u, kind in zip(self.units, mix, strict=True))

    def counts(self, mix: Mix) -> dict[str, int]:
        """How many units have each type."""
        return dict(sorted(Counter(mix).items(), key=lambda item: RELATIVE_TIME[item[0]]))

    def macs(self, mix: Mix) -> dict[str, int]:
        """Multiply-accumulates by type, those of the other nodes included."""
        found = Counter(self.fixed_macs)
        for unit, kind in zip(self.units, mix, strict=True):
            found[kind] += unit.macs
        return {kind: count for kind, count in sorted(found.items()) if count}

    def settled(self, mix: Mix) -> Precision:
        """The precision section that makes a mix: keep rules in place of the budget."""
        own = self.precision
        quantize = own.quantize if any(kind in QUANTIZED for kind in mix) else "none"
        kind = own.type if any(one != "fp32" for one in mix) else "fp32"
        rules = [] if kind != own.type else self._rules(mix, is_quantized=quantize != "none")
        return own.model_copy(
            update={
                "type": kind,
                "quantize": quantize,
                "keep": (*own.keep, *rules),
            }
        )

    def corrected(self, mix: Mix) -> Model:
        """Return the float model with the biases of those layers corrected that are quantized."""
        settled = self.settled(mix)
        if self.cache is None or not self.cache.bias_shifts or settled.quantize == "none":
            return self.model
        job = TechniqueJob(self.model, None, settled, cache=self.cache)
        run_techniques((_CORRECTION,), job)
        return job.model

    def typed(self, mix: Mix) -> TypedModel:
        """Make a mix.

        Raises:
            GraphError: the graph is refused.
        """
        return typed(self.corrected(mix), self.cache, self.settled(mix))

    def layered(self) -> LayeredModel:
        """Return the layers in two forms, the quantized ones with their bias corrected."""
        found = layered(self.model, self.cache, self.precision)
        return corrected(found, self.cache.bias_shifts if self.cache is not None else {})

    def rule_lines(self, mix: Mix) -> list[str]:
        """Lines of YAML for a recipe's `precision`, which make a mix without a budget."""
        settled = self.settled(mix)
        lines = [f"type: {settled.type}", f"quantize: {settled.quantize}"]
        rules = settled.keep
        if rules:
            lines.append("keep:")
        for rule in rules:
            given = rule.model_dump(exclude_none=True)
            pairs = (f"{key}: {_yaml(key, value)}" for key, value in given.items())
            lines.append(f"  - {{{', '.join(pairs)}}}")
        return lines

    def with_noises(self, noises: Mapping[str, Mapping[str, float]]) -> "Mixes":
        """The same with other or further types.

        Args:
            noises: output of a unit -> its noises by type, in place of what it had.
        """
        units = (replace(unit, noises=noises.get(unit.output, unit.noises)) for unit in self.units)
        return replace(self, units=tuple(units))

    def _rules(self, mix: Mix, *, is_quantized: bool) -> list[KeepRule]:
        rules = []
        for unit, kind in zip(self.units, mix, strict=True):
            wanted = unit.types[0] if is_quantized else unit.base
            if kind != wanted:
                name = glob.escape(unit.node)
                rules.append(KeepRule.model_validate({"op": unit.op, "name": name, "type": kind}))
        return rules


def mixes_of(
    model: Model,
    cache: CalibrationCache | None,
    precision: Precision,
    shapes: Mapping[str, tuple[int, ...]],
) -> Mixes:
    """Find the nodes whose types can be chosen; quantizing brings no noise yet.

    What the recipe's own keep and force rules name is left as they say: what is forced to a float
    type is quantized or not, as may be, and has that type otherwise.

    Args:
        model: the FP32 model.
        cache: its ranges.
        precision: what the recipe asks for.
        shapes: the shape of every input, for which work is counted.

    Raises:
        GraphError: the graph is refused.
        DataError: the cache lacks a tensor.
    """
    wanted = _without_budget(precision)
    plain = wanted.model_copy(update={"quantize": "none"})
    floats = typed(model, cache, plain).model
    layers: set[str] = set()
    if wanted.quantize != "none":
        layers = {layer.output for layer in layered(model, cache, wanted).layers}
    types = {(node.op, node.name): node.type for node in attest(floats, shapes).per_node}
    counted = attest(model, shapes)
    macs = {(node.op, node.name): node.macs for node in counted.per_node}
    units = []
    for node in model.proto.graph.node:
        output = next((str(name) for name in node.output if name), "")
        base = types.get((node.op_type, node.name), "")
        spot = Spot(node.op_type, node.name or output, node.name or output)
        is_free = node.op_type not in _NOT_CHOSEN and base in RELATIVE_TIME and node.name
        is_forced = selected(spot, precision.force) is not None
        if not is_free or selected(spot, precision.keep) or (is_forced and output not in layers):
            continue
        kinds = ([wanted.quantize] if output in layers else []) + [base]
        own = macs.get((node.op_type, node.name), 0)
        work = own or max(int(counted.elements.get(output, 1)), 1)
        noises = dict.fromkeys(kinds, 0.0)
        units.append(Unit(node.name, node.op_type, output, own, work, base, noises, is_forced))
    chosen = {(unit.op, unit.node) for unit in units}
    fixed: Counter[str] = Counter()
    for one in counted.per_node:
        if one.macs and (one.op, one.name) not in chosen:
            fixed[types.get((one.op, one.name), "fp32")] += one.macs
    return Mixes(model, cache, wanted, tuple(units), dict(fixed))


def with_bias_shifts(
    cache: CalibrationCache, model: Model, precision: Precision, source: DataSource | None
) -> CalibrationCache:
    """Measure what quantizing shifts in the mean of each layer, all of them being quantized.

    Where techniques leave biases alone, a cache without any such shifts comes back; without
    samples, one with those that it has.

    Raises:
        GraphError: ONNX Runtime refuses the model.
        DataError: the source cannot give a sample.
    """
    wanted = _without_budget(precision)
    if _CORRECTION not in wanted.techniques:
        return cache.model_copy(update={"bias_shifts": {}})
    job = TechniqueJob(model, source, wanted, cache.samples or None, cache=cache)
    run_techniques((_CORRECTION,), job)
    return job.cache or cache


def _without_budget(precision: Precision) -> Precision:
    plain = precision.model_copy(update={"budget": None})
    return plain.model_copy(update={"techniques": chosen_techniques(plain) or "none"})


def _time(kind: str) -> float:
    return RELATIVE_TIME.get(kind, RELATIVE_TIME["fp32"])


def _yaml(key: str, value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if key in ("name", "path") else value


def options_of(units: Sequence[Unit]) -> list[list[tuple[float, float]]]:
    """Cost and noise of each type of each unit."""
    return [[(unit.cost(kind), unit.noises[kind]) for kind in unit.types] for unit in units]
