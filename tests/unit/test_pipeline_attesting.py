"""The verdict on attested types: what is asked for must be there, bounds hold, networks agree."""

from typing import Any

import pytest

from trtforge.engine.network_types import NetworkTypes
from trtforge.errors import UsageError
from trtforge.pipeline.attest_requirements import Requirement, judge, parse_requirement
from trtforge.pipeline.attest_views import View, engine_view, network_view, not_attested, onnx_view
from trtforge.pipeline.attesting import judge_attest
from trtforge.precision.attest import shares
from trtforge.recipe.schema import Attest, Precision


def attested(**changed: Any) -> dict[str, Any]:
    """One product `fc` of 100 MACs and one `relu`, both FP16, as `Attestation.as_json()` says."""
    amounts: dict[str, Any] = {
        "macs": {"fp16": 100},
        "nodes": {"fp16": 2},
        "weights_bytes": {"fp16": 40},
        "activations_bytes": {"fp16": 20},
        "results": {"fp16": 2},
        "quantized_weights_bytes": {},
    } | changed
    kind = next(iter(amounts["macs"]), "fp16")
    result = next(iter(amounts["results"]), "fp16")
    found = {
        name.removesuffix("_bytes"): shares(amounts[name])
        for name in ("macs", "nodes", "weights_bytes", "activations_bytes")
    }
    fc = {"name": "fc", "op": "MatMul", "type": kind, "macs": 100, "result": result, "output": "y"}
    relu = {"name": "r", "op": "Relu", "type": result, "macs": 0, "result": result, "output": "z"}
    quantized = found["macs"].get("int8", 0.0) + found["macs"].get("fp8", 0.0)
    return amounts | {
        "shares": found,
        "quantized_macs_share": quantized,
        "unmeasured_activations": 0,
        "per_node": [fc, relu],
    }


def network(kind: str = "fp16", product: str | None = None) -> NetworkTypes:
    return NetworkTypes(
        {"MATRIX_MULTIPLY": {kind: 1}, "ACTIVATION": {kind: 1}},
        {kind: 2},
        {kind: 40},
        {"fc": product or kind},
        {"y": kind, "z": kind},
    )


def judged(
    precision: dict[str, Any],
    attest: dict[str, Any] | None = None,
    networks: dict[str, NetworkTypes] | None = None,
    warnings: tuple[str, ...] = (),
    **found: Any,
) -> dict[str, Any]:
    asked, wanted = Precision.model_validate(precision), Attest.model_validate(attest or {})
    return judge_attest(asked, wanted, attested(**found), networks or {}, warnings)


@pytest.mark.parametrize(
    ("precision", "found", "words"),
    [
        ({"type": "fp16"}, {"results": {"fp32": 2}, "macs": {"fp32": 9}}, "0.0% of the nodes"),
        ({"type": "fp16"}, {"macs": {"fp32": 9}}, "0.0% of the MACs are fp16"),
        ({"type": "bf16"}, {}, "0.0% of the nodes are bf16"),
        ({"type": "fp16"}, {"results": {"int64": 2}, "macs": {}}, "no node of the model gives f"),
        ({"quantize": "int8"}, {}, "0.0% of the MACs are int8"),
        ({"quantize": "int8"}, {"macs": {}}, "the model has no products that are counted"),
        ({"quantize": "fp8"}, {"macs": {"int8": 9}}, "0.0% of the MACs are fp8"),
        (
            {"type": "fp16", "quantize": "int8"},
            {"macs": {"int8": 9}, "results": {"fp32": 2}},
            "0.0% of the nodes are fp16",
        ),
        ({"quantize": "int8_weight_only"}, {}, "0.0% of the weights' bytes are int8"),
        (
            {"quantize": "int8_weight_only"},
            {"weights_bytes": {"int8": 4, "fp32": 9}},  # a table, that no DequantizeLinear reads
            "0.0% of the weights' bytes are int8",
        ),
        ({"quantize": "int4_weight_only"}, {}, "are int4 or int8"),
    ],
)
def test_what_is_asked_for_and_nowhere_fails(
    precision: dict[str, str], found: dict[str, Any], words: str
) -> None:
    verdict = judged(precision, **found)
    assert verdict["verdict"] == "fail"
    assert words in verdict["reason"]
    asked = list(precision.values())[-1] if "quantize" in precision else precision["type"]
    assert f"{asked} is asked for" in verdict["reason"] or "fp16 is asked" in verdict["reason"]
    assert "{min: 0}" in verdict["remedy"]


@pytest.mark.parametrize(
    ("precision", "found"),
    [
        ({"type": "fp16"}, {}),
        ({"type": "fp16"}, {"macs": {}}),
        ({"type": "fp16"}, {"macs": {"fp16": 1, "fp32": 10**9}}),
        ({"quantize": "int8"}, {"macs": {"int8": 9}}),
        # A head that is kept in FP32 and INT8 elsewhere: FP16 stands between the products.
        ({"type": "fp16", "quantize": "int8"}, {"macs": {"int8": 9, "fp32": 1}}),
        ({"quantize": "int8_weight_only"}, {"quantized_weights_bytes": {"int8": 4}}),
        # What INT4 cannot hold is INT8.
        ({"quantize": "int4_weight_only"}, {"quantized_weights_bytes": {"int8": 4}}),
    ],
)
def test_what_is_asked_for_and_there_passes(
    precision: dict[str, str], found: dict[str, Any]
) -> None:
    verdict = judged(precision, **found)
    assert verdict["verdict"] == "pass"
    assert {check["verdict"] for check in verdict["checks"]} == {"pass"}
    assert verdict["remedy"] is None


@pytest.mark.parametrize(
    ("precision", "attest", "found"),
    [
        ({"quantize": "int8"}, {"macs": {"int8": {"min": 0}}}, {}),
        ({"quantize": "int8"}, {"min_quantized_macs": 0}, {"macs": {}}),
        ({"type": "bf16"}, {n: {"bf16": {"min": 0}} for n in ("macs", "nodes")}, {}),
        ({"quantize": "int4_weight_only"}, {"weights": {"int4": {"min": 0}}}, {}),
    ],
)
def test_a_recipe_may_accept_that_a_type_is_nowhere(
    precision: dict[str, str], attest: dict[str, Any], found: dict[str, Any]
) -> None:
    assert judged(precision, attest, **found)["verdict"] == "pass"


def test_a_bound_that_is_no_zero_accepts_nothing() -> None:
    bounds = {"macs": {"int8": {"max": 1}}}
    assert judged({"quantize": "int8"}, bounds)["verdict"] == "fail"


def test_the_reason_that_the_typing_gave_is_told() -> None:
    warnings = (
        "keep rule {op: A} selects no node",
        "nothing computes in fp16: sums overflow (MatMul 'fc')",
        "nothing is quantized to int8: keep rule {op: MatMul, type: fp32} (MatMul 'fc')",
    )
    nowhere = {"results": {"fp32": 2}, "macs": {"fp32": 100}}
    reason = judged({"type": "fp16", "quantize": "int8"}, None, None, warnings, **nowhere)["reason"]
    quantized, cast = reason.split("; ")
    assert quantized.endswith("int8: keep rule {op: MatMul, type: fp32} (MatMul 'fc')")
    assert cast.endswith("fp16: sums overflow (MatMul 'fc')")
    silent = judged({"type": "fp16"}, **nowhere)["reason"]
    assert "nothing says why" in silent


def test_nothing_asked_is_not_run_and_a_budget_is_something() -> None:
    assert judged({}, results={"fp32": 2}, macs={"fp32": 1})["verdict"] == "not_run"
    budget = {"type": "fp16", "quantize": "int8", "budget": {"sqnr_db": 30}}
    verdict = judged(budget, results={"fp32": 2}, macs={"fp32": 1})
    assert (verdict["verdict"], verdict["checks"]) == ("pass", [])


@pytest.mark.parametrize(
    ("attest", "fails"),
    [
        ({"macs": {"fp16": {"min": 0.9, "max": 0.9}}}, None),
        ({"macs": {"fp16": {"min": 0.91}}}, "90.0% of the MACs are fp16, the recipe asks for 91"),
        ({"macs": {"fp32": {"max": 0.05}}}, "10.0% of the MACs are fp32, the recipe allows 5.0%"),
        ({"nodes": {"fp16": {"max": 0.5}}}, "100.0% of the nodes are fp16"),
        ({"weights": {"fp32": {"min": 0.1}}}, "0.0% of the weights' bytes are fp32"),
        ({"activations": {"fp16": {"max": 0.99}}}, "100.0% of the activations' bytes are fp16"),
        ({"min_quantized_macs": 0.1}, "0.0% of the MACs are quantized, the recipe asks for 10"),
    ],
)
def test_bounds_of_all_four(attest: dict[str, Any], fails: str | None) -> None:
    verdict = judged({"type": "fp16"}, attest, macs={"fp16": 90, "fp32": 10})
    assert verdict["verdict"] == ("pass" if fails is None else "fail")
    assert fails is None or verdict["reason"].startswith(fails)
    bounded = verdict["checks"][-1]
    assert set(bounded) >= {"what", "type", "share", "min", "max", "verdict"}


def test_a_network_that_contradicts_fails_whatever_is_asked() -> None:
    agreed = judged({"type": "fp16"}, networks={"rtx": network()})
    assert agreed["verdict"] == "pass"
    assert agreed["networks"]["rtx"]["macs"] == {"fp16": 100}
    dropped = judged({}, networks={"rtx": network("fp32")})
    assert dropped["verdict"] == "fail"
    assert "the network of 'rtx' is another: MatMul 'fc' is fp16" in dropped["reason"]
    assert "fp16 is in the ONNX and nowhere there" in dropped["reason"]
    int8 = {"macs": {"int8": 100}, "nodes": {"int8": 1, "fp16": 1}}
    lost = judged({"quantize": "int8"}, networks={"rtx": network("fp16")}, **int8)
    assert "MatMul 'fc' is int8 in the ONNX and fp16 there" in lost["reason"]


def test_fp64_is_fp32_to_tensorrt_and_no_contradiction() -> None:
    double = {"macs": {"fp64": 100}, "results": {"fp64": 2}, "nodes": {"fp64": 2}}
    verdict = judged({}, networks={"rtx": network("fp32")}, **double)
    assert verdict["networks"]["rtx"]["contradictions"] == []


def test_products_that_no_layer_tells_are_unknown() -> None:
    silent = NetworkTypes({}, {"fp16": 1}, {}, {}, {"y": "fp16"})
    layers = {"MATRIX_MULTIPLY": {"fp16": 1}}
    told = judged({}, networks={"rtx": NetworkTypes(layers, {"fp16": 1}, {}, {}, silent.tensors)})
    assert told["networks"]["rtx"]["macs"] == {"unknown": 100}
    assert told["networks"]["rtx"]["contradictions"] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("macs.int8>=0.8", Requirement("macs", "int8", 0.8, None)),
        (" nodes.fp32 <= 10% ", Requirement("nodes", "fp32", None, 0.1)),
        ("macs.quantized>=1", Requirement("macs", "quantized", 1.0, None)),
    ],
)
def test_requirements_are_read(text: str, expected: Requirement) -> None:
    assert parse_requirement(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "macs>=0.8", "macs.int8=0.8", "macs.int8>=1.5", "macs.int9>=0.5", "mac.int8>=0.5",
     "macs.int8>=0.8.1", "macs.int8>=-0.1", "macs.int8>=200%", "macs.int8>0.8"],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_requirement(text)
    assert caught.value.code == "TF0752"


def view(name: str, **amounts: Any) -> View:
    return View(name, attested=True, amounts=amounts)


def verdicts(text: str, *views: View) -> list[tuple[str, str]]:
    return [(one.view, one.verdict) for one in judge(parse_requirement(text), views)]


def test_macs_are_judged_in_every_view_and_the_rest_in_the_typed_onnx() -> None:
    onnx = onnx_view(attested(macs={"int8": 80, "fp16": 20}))
    other = view("engine", macs={"int8": 10, "fp16": 90}, nodes={"int8": 0, "fp16": 5})
    gone = not_attested("engine", "no NVIDIA driver")
    assert verdicts("macs.int8>=0.8", onnx, other) == [("typed ONNX", "pass"), ("engine", "fail")]
    assert verdicts("nodes.fp16>=1", onnx, other) == [("typed ONNX", "pass")]
    assert verdicts("nodes.fp16>=1", other) == [("engine", "pass")]
    assert verdicts("macs.int8>=0.8", gone) == [("nothing", "not_run")]


def test_what_is_unknown_decides_nothing() -> None:
    partly = view("engine", macs={"int8": 60, "fp16": 10, "unknown": 30}, weights=None)
    assert verdicts("macs.int8>=0.6", partly) == [("engine", "pass")]
    assert verdicts("macs.int8>=0.8", partly) == [("engine", "not_run")]
    assert verdicts("macs.int8>=0.95", partly) == [("engine", "fail")]
    assert verdicts("macs.fp16<=0.1", partly) == [("engine", "not_run")]
    assert verdicts("macs.fp16<=0.05", partly) == [("engine", "fail")]
    assert verdicts("macs.quantized>=0.6", partly) == [("engine", "pass")]
    assert verdicts("weights.int8>=0.5", partly) == [("engine", "not_run")]


def layer(kind: str, result: str, shape: list[int] | None, **more: Any) -> dict[str, Any]:
    output = {"name": more.pop("output", "t"), "dtype": result, "shape": shape}
    facts = {"name": kind, "type": kind, "onnx_nodes": [], "inputs": [], "outputs": [output]}
    return facts | more


def test_a_network_alone_has_no_macs_and_dynamic_sizes_are_lent() -> None:
    x = {"name": "x", "dtype": "float32", "shape": [4, 8]}
    h, q, d, c = (x | {"name": name} for name in "hqdc")
    layers = [
        layer("CAST", "float16", [4, 8], inputs=[x], output="h"),  # h counts, x does not
        layer("ACTIVATION", "float16", [4, 8], inputs=[h], output="r"),  # read by QUANTIZE alone
        layer("CONSTANT", "float16", [4, 8], output="c"),
        layer("SHUFFLE", "float16", [8, 4], inputs=[c], output="turned"),
        layer("QUANTIZE", "int8", [4, 8], inputs=[x | {"name": "r"}, c], output="q"),
        layer("DEQUANTIZE", "float16", [4, 8], inputs=[q, c], output="d"),
        layer("UNARY", "float32", [-1], inputs=[d], output="u"),
    ]
    alone = network_view(layers, None)
    assert alone.amounts["macs"] is None
    assert alone.amounts["activations"] is None
    lent = network_view(layers, attested(), {"u": 7})
    assert lent.amounts["activations"] == {"fp16": 64, "int8": 32, "fp32": 28}
    assert lent.share("macs", ["fp16"]) == (0.0, 1.0)


def test_an_engine_is_told_beside_the_onnx() -> None:
    document = {
        "Layers": [
            {
                "Name": "fc",
                "LayerType": "gemm",
                "Inputs": [{"Datatype": "Float"}, {"Datatype": "Float"}],
                "Outputs": [{"Datatype": "Float", "Dimensions": [4]}],
                "Metadata": "[ONNX Layer: fc]",
            }
        ]
    }
    found = engine_view(document, attested())
    assert found.amounts["macs"] == {"fp32": 100}
    (differs,) = found.contradictions
    assert (differs["onnx"], differs["network"]) == ("fp16", "fp32")
    named = engine_view({"Layers": ["fc"]}, attested())
    assert not named.attested
    assert "detailed profiling verbosity" in str(named.reason)
    with pytest.raises(ValueError, match="no layer information"):
        engine_view({"a": 1}, None)


def test_products_that_the_model_itself_quantizes_are_not_missed_in_fp16() -> None:
    own_pairs = judged({"type": "fp16"}, macs={"int8": 100})
    assert own_pairs["verdict"] == "pass"
    mixed = judged({"type": "fp16"}, macs={"int8": 100, "fp32": 20})
    assert mixed["verdict"] == "fail"
    assert "precision.type fp16 is asked for and 0.0% of the MACs" in mixed["reason"]
