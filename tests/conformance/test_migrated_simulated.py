"""A long trtexec command, migrated and built with TensorRT 10 and 11, on the simulator.

Nothing here is a GPU result: the simulator computes with ONNX Runtime over a fake GPU.
"""

import json
from pathlib import Path

from running import trtforge
from simulator.simulation import Simulation

from trtforge.pipeline.preflight import machine_here, preflight

COMMAND = (
    "trtexec --onnx={digits}/model.onnx --fp16 --noTF32 --memPoolSize=workspace:512 "
    "--profile=0 --minShapes=image:1x1x8x8 --optShapes=image:2x1x8x8 --maxShapes=image:4x1x8x8 "
    "--profile=1 --minShapes=image:5x1x8x8 --maxShapes=image:16x1x8x8 "
    "--builderOptimizationLevel=4 --maxAuxStreams=1 --timingCacheFile=t.cache --avgTiming=4 "
    "--hardwareCompatibilityLevel=sameComputeCapability --versionCompatible --excludeLeanRuntime "
    "--sparsity=enable --refit --profilingVerbosity=detailed --saveEngine=m.plan --skipInference"
)


def test_what_a_command_asks_for_reaches_the_builder(
    simulated: Simulation, digits: Path, tmp_path: Path
) -> None:
    store, recipe = tmp_path / "store", tmp_path / "recipe.yaml"
    migrated = trtforge("migrate", COMMAND.format(digits=digits), "-o", recipe, store=store)
    assert migrated.status == 0, migrated.stderr
    run = trtforge("build", recipe, "--out", tmp_path / "out", "--json", store=store)
    assert run.status == 0, run.stdout + run.stderr
    (built,) = json.loads(run.stdout)["builds"]
    manifest = json.loads((Path(built["bundle"]) / "manifest.json").read_text())
    (target,) = manifest["targets"]
    assert target["version"] == simulated.version
    assert target["options"] == {
        "optimization_level": 4,
        "max_aux_streams": 1,
        "timing_cache": "use",
        "avg_timing_iterations": 4,
        "hardware_compatibility": "same_compute_capability",
        "version_compatible": True,
        "exclude_lean_runtime": True,
        "sparsity": True,
        "refit": "all",
    }
    assert [one["image"]["max"] for one in manifest["profiles"]] == [[4, 1, 8, 8], [16, 1, 8, 8]]
    shares = manifest["verdicts"]["attest"]["figures"]["shares"]
    assert shares["macs"]["fp16"] > 0.9
    assert list((store / "timing").glob("tensorrt-*.cache"))

    bundle = Path(built["bundle"])
    here = machine_here("8.9", None, allow_host_code=False)
    assert preflight(bundle, here).answer("engine") == "load"
    later = machine_here("8.9", "11.9.0.1", allow_host_code=False)
    assert preflight(bundle, later).answer("engine") == "load"
    elsewhere = machine_here("RTX 3090", None, allow_host_code=False)
    assert preflight(bundle, elsewhere).answer("engine") == "no-load"
