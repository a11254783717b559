"""What a report shows, as plain JSON data; a part that is absent is shown as not run, with why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Json = Mapping[str, Any]

VERDICTS = ("pass", "fail", "not_run")


class JsonReport(Protocol):
    """A report that can say itself as JSON, such as a ParityReport."""

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        ...


@dataclass(frozen=True)
class ReportData:
    """Everything that `render_html` shows.

    Attributes:
        name: the recipe's name.
        facts: label -> text, shown under the title, in this order; e.g. {"model": "model.onnx",
            "precision": "fp16, quantized int8", "bundle": "digits-int8-1a2b3c4d"}.
        graph_parity: a parity report's JSON: the typed graph against the original.
        engine_parity: target name -> parity report's JSON.
        attest: the verdict on attested shares: verdict, reason, quantized_macs_share,
            min_quantized_macs, and checks: what, type, share, min, max, verdict.
        attested: `Attestation.as_json()`: macs, nodes, weights_bytes and activations_bytes by
            type, and per_node: name, op, type, macs.
        layers: the error of every layer, as `trtforge.layers/1` (`verify.layers`).
        budget: the mixes that a budget tried, as `trtforge.budget/1` (`pipeline.budgeting`).
        optimize: `OptimizeReport.as_json()`.
        decisions: quantization and cast decisions: node, op, tensor, action or type, reason.
        calibration: a calibration cache's JSON: method, options, samples, ranges, warnings; for
            what of the ranges' histograms is shown see `ranges.ranges_view`.
        contract: inputs and outputs of the model: name, dtype, dims.
        profiles: optimization profiles: input name -> min, opt, max.
        targets: one mapping per target: name, backend, version, engine_bytes, engine_sha256,
            compute_capabilities, activation_memory_bytes, warnings (all but the name optional).
        sizes: what ("original ONNX", "engine rtx") -> bytes, in this order.
        recipe: the resolved recipe, YAML.
        commands: command lines that repeat the build and its verification.
        environment: label -> text: platform, library versions, GPU.
        timings: stage -> seconds; left out of the page when empty, so that pages stay comparable.
        warnings: what the typing of the graph warned of, those of the calibration included.
        missing: part's name (a field of this class) -> why it is absent.
        comparison_only: this is a comparison and not a build: the other parts are left out.
    """

    name: str
    facts: Mapping[str, str] = field(default_factory=dict)
    graph_parity: Json | None = None
    engine_parity: Mapping[str, Json] = field(default_factory=dict)
    attest: Json | None = None
    attested: Json | None = None
    layers: Json | None = None
    budget: Json | None = None
    optimize: Json | None = None
    decisions: Sequence[Json] | None = None
    calibration: Json | None = None
    contract: Json | None = None
    profiles: Sequence[Json] = ()
    targets: Sequence[Json] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    recipe: str = ""
    commands: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    comparison_only: bool = False

    def why_missing(self, part: str) -> str:
        """Return the reason that a part is absent."""
        return self.missing.get(part, "no data for this part")


@dataclass(frozen=True)
class Check:
    """One verdict of a report.

    Attributes:
        name: "graph parity", "engine parity: rtx" or "attestation".
        verdict: pass, fail or not_run.
        reason: why it failed or was not run.
    """

    name: str
    verdict: str
    reason: str | None = None


def as_data(report: Json | JsonReport) -> Json:
    """Return a report's JSON, whether it comes as JSON or as the report itself."""
    return report if isinstance(report, Mapping) else report.as_json()


def verdict_of(report: Json) -> str:
    """Return a report's verdict; anything unknown counts as fail, so that nothing passes unseen."""
    verdict = str(report.get("verdict"))
    return verdict if verdict in VERDICTS else "fail"


def checks_of(data: ReportData) -> tuple[Check, ...]:
    """Return every verdict of a report: graph parity, engine parity by target, attestation."""
    checks = [_check("graph parity", data.graph_parity, data.why_missing("graph_parity"))]
    for target, report in data.engine_parity.items():
        checks.append(_check(f"engine parity: {target}", report, ""))
    if data.attest is not None or not data.comparison_only:
        checks.append(_check("attestation", data.attest, data.why_missing("attest")))
    return tuple(checks)


def overall(checks: Sequence[Check]) -> str:
    """Return fail if any check failed, pass if at least one passed, otherwise not_run."""
    verdicts = {check.verdict for check in checks}
    if "fail" in verdicts:
        return "fail"
    return "pass" if "pass" in verdicts else "not_run"


def _check(name: str, report: Json | None, why_missing: str) -> Check:
    if report is None:
        return Check(name, "not_run", why_missing)
    reason = report.get("reason")
    return Check(name, verdict_of(report), None if reason is None else str(reason))
