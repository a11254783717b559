"""Builds whose precision was dropped on purpose: exit 5, no bundle, the report kept."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trtforge.cli.main import main
from trtforge.engine.backend import BuildReport, BuildRequest, get_backend
from trtforge.errors import ParityError
from trtforge.graph.model import Model
from trtforge.pipeline.run import BuildOptions, build_recipe
from trtforge.precision.cast import CastReport
from trtforge.precision.quantize import QuantizeReport


def no_cast(model: Model, *_: Any, **__: Any) -> tuple[Model, CastReport]:
    return model, CastReport("fp16", {"fp16": 99}, 0, ())


def no_quantize(model: Model, *_: Any, **__: Any) -> tuple[Model, QuantizeReport]:
    return model, QuantizeReport("int8", ())


@pytest.mark.parametrize(
    ("recipe", "dropped", "words"),
    [
        ("fp16", ("cast", no_cast), "precision.type fp16 is asked for and 0.0% of the nodes"),
        ("int8", ("cast", no_cast), "precision.type fp16 is asked for and 0.0% of the nodes"),
        (
            "int8",
            ("quantized_only", no_quantize),
            "precision.quantize int8 is asked for and 0.0% of the",
        ),
    ],
)
def test_a_build_whose_precision_was_dropped_is_exit_5(
    recipe: str,
    dropped: tuple[str, Any],
    words: str,
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, nothing = dropped
    monkeypatch.setattr(f"trtforge.precision.cast.{name}", nothing)
    monkeypatch.setenv("TRTFORGE_CACHE", str(tmp_path / "store"))
    only_cpu = ("--target", "cpu") if recipe == "int8" else ()
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                *("build", str(digits / f"{recipe}.yaml"), "--out", str(tmp_path / "out")),
                *(*only_cpu, "--set", "verify.attest.min_quantized_macs=null"),
            ]
        )
    assert stopped.value.code == 5
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert "accept it with verify.attest." in said.err
    (kept,) = (tmp_path / "out").iterdir()
    assert kept.name == f"digits-{recipe}.failed"
    attested = json.loads((kept / "parity.json").read_text())["attest"]
    assert attested["verdict"] == "fail"


def test_a_network_whose_types_the_builder_dropped_is_exit_5(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The FP16 graph beside a network that is described as FP32."""

    class Dropping:
        def build(self, request: BuildRequest, *following: Any) -> BuildReport:
            report = get_backend("tensorrt_rtx").build(request, *following)
            layers = json.loads(json.dumps(report.layers).replace("float16", "float32"))
            return replace(report, layers=tuple(layers))

    monkeypatch.setattr("trtforge.pipeline.stages.build.get_backend", lambda _: Dropping())
    options = BuildOptions(out=tmp_path / "out", store=tmp_path / "store")
    with pytest.raises(
        ParityError, match=r"the network of 'rtx' is another: .* is fp16 in the ONNX"
    ):
        build_recipe(digits / "fp16.yaml", options)
    parity = json.loads((tmp_path / "out" / "digits-fp16.failed" / "parity.json").read_text())
    found = parity["attest"]["networks"]["rtx"]
    assert set(found["macs"]) == {"fp32"}
    assert {"node": "", "op": "", "onnx": "fp16", "network": "none"} in found["contradictions"]


def test_nothing_to_quantize_is_accepted_only_where_the_recipe_says_so(
    digits: Path, tmp_path: Path
) -> None:
    everything = ("precision.keep=[{name: '*'}]", "verify.attest.min_quantized_macs=null")
    options = BuildOptions(
        out=tmp_path / "out", store=tmp_path / "store", overrides=everything, targets=("cpu",)
    )
    with pytest.raises(ParityError, match=r"0\.0% of the MACs are int8: keep rule"):
        build_recipe(digits / "int8.yaml", options)
    accepted = (
        *everything,
        "verify.attest.macs={int8: {min: 0}}",
        "verify.attest.nodes={fp16: {min: 0}}",
    )
    options = BuildOptions(
        out=tmp_path / "out", store=tmp_path / "store", overrides=accepted, targets=("cpu",)
    )
    result = build_recipe(digits / "int8.yaml", options)
    assert result.verdicts["attest"]["verdict"] == "pass"
    assert result.verdicts["attest"]["quantized_macs_share"] == 0.0
