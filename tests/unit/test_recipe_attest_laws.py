"""Laws of attested shares: what nothing can meet, or what bounds nothing, is refused at once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trtforge.recipe import codes
from trtforge.recipe.attest_laws import ATTESTED, attest_laws
from trtforge.recipe.laws import recipe_laws
from trtforge.recipe.schema import Attest, Share


def broken(attest: Any, quantize: str = "int8") -> list[Any]:
    recipe = {
        "precision": {"quantize": quantize},
        "calibration": {"data": "c.npz"},
        "verify": {"attest": attest},
    }
    return list(recipe_laws(recipe))


@pytest.mark.parametrize(
    ("attest", "place", "code", "words"),
    [
        ({"macs": {"int8": {}}}, ("macs", "int8"), codes.MISSING_KEY, "neither 'min' nor 'max'"),
        (
            {"nodes": {"fp16": {"min": 0.9, "max": 0.1}}},
            ("nodes", "fp16", "min"),
            codes.CONTRADICTION,
            "min is above max for the share of fp16: 0.9 > 0.1",
        ),
        (
            {"weights": {"int8": {"min": 0.6}, "fp16": {"min": 0.5}}},
            ("weights",),
            codes.CONTRADICTION,
            "sum to 1.1",
        ),
        (
            {"min_quantized_macs": 0.8, "macs": {"int8": {"min": 0.5}, "fp16": {"min": 0.3}}},
            ("macs",),
            codes.CONTRADICTION,
            "sum to 1.1",
        ),
        (
            {"macs": {"int4": {"min": 0.1}}},
            ("macs", "int4", "min"),
            codes.CONTRADICTION,
            "at least 0.1 of the macs are to be int4",
        ),
        (
            {"activations": {"fp8": {"min": 0.1}}},
            ("activations", "fp8", "min"),
            codes.CONTRADICTION,
            "quantize: int8 never gives that",
        ),
    ],
)
def test_each_law(attest: Any, place: tuple[str, ...], code: str, words: str) -> None:
    (one,) = broken(attest)
    assert one.loc == ("verify", "attest", *place)
    assert one.code == code
    assert words in one.message
    assert one.hint


@pytest.mark.parametrize(
    ("quantize", "attest"),
    [
        ("none", {"macs": {"int8": {"min": 0}}}),  # what a --set leaves behind
        ("none", {"macs": {"int8": {"max": 0.5}}}),
        ("none", {"macs": {"fp16": {"min": 0.9}}}),  # the model may come in FP16
        ("int8", {"macs": {"int8": {"min": 0.7}, "fp16": {"min": 0.3}}}),
        ("int8", {"min_quantized_macs": 0.8, "macs": {"int8": {"min": 0.7}, "fp16": {"min": 0.2}}}),
        ("int4_weight_only", {"weights": {"int4": {"min": 0.5}, "int8": {"min": 0.1}}}),
        ("int8_weight_only", {"weights": {"int8": {"min": 0.5}}}),
    ],
)
def test_what_can_be_met_is_no_error(quantize: str, attest: Any) -> None:
    assert broken(attest, quantize) == []


@pytest.mark.parametrize(
    ("quantize", "what", "way"),
    [
        ("none", "macs", "precision.quantize to int8"),
        ("int8_weight_only", "macs", "precision.quantize to int8"),
        ("fp8", "weights", "int8 or int8_weight_only or int4_weight_only"),
    ],
)
def test_a_type_that_the_precision_never_gives(quantize: str, what: str, way: str) -> None:
    (one,) = broken({what: {"int8": {"min": 0.5}}}, quantize)
    assert f"quantize: {quantize} never gives that" in one.message
    assert way in one.hint


def test_sections_made_in_code_keep_the_laws_too() -> None:
    with pytest.raises(ValidationError, match="neither"):
        Share()
    with pytest.raises(ValidationError, match="min is above max"):
        Share(min=0.5, max=0.4)
    with pytest.raises(ValidationError, match=r"sum to 1\.2"):
        Attest.model_validate({"macs": {"fp16": {"min": 0.6}, "fp32": {"min": 0.6}}})


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*ATTESTED, "int8", "fp16", "min", "max"]), inner)
        ),
        max_leaves=12,
    )
)
def test_malformed_sections_do_no_harm(attest: Any) -> None:
    for one in attest_laws(attest):
        assert one.message
    broken(attest)
