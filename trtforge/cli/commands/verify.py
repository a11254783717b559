"""`trtforge verify`: is the candidate still the same function?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtforge.cli.console import common_options, print_json, print_table, say

if TYPE_CHECKING:
    from trtforge.pipeline.compare import VerifyResult
    from trtforge.verify.layers import LayerProfile


@click.command()
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="The original: ONNX file or bundle; or an engine, which engines are compared with.",
)
@click.option("--data", type=click.Path(path_type=Path), help=".npz with inputs (and labels).")
@click.option(
    "--tolerance", multiple=True, metavar="K=V", help="e.g. sqnr_db=30 or logits.max_abs=0.1."
)
@click.option("--samples", type=click.IntRange(1), help="Use this many samples of the data.")
@click.option(
    "--backend",
    type=click.Choice(["tensorrt_rtx", "tensorrt"]),
    help="What runs a single engine file; default what the file tells.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A single engine file without its weights: the ONNX that it was built from.",
)
@click.option("--against-weights", type=click.Path(path_type=Path), help="Likewise of --against.")
@click.option(
    "--against-python",
    type=click.Path(path_type=Path),
    help="Runs the engine given to --against where that needs another TensorRT: the Python of an "
    "environment with that and trtforge.",
)
@click.option("--require-engine", is_flag=True, help="Exit 3 unless every engine was really run.")
@click.option("--layers", is_flag=True, help="Also compare every tensor; show the worst.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a report page."
)
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML.")
@click.option("--allow-host-code", is_flag=True, help="Let engines run code that they bring.")
@common_options
def verify(
    candidate: Path,
    against: Path | None,
    data: Path | None,
    tolerance: tuple[str, ...],
    samples: int | None,
    backend: str | None,
    weights: Path | None,
    against_weights: Path | None,
    against_python: Path | None,
    require_engine: bool,
    layers: bool,
    html: Path | None,
    junit: Path | None,
    allow_host_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Compare CANDIDATE (bundle, engine or ONNX file) with the model that it comes from.

    An engine, or the engines of a bundle, may also be compared with another engine.

    Exit status: 0 every check that ran passed, 5 one failed, 3 none could be run here, 7 a
    bundle's file is not what its manifest says.
    """
    from trtforge.disk import check_outputs
    from trtforge.pipeline.compare import VERIFY_SCHEMA, VerifyOptions
    from trtforge.pipeline.compare import verify as verify_candidate

    check_outputs((html, junit), (candidate, against, data, weights, against_weights))
    options = VerifyOptions(
        *(against, data, tolerance, samples, backend),
        layers=layers,
        allow_host_code=allow_host_code,
        weights=weights,
        against_weights=against_weights,
        against_python=against_python,
    )
    result = verify_candidate(candidate, options)
    if junit is not None:
        _write_junit(junit, result)
    if html is not None:
        _write_html(html, result)
    if as_json:
        print_json(VERIFY_SCHEMA, result.as_json())
    else:
        _show(result, quiet=quiet, verbose=verbose)
    if require_engine and result.exit_status == 0:
        _require_engines(result)
    return result.exit_status


def _require_engines(result: "VerifyResult") -> None:
    """Refuse a result in which an engine was not run.

    Raises:
        MissingError: TF0718.
    """
    from trtforge.errors import MissingError

    for name, report in result.checks.items():
        if name.startswith("engine:") and report.verdict == "not_run":
            message = f"{name} was not run: {report.reason}"
            raise MissingError("TF0718", message, "run it on a GPU")


def _show(result: "VerifyResult", *, quiet: bool, verbose: bool) -> None:
    for name, report in result.checks.items():
        reason = f": {report.reason}" if report.reason else ""
        say(f"{name}: {report.verdict}{reason}")
        if quiet or not report.outputs:
            continue
        rows = []
        for output, verdict in report.outputs.items():
            figures = verdict.metrics
            if figures is None:
                rows.append((output, verdict.verdict, "", "", "", ""))
                continue
            rows.append(
                (
                    output,
                    verdict.verdict,
                    _figure(figures.sqnr_db, ".1f"),
                    _figure(figures.max_abs, ".3g"),
                    _figure(figures.cosine, ".6f"),
                    _figure(figures.top1_agreement, ".2%"),
                )
            )
        print_table(("output", "verdict", "SQNR dB", "max abs", "cosine", "top-1"), rows)
        if report.accuracy is not None:
            accuracy = report.accuracy
            say(
                f"accuracy: {accuracy.candidate:.2%} candidate, {accuracy.reference:.2%} reference"
                f" ({accuracy.samples} samples)"
            )
        if verbose:
            for output, verdict in report.outputs.items():
                say(f"{output}: judged by {verdict.tolerance.given} ({verdict.tolerance_source})")
    if result.layers is not None and not quiet:
        show_layers(result.layers)
    say(f"verdict: {result.verdict}")


def show_layers(profile: "LayerProfile", count: int = 10) -> None:
    """Print the tensors of the largest error, and where the error first jumps."""
    say(f"layers: {len(profile.layers)} tensors, sets of inputs: {profile.samples}; the worst:")
    rows = [
        (
            one.tensor,
            one.op,
            one.type,
            format(one.counted_db, ".1f") + ("" if one.rescaled_db is None else "*"),
            format(one.max_abs, ".3g"),
            format(one.reference_amax, ".3g"),
            str(one.nonfinite),
        )
        for one in profile.worst(count)
    ]
    heads = ("tensor", "operator", "type", "SQNR dB", "max abs", "reference max", "NaN or Inf")
    print_table(heads, rows)
    scaled = sum(one.rescaled_db is not None for one in profile.layers)
    if scaled:
        say(
            f"*: in {scaled} tensors channels are scaled, as equalize and smoothquant do; the SQNR "
            "is what is left once they are scaled back"
        )
    jump = profile.first_jump
    if jump is None:
        say("first jump: none, the error grows evenly")
    else:
        what = "NaN or Inf" if jump.is_nonfinite else f"{jump.to_db:.1f} dB"
        say(f"first jump: {jump.op} '{jump.node}' ({jump.from_db:.1f} dB -> {what})")


def _figure(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _write_junit(path: Path, result: "VerifyResult") -> None:
    from trtforge.disk import write_text
    from trtforge.report.junit import render_junit

    write_text(path, render_junit(str(result.candidate), dict(result.checks)))


def _write_html(path: Path, result: "VerifyResult") -> None:
    from trtforge.disk import write_text
    from trtforge.report.data import ReportData
    from trtforge.report.html import render_html

    checks = {name: report.as_json() for name, report in result.checks.items()}
    engines = {
        name.removeprefix("engine:"): report
        for name, report in checks.items()
        if name.startswith("engine:")
    }
    data = ReportData(
        name=result.candidate.name,
        facts={"candidate": str(result.candidate), "kind": result.kind},
        graph_parity=checks.get("graph"),
        engine_parity=engines,
        layers=None if result.layers is None else result.layers.as_json(),
        missing={"graph_parity": "not part of this comparison"},
        comparison_only=True,
    )
    write_text(path, render_html(data))
