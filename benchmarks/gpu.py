"""What engines do on the GPU at hand: which ones load, how exact, how fast, at what energy.

Answers three questions first: do the engines of each installed library run on this GPU, are
engines with replaceable or stripped weights built where there is a driver, and how do engines'
outputs compare with those of the emulation on the CPU. Then it measures latency, throughput, device
memory and energy of the digits network and of a residual network with seeded weights.

Whatever fails is written down and the rest goes on; what there was no time for is `not_run: time`.
The page is written anew after each section. Without a GPU this ends with status 3 and writes
nothing.

    python benchmarks/gpu.py [--output docs/gpu-results.md] [--seconds 1] [--budget 380]
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gpu_network import SIZE, make_network
from gpu_page import NO_TIME, Steps, answers, compared, figures_of, head, shown, state, table

from trtforge.engine.backend import BuildRequest, ShapeTriple, get_backend
from trtforge.engine.engine_worker import EngineSource
from trtforge.engine.environment import driver
from trtforge.engine.measuring.meter import EngineLoad, EngineMeter
from trtforge.engine.measuring.scenarios import Load, Measurement
from trtforge.engine.onnxruntime import OnnxRuntimeRunner
from trtforge.engine.runner import EngineRunner
from trtforge.errors import EXIT_MISSING
from trtforge.graph.model import Model
from trtforge.precision.emulate import emulate

REPOSITORY = Path(__file__).resolve().parent.parent
DIGITS = REPOSITORY / "recipes" / "digits"
BACKENDS = ("tensorrt_rtx", "tensorrt")
WEIGHT_OPTIONS: dict[str, dict[str, Any]] = {
    "refit": {"refit": "all"},
    "refit + strip_weights": {"refit": "identical", "strip_weights": True},
    "weight_streaming": {"weight_streaming": True},
}
TYPING: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "fp16": ("cast", "--type", "fp16"),
    "bf16": ("cast", "--type", "bf16"),
    "int8": ("quantize", "--type", "fp16", "--quantize", "int8", "--method", "minmax"),
    "fp8": ("quantize", "--type", "fp16", "--quantize", "fp8", "--method", "minmax"),
}
"""Precision -> the command that types a graph so."""
LARGE_PRECISIONS = ("fp32", "fp16", "int8")
"""Of the residual network; also those of which the digits network is measured."""

SCENARIOS = (
    Load("single-stream"),
    Load("multi-stream", 8),
    Load("offline", 32, streams=1),
    Load("offline", 32, streams=2),
    Load("offline", 32, streams=4),
)
NOT_INSTALLED = "not_run: the library is not installed"


@dataclass(frozen=True)
class Network:
    """A network, samples to calibrate with and others to judge by."""

    name: str
    onnx: Path
    calibration: Path
    data: Path
    shape: tuple[int, ...]
    precisions: tuple[str, ...]

    @property
    def profile(self) -> dict[str, ShapeTriple]:
        """1 to 256 images, tuned for 32."""
        low, best, high = ((batch, *self.shape) for batch in (1, 32, 256))
        return {"image": (low, best, high)}

    def images(self, count: int) -> Any:
        """The first samples to judge by."""
        with np.load(self.data) as file:
            return file["image"][:count]


@dataclass(frozen=True)
class Built:
    """An engine that ran."""

    network: Network
    backend: str
    precision: str
    engine: Path

    @property
    def cells(self) -> list[str]:
        """What it is, for a table."""
        return [self.network.name, self.backend, self.precision]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs" / "gpu-results.md")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--budget", type=float, default=380.0, help="seconds; a step goes over")
    options = parser.parse_args(arguments)
    if (reason := driver().reason) is not None:
        print(f"no page is written: {reason}", file=sys.stderr)
        return EXIT_MISSING
    steps = Steps(options.budget)
    folder = Path(tempfile.mkdtemp(prefix="trtforge-gpu-"))
    os.environ["TRTFORGE_CACHE"] = str(folder / "store")
    run = Run(folder, steps, options.seconds)
    parts: list[str] = []
    try:
        for part in run.sections():
            parts.append("\n".join(part))
            took = f"Written by `python benchmarks/gpu.py` in {steps.seconds():.0f} s."
            whole = [head(), took, "\n".join(answers(run.findings)), *parts]
            options.output.write_text("\n\n".join(whole) + "\n", encoding="utf-8")
            print(f"{steps.seconds():4.0f} s: {part[0].removeprefix('## ')}", file=sys.stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(options.output)
    return 0


class Run:
    """The sections of the page, one after the other as they are found out.

    Attributes:
        findings: what the questions are answered from: (question, subject, what was found).
    """

    def __init__(self, folder: Path, steps: Steps, seconds: float) -> None:
        self.findings: list[tuple[str, str, str]] = []
        self._folder = folder
        self._steps = steps
        self._seconds = seconds
        self._built: list[Built] = []

    def sections(self) -> Iterator[list[str]]:
        """Yield the lines of each section."""
        yield ["## Weights that can be replaced", "", *self._weight_options()]
        digits = Network(
            "digits", DIGITS / "model.onnx", DIGITS / "calib.npz", DIGITS / "test.npz", (1, 8, 8),
            tuple(TYPING),
        )  # fmt: skip
        made = self._steps.take(lambda left: make_network(self._folder))
        networks = [digits]
        if not isinstance(made, str):
            onnx, images = made
            shape = (3, SIZE, SIZE)
            networks.append(Network("residual", onnx, images, images, shape, LARGE_PRECISIONS))
        rows = [row for network in networks for row in self._exactness(network)]
        if isinstance(made, str):
            rows.append(["residual", "-", "-", f"not_run: {made}", *["-"] * 4])
        columns = ["network", "library", "precision", "engine", "SQNR to the emulation, dB"]
        columns += ["largest ULP", "99.9 % within", "SQNR to the FP32 original, dB"]
        remarks = [
            "The emulation computes the same typed graph in ONNX Runtime and rounds after every",
            "operator; an engine rounds where its kernels end. ULP are units in the last place of",
            "the type that the graph computes in, of outputs; they are large where values are",
            "near zero.",
            "",
        ]
        title = "## Which engines run, and what they compute"
        yield [title, "", *remarks, *table(columns, rows)]
        yield ["## Latency, throughput, memory and energy", "", *self._speeds()]
        yield ["## CUDA graphs", "", *self._graphs()]

    def _weight_options(self) -> list[str]:
        """Build with each option on this driver, and run what comes of it."""
        rows = []
        for backend in BACKENDS:
            for name, options in WEIGHT_OPTIONS.items():
                said = self._steps.take(self._with_option, backend, name, options)
                rows.append([backend, name, said])
                self.findings.append(("weights", f"{backend}, {name}", said))
        return table(["library", "option", "what came of it"], rows)

    def _with_option(self, left: float, backend: str, name: str, options: Mapping[str, Any]) -> str:
        if not get_backend_is_there(backend):
            return NOT_INSTALLED
        place = self._folder / f"{backend}-{name.replace(' ', '')}"
        place.mkdir()
        profile = {"image": ((1, 1, 8, 8), (32, 1, 8, 8), (256, 1, 8, 8))}
        request = BuildRequest(
            DIGITS / "model.onnx", place / "m.engine", place / "m.log", backend, (profile,),
            options=options, timeout_s=left,
        )  # fmt: skip
        size = get_backend(backend).build(request).engine_bytes
        weights = request.onnx if options.get("strip_weights") else None
        said = f"built ({size / 1e3:.0f} kB)"
        image = np.zeros((1, 1, 8, 8), np.float32)
        source = EngineSource(request.output, backend, weights=weights)
        ran = self._steps.take(one_run, source, image)
        return f"{said} and ran" if not isinstance(ran, str) else f"{said}; it did not run: {ran}"

    def _exactness(self, network: Network) -> Iterator[list[Any]]:
        """Rows of what engines of each precision compute."""
        count = 256 if network.name == "digits" else 8
        images = network.images(count)
        feeds = {"image": images}
        original = self._steps.take(reference, network.onnx, feeds)
        for precision in network.precisions:
            typed = self._steps.take(self._typed, network, precision)
            emulated = typed
            if not isinstance(typed, str):
                emulated = self._steps.take(emulation, typed, feeds)
            for backend in BACKENDS:
                cells = [network.name, backend, precision]
                if isinstance(typed, str):
                    yield [*cells, typed, *["-"] * 4]
                    continue
                found = self._engine(network, (backend, precision), typed, images)
                self.findings.append(("runs", backend, found[0]))
                figures = compared(precision, emulated, original, found[1])
                self.findings.append(("exact", f"{network.name} {precision}, {backend}", figures))
                yield [*cells, found[0], *figures]

    def _typed(self, left: float, network: Network, precision: str) -> Path:
        """The graph in a precision, by the command line."""
        if not (command := TYPING[precision]):
            return network.onnx
        typed = self._folder / f"{network.name}-{precision}.onnx"
        data = ["--data", network.calibration, "--samples", "32"]
        Steps.trtforge(command[0], network.onnx, "-o", typed, *command[1:], *data, limit=left)
        return typed

    def _engine(
        self, network: Network, kind: tuple[str, str], typed: Path, images: Any
    ) -> tuple[str, Any]:
        """Build an engine and run it; returns what to say, and its outputs or None."""
        backend, precision = kind
        if not get_backend_is_there(backend):
            return NOT_INSTALLED, None
        engine = self._folder / f"{network.name}-{backend}-{precision}.engine"
        request = BuildRequest(
            typed, engine, engine.with_suffix(".log"), backend, (network.profile,)
        )
        report = self._steps.take(
            lambda left: get_backend(backend).build(replace(request, timeout_s=left))
        )
        if isinstance(report, str):
            return f"not built: {report}", None
        size = f"built in {report.build_seconds:.1f} s ({report.engine_bytes / 1e6:.1f} MB)"
        ran = self._steps.take(one_run, EngineSource(engine, backend), images)
        if isinstance(ran, str):
            return f"{size}; it did not run: {ran}", None
        self._built.append(Built(network, backend, precision, engine))
        return f"{size} and ran", ran

    def _speeds(self) -> list[str]:
        """Measure every engine that ran in every scenario; large networks first."""
        rows, clocks = [], set()
        chosen = [one for one in self._built if one.precision in LARGE_PRECISIONS]
        by_worth = sorted(chosen, key=lambda one: one.network.name, reverse=True)
        for built in by_worth:
            for batch in sorted({load.samples_per_query for load in SCENARIOS}):
                loads = [one for one in SCENARIOS if one.samples_per_query == batch]
                found = self._steps.take(self._measured, built, loads, False)
                if isinstance(found, str):
                    rows += [[*built.cells, shown(load), found, *["-"] * 5] for load in loads]
                    continue
                measurements, facts = found
                clocks.add(state(facts))
                for load, one in zip(loads, measurements, strict=True):
                    cells = [NO_TIME, *["-"] * 5] if one is None else figures_of(one, facts)
                    rows.append([*built.cells, shown(load), *cells])
        columns = ["network", "library", "precision", "scenario", "p50 ms", "p99 ms"]
        columns += ["GPU p50 ms", "samples/s", "device MB", "mJ per sample"]
        remarks = [
            "p50 and p99 are of whole queries on the host's clock, copies included; the GPU's own",
            "time is by CUDA events, copies left out; device memory is of engine, contexts and",
            "buffers. The digits network is tiny: these are launch costs. In the manner of MLPerf",
            "inference; no MLPerf result.",
            "",
            *(f"- {text}" for text in sorted(clocks)),
            "",
        ]
        return [*remarks, *table(columns, rows)]

    def _measured(
        self, left: float, built: Built, loads: Sequence[Load], graphs: bool
    ) -> tuple[list[Measurement | None], dict[str, Any]]:
        """Measure loads of one batch size with one worker, None where time is up; and its facts."""
        batch = loads[0].samples_per_query
        images = built.network.images(min(64, 16 * batch))
        subject = EngineLoad(
            built.engine, built.backend,
            streams=max(load.streams for load in loads), graphs=graphs,
            runtime_cache=self._folder / "kernels" / f"{built.engine.stem}-{batch}",
        )  # fmt: skip
        whole = [
            {"image": images[start : start + batch]}
            for start in range(0, len(images) - batch + 1, batch)
        ]
        with EngineMeter(subject, whole, batch, timeout_s=left) as meter:
            measured = [
                None
                if self._steps.is_over()
                else meter.measure(
                    replace(load, seconds=self._seconds, queries=16, warmup_seconds=0.2)
                )
                for load in loads
            ]
            return measured, dict(meter.facts)

    def _graphs(self) -> list[str]:
        """Single stream with and without CUDA graphs, and what became of them."""
        rows = []
        for built in [one for one in self._built if one.precision == "fp16"]:
            cells: list[Any] = []
            facts: dict[str, Any] = {}
            for graphs in (False, True):
                found = self._steps.take(self._measured, built, [Load()], graphs)
                if isinstance(found, str):
                    cells.append(found)
                    continue
                (one,), facts = found
                cells.append(NO_TIME if one is None else f"{one.latencies.at(50.0).value:.3f}")
            rows.append(
                [*built.cells, *cells, facts.get("cuda_graphs"), facts.get("runtime_cache")]
            )
        columns = ["network", "library", "precision", "p50 ms without", "with", "graphs"]
        return table([*columns, "RTX runtime cache"], rows)


def get_backend_is_there(name: str) -> bool:
    """Whether a library is installed."""
    from trtforge.engine.flavour import FLAVOURS, installed_version

    return installed_version(FLAVOURS[name]) is not None


def one_run(left: float, source: EngineSource, image: Any) -> dict[str, Any]:
    """The outputs of one batch."""
    with EngineRunner(source, timeout_s=left) as runner:
        return dict(runner.infer({"image": image}))


def reference(left: float, onnx: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a graph in ONNX Runtime."""
    with OnnxRuntimeRunner(onnx) as runner:
        return dict(runner.infer(feeds))


def emulation(left: float, typed: Path, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a typed graph, rounded after every operator."""
    return reference(left, lambda: emulate(Model.load(typed)), feeds)


if __name__ == "__main__":
    sys.exit(main())
