"""`trtforge bench`: how fast is it?"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtforge.cli.bounds import MOST_MIB, WeightBudget, finite
from trtforge.cli.console import ProgressLines, common_options, print_json, print_table, say

if TYPE_CHECKING:
    from trtforge.engine.measuring.scenarios import Measurement
    from trtforge.pipeline.bench import BenchOptions, BenchResult


@click.command()
@click.argument("subject", metavar="MODEL_OR_BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--scenario",
    type=click.Choice(("single-stream", "multi-stream", "server", "offline")),
    help="What arrives when, in the manner of MLPerf inference; default single-stream. A bundle's "
    "recipe may say otherwise in `performance`, of this and of other options.",
)
@click.option(
    "--batch", type=click.IntRange(1), help="Samples per query; default 1, multi-stream 8."
)
@click.option("--data", type=click.Path(path_type=Path), help=".npz with inputs; default random.")
@click.option(
    "--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="A dynamic input's shape."
)
@click.option(
    "--seconds", type=finite(0), default=3.0, show_default=True, help="Measure this long."
)
@click.option("--queries", type=click.IntRange(1), default=64, help="... and as many queries.")
@click.option(
    "--warmup", type=finite(0), default=0.5, show_default=True, help="Seconds before that."
)
@click.option(
    "--rate",
    type=finite(0, 1e6, min_open=True),
    metavar="QPS",
    help="server: queries per second in the mean.",
)
@click.option(
    "--target-ms",
    type=finite(0, min_open=True),
    help="server: find the highest rate whose p99 is within this.",
)
@click.option(
    "--streams", type=click.IntRange(1, 64), help="server, offline: queries at a time; default 1."
)
@click.option("--threads", type=click.IntRange(1), help="Threads per operator; default all cores.")
@click.option("--target", metavar="NAME", help="Of a bundle: the target whose engine is measured.")
@click.option(
    "--backend",
    type=click.Choice(("onnxruntime", "tensorrt_rtx", "tensorrt")),
    help="onnxruntime: a bundle's typed ONNX on the CPU; else what runs a bare engine.",
)
@click.option("--cuda-graphs", is_flag=True, help="Engines: launch each query as a CUDA graph.")
@click.option("--allow-host-code", is_flag=True, help="Let engines run code that they bring.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A bare engine without its weights: the ONNX that it was built from.",
)
@click.option(
    "--weight-budget",
    type=WeightBudget(0, MOST_MIB),
    metavar="MIB|auto",
    help="An engine that streams weights: how many of them the GPU holds; default all. One "
    "given to --against has all.",
)
@click.option(
    "--corners", is_flag=True, help="A bundle: at min, opt and max of each of its profiles."
)
@click.option(
    "--against", type=click.Path(path_type=Path), help="Another one, measured in turns with it."
)
@click.option("--against-target", metavar="NAME", help="Likewise of a bundle given to --against.")
@click.option(
    "--rounds", type=click.IntRange(6), default=20, show_default=True, help="Turns of --against."
)
@click.option(
    "--limit", "limits", multiple=True, metavar="p99_ms<=5", help="Exit 6 where this does not hold."
)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write an SVG.")
@common_options
def bench(
    subject: Path,
    scenario: Any,
    batch: int | None,
    corners: bool,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **asked: Any,
) -> int:
    """Measure latency and throughput of MODEL_OR_BUNDLE: an ONNX file, a bundle or an engine.

    With --against, both take turns in one run, and the answer says whether the difference is above
    noise. Exit status 6: a --limit does not hold.
    """
    from dataclasses import replace

    from trtforge.disk import check_outputs
    from trtforge.pipeline.bench import bench as run

    read = (subject, asked["against"], asked["data"], asked["weights"])
    check_outputs([plot], read)
    options = _options(subject, scenario, batch, asked)
    show = ProgressLines(quiet=quiet or as_json, verbose=verbose)
    if corners:
        own = replace(options, limits=asked["limits"], notes=())
        others = {"--batch": batch, "--plot": plot}
        return _at_corners(subject, own, others, show, as_json=as_json)
    try:
        result = run(subject, options, show)
    finally:
        show.done()
    if plot is not None:
        from trtforge.disk import write_text
        from trtforge.report.latency_chart import latency_svg

        beside = () if result.other is None else result.other.times
        write_text(plot, latency_svg(result.as_json(), result.measurement.times, beside))
    if as_json:
        print_json("trtforge.bench/1", result.as_json())
        return result.exit_status
    _show(result, quiet=quiet)
    return result.exit_status


def _at_corners(
    subject: Path,
    options: "BenchOptions",
    others: Mapping[str, object],
    show: ProgressLines,
    *,
    as_json: bool,
) -> int:
    from trtforge.pipeline.bench_corners import bench_corners

    try:
        result = bench_corners(subject, options, show, others)
    finally:
        show.done()
    if as_json:
        print_json("trtforge.bench_corners/1", result.as_json())
        return result.exit_status
    rows = []
    for corner in result.corners:
        one = corner.result.measurement
        batch, latency = one.load.samples_per_query, one.latency_ms
        rows.append((corner.name, str(batch), f"{latency:.4g}", f"{one.throughput:.4g}"))
    print_table(("corner", "batch", f"{options.load.scenario}, ms", "samples/s"), rows)
    for corner in result.corners:
        for text in corner.result.warnings:
            say(f"warning: {corner.name}: {text}")
        for text in corner.result.missed:
            say(f"missed: {corner.name}: {text}")
    return result.exit_status


def _options(
    subject: Path, scenario: Any, batch: int | None, asked: dict[str, Any]
) -> "BenchOptions":
    """What is asked for; what is not, as the recipe of a bundle says."""
    from dataclasses import replace

    from trtforge.pipeline.bench import BenchOptions
    from trtforge.pipeline.declared import Asked, declared

    found = declared(
        subject, Asked(scenario, batch, asked["rate"], asked["streams"], asked["limits"])
    )
    load = replace(
        found.load,
        seconds=asked["seconds"],
        queries=asked["queries"],
        warmup_seconds=asked["warmup"],
    )
    return BenchOptions(
        load=load,
        limits=found.limits,
        graphs=asked["cuda_graphs"],
        notes=() if found.note is None else (found.note,),
        **{name: asked[name] for name in _TAKEN_AS_GIVEN},
    )


_TAKEN_AS_GIVEN = (
    *("data", "shapes", "target_ms", "threads", "backend", "against", "rounds", "target"),
    *("against_target", "allow_host_code", "weights", "weight_budget"),
)


def _show(result: "BenchResult", *, quiet: bool) -> None:
    found = result.measurement
    sides = [(Path(result.subject).name, found)]
    if result.other is not None:
        sides.append(("against", result.other))
    if not quiet:
        rows = []
        for name, one in sides:
            for percentile in one.latencies.percentiles:
                between = (
                    "-"
                    if percentile.low is None
                    else f"{percentile.low:.4g} .. {percentile.high:.4g}"
                )
                rows.append((name, f"p{percentile.percent:g}", f"{percentile.value:.4g}", between))
        print_table(("what", "percentile", "ms", "95 % confidence"), rows)
    for (name, one), facts in zip(
        sides, (result.environment, result.environment.get("against", {})), strict=False
    ):
        say(f"{name}: {_in_short(one)}")
        for text in _of_the_gpu(one.as_json(), facts):
            say(f"{name}: {text}")
    if whole := result.environment.get("streamable_weights_bytes"):
        held = result.environment["weight_budget_bytes"]
        say(
            f"{sides[0][0]}: the GPU holds {held / 2**20:.4g} of {whole / 2**20:.4g} MiB of weights"
        )
    for rate, late in result.rates:
        say(f"rate {_number(rate)}/s: p99 {late:.4g} ms")
    if (comparison := result.comparison) is not None:
        verdict = "above noise" if comparison.is_above_noise else "within noise"
        say(
            f"against / {Path(result.subject).name}: {comparison.ratio:.3f} "
            f"({comparison.low:.3f} .. {comparison.high:.3f}): {verdict}"
        )
    for text in result.warnings:
        say(f"warning: {text}")
    for text in result.missed:
        say(f"missed: {text}")


def _in_short(found: "Measurement") -> str:
    """The figure that counts in the scenario, and what was done."""
    load = found.load
    at = "" if load.rate is None else f" at {_number(load.rate)}/s"
    percent = found.as_json()["percentile"]
    return (
        f"{load.scenario}{at} p{percent:g} {found.latency_ms:.4g} ms, "
        f"{_number(found.throughput)} samples/s, {found.latencies.count} queries"
    )


def _number(value: float) -> str:
    """Four digits, and no power of ten where a figure is large."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _of_the_gpu(found: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """Lines on what the device took by its own clock and meter; none of a CPU."""
    if (device := found["device"]) is None:
        return []
    (median,) = [one["ms"] for one in device["percentiles"] if one["percent"] == 50]
    texts = [f"median of the GPU's own time {median:.4g} ms, copies not counted"]
    if (memory := facts.get("device_memory_bytes")) is not None:
        texts.append(f"{memory / 2**20:.4g} MiB of the GPU's memory")
    idle = facts.get("idle_watts")
    if (joules := found["joules_per_sample"]) is not None:
        watts = "not known" if idle is None else f"{idle:.3g} W"
        texts.append(f"{joules * 1e3:.4g} mJ per sample, idle power ({watts}) included")
    return texts
