"""A budget from recipe to bundle: the mix that was chosen is what ships, with the real builder."""

import json
from pathlib import Path

import pytest
from running import trtforge

from trtforge import open_bundle
from trtforge.recipe.load import load_recipe


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def test_a_budget_ships_the_mix_that_was_chosen(digits: Path, store: Path, tmp_path: Path) -> None:
    run = trtforge("build", digits / "budget.yaml", "--out", tmp_path, "--json", store=store)
    assert run.status == 0, run.stdout + run.stderr
    (result,) = json.loads(run.stdout)["builds"]
    bundle = open_bundle(Path(result["bundle"]))
    assert bundle.manifest.verdicts.graph_parity.verdict == "pass"
    assert bundle.file("engines/rtx/model.engine").stat().st_size > 100_000
    pareto = json.loads(bundle.file("reports/pareto.json").read_text())
    (chosen,) = [point for point in pareto["points"] if point["chosen"]]
    assert chosen["value"] >= pareto["bound"] == 42
    assert (
        f"{chosen['value']:.2f} dB at {chosen['cost']:.1%} of the cost of FP32" in result["budget"]
    )
    shipped = load_recipe(bundle.path / "recipe.yaml", check_files=False).recipe.precision
    assert shipped.budget is None
    assert [(one.op, one.name, one.type) for one in bundle.manifest.precision.keep] == [
        (one.op, one.name, one.type) for one in shipped.keep
    ]
    types = {layer["node"]: layer["type"] for layer in pareto["layers"]}
    kept = {rule.name for rule in shipped.keep}
    layers = {name for name, kind in types.items() if kind == "int8"}
    assert shipped.quantize == "int8"
    assert layers
    assert kept
    assert not layers & kept

    again = trtforge("build", digits / "budget.yaml", "--out", tmp_path, store=store)
    assert again.status == 0
    assert again.stdout.strip() == result["bundle"]
    assert f"budget: {result['budget']}" in again.stderr
