"""Stage `build:<target>`: the typed ONNX becomes an engine, in a worker process."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtforge.disk import writing
from trtforge.engine.backend import MEASURED_FIELDS, BuildReport, BuildRequest, get_backend
from trtforge.engine.environment import engine_facts
from trtforge.engine.memory import build_estimate_bytes
from trtforge.engine.network_types import layer_counts
from trtforge.engine.profiles import profile_shapes
from trtforge.errors import BuildError, ForgeError
from trtforge.pipeline.events import Warned
from trtforge.pipeline.stage import Inputs, Job, Progress, write_json
from trtforge.pipeline.store import Entry, digest_of
from trtforge.recipe.schema import Target

_NO_RESULT = {"name", "timeout_s", "memory_limit_mib"}
"""What of a target cannot change its engine."""


@dataclass(frozen=True)
class BuildStage:
    """Builds one target.

    Writes `model.engine`, `build.log`, `layers.json`, `build.json` (what is the same for the same
    build, the parsed network's types among it) and `measured.json` (what is not).
    """

    target: Target
    kind: str = "build"
    rooms: tuple[str, ...] = ("engine",)

    @property
    def name(self) -> str:
        """`build:` and the target's name."""
        return f"build:{self.target.name}"

    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]:
        """The typed model, and with it the contract that the engine must keep."""
        return {"precision": ("model.onnx*", "precision.json")}

    def facts(self, job: Job) -> dict[str, Any]:
        """The target, the profiles, the library; for `tensorrt` also the GPU it builds for."""
        return {
            "recipe": {
                "target": self.target.model_dump(mode="json", exclude=_NO_RESULT),
                "shapes": job.shapes_json(),
            },
            "versions": engine_facts(self.target.backend),
        }

    def memory_bytes(self, inputs: Inputs) -> int:
        """Return how much memory the build is likely to take, never more than its limit."""
        typed = inputs["precision"]
        files = [name for name in typed.files if name.startswith("model.onnx")]
        estimate = build_estimate_bytes(sum(typed.file(name).stat().st_size for name in files))
        limit = self.target.memory_limit_mib
        return estimate if limit is None else min(estimate, limit << 20)

    def run(self, job: Job, inputs: Inputs, out: Path, progress: Progress) -> str:
        """Build the engine; when that fails, job and log stay in the store's `builds`.

        Raises:
            MissingError: the backend's library is not installed.
            BuildError: the builder refused, crashed or ran out of time.
        """
        folder = self._workplace(job, inputs)
        onnx = _linked(inputs["precision"], folder)
        contract = inputs["precision"].json("precision.json")["model"]
        request = BuildRequest(
            onnx=onnx,
            output=folder / "model.engine",
            log=folder / "build.log",
            backend=self.target.backend,
            profiles=profile_shapes(job.recipe.shapes),
            compute_capabilities=self.target.compute_capabilities,
            workspace_mib=self.target.workspace_mib,
            tf32=self.target.tf32,
            options=self.target.options.given,
            timing_cache=self._timing_cache(job),
            timeout_s=self.target.timeout_s,
            inputs={spec["name"]: spec["dtype"] for spec in contract["inputs"]},
            outputs={spec["name"]: spec["dtype"] for spec in contract["outputs"]},
            memory_limit_mib=self.target.memory_limit_mib,
        )
        sparse = self._sparsity(onnx, job)
        report = _built(request, job, progress)
        facts = report.as_json() | ({} if sparse is None else {"sparsity": sparse})
        layers = facts.pop("layers")
        facts["network"] = layer_counts(layers)
        measured = {name: facts.pop(name) for name in MEASURED_FIELDS}
        shutil.move(request.output, out / "model.engine")
        shutil.move(request.log, out / "build.log")
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in (("layers", layers), ("build", facts), ("measured", measured)):
            write_json(out / f"{name}.json", value)
        return (
            f"{report.engine_bytes / 1e6:.1f} MB; parse {report.parse_seconds:.2f} s,"
            f" build {report.build_seconds:.2f} s,"
            f" worker peak {report.peak_rss_bytes / 2**20:.0f} MiB"
        )

    def require_engine_as_written(self, entry: Entry) -> None:
        """Hold the digest of the stored engine against the one that the worker wrote.

        Raises:
            BuildError: another engine was stored than was built.
        """
        written = entry.json("build.json")["engine_sha256"]
        if written != f"sha256:{entry.files['model.engine']}":
            raise BuildError(
                "TF0625",
                f"the engine of '{self.target.name}' changed on the disk after it was built",
                "check the disk, and build again",
            )

    def _sparsity(self, onnx: Path, job: Job) -> list[dict[str, Any]] | None:
        """Say which layers have the pattern that `sparsity` is for, before it is asked for."""
        if not self.target.options.sparsity:
            return None
        from trtforge.graph.model import Model
        from trtforge.graph.sparsity import layer_sparsity

        layers = list(layer_sparsity(Model.load(onnx)))
        fit = sum(layer.is_eligible for layer in layers)
        said = f"{fit} of {len(layers)} layers have 2:4 sparse weights, the others dense kernels"
        if not fit:
            said = "no layer has 2:4 sparse weights, so sparsity changes nothing: prune them first"
        job.emit(Warned(f"target '{self.target.name}': {said}"))
        return [layer.as_json() for layer in layers]

    def _timing_cache(self, job: Job) -> Path | None:
        """The file of this device and version; what it holds changes times and no result."""
        if self.target.options.timing_cache == "off":
            return None
        name = digest_of(engine_facts(self.target.backend))[:16]
        return job.store.root / "timing" / f"{self.target.backend}-{name}.cache"

    def _workplace(self, job: Job, inputs: Inputs) -> Path:
        """Return an empty folder that outlives a failed build, one per typed model and target."""
        name = digest_of([self.name, dict(inputs["precision"].files), self.facts(job)])[:16]
        folder = job.store.root / "builds" / f"{self.target.name}-{name}"
        with writing(folder, "the build's folder"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        return folder


def _linked(typed: Entry, folder: Path) -> Path:
    """Have the typed model in the build's folder too, and return it there.

    The entry's own place may be gone when a failed build is repeated by hand. Where there are no
    hard links it is built from where it is.
    """
    files = [name for name in typed.files if name.startswith("model.onnx")]
    try:
        for name in files:
            os.link(typed.file(name), folder / name)
    except OSError:
        return typed.file("model.onnx")
    return folder / "model.onnx"


def _built(request: BuildRequest, job: Job, progress: Progress) -> BuildReport:
    """Build; a refusal names the user's model, whose nodes those of the typed one are.

    The memory limit is held against the peak once more: a worker may have been above it between two
    looks, and a limit that holds now and then is none.
    """
    try:
        report = get_backend(request.backend).build(request, progress, job.cancelled)
    except ForgeError as error:
        if error.where is not None and error.where.file == request.onnx.name:
            error.where = replace(error.where, file=job.recipe.model.onnx)
        raise
    limit, peak = request.memory_limit_mib, report.peak_rss_bytes
    if limit is not None and peak > limit << 20:
        request.output.unlink(missing_ok=True)
        raise BuildError(
            "TF0618",
            f"the build took {peak / 2**20:.0f} MiB of memory, the limit is {limit} MiB",
            "raise memory_limit_mib (about 2.7 times the weights, and 300)",
        )
    return report
