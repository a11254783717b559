"""What builder flags asked of precision, said as a recipe's `precision` and `calibration`.

The flags allowed TensorRT to choose among types; in a recipe types are chosen. `--fp16 --int8`
becomes an INT8 graph whose rest is FP16.
"""

import re
from dataclasses import dataclass, field

from trtforge.recipe.migration.result import Draft
from trtforge.recipe.migration.values import FLOATS, pairs

SIMPLE: dict[str, str] = {
    "--fp16": "fp16",
    "--bf16": "bf16",
    "--int8": "int8",
    "--fp8": "fp8",
    "--int4": "int4",
    "--best": "best",
}
"""Flag -> what it allowed."""

_REMOVED = "a builder flag that TensorRT 11 removed"


@dataclass
class PrecisionFlags:
    """The flags of one command, gathered until all are known.

    Attributes:
        draft: what they go into.
        cache: the calibration cache that was named.
        data: where calibration data comes from, as a recipe says it.
        sources: the flags that named them, and what became of each.
    """

    draft: Draft
    cache: str | None = None
    data: str | None = None
    sources: list[tuple[str, str, str]] = field(default_factory=list)
    _wishes: dict[str, str] = field(default_factory=dict)
    _keep: list[dict[str, str]] = field(default_factory=list)

    def wish(self, flag: str, kind: str) -> None:
        """Take a flag that allows a type."""
        self._wishes[kind] = flag

    def calibrate_with(self, flag: str, cache: str) -> None:
        """Take the name of an old calibration cache."""
        self.cache = cache
        why = "converted: TensorRT 11 reads no such file"
        self.sources.append((flag, "calibration.reuse", why))

    def measure(self, flag: str, data: str, why: str = "") -> None:
        """Take where calibration data comes from."""
        self.data = data
        self.sources.append((flag, "calibration.data", why))

    def layers(self, flag: str, text: str) -> None:
        """Take `layer:fp32,other:fp16` as keep rules.

        Raises:
            UsageError: TF0120, it cannot be read.
        """
        for name, kind in pairs(flag, text, "layer_name:fp32,other:fp16"):
            float_type = FLOATS.get(kind.lower())
            if float_type is None:
                self.draft.refuse(
                    f"{flag} ({name}: {kind})",
                    "a rule keeps a node in fp32, fp16 or bf16; what is quantized follows from "
                    "precision.quantize and the calibration",
                )
                continue
            glob = re.sub(r"([\[?])", r"[\1]", name)  # trtexec knows no wildcard but *
            self._keep.append({"name": glob, "type": float_type})
        self.draft.note(flag, "precision.keep", "layers are named as the ONNX nodes are")

    def close(self) -> None:
        """Decide, once all flags are known."""
        draft, wishes = self.draft, self._wishes
        if draft.data is not None:
            self.measure(f"--data {draft.data}", draft.data)
        if "best" in wishes:
            self._best(wishes.pop("best"))
        if "fp16" in wishes or "bf16" in wishes:
            kind = "fp16" if "fp16" in wishes else "bf16"
            draft.put(wishes.pop(kind), "precision.type", kind, f"{_REMOVED}: casts in the graph")
            if "bf16" in wishes:
                draft.refuse(
                    wishes.pop("bf16"),
                    "TensorRT chose between FP16 and BF16 per layer; a recipe has one type for the "
                    "rest: take fp16, or change precision.type to bf16",
                )
        self._quantized()
        if self._keep:
            draft.set("precision.keep", self._keep)

    def _best(self, flag: str) -> None:
        why = (
            "every type was allowed and TensorRT took the fastest, whatever it did to the results; "
            "here fp16, and int8 where there is a calibration"
        )
        self.draft.put(flag, "precision.type", "fp16", why)
        if self.cache is not None or self.data is not None:
            self._wishes.setdefault("int8", "--best (int8)")

    def _quantized(self) -> None:
        draft, wishes = self.draft, self._wishes
        if draft.model is not None and draft.model.has_pairs and (self.cache or self.data):
            for flag, _, _ in self.sources:
                draft.skip(flag, "TensorRT calibrates nothing where the model has Q/DQ pairs")
            self.cache = self.data = None
        kind = "int8" if "int8" in wishes else "fp8"
        is_measured = self.data is not None or (kind == "int8" and self.cache is not None)
        if kind in wishes and is_measured:
            why = f"{_REMOVED}: Q/DQ in the graph, from the calibration"
            draft.put(wishes.pop(kind), "precision.quantize", kind, why)
            self._calibration()
        elif self.cache is not None or self.data is not None:
            for flag, _, _ in self.sources:
                draft.refuse(
                    flag, "without --int8 nothing is quantized by it: add that, or remove it"
                )
        for kind, flag in wishes.items():
            if kind in ("int8", "fp8", "int4"):
                self._without_calibration(kind, flag)

    def _without_calibration(self, kind: str, flag: str) -> None:
        quantize = "int4_weight_only" if kind == "int4" else kind
        remedy = f"set precision.quantize: {quantize} and give calibration.data (--data here)"
        model = self.draft.model
        if model is not None and model.has_pairs:
            why = f"{_REMOVED}; the model's own Q/DQ pairs are kept, and say what is quantized"
            self.draft.put(flag, "precision.quantize", "none", why)
        elif model is None:
            why = f"{_REMOVED}; taken for a model with Q/DQ of its own. If it is a float model: "
            self.draft.put(flag, "precision.quantize", "none", why + remedy)
        else:
            self.draft.refuse(
                flag,
                f"{_REMOVED}; without a calibration it made up the ranges, which is good for "
                f"timing alone: {remedy}",
            )

    def _calibration(self) -> None:
        for source in self.sources:
            self.draft.note(*source)
        if self.cache is not None:
            self.draft.set("calibration.reuse", self.cache)
        if self.data is not None:
            self.draft.set("calibration.data", self.data)
