"""Stage `verify`: the verdicts on the typed graph, on every engine, and on the precision."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtforge.engine.environment import driver
from trtforge.graph.data import ArrayData
from trtforge.graph.model import Model
from trtforge.pipeline.corners import corner_shapes
from trtforge.pipeline.judge import Question, judge_engine, judge_graph, tolerances_of
from trtforge.pipeline.stage import Inputs, Job, Progress, package_versions, write_json
from trtforge.precision.attest import declared_precision
from trtforge.recipe.schema import Attest, Precision

VERDICTS_SCHEMA = "trtforge.verdicts/1"


@dataclass(frozen=True)
class VerifyStage:
    """Writes `parity.json`: graph parity, engine parity of every target, attestation.

    A failed verdict is a result like any other and is stored; `pipeline.run` refuses to ship it.
    """

    engines: tuple[str, ...]
    name: str = "verify"
    kind: str = "verify"
    rooms: tuple[str, ...] = ("graph", "precision", "engine", "verify")

    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]:
        """The typed model, what was attested of it, and the engines."""
        wanted: dict[str, tuple[str, ...]] = {"precision": ("model.onnx*", "attest.json")}
        return wanted | {f"build:{name}": ("model.engine",) for name in self.engines}

    def facts(self, job: Job) -> dict[str, Any]:
        """The verify section, the data, the original, and the GPU (none here means not_run)."""
        recipe = job.recipe
        sources = {"model": job.model_digest()}
        if recipe.verify.data is not None:
            path = job.loaded.resolve(recipe.verify.data)
            sources["verification data"] = job.file_digest(path)
        return {
            "sources": sources,
            "recipe": {
                "verify": recipe.verify.model_dump(mode="json", exclude={"data"}),
                "type": recipe.precision.type,
                "quantize": recipe.precision.quantize,
                "shapes": job.shapes_json(),
            },
            "environment": {"gpu": driver().as_json() if self.engines else None},
            "versions": package_versions("onnxruntime", "polygraphy", "trtforge"),
        }

    def run(self, job: Job, inputs: Inputs, out: Path, progress: Progress) -> str:
        """Judge; a failed verdict is written, not raised."""
        typed = inputs["precision"].file("model.onnx")
        question = _question(job, declared_precision(Model.load(typed)))
        progress(None, "graph parity: original and typed graph in ONNX Runtime")
        graph = judge_graph(question, typed)
        engines = {}
        for target in job.recipe.targets:
            if target.name in self.engines:
                progress(None, f"engine parity: {target.name}")
                engine = inputs[f"build:{target.name}"].file("model.engine")
                engines[target.name] = judge_engine(question, engine, target.backend)
        attested = judge_attest(job.recipe.verify.attest, inputs["precision"].json("attest.json"))
        verdicts = {
            "schema": VERDICTS_SCHEMA,
            "graph_parity": graph.as_json(),
            "engine_parity": {name: report.as_json() for name, report in engines.items()},
            "attest": attested,
        }
        write_json(out / "parity.json", verdicts)
        return f"graph parity {graph.verdict}, attest {attested['verdict']}"


def judge_attest(wanted: Attest, attested: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verdict on the attested shares: pass, fail, or not_run when nothing is asked."""
    share = float(attested["quantized_macs_share"])
    bound = wanted.min_quantized_macs
    facts = {"quantized_macs_share": share, "min_quantized_macs": bound}
    if bound is None:
        return facts | {"verdict": "not_run", "reason": "the recipe asks for no share"}
    if share < bound:
        reason = f"{share:.1%} of the MACs are quantized, the recipe asks for {bound:.1%}"
        return facts | {"verdict": "fail", "reason": reason}
    return facts | {"verdict": "pass", "reason": None}


def _question(job: Job, precision: Precision) -> Question:
    """Return the comparison; `precision` is what the typed graph holds, whatever was asked for.

    A model that came in FP16 stays FP16 where the recipe says fp32, and is judged as such.
    """
    recipe = job.recipe
    contract = Model.load(job.model_path).contract
    data = None
    if recipe.verify.data is not None:
        data = ArrayData.open(job.loaded.resolve(recipe.verify.data), contract, labels=True)
    return Question(
        reference=job.model_path,
        corners=corner_shapes(contract, recipe.shapes),
        tolerances=tolerances_of(recipe.verify, precision.type, precision.quantize),
        data=data,
        samples=recipe.verify.samples,
        seed=recipe.verify.seed,
    )
