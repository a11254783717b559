"""Stage `optimize`: clean-up and fusion passes, proven against the original."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtforge.engine.backend import OPSET_LIMITS
from trtforge.pipeline.corners import corner_shapes
from trtforge.pipeline.passes import dropped_passes
from trtforge.pipeline.stage import Inputs, Job, Progress, package_versions, write_json
from trtforge.pipeline.support import refuse_unsupported


@dataclass(frozen=True)
class OptimizeStage:
    """Runs the recipe's passes; writes `model.onnx` and `optimize.json`.

    Attributes:
        backends: those that will build the model; what they do not take is refused here.
    """

    backends: tuple[str, ...] = ()
    name: str = "optimize"
    kind: str = "optimize"
    rooms: tuple[str, ...] = ("graph",)

    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]:
        """The contract: the model has been checked."""
        return {"import": ("contract.json",)}

    def _is_for_onnxruntime(self) -> bool:
        return bool(self.backends) and set(self.backends) == {"onnxruntime"}

    def facts(self, job: Job) -> dict[str, Any]:
        """The model's bytes, the passes, the shapes of the proof, and who must take the result."""
        return {
            "sources": {"model": job.model_digest()},
            "recipe": {
                "passes": job.recipe.passes.model_dump(mode="json"),
                "dropped": list(_dropped(job)),
                "shapes": job.shapes_json(),
                "backends": list(self.backends),
            },
            "versions": package_versions("onnx", "onnx-graphsurgeon", "onnxruntime", "trtforge"),
        }

    def run(self, job: Job, inputs: Inputs, out: Path, progress: Progress) -> str:
        """Optimize and prove.

        Raises:
            ParityError: TF0416, strict, and a pass was taken back or the proof did not pass.
            GraphError: TF0415, a backend does not take what came out; names every node concerned.
        """
        from trtforge.graph.catalog import READINESS
        from trtforge.graph.model import Model
        from trtforge.graph.passes import DEFAULT_OPSET_LIMIT, PassRequest, run_passes

        model = Model.load(job.model_path)
        shapes = corner_shapes(model.contract, job.recipe.shapes)
        chosen = job.recipe.passes
        request = PassRequest(
            use=chosen.use,
            also=chosen.also,
            drop=(
                *chosen.drop,
                *_dropped(job),
                *(READINESS if self._is_for_onnxruntime() else ()),
            ),
            shapes=tuple(shapes.values()),
            seed=job.recipe.verify.seed,
            opset_limit=min(
                map(OPSET_LIMITS.__getitem__, self.backends), default=DEFAULT_OPSET_LIMIT
            ),
        )
        optimized = run_passes(model, request, lambda text: progress(None, text))
        if chosen.strict:
            optimized.report.require_proof()
        refuse_unsupported(optimized.model, self.backends, job.model_path)
        optimized.model.save(out / "model.onnx")
        report = optimized.report.as_json(times=False)  # two builds of the same are the same
        write_json(out / "optimize.json", report)
        before, after = report["nodes_before"], report["nodes_after"]
        return f"{before} -> {after} nodes, proof {report['proof']['verdict']}"


def _dropped(job: Job) -> tuple[str, ...]:
    """Return what quantization drops of the default passes; whoever names a pass gets it."""
    passes = job.recipe.passes
    if passes.use != "default":
        return ()
    dropped = dropped_passes(job.recipe.precision.quantize)
    return tuple(name for name in dropped if name not in passes.also)
