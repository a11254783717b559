"""Stage `verify`: the verdicts on the typed graph, on every engine, and on the precision."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtforge.engine.environment import driver
from trtforge.engine.network_types import network_types
from trtforge.graph.model import Model
from trtforge.graph.sources.value_rows import open_arrays
from trtforge.pipeline.attesting import judge_attest
from trtforge.pipeline.corners import corner_shapes
from trtforge.pipeline.judge import (
    EngineCandidate,
    Question,
    judge_engine,
    judge_graph,
    tolerances_of,
)
from trtforge.pipeline.layers import layers_json
from trtforge.pipeline.stage import Inputs, Job, Progress, package_versions, write_json
from trtforge.pipeline.support import runs_elsewhere
from trtforge.precision.attest import declared_precision
from trtforge.precision.ends import narrowed
from trtforge.verify.types import ParityReport

VERDICTS_SCHEMA = "trtforge.verdicts/1"


@dataclass(frozen=True)
class VerifyStage:
    """Writes `parity.json`: graph parity, engine parity of every target, attestation.

    And `layers.json`: the error of every tensor of the typed graph, on a few samples. Where
    techniques scaled channels, inner tensors hold other values than the original's under their
    names, so the graph that was calibrated is what they are compared with.

    A failed verdict is a result like any other and is stored; `pipeline.run` refuses to ship it.
    """

    engines: tuple[str, ...]
    calibrated: bool = False
    name: str = "verify"
    kind: str = "verify"
    rooms: tuple[str, ...] = ("graph", "precision", "engine", "verify")

    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]:
        """The typed model, what was attested of it, the engines and the networks they are of."""
        typed = ("model.onnx*", "attest.json", "precision.json")
        built = ("model.engine", "layers.json")
        wanted = {"precision": typed} | {f"build:{name}": built for name in self.engines}
        return wanted | ({"calibrate": ("model.onnx*",)} if self.calibrated else {})

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
                "io_types": recipe.precision.io_types,
                "chosen": recipe.precision.budget is not None,
                "shapes": job.shapes_json(),
            },
            "environment": {"gpu": driver().as_json() if self.engines else None},
            "versions": package_versions("onnxruntime", "polygraphy", "trtforge"),
        }

    def run(self, job: Job, inputs: Inputs, out: Path, progress: Progress) -> str:
        """Judge; a failed verdict is written, not raised."""
        typed = inputs["precision"].file("model.onnx")
        question = _question(job, Model.load(typed))
        progress(None, "graph parity: original and typed graph in ONNX Runtime")
        graph = judge_graph(question, typed)
        progress(None, "error of every tensor")
        write_json(out / "layers.json", layers_json(_of_calibrated(question, inputs), typed))
        engines = {}
        for target in job.recipe.targets:
            if target.name in self.engines:
                progress(None, f"engine parity: {target.name}")
                engine = EngineCandidate(
                    inputs[f"build:{target.name}"].file("model.engine"),
                    target.backend,
                    target.options.given,
                    typed,
                    allow_host_code=True,  # it was built here, from this recipe
                )
                elsewhere = runs_elsewhere(target)
                engines[target.name] = (
                    judge_engine(question, engine)
                    if elsewhere is None
                    else ParityReport.not_run(elsewhere, reference=question.reference.name)
                )
        attested = _judged_attest(job, inputs, tuple(engines))
        verdicts = {
            "schema": VERDICTS_SCHEMA,
            "graph_parity": graph.as_json(),
            "engine_parity": {name: report.as_json() for name, report in engines.items()},
            "attest": attested,
        }
        write_json(out / "parity.json", verdicts)
        return f"graph parity {graph.verdict}, attest {attested['verdict']}"


def _judged_attest(job: Job, inputs: Inputs, engines: tuple[str, ...]) -> dict[str, Any]:
    """Judge what was counted in the typed graph, beside what each target's parser made of it."""
    typing = inputs["precision"]
    networks = {
        name: network_types(inputs[f"build:{name}"].json("layers.json")) for name in engines
    }
    return judge_attest(
        job.recipe.precision,
        job.recipe.verify.attest,
        typing.json("attest.json"),
        networks,
        typing.json("precision.json")["warnings"],
    )


def _of_calibrated(question: Question, inputs: Inputs) -> Question:
    calibrated = inputs.get("calibrate")
    if calibrated is None or "model.onnx" not in calibrated.files:
        return question
    return replace(question, reference=calibrated.file("model.onnx"))


def _question(job: Job, typed: Model) -> Question:
    """Return the comparison, by the measure of what the typed graph holds, whatever was asked for.

    A model that came in FP16 stays FP16 where the recipe says fp32, and is judged as such.
    """
    recipe = job.recipe
    contract, precision = Model.load(job.model_path).contract, declared_precision(typed)
    converts = recipe.precision.io_types == "convert"
    data = None
    if recipe.verify.data is not None:
        path = job.loaded.resolve(recipe.verify.data)
        data = open_arrays(path, contract, recipe.shapes, labels=True)
    return Question(
        reference=job.model_path,
        corners=corner_shapes(contract, recipe.shapes),
        tolerances=tolerances_of(recipe.verify, precision.type, precision.quantize),
        data=data,
        samples=recipe.verify.samples,
        seed=recipe.verify.seed,
        narrowed=narrowed(contract, typed.contract) if converts else {},
    )
