"""`trtforge attest` of ONNX files, bundles, engines and layer information."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from running import Finished, trtforge

from trtforge.engine import environment, views
from trtforge.engine.environment import driver
from trtforge.errors import UsageError
from trtforge.pipeline.attest import AttestOptions, attest_path
from trtforge.pipeline.run import BuildOptions, build_recipe


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def bundle(store: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = BuildOptions(out=tmp_path_factory.mktemp("bundles"), store=store)
    return build_recipe(digits / "int8.yaml", options).bundle


@pytest.fixture
def attest(store: Path) -> Callable[..., Finished]:
    return lambda *arguments: trtforge("attest", *arguments, store=store)


def test_an_onnx_file_is_counted_and_parsed(attest: Callable[..., Finished], digits: Path) -> None:
    run = attest(digits / "model.onnx", "--json", "--require", "macs.fp32>=1")
    assert run.status == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["schema"] == "trtforge.attest/1"
    typed, network = document["views"]
    assert (typed["name"], network["name"]) == ("typed ONNX", "parsed network")
    assert typed["shares"]["macs"] == network["shares"]["macs"] == {"fp32": 1.0}
    assert network["contradictions"] == []
    assert [check["verdict"] for check in document["checks"]] == ["pass", "pass"]
    assert sum(node["macs"] for node in document["per_node"]) == typed["macs"]["fp32"]


def test_macs_and_activations_grow_with_the_shape(
    attest: Callable[..., Finished], digits: Path
) -> None:
    found = []
    for batch in (1, 10):
        run = attest(
            digits / "model.onnx", "--no-parse", "--json", "--shape", f"image={batch}x1x8x8"
        )
        (view,) = json.loads(run.stdout)["views"]
        found.append(view)
    for what in ("macs", "activations"):
        assert found[1][what]["fp32"] == 10 * found[0][what]["fp32"]
    assert found[0]["weights"] == found[1]["weights"]


def test_a_share_that_is_missed_is_exit_5(attest: Callable[..., Finished], digits: Path) -> None:
    run = attest(digits / "model.onnx", "--no-parse", "-q", "--require", "macs.int8>=0.8")
    assert run.status == 5
    assert run.stdout.splitlines() == [
        "typed ONNX: macs.int8 0.0% >= 80.0%: fail (0.0% of the MACs are int8)",
        "verdict: fail",
    ]


def test_a_bundle_is_judged_again_by_what_its_recipe_asks(
    attest: Callable[..., Finished], bundle: Path
) -> None:
    run = attest(bundle, "--json", "--require", "activations.int8>=0.2")
    assert run.status == 0, run.stdout + run.stderr
    document = json.loads(run.stdout)
    names = [view["name"] for view in document["views"]]
    assert names == ["typed ONNX", "parsed network rtx", "engine rtx"]
    asked = {(check["what"], check["type"]): check["verdict"] for check in document["checks"]}
    assert asked[("macs", "int8")] == asked[("nodes", "fp16")] == "pass"
    assert asked[("macs", "quantized")] == asked[("activations", "int8")] == "pass"
    engine = document["views"][2]
    if driver().reason is not None:
        assert (engine["attested"], engine["reason"]) == (False, driver().reason)


def test_an_engine_says_nothing_without_a_driver_but_its_network_is_read(
    attest: Callable[..., Finished], bundle: Path, tmp_path: Path
) -> None:
    if driver().reason is None:
        pytest.skip("not run: this machine has a driver")
    folder = bundle / "engines" / "rtx"
    run = attest(folder / "model.engine")
    assert run.status == 0, run.stderr
    assert "engine: not_run: no NVIDIA driver" in run.stdout
    alone = shutil.copy(folder / "model.engine", tmp_path / "alone.engine")
    run = attest(alone)
    assert run.status == 3
    assert run.stdout.splitlines() == ["engine: not_run: no NVIDIA driver", "verdict: not_run"]
    # Beside another engine's facts it is as alone.
    for name in ("layers.json", "build.json"):
        shutil.copy(folder / name, tmp_path / name)
    assert attest(alone).status == 0
    Path(alone).write_bytes(b"another engine")
    assert attest(alone).status == 3
    # What is required and was not seen is not passed.
    assert attest(folder / "model.engine", "--require", "macs.int8>=0.5").status == 3


def test_layer_information_of_both_kinds_is_read(
    attest: Callable[..., Finished], bundle: Path, tmp_path: Path
) -> None:
    run = attest(bundle / "engines/rtx/layers.json", "--require", "weights.int8>=0.9")
    assert run.status == 0, run.stdout
    layer = {
        "Name": "fc",
        "LayerType": "gemm",
        "Inputs": [{"Name": "a", "Datatype": "Int8"}, {"Name": "w", "Datatype": "Int8"}],
        "Outputs": [{"Name": "y", "Datatype": "Half", "Dimensions": [2, 5]}],
    }
    told, named = tmp_path / "told.json", tmp_path / "named.json"
    told.write_text(json.dumps({"Layers": [layer], "I/O Tensors": []}))
    named.write_text(json.dumps({"Layers": ["fc"], "Bindings": []}))
    run = attest(told, "--json", "--require", "nodes.int8>=1")
    assert run.status == 0, run.stdout
    assert json.loads(run.stdout)["views"][0]["nodes"] == {"int8": 1}
    run = attest(named)
    assert run.status == 3
    assert "detailed profiling verbosity" in run.stdout


@pytest.mark.parametrize(
    ("name", "content", "arguments", "status"),
    [
        ("none.onnx", None, (), 2),
        ("broken.onnx", b"no model", (), 4),
        ("other.json", b'{"a": 1}', (), 2),
        ("cut.json", b'{"Layers": [', (), 2),
        ("strange.json", b'[{"onnx_nodes": 3}]', (), 2),
        ("deep.json", b"[" * 100_000, (), 2),
        ("any.engine", b"x", ("--require", "macs.int8>0.5"), 2),
        ("any.engine", b"x", ("--require", "macs.int8>=80"), 2),
    ],
)
def test_bad_input_is_one_clear_error(
    name: str,
    content: bytes | None,
    arguments: tuple[str, ...],
    status: int,
    attest: Callable[..., Finished],
    tmp_path: Path,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    attest(tmp_path / name, *arguments).assert_clean_failure(status)


def test_a_changed_bundle_is_refused(
    attest: Callable[..., Finished], bundle: Path, tmp_path: Path
) -> None:
    changed = shutil.copytree(bundle, tmp_path / bundle.name)
    layers = changed / "engines" / "rtx" / "layers.json"
    layers.write_text(layers.read_text().replace("int8", "int4", 1))
    attest(changed).assert_clean_failure(7)


def test_an_engine_is_read_by_the_library_that_its_first_bytes_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "model.plan"
    engine.write_bytes(b"ftrt" + bytes(60))
    asked: list[str] = []

    def information(path: Path, backend: str, *, allow_host_code: bool) -> None:
        asked.append(backend)
        raise ValueError("nothing is told")

    monkeypatch.setattr(environment, "driver", lambda: SimpleNamespace(reason=None))
    monkeypatch.setattr(views, "engine_information", information)
    attest_path(engine)
    assert asked == ["tensorrt"]
    with pytest.raises(UsageError, match="is an engine of tensorrt, not of tensorrt_rtx"):
        attest_path(engine, AttestOptions(backend="tensorrt_rtx"))
