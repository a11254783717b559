"""The figures to reach, each computed from the records: reached, not reached, or not measured."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cleanup.contenders import (
    FLOOR,
    NO_PROOF,
    PEERS,
    PROTOBUF6,
    PROTOBUF_LIMIT,
    SCRIPT,
    SLIM,
    TITLES,
    TRTFORGE,
)
from cleanup.records import Results, geometric_mean, is_right, sqnr

MB = 1e6
LARGE_BYTES = 100 * MB

SMALLER_SHARE = 1 / 3
LOWEST_SQNR_DB = 110.0
WALL_NO_PROOF = 0.5
WALL_PROOF = 0.8
WALL_PROOF_LARGE = 0.35
WALL_ANY = 1.0
MEMORY_RATIO = 1.4
MEMORY_MODELS = ("bert", "gpt2")
HUGE_PEAK_BYTES = 500 * MB
HUGE_WALL_BESIDE_SCRIPT = 2.0
HUGE_NODES = 758
TIED_GROWTH = 1.01
"""Un-tying an embedding adds more than a hundredth; what a file holds besides weights does not."""
ENGINE_EQUAL = 1.0005
"""Engine sizes are compared to three digits: a plan holds names, whose lengths differ."""

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Verdict:
    """One target.

    Attributes:
        target: what is to be reached.
        reached: whether it is; None where it was not measured.
        figure: what was measured.
    """

    target: str
    reached: bool | None
    figure: str

    def line(self) -> str:
        """Show it as an item of a Markdown list."""
        word = {True: "reached", False: "**not reached**", None: NOT_MEASURED}[self.reached]
        return f"- {self.target}: {word}{f' ({self.figure})' if self.figure else ''}"


def verdicts(results: Results) -> Iterator[Verdict]:
    """Judge all targets, in the order in which they are set."""
    yield from _nodes(results)
    yield _accuracy(results)
    yield _second_run(results)
    yield from _wall(results)
    for tool in (TRTFORGE, NO_PROOF):
        yield _memory(results, tool)
    yield from _huge(results)
    yield from _engines(results)


def _worst(
    target: str, figures: Mapping[str, float], limit: float, show: Callable[[float], str]
) -> Verdict:
    """Judge a target that every model must reach: the largest figure is shown."""
    if not figures:
        return Verdict(target, None, "")
    model = max(figures, key=lambda name: figures[name])
    within = sum(figure <= limit for figure in figures.values())
    shown = f"worst {show(figures[model])} on {model}; {within} of {len(figures)} models"
    return Verdict(target, within == len(figures), shown)


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _nodes(results: Results) -> Iterator[Verdict]:
    def margin(model: str) -> float | None:
        tried = all(results.examination(model, tool) for tool in (TRTFORGE, *PEERS))
        if not tried or not results.peer_nodes(model):
            return None
        ours = results.graph(model, TRTFORGE)
        if ours is None or not is_right(ours) or ours["foreign_domains"]:
            return math.inf  # no output, or a wrong one, is no win
        return results.node_margin(model)

    margins = results.with_figure(margin)
    yield _worst(
        "nodes at most those of the smallest peer, on every model",
        margins,
        0,
        lambda value: f"{value:+.0f}",
    )
    smaller = sum(value < 0 for value in margins.values())
    yield Verdict(
        "fewer nodes than every peer on at least a third of the models",
        smaller >= SMALLER_SHARE * len(margins) if margins else None,
        f"{smaller} of {len(margins)} models" if margins else "",
    )


def _accuracy(results: Results) -> Verdict:
    def noise(tool: str) -> Callable[[str], float | None]:
        def figure(model: str) -> float | None:
            graph = results.graph(model, tool)
            return None if graph is None else -sqnr(graph)

        return _or_failed(results, tool, figure)

    figures = {
        f"{model} ({TITLES[tool]})": value
        for tool in (TRTFORGE, NO_PROOF)
        for model, value in results.with_figure(noise(tool)).items()
    }
    target = f"SQNR of the outputs, run as written, at least {LOWEST_SQNR_DB:.0f} dB"
    return _worst(target, figures, -LOWEST_SQNR_DB, lambda value: f"{-value:.1f} dB")


def _second_run(results: Results) -> Verdict:
    changed = {}
    for model in results.models:
        for tool in (TRTFORGE, NO_PROOF):
            graph = results.graph(model, tool)
            if graph is not None and "second_run" in graph:
                changed[f"{model} ({TITLES[tool]})"] = not is_settled(graph)
    wrong = [name for name, value in changed.items() if value]
    figure = f"{len(changed) - len(wrong)} of {len(changed)} outputs"
    if wrong:
        figure += f"; changes {', '.join(wrong)}"
    return Verdict(
        "a second run changes nothing",
        not wrong if changed else None,
        figure if changed else "",
    )


def is_settled(graph: Mapping[str, object]) -> bool:
    """Say whether a second run rewrote nothing and left as many nodes as it found."""
    return graph["second_run"] == {"rewrites": 0, "nodes": graph["nodes"]}


def _wall(results: Results) -> Iterator[Verdict]:
    for tool, limit in ((NO_PROOF, WALL_NO_PROOF), (TRTFORGE, WALL_PROOF)):
        ratios = _beside_slim(results, tool)
        target = f"wall time of {TITLES[tool]} / onnxslim, geometric mean, at most {limit}"
        if not ratios:
            yield Verdict(target, None, "")
            continue
        mean = geometric_mean(ratios.values())
        yield Verdict(target, mean <= limit, f"{mean:.2f} over {len(ratios)} models")
    ratios = _beside_slim(results, TRTFORGE)
    large = {
        model: ratio
        for model, ratio in ratios.items()
        if results.described[model]["bytes"] > LARGE_BYTES
    }
    yield _worst(
        f"with proof at most {WALL_PROOF_LARGE} of onnxslim on each model above 100 MB",
        large,
        WALL_PROOF_LARGE,
        _ratio,
    )
    yield _worst("with proof never slower than onnxslim", ratios, WALL_ANY, _ratio)


def _beside_slim(results: Results, tool: str) -> dict[str, float]:
    return results.with_figure(_or_failed(results, tool, lambda m: results.ratio(m, tool, SLIM)))


def _or_failed(
    results: Results, tool: str, figure: Callable[[str], float | None]
) -> Callable[[str], float | None]:
    """Return the figure with infinity for models on which the contender failed."""

    def judged(model: str) -> float | None:
        tried = results.examination(model, tool) is not None
        return math.inf if tried and results.graph(model, tool) is None else figure(model)

    return judged


def _memory(results: Results, tool: str) -> Verdict:
    def figure(model: str) -> float | None:
        return results.memory_ratio(model, tool)

    figures = results.with_figure(_or_failed(results, tool, figure))
    counted = {
        model: value
        for model, value in figures.items()
        if model.startswith(MEMORY_MODELS) and not is_huge(results, model)
    }
    target = f"peak memory of {TITLES[tool]} on BERT and GPT-2 / {TITLES[FLOOR]}"
    return _worst(f"{target}, at most {MEMORY_RATIO}", counted, MEMORY_RATIO, _ratio)


def is_huge(results: Results, model: str) -> bool:
    """Say whether a model does not fit into one protobuf message."""
    return bool(results.described[model]["bytes"] >= PROTOBUF_LIMIT)


def _huge(results: Results) -> Iterator[Verdict]:
    """Judge what is asked of models above 2 GB: memory, time, nodes, tied weights."""

    def judge(
        target: str, tool: str, figure: Callable[[str], float | None], limit: float
    ) -> Verdict:
        found = results.with_figure(_or_failed(results, tool, figure))
        huge = {model: value for model, value in found.items() if is_huge(results, model)}
        show = _ratio if limit < 10 else lambda value: f"{value:.0f}"
        return _worst(f"above 2 GB: {target}", huge, limit, show)

    limit_mb = HUGE_PEAK_BYTES / MB
    for tool in (TRTFORGE, NO_PROOF):

        def peak_mb(model: str, tool: str = tool) -> float | None:
            peak = results.median(model, tool, "peak_bytes")
            return None if peak is None else peak / MB

        yield judge(f"peak of {TITLES[tool]} at most {limit_mb:.0f} MB", tool, peak_mb, limit_mb)
    for tool in (TRTFORGE, NO_PROOF):

        def wall(model: str, tool: str = tool) -> float | None:
            return results.ratio(model, tool, SCRIPT)

        target = f"wall time of {TITLES[tool]} / {TITLES[SCRIPT]}, at most"
        limit = HUGE_WALL_BESIDE_SCRIPT
        yield judge(f"{target} {limit:.0f}", tool, wall, limit)

    def nodes(model: str) -> float | None:
        graph = results.graph(model, TRTFORGE)
        return None if graph is None else float(graph["nodes"])

    yield judge(f"at most {HUGE_NODES} nodes", TRTFORGE, nodes, HUGE_NODES)
    for tool in (TRTFORGE, PROTOBUF6):

        def growth(model: str, tool: str = tool) -> float | None:
            graph = results.graph(model, tool)
            if graph is None:
                return None
            ratio = graph["bytes"] / results.described[model]["bytes"]
            return float(ratio) if is_right(graph) else math.inf

        target = f"{TITLES[tool]}: right, and tied weights stay tied (output / input bytes)"
        yield judge(target, tool, growth, TIED_GROWTH)


def _engines(results: Results) -> Iterator[Verdict]:
    sizes = results.with_figure(lambda model: results.engine_ratio(model, "bytes"))
    lost = {
        model: math.inf
        for model in results.models
        if _builds(results, model, "original") and _builds(results, model, "cleaned") is False
    }
    yield _worst(
        "TensorRT-RTX engine of the cleaned graph never larger",
        {**sizes, **lost},
        ENGINE_EQUAL,
        lambda value: f"{value:.4f}",
    )
    times = results.with_figure(lambda model: results.engine_ratio(model, "seconds"))
    target = "TensorRT-RTX parse + build of the cleaned graph in the mean not slower"
    if not times:
        yield Verdict(target, None, "")
        return
    mean = geometric_mean(times.values())
    yield Verdict(target, mean <= 1.0, f"geometric mean {mean:.3f} over {len(times)} models")


def _builds(results: Results, model: str, graph: str) -> bool | None:
    builds = results.engines(model, graph)
    return any("bytes" in build for build in builds) if builds else None
