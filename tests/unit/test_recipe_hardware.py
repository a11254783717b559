"""Laws between precision, targets and attestation: what GPUs cannot do is refused at once."""

from typing import Any

import pytest

from trtforge.precision.techniques import AFTER, BEFORE, DEFAULT
from trtforge.recipe import codes
from trtforge.recipe.broken import Broken
from trtforge.recipe.laws import recipe_laws
from trtforge.recipe.technique_laws import SERVES


def broken(precision: Any, capabilities: Any = (), **others: Any) -> list[Broken]:
    target = {"name": "t", "backend": "tensorrt_rtx", "compute_capabilities": capabilities}
    return list(recipe_laws({"precision": precision, "targets": [target], **others}))


@pytest.mark.parametrize(
    ("precision", "too_old", "taken", "word", "oldest"),
    [
        ({"type": "bf16"}, "7.5", "8.0", "BF16", "8.0"),
        ({"quantize": "int4_weight_only"}, "7.5", "8.0", "INT4", "8.0"),
        ({"quantize": "fp8"}, "8.6", "8.9", "FP8", "8.9"),
        ({"keep": [{"op": "Softmax", "type": "bf16"}]}, "7.5", "8.6", "BF16", "8.0"),
    ],
)
def test_types_that_a_gpu_lacks(
    precision: dict[str, Any], too_old: str, taken: str, word: str, oldest: str
) -> None:
    (one,) = broken(precision, [taken, too_old], calibration={"data": "c.npz"})
    assert one.code == codes.CONTRADICTION
    assert one.loc == ("targets", 0, "compute_capabilities", 1)
    assert one.message == f"GPUs of compute capability {too_old} have no {word}"
    assert one.hint == f"{word} needs {oldest} or later; remove {too_old} from this target"


def test_a_type_that_is_used_twice_is_told_once() -> None:
    twice = {"type": "bf16", "keep": [{"op": "Softmax", "type": "bf16"}]}
    assert len(broken(twice, ["7.5"])) == 1


def test_malformed_recipes_do_no_harm() -> None:
    assert broken({"type": ["bf16"], "quantize": {}, "keep": [3, {"op": "A", "type": []}]}) == []


@pytest.mark.parametrize("quantize", ["int8_weight_only", "int4_weight_only"])
def test_weight_only_needs_no_calibration_and_may_have_one(quantize: str) -> None:
    assert broken({"quantize": quantize}, ["8.6"]) == []
    assert broken({"quantize": quantize}, ["8.6"], calibration={"data": "c.npz"}) == []


@pytest.mark.parametrize("quantize", ["int8", "fp8"])
def test_w8a8_needs_a_calibration(quantize: str) -> None:
    (one,) = broken({"quantize": quantize}, ["8.9"])
    assert one.loc == ("precision", "quantize")
    assert "there is no calibration" in one.message


@pytest.mark.parametrize(
    ("quantize", "words"),
    [
        ("int8_weight_only", "computes in the float type"),
        ("int4_weight_only", "computes in the float type"),
        ("none", "nothing is quantized"),
        (None, "nothing is quantized"),
    ],
)
def test_a_share_of_quantized_macs_that_cannot_be(quantize: str | None, words: str) -> None:
    verify = {"attest": {"min_quantized_macs": 0.5}}
    (one,) = broken({"quantize": quantize}, verify=verify)
    assert one.loc == ("verify", "attest", "min_quantized_macs")
    assert words in one.message
    verify["attest"]["min_quantized_macs"] = 0
    assert broken({"quantize": quantize}, verify=verify) == []


def test_gptq_needs_samples_and_int4_weights() -> None:
    asked = {"quantize": "int4_weight_only", "techniques": ["gptq"]}
    (one,) = broken(asked)
    assert one.loc == ("precision", "techniques", 0)
    assert one.message == "gptq needs samples, and there is no calibration"
    assert broken(asked, calibration={"data": "c.npz"}) == []
    (other,) = broken({"quantize": "int8_weight_only", "techniques": ["gptq"]})
    assert other.message == "gptq rounds INT4 weights, and quantize is int8_weight_only"


@pytest.mark.parametrize("kind", [None, "none", "int8", "fp8", "int8_weight_only"])
@pytest.mark.parametrize("name", SERVES)
def test_a_technique_that_has_nothing_to_do_is_refused(name: str, kind: str | None) -> None:
    kinds, does = SERVES[name]
    found = broken({"quantize": kind, "techniques": [name]}, calibration={"data": "c.npz"})
    if kind in kinds:
        assert found == []
        return
    (one,) = found
    assert one.loc == ("precision", "techniques", 0)
    assert one.message == f"{name} {does}, and quantize is {kind or 'none'}"
    assert one.hint == f"remove it, or set quantize: {' or '.join(kinds)}"


def test_the_defaults_have_something_to_do() -> None:
    assert SERVES.keys() == (BEFORE | AFTER).keys()
    for kind, names in DEFAULT.items():
        assert all(kind in SERVES[name][0] for name in names)


@pytest.mark.parametrize("kind", [None, "none", "fp8", "int8_weight_only", "int4_weight_only"])
def test_compact_is_for_int8(kind: str | None) -> None:
    asked = {"quantize": kind, "compact": True}
    (one,) = broken(asked, calibration={"data": "c.npz"})
    assert one.loc == ("precision", "compact")
    assert one.message == f"compact is about INT8 kernels, and quantize is {kind or 'none'}"
    assert one.hint == "remove it, or set quantize: int8"
    assert broken(asked | {"compact": False}, calibration={"data": "c.npz"}) == []


def test_compact_with_int8_is_taken() -> None:
    assert broken({"quantize": "int8", "compact": True}, calibration={"data": "c.npz"}) == []
