"""What a failed verdict is answered with."""

import pytest

from trtforge.pipeline.remedy import failures, remedy
from trtforge.pipeline.run import BuildResult
from trtforge.recipe.schema import Recipe

PASS = {"verdict": "pass", "reason": None}
NAN = "output 'y': 4 of 5 values are NaN or Inf where the reference is finite"


def recipe(kind: str, quantize: str = "none") -> Recipe:
    document = {
        "version": 1,
        "name": "some",
        "model": {"onnx": "m.onnx"},
        "precision": {"type": kind, "quantize": quantize},
        "targets": [{"name": "cpu", "backend": "onnxruntime"}],
    }
    if quantize != "none":
        document["calibration"] = {"data": "c.npz", "method": "minmax"}
    return Recipe.model_validate(document)


def verdicts(**failed: str) -> dict:
    found = {"graph_parity": PASS, "attest": PASS, "engine_parity": {"rtx": PASS}}
    for name, reason in failed.items():
        report = {"verdict": "fail", "reason": reason}
        found[name] = {"rtx": report} if name == "engine_parity" else report
    return found


@pytest.mark.parametrize(
    ("kind", "quantize", "failed", "words"),
    [
        ("fp16", "none", {"graph_parity": NAN}, "use precision.type bf16"),
        ("bf16", "none", {"graph_parity": NAN}, "keep sensitive nodes"),
        ("fp16", "int8", {"graph_parity": "SQNR 3 dB"}, "calibration.method entropy"),
        ("fp16", "none", {"graph_parity": "SQNR 3 dB"}, "precision.keep"),
        ("fp32", "none", {"graph_parity": "SQNR 3 dB"}, "only if you know why"),
        ("fp16", "int8", {"attest": "12% of the MACs"}, "what was kept and why"),
        ("fp16", "none", {"engine_parity": "SQNR 3 dB"}, "the engine is not"),
    ],
)
def test_each_failure_has_a_remedy(kind: str, quantize: str, failed: dict, words: str) -> None:
    found = verdicts(**failed)
    assert words in remedy(recipe(kind, quantize), found)
    (line,) = failures(found)
    assert line.endswith(next(iter(failed.values())))


def test_int8_without_recorded_data_is_told_of_them() -> None:
    found, asked = verdicts(graph_parity="SQNR 3 dB"), recipe("fp16", "int8")
    assert remedy(asked, found).startswith("give verify.data")
    judged = asked.model_copy(update={"verify": asked.verify.model_copy(update={"data": "t.npz"})})
    assert remedy(judged, found).startswith("calibrate on more")


def test_the_last_line_says_what_the_multiply_accumulates_compute_in() -> None:
    found = verdicts() | {"attest": PASS | {"quantized_macs_share": 0.0}}
    result = BuildResult(None, found, (), {"fp32": 3, "fp16": 97})
    assert result.verdict_lines()[-1] == "MACs: 97.0% fp16, 3.0% fp32"
    assert BuildResult(None, found, ()).verdict_lines()[-1] == "MACs: none"
    found["attest"] = PASS | {"quantized_macs_share": 0.5}
    assert BuildResult(None, found, ()).verdict_lines()[-1] == "quantized MACs: 50.0%"
