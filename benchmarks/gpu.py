"""What engines do on the GPU at hand: which ones load, how exact, how fast, at what energy.

Builds the digits recipes' precisions for every engine library that is installed, runs each engine,
holds its outputs against ONNX Runtime and against the CPU emulation of its typed graph, and
measures it. Writes one page with date, device, driver and versions; what failed is written down as
well. Without a GPU it ends with status 3 and writes nothing. Takes a few minutes.

    python benchmarks/gpu.py [--output docs/gpu-results.md] [--seconds 1]
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from trtforge.engine.backend import BuildRequest, get_backend
from trtforge.engine.environment import driver
from trtforge.engine.measuring.scenarios import Load
from trtforge.engine.onnxruntime import OnnxRuntimeRunner
from trtforge.engine.runner import EngineRunner
from trtforge.errors import EXIT_MISSING, ForgeError
from trtforge.graph.model import Model
from trtforge.pipeline.bench import BenchOptions, BenchResult, bench
from trtforge.precision.emulate import emulate

REPOSITORY = Path(__file__).resolve().parent.parent
DIGITS = REPOSITORY / "recipes" / "digits"
PACKAGES = (
    *("trtforge", "tensorrt-rtx", "tensorrt", "onnx", "onnxruntime", "polygraphy"),
    "nvidia-ml-py",
)
BACKENDS = ("tensorrt_rtx", "tensorrt")
PRECISIONS = {
    "fp32": "{type: fp32}",
    "fp16": "{type: fp16}",
    "bf16": "{type: bf16}",
    "int8": "{type: fp16, quantize: int8}",
    "fp8": "{type: fp16, quantize: fp8}",
}
RECIPE = """\
version: 1
name: digits-{name}
model: {{onnx: {digits}/model.onnx}}
shapes:
  image: {{min: [1, 1, 8, 8], opt: [32, 1, 8, 8], max: [256, 1, 8, 8]}}
precision: {precision}
{calibration}targets:
  - {{name: {backend}, backend: {backend}}}
verify:
  data: {digits}/test.npz
  tolerance: {{sqnr_db: 10}}
bundle: {{include_onnx: true}}
"""
PROFILE = {"image": ((1, 1, 8, 8), (32, 1, 8, 8), (256, 1, 8, 8))}
WEIGHT_OPTIONS: dict[str, dict[str, Any]] = {
    "refit": {"refit": "all"},
    "refit + strip_weights": {"refit": "identical", "strip_weights": True},
    "weight_streaming": {"weight_streaming": True},
}
SCENARIOS = (
    Load("single-stream"),
    Load("multi-stream", 8),
    Load("offline", 32, streams=1),
    Load("offline", 32, streams=2),
    Load("offline", 32, streams=4),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs" / "gpu-results.md")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    options = parser.parse_args(arguments)
    if (reason := driver().reason) is not None:
        print(f"no page is written: {reason}", file=sys.stderr)
        return EXIT_MISSING
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="trtforge-gpu-") as folder:
        os.environ["TRTFORGE_CACHE"] = str(Path(folder) / "store")
        parts = ["\n".join(part) for part in sections(Path(folder), options.seconds)]
    took = f"Written by `python benchmarks/gpu.py` in {time.perf_counter() - begun:.0f} s."
    options.output.write_text("\n\n".join([head(), took, *parts]) + "\n", encoding="utf-8")
    print(options.output)
    return 0


def head() -> str:
    """When, on what, and with what."""
    facts = driver()
    gpus = ", ".join(
        f"{gpu.name} (compute capability {gpu.compute_capability})" for gpu in facts.gpus
    )
    return "\n".join(
        [
            "# Engines on a GPU",
            "",
            f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            f"- device: {gpus}",
            f"- driver: {driver_version()}; takes CUDA up to {facts.cuda_version}",
            f"- versions: {', '.join(f'{name} {installed(name)}' for name in PACKAGES)}",
        ]
    )


def driver_version() -> str:
    """As NVML says it; where it is not there, the kernel module."""
    with contextlib.suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0] if path.is_file() else "version not known"


def installed(name: str) -> str:
    """A package's version, or that it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def sections(folder: Path, seconds: float) -> Iterator[list[str]]:
    """Yield the page's sections, one after the other as they are found out."""
    backends = [name for name in BACKENDS if get_backend_or_none(name)]
    yield ["## Weights that can be replaced", "", *weight_options(folder, backends)]
    bundles = {}
    rows = []
    for backend in backends:
        for precision in PRECISIONS:
            bundle, said = built(folder, backend, precision)
            exact = exactness(bundle, backend) if bundle else {}
            rows.append(
                [backend, precision, said, *(exact.get(key, "-") for key in ("typed", "original"))]
            )
            if bundle is not None:
                bundles[backend, precision] = bundle
    columns = ["library", "precision", "engine", "SQNR to the emulated typed graph, dB"]
    columns.append("to the FP32 original, dB")
    yield ["## Which engines run, and what they compute", "", *table(columns, rows)]
    yield ["## Latency and throughput", "", *speeds(bundles, seconds)]
    yield ["## CUDA graphs", "", *graphs(bundles, seconds)]


def get_backend_or_none(name: str) -> Any:
    """A backend, None where its library is not installed."""
    try:
        return get_backend(name)
    except ForgeError:
        return None


def weight_options(folder: Path, backends: Sequence[str]) -> list[str]:
    """Build with each option on this driver, and run what comes of it."""
    rows = []
    image = np.zeros((1, 1, 8, 8), np.float32)
    for backend in backends:
        for name, options in WEIGHT_OPTIONS.items():
            place = folder / f"{backend}-{name.replace(' ', '')}"
            place.mkdir()
            request = BuildRequest(
                DIGITS / "model.onnx", place / "m.engine", place / "m.log", backend, (PROFILE,),
                options=options,
            )  # fmt: skip
            is_stripped = bool(options.get("strip_weights"))
            try:
                size = get_backend(backend).build(request).engine_bytes
                weights = request.onnx if is_stripped else None
                with EngineRunner(request.output, backend, weights=weights) as runner:
                    runner.infer({"image": image})
                said = f"built ({size / 1e3:.0f} kB) and ran"
            except ForgeError as error:
                said = in_a_cell(error)
            rows.append([backend, name, said])
    return table(["library", "option", "what came of it"], rows)


def built(folder: Path, backend: str, precision: str) -> tuple[Path | None, str]:
    """Build a bundle; returns it with what engine parity says, or None and the error."""
    recipe = folder / f"{backend}-{precision}.yaml"
    calibration = f"calibration: {{data: {DIGITS}/calib.npz, method: minmax, samples: 256}}\n"
    is_quantized = "quantize" in PRECISIONS[precision]
    recipe.write_text(
        RECIPE.format(
            name=f"{backend}-{precision}".replace("_", "-"),
            digits=DIGITS,
            precision=PRECISIONS[precision],
            calibration=calibration if is_quantized else "",
            backend=backend,
        )
    )
    command = [sys.executable, "-m", "trtforge.cli.main", "build", str(recipe), "--json"]
    done = subprocess.run(
        [*command, "--out", str(folder / "bundles")], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return None, (done.stderr or done.stdout).strip().splitlines()[0].replace("|", "/")
    (one,) = json.loads(done.stdout)["builds"]
    parity = one["verdicts"]["engine_parity"][backend]
    return Path(one["bundle"]), f"ran; parity {parity['verdict']}"


def exactness(bundle: Path, backend: str) -> dict[str, str]:
    """Signal to noise of the engine's outputs, against the emulation and against the original."""
    with np.load(DIGITS / "test.npz") as file:
        feeds = {"image": file["image"][:256]}
    typed = bundle / "model.onnx"
    engine = bundle / "engines" / backend / "model.engine"
    references = {
        "typed": OnnxRuntimeRunner(lambda: emulate(Model.load(typed))),
        "original": OnnxRuntimeRunner(DIGITS / "model.onnx"),
    }
    try:
        with EngineRunner(engine, backend) as runner:
            found = runner.infer(feeds)
    except ForgeError as error:
        return dict.fromkeys(references, in_a_cell(error))
    sqnr = {}
    for name, runner_of in references.items():
        with runner_of as reference:
            expected = reference.infer(feeds)
        sqnr[name] = f"{min(decibels(expected[key], found[key]) for key in expected):.1f}"
    return sqnr


def decibels(expected: Any, found: Any) -> float:
    """Signal-to-quantization-noise ratio of one output."""
    wide = np.asarray(expected, np.float64)
    noise = np.square(wide - np.asarray(found, np.float64)).sum()
    return float("inf") if noise == 0 else float(10 * np.log10(np.square(wide).sum() / noise))


def speeds(bundles: Mapping[tuple[str, str], Path], seconds: float) -> list[str]:
    """Measure every engine in every scenario."""
    rows, clocks = [], set()
    for (backend, precision), bundle in bundles.items():
        for load in SCENARIOS:
            name = f"{load.scenario}, batch {load.samples_per_query}, {load.streams} stream(s)"
            found = measured(bundle, replace(load, seconds=seconds))
            if isinstance(found, str):
                rows.append([backend, precision, name, found, *["-"] * 4])
                continue
            rows.append([backend, precision, name, *figures(found)])
            clocks.add(state(found.environment))
    columns = [
        *("library", "precision", "scenario", "p50 ms", "p99 ms", "GPU p50 ms", "samples/s"),
        "mJ per sample",
    ]
    remarks = [
        "p50 and p99 are of whole queries on the host's clock, copies included; the GPU's own time",
        "is by CUDA events, copies left out. The digits network is tiny: these are launch costs.",
        "In the manner of MLPerf inference; no MLPerf result.",
        "",
        *(f"- {text}" for text in sorted(clocks)),
        "",
    ]
    return [*remarks, *table(columns, rows)]


def measured(bundle: Path, load: Load, **more: Any) -> BenchResult | str:
    """Measure; an error is a finding as well."""
    try:
        return bench(bundle, BenchOptions(load, data=DIGITS / "test.npz", **more))
    except ForgeError as error:
        return in_a_cell(error)


def figures(found: BenchResult) -> list[str]:
    """The cells of a measurement."""
    one = found.measurement.as_json()
    by_percent = {entry["percent"]: entry["ms"] for entry in one["latencies"]["percentiles"]}
    own = {entry["percent"]: entry["ms"] for entry in one["device"]["percentiles"]}
    joules = one["joules_per_sample"]
    return [
        f"{by_percent[50.0]:.3f}",
        f"{by_percent[99.0]:.3f}",
        f"{own[50.0]:.3f}",
        f"{one['throughput']:.0f}",
        "not known" if joules is None else f"{joules * 1e3:.3f}",
    ]


def state(facts: Mapping[str, Any]) -> str:
    """Clocks and idle power, or why they are not known."""
    gpu = dict(facts["gpu"])
    if "reason" in gpu:
        return f"energy and clocks are not known: {gpu['reason']}"
    idle = facts["idle_watts"]
    held = ", ".join(gpu.get("held_back_by", ())) or "nothing"
    return (
        f"clock {gpu.get('sm_mhz')} of {gpu.get('max_sm_mhz')} MHz, held back by {held}; "
        f"idle power {'not known' if idle is None else f'{idle:.0f} W, included in mJ'}"
    )


def graphs(bundles: Mapping[tuple[str, str], Path], seconds: float) -> list[str]:
    """Single stream with and without CUDA graphs, and what became of them."""
    rows = []
    for (backend, precision), bundle in bundles.items():
        load = Load("single-stream", seconds=seconds)
        sides = [measured(bundle, load, graphs=with_graphs) for with_graphs in (False, True)]
        failed = [one for one in sides if isinstance(one, str)]
        if failed:
            rows.append([backend, precision, failed[0], "-", "-", "-"])
            continue
        results = [one for one in sides if isinstance(one, BenchResult)]
        facts = results[1].environment
        medians = [f"{one.measurement.latencies.at(50.0).value:.3f}" for one in results]
        rows.append(
            [backend, precision, *medians, facts.get("cuda_graphs"), facts.get("runtime_cache")]
        )
    columns = ["library", "precision", "p50 ms without", "with", "graphs", "RTX runtime cache"]
    return table(columns, rows)


def in_a_cell(error: ForgeError) -> str:
    """An error as one cell of a table."""
    return f"error {error.code}: {error.message}".replace("|", "/").replace("\n", " ")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a table in Markdown."""
    cells = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join('-' if one is None else str(one) for one in row)} |" for row in cells]


if __name__ == "__main__":
    sys.exit(main())
