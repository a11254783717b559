"""The Markdown page: one table for each question, then the targets."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from cleanup.contenders import (
    FLOOR,
    FLOOR_IR,
    FLOORS,
    NO_PROOF,
    OURS,
    PEERS,
    SLIM,
    TITLES,
    TRTFORGE,
)
from cleanup.records import Record, Results, geometric_mean, is_right, spread, sqnr
from cleanup.targets import LARGE_BYTES, is_settled, verdicts

MB = 1e6
MIB = 2**20
SHOWN = (TRTFORGE, NO_PROOF, *PEERS)


def page(results: Results) -> str:
    """Return the whole page."""
    lines = ["# trtforge optimize beside its peers", "", *_heading(results)]
    for title, note, table in (
        ("How many nodes are left?", _NODES_NOTE, _nodes(results)),
        ("How long does it take, beside onnxslim?", _WALL_NOTE, _wall(results)),
        ("How long does everyone take?", _SECONDS_NOTE, _seconds(results)),
        ("How much memory does it take?", _MEMORY_NOTE, _memory(results)),
        ("How large is the output?", "MB, files of weights included.", _sizes(results)),
        ("Is it still the same function, and is it final?", _SAME_NOTE, _accuracy(results)),
        ("What does TensorRT-RTX make of it?", _ENGINE_NOTE, _engines(results)),
    ):
        lines += ["", f"## {title}", "", note, "", *table]
    lines += ["", "## Targets", "", *(verdict.line() for verdict in verdicts(results))]
    return "\n".join(lines) + "\n"


_NODES_NOTE = (
    "Nodes of subgraphs and functions count. `+domain`: has operators that are not of the standard "
    "(and that the original does not have); `wrong`: cannot be run, or computes something else. "
    "Neither counts as a peer to be beaten. Last column: trtforge beyond the smallest peer."
)
_WALL_NOTE = (
    "Whole process, seconds: median (min..max). Ratios are taken within each round and are shown "
    "likewise. Models above 100 MB are marked `*`."
)
_SECONDS_NOTE = "Whole process, seconds: median (min..max). Floors do nothing but read and write."
_MEMORY_NOTE = (
    "Peak resident memory of the process tree in MiB, mapped files included: median. Ratios to "
    f"{TITLES[FLOOR]}, median over rounds."
)
_SAME_NOTE = (
    "SQNR in dB, the lowest over outputs and seeds, both graphs run as written (ONNX Runtime, all "
    "optimizations off); `inf`: the same to the bit. Where a model ends in a Softmax, its input is "
    "compared too. `weight off`: the original with the largest weight in its file off by 1e-4, "
    "which says what the comparison can see. Second run: trtforge on its own output."
)
_ENGINE_NOTE = (
    "FP32 on the CPU, default compute capabilities; size and parse + build seconds: median "
    "(min..max), interleaved. Ratios: cleaned / original, median over rounds."
)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    return [f"| {lines[0]} |", f"|{lines[1]}|", *(f"| {' | '.join(row)} |" for row in rows)]


def _heading(results: Results) -> list[str]:
    lines = []
    runs = [record for record in results.records if record["kind"] == "run"]
    for name, setting in results.settings.items():
        own = [run for run in runs if run["setting"] == name]
        rounds = len({run["round"] for run in own})
        lines += [
            f"Measured {setting['date']}, {rounds} interleaved rounds, {setting['cores']} cores of "
            f"{setting['processor']}, {setting['memory_bytes'] / 2**30:.0f} GiB, "
            f"Python {setting['python']}, trtforge source {setting['source']}.",
            *(
                f"- {environment}: {', '.join(f'{k} {v}' for k, v in versions.items())}"
                for environment, versions in setting["versions"].items()
            ),
        ]
        if own:
            load = spread([run["load"] for run in own], 1)
            lines.append(f"- load average of the machine before each run: {load}")
        lost = [r for r in results.records if r["kind"] == "lost" and r["setting"] == name]
        lines += [
            f"- not timed: {TITLES[r['tool']]} on {r['model']}, round {r['round']}: {r['failed']}"
            for r in lost
        ]
        lines.append("")
    if len(results.settings) > 1:
        lines.append("Several settings: of each contender the last one counts, model by model.")
    return lines[:-1] if lines and not lines[-1] else lines


def _name(results: Results, model: str) -> str:
    return f"{model} *" if results.described[model]["bytes"] > LARGE_BYTES else model


def _failure(found: Record | None) -> str:
    return "" if found is None else "fails"


def _nodes(results: Results) -> list[str]:
    rows, wins, ties = [], 0, 0
    for model in results.models:
        margin = results.node_margin(model)
        wins += margin is not None and margin < 0
        ties += margin == 0
        cells = [_node_cell(results, model, tool) for tool in SHOWN]
        beyond = "" if margin is None else f"{margin:+d}" if margin else "0"
        rows.append([model, str(results.described[model]["nodes"]), *cells, beyond])
    judged = sum(results.node_margin(model) is not None for model in results.models)
    count = f"{wins} fewer, {ties} equal, {judged - wins - ties} more"
    rows.append(["all", *[""] * (len(SHOWN) + 1), count])
    head = ["model", "original", *(TITLES[tool] for tool in SHOWN), "trtforge"]
    return [*_table(head, rows), "", *_failures(results)]


def _failures(results: Results) -> list[str]:
    """Say why contenders made no output."""
    found = [
        (model, tool, examination["failed"])
        for model in results.models
        for tool in (*OURS, *PEERS, *FLOORS)
        if (examination := results.examination(model, tool)) and "failed" in examination
    ]
    return [f"- {TITLES[tool]} fails on {model}: {why}" for model, tool, why in found]


def _node_cell(results: Results, model: str, tool: str) -> str:
    graph = results.graph(model, tool)
    if graph is None:
        return _failure(results.examination(model, tool))
    marks = [f"+{domain}" for domain in graph["foreign_domains"]]
    marks += [] if is_right(graph) else ["wrong"]
    return " ".join([str(graph["nodes"]), *marks])


def _wall(results: Results) -> list[str]:
    tools = (NO_PROOF, TRTFORGE, SLIM)
    rows = []
    for model in results.models:
        seconds = [_seconds_cell(results, model, tool) for tool in tools]
        ratios = [results.ratios(model, tool, SLIM) for tool in tools[:2]]
        shown = [spread(found) if found else "" for found in ratios]
        rows.append([_name(results, model), *seconds, *shown])
    means = [
        _mean(results.with_figure(lambda m, t=tool: results.ratio(m, t, SLIM)).values())
        for tool in tools[:2]
    ]
    rows.append(["geometric mean", "", "", "", *means])
    ratios_head = [f"{TITLES[tool]} / onnxslim" for tool in tools[:2]]
    return _table(["model", *(TITLES[tool] for tool in tools), *ratios_head], rows)


def _mean(values: Iterable[float]) -> str:
    found = list(values)
    return f"{geometric_mean(found):.2f}" if found else ""


def _seconds_cell(results: Results, model: str, tool: str) -> str:
    seconds = [run["seconds"] for run in results.runs(model, tool)]
    return spread(seconds) if seconds else _failure(results.examination(model, tool))


def _seconds(results: Results) -> list[str]:
    tools = (*SHOWN, *FLOORS)
    rows = [
        [_name(results, model), *(_seconds_cell(results, model, tool) for tool in tools)]
        for model in results.models
    ]
    return _table(["model", *(TITLES[tool] for tool in tools)], rows)


def _memory(results: Results) -> list[str]:
    tools = (FLOOR, FLOOR_IR, *SHOWN)
    compared = (TRTFORGE, NO_PROOF, SLIM)
    rows = []
    for model in results.models:
        peaks = [results.median(model, tool, "peak_bytes") for tool in tools]
        ratios = [results.memory_ratio(model, tool) for tool in compared]
        cells = ["" if peak is None else f"{peak / MIB:.0f}" for peak in peaks]
        rows.append(
            [_name(results, model), *cells, *("" if r is None else f"{r:.2f}" for r in ratios)]
        )
    means = [
        _mean(results.with_figure(lambda m, t=tool: results.memory_ratio(m, t)).values())
        for tool in compared
    ]
    rows.append(["geometric mean", *[""] * len(tools), *means])
    head = [f"{TITLES[tool]} / floor" for tool in compared]
    return _table(["model", *(TITLES[tool] for tool in tools), *head], rows)


def _sizes(results: Results) -> list[str]:
    rows = []
    for model in results.models:
        graphs = [results.graph(model, tool) for tool in SHOWN]
        cells = ["" if graph is None else f"{graph['bytes'] / MB:.1f}" for graph in graphs]
        rows.append([model, f"{results.described[model]['bytes'] / MB:.1f}", *cells])
    return _table(["model", "original", *(TITLES[tool] for tool in SHOWN)], rows)


def _accuracy(results: Results) -> list[str]:
    rows = []
    for model in results.models:
        cells = [_sqnr_cell(results, model, tool) for tool in SHOWN]
        ours = results.graph(model, TRTFORGE)
        opset, proof = "", ""
        if ours is not None:
            opset = f"{results.described[model]['opset']} -> {ours['opset']}"
            proof = str(ours.get("proof", ""))
        settled = [_settled_cell(results.graph(model, tool)) for tool in (TRTFORGE, NO_PROOF)]
        rows.append([model, *cells, results.perturbed_db(model), proof, *settled, opset])
    head = ["weight off", "proof", "second run", "second run, --no-proof", "opset"]
    return _table(["model", *(TITLES[tool] for tool in SHOWN), *head], rows)


def _sqnr_cell(results: Results, model: str, tool: str) -> str:
    graph = results.graph(model, tool)
    if graph is None:
        return _failure(results.examination(model, tool))
    if "cannot_run" in graph:
        return "cannot be run"
    cell = f"{sqnr(graph):.1f}"
    if graph.get("without_logits"):
        cell += ", Softmax alone"
    return cell if graph["contract_kept"] else f"{cell}, other inputs or outputs"


def _settled_cell(graph: Record | None) -> str:
    if graph is None or "second_run" not in graph:
        return ""
    second: dict[str, Any] = graph["second_run"]
    if "failed" in second:
        return "fails"
    if is_settled(graph):
        return "changes nothing"
    return f"{second['rewrites']} rewrites, {graph['nodes']} -> {second['nodes']} nodes"


def _engines(results: Results) -> list[str]:
    rows = []
    for model in results.models:
        sides = [results.engines(model, graph) for graph in ("original", "cleaned")]
        if not any(sides):
            continue
        sizes = [_engine_cell(builds, "bytes", MB) for builds in sides]
        seconds = [_engine_cell(builds, "seconds", 1) for builds in sides]
        ratios = [results.engine_ratio(model, key) for key in ("bytes", "seconds")]
        shown = [
            "" if ratio is None else f"{ratio:.{digits}f}"
            for ratio, digits in zip(ratios, (4, 2), strict=True)
        ]
        rows.append([model, *sizes, shown[0], *seconds, shown[1]])
    means = [
        _mean(results.with_figure(lambda m, k=key: results.engine_ratio(m, k)).values())
        for key in ("bytes", "seconds")
    ]
    rows.append(["geometric mean", "", "", means[0], "", "", means[1]])
    head = ["model", "original MB", "cleaned MB", "ratio", "original s", "cleaned s", "ratio"]
    return _table(head, rows)


def _engine_cell(builds: Sequence[Record], key: str, unit: float) -> str:
    values = [build[key] / unit for build in builds if key in build]
    if not values:
        return builds[0].get("cannot_build", "") if builds else ""
    if key == "bytes":
        return f"{statistics.median(values):.3f}"
    return spread(values)
