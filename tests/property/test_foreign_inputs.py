"""Whatever stands in a command line, a TAO spec or a layers file: a result, or one clear error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trtforge.errors import ForgeError
from trtforge.pipeline.diff import diff_paths
from trtforge.pipeline.migrate import MigrateOptions, migrate
from trtforge.recipe.migration.polygraphy import _HANDLERS as POLYGRAPHY
from trtforge.recipe.migration.trtexec import _HANDLERS as TRTEXEC
from trtforge.report.changes import sections

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES = st.text(alphabet="ab1x0:,.=-'\"[]()/\\ \t\n#|;&><${}%*~é\x00\x1b", max_size=12)


def flags(known: Any) -> st.SearchStrategy[list[str]]:
    one = st.tuples(st.sampled_from(sorted(known)), st.sampled_from(["=", " ", ""]), VALUES)
    return st.lists(one.map("".join), max_size=5)


def status(work: Callable[[], object]) -> int:
    """The exit status of a piece of work; what is no error of ours is raised."""
    try:
        work()
    except ForgeError as error:
        return error.exit_status
    return 0


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@given(
    st.one_of(
        flags(TRTEXEC).map(lambda found: ["trtexec", "--onnx=m.onnx", *found]),
        flags(POLYGRAPHY).map(lambda found: ["polygraphy", "run", "--trt", "m.onnx", *found]),
    ),
    st.booleans(),
)
@QUICK
def test_any_command(words: list[str], as_text: bool) -> None:
    command = " ".join(words) if as_text else words
    assert status(lambda: migrate(command, MigrateOptions(partial=True))) in (0, 2)


TAO_KEYS = (
    *("onnx_file", "trt_engine", "width", "height", "input_channel", "tensorrt", "calibration"),
    *("data_type", "workspace_size", "min_batch_size", "max_batch_size", "batch_size", "unknown"),
    *("layers_precision", "cal_cache_file", "cal_image_dir", "cal_batches", "cal_batch_size"),
)
TAO_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["int8", "fp16", "m.onnx", "a:fp32", "", "${x}", "???"]),
    st.lists(st.sampled_from(["a:fp32", "b", ""]), max_size=2),
)
SECTIONS = st.dictionaries(st.sampled_from(TAO_KEYS), TAO_VALUES, max_size=8)


@given(
    st.dictionaries(st.sampled_from(TAO_KEYS), st.one_of(TAO_VALUES, SECTIONS), max_size=10),
    st.booleans(),
)
@QUICK
def test_any_spec(spec: dict[str, Any], is_wrapped: bool) -> None:
    given_spec = {"gen_trt_engine": spec} if is_wrapped else spec
    Path("spec.json").write_text(json.dumps(given_spec))
    assert status(lambda: migrate("spec.json", MigrateOptions(partial=True))) in (0, 2)


ANY = st.recursive(
    st.one_of(st.none(), st.integers(-3, 2**40), st.floats(), st.sampled_from(["FP16", "a", ""])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["Name", "Dimensions", "Datatype", "Count", "shape", "dtype", "count"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)
INSPECTED = st.fixed_dictionaries(
    {"Name": st.sampled_from(["a", "b + c", ""])},
    optional=dict.fromkeys(("Metadata", "Outputs", "Inputs", "Weights", "LayerType"), ANY),
)
PARSED = st.fixed_dictionaries(
    dict.fromkeys(("name", "type", "onnx_nodes", "outputs"), ANY), optional={"weights": ANY}
)
TIMED = st.fixed_dictionaries({"name": ANY}, optional={"averageMs": ANY})


@given(
    st.one_of(
        st.lists(INSPECTED, max_size=3),
        st.lists(PARSED, max_size=2),
        st.lists(TIMED, max_size=3),
        st.lists(st.one_of(INSPECTED, ANY), max_size=3).map(lambda found: {"Layers": found}),
        ANY,
    )
)
@QUICK
def test_any_document_of_layers(document: Any) -> None:
    Path("a.json").write_text(json.dumps(document))
    Path("b.json").write_text('{"Layers": ["a", "c"]}')

    def compare() -> None:
        result = diff_paths(Path("a.json"), Path("b.json"))
        for section in sections(result.as_json(), details=True):
            assert list(section.lines(None))

    assert status(compare) in (0, 2)
