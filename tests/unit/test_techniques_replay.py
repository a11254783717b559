"""A cache of a graph that techniques reshaped says how, so that it can be used without the data."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from precision_samples import SHAPES, net, samples_for

from trtforge.errors import DataError
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.pipeline.calib import ConvertOptions, convert_file, show_cache
from trtforge.pipeline.ranges import Ready, Wanted, make_ready
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.calibrate import CalibrationRequest
from trtforge.precision.cast import typed
from trtforge.precision.prepare import Prepared, prepare
from trtforge.precision.reshaping import Reshaping
from trtforge.precision.techniques.replay import replayed
from trtforge.recipe.calibration import Calibration
from trtforge.recipe.schema import Precision

INT8 = Precision(quantize="int8", type="fp16")
NETWORKS = list(SHAPES)


def measured(network: str, precision: Precision = INT8) -> Prepared:
    model = net(network)
    data = samples_for(model, random_feeds(model, SHAPES[network], seed=1))
    return prepare(model, data, precision, CalibrationRequest((), "minmax"))


def reuse(
    path: Path, model: Model, precision: Precision = INT8, *, accept_stale: bool = False
) -> Ready:
    calibration = Calibration(reuse=str(path), accept_stale=accept_stale)
    return make_ready(model, Wanted(precision, calibration, Path), lambda _share, _text: None)


def saved(cache: CalibrationCache | None, folder: Path) -> Path:
    assert cache is not None
    cache.save(folder / "cache.json")
    return folder / "cache.json"


def bytes_of(model: Model, cache: CalibrationCache | None) -> bytes:
    return typed(model, cache, INT8).model.proto.SerializeToString(deterministic=True)


@pytest.mark.parametrize("network", NETWORKS)
def test_without_data_the_first_build_comes_out_to_the_last_bit(
    network: str, tmp_path: Path
) -> None:
    first = measured(network)
    again = reuse(saved(first.cache, tmp_path), net(network))
    assert again.cache == first.cache
    assert again.model.digest() == first.model.digest()
    assert bytes_of(again.model, again.cache) == bytes_of(first.model, first.cache)


def test_it_was_reshaped_and_corrected_and_says_so(tmp_path: Path) -> None:
    first = measured("cnn")
    assert first.cache is not None
    assert [one.technique for one in first.cache.reshaping] == ["equalize"]
    assert first.cache.bias_shifts
    assert first.model.digest() != net("cnn").digest()
    notes = reuse(saved(first.cache, tmp_path), net("cnn")).techniques
    assert notes[0].startswith("equalize: ")
    assert notes[0].endswith("groups of channels scaled as the cache says")
    assert notes[-1] == f"bias-correction: {len(first.cache.bias_shifts)} biases as the cache says"


def test_caches_without_techniques_read_as_older_versions_wrote_them() -> None:
    plain = measured("cnn", INT8.model_copy(update={"techniques": "none"})).cache
    assert plain is not None
    assert not {"reshaping", "bias_shifts"} & plain.as_json().keys()
    assert CalibrationCache.model_validate(plain.as_json()) == plain


def changed(cache: CalibrationCache, **changes: object) -> CalibrationCache:
    first = cache.reshaping[0]
    group = first.groups[0].model_copy(update=changes)
    one = first.model_copy(update={"groups": (group, *first.groups[1:])})
    return cache.model_copy(update={"reshaping": (one, *cache.reshaping[1:])})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"makers": ("nowhere",)}, "the equalize vectors in it do not fit: no node computes"),
        ({"readers": ("nowhere",)}, "no node computes 'nowhere'"),
        ({"offsets": (("nowhere", 0, 2),)}, "no node computes 'nowhere'"),
        ({"scale": (1.0, 2.0, 0.5)}, "does not have 3 channels"),
        ({"makers": ()}, "its vectors do not lead to the graph that was measured"),
        ({"readers": ()}, "its vectors do not lead to the graph that was measured"),
    ],
)  # fmt: skip
def test_vectors_that_do_not_fit_are_refused_with_the_reason(
    changes: Mapping[str, object], reason: str, tmp_path: Path
) -> None:
    cache = measured("cnn").cache
    assert cache is not None
    path = saved(changed(cache, **changes), tmp_path)
    with pytest.raises(DataError) as caught:
        reuse(path, net("cnn"))
    assert caught.value.code == "TF0529"
    assert caught.value.exit_status == 2
    assert reason in str(caught.value)
    accepted = reuse(path, net("cnn"), accept_stale=True)
    assert accepted.model is net("cnn"), "vectors of another graph are not used"
    assert accepted.cache is not None
    assert not accepted.cache.bias_shifts
    assert any(reason in text for text in accepted.cache.warnings)


def test_offsets_and_operators_are_checked() -> None:
    cache = measured("cnn").cache
    assert cache is not None
    offsets = {"offsets": (("stem_relu", 0, 4),)}
    found = replayed(net("cnn"), changed(cache, **offsets).reshaping)
    assert isinstance(found, str)
    assert "'stem_relu' does not have" in found
    found = replayed(net("cnn"), changed(cache, makers=("stem_relu",)).reshaping)
    assert isinstance(found, str)
    assert "'stem_relu' does not have" in found


def test_a_graph_of_another_structure_is_refused(tmp_path: Path) -> None:
    path = saved(measured("cnn").cache, tmp_path)
    with pytest.raises(DataError) as caught:
        reuse(path, net("transformer"))
    assert caught.value.code == "TF0529"
    assert "the equalize vectors in it do not fit: no node computes" in str(caught.value)


def test_techniques_that_are_not_asked_for_are_not_replayed(tmp_path: Path) -> None:
    path = saved(measured("cnn").cache, tmp_path)
    with pytest.raises(DataError) as caught:
        reuse(path, net("cnn"), INT8.model_copy(update={"techniques": "none"}))
    assert "it was measured with equalize, which is not asked for" in str(caught.value)


def test_shifts_of_another_layer_are_refused(tmp_path: Path) -> None:
    cache = measured("cnn").cache
    assert cache is not None
    name = next(iter(cache.bias_shifts))
    path = saved(cache.model_copy(update={"bias_shifts": {name: (0.5,)}}), tmp_path)
    with pytest.raises(DataError) as caught:
        reuse(path, net("cnn"))
    assert caught.value.code == "TF0535"
    assert f"has 1 bias shifts for the layer of '{name}'" in str(caught.value)


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "negative scale": lambda data: data["reshaping"][0]["groups"][0].update(scale=[-1.0]),
    "no scale": lambda data: data["reshaping"][0]["groups"][0].update(scale=[]),
    "NaN": lambda data: data["reshaping"][0]["groups"][0].update(scale=[float("nan")]),
    "unknown key": lambda data: data["reshaping"][0].update(more=1),
    "a text": lambda data: data.update(reshaping="equalize"),
    "too many": lambda data: data.update(reshaping=data["reshaping"] * 17),
    "shifts of nothing": lambda data: data["bias_shifts"].update(x=[]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_vectors_are_one_clear_error(damage: str, tmp_path: Path) -> None:
    path = saved(measured("cnn").cache, tmp_path)
    data = json.loads(path.read_text())
    DAMAGES[damage](data)
    path.write_text(json.dumps(data))
    with pytest.raises(DataError) as caught:
        CalibrationCache.load(path)
    assert caught.value.code == "TF0520"


def test_numbers_survive_the_file_exactly(tmp_path: Path) -> None:
    cache = measured("cnn").cache
    assert cache is not None
    scale = tuple(float(one) for one in np.random.default_rng(0).lognormal(size=1000))
    one = Reshaping.model_validate(
        {
            "technique": "equalize",
            "groups": [{"scale": scale, "axis": 1, "makers": [], "readers": [], "offsets": []}],
        }
    )
    path = saved(cache.model_copy(update={"reshaping": (one,)}), tmp_path)
    assert CalibrationCache.load(path).reshaping == (one,)


def test_formats_without_a_place_for_it_come_with_a_warning(tmp_path: Path) -> None:
    path = saved(measured("cnn").cache, tmp_path)
    for target in ("tensorrt", "onnxruntime", "modelopt"):
        _, written = convert_file(path, tmp_path / "out.x", ConvertOptions(target))
        assert "the ranges are those of the graph as equalize reshaped it" in written.warnings[-1]
    _, own = convert_file(path, tmp_path / "own.json", ConvertOptions("trtforge"))
    assert own == CalibrationCache.load(path) == CalibrationCache.load(tmp_path / "own.json")
    plain = measured("cnn", INT8.model_copy(update={"techniques": "none"})).cache
    _, written = convert_file(
        saved(plain, tmp_path), tmp_path / "out.x", ConvertOptions("tensorrt")
    )
    assert not any("reshaped" in text for text in written.warnings)


def test_show_counts_and_does_not_list_them(tmp_path: Path) -> None:
    cache = measured("cnn").cache
    facts = show_cache(saved(cache, tmp_path)).as_json()
    assert cache is not None
    assert facts["reshaping"] == {"equalize": len(cache.reshaping[0].groups)}
    assert facts["bias_shifts"] == len(cache.bias_shifts)
