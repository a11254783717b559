"""Requests and reports as data, the table of backends, and what importing it costs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trtforge.engine.backend import (
    BACKENDS,
    MEASURED_FIELDS,
    Availability,
    BuildReport,
    BuildRequest,
    ValueTriple,
    get_backend,
    require_installed,
)
from trtforge.errors import MissingError, UsageError

REQUEST = BuildRequest(
    onnx=Path("a/model.onnx"),
    output=Path("b/model.engine"),
    log=Path("b/build.log"),
    backend="tensorrt_rtx",
    profiles=(
        {"x": ((1, 3), (4, 3), (8, 3)), "ids": ((1,), (1,), (1,))},
        {"x": ((9,),) * 3, "k": ValueTriple(((-1,), (2,), (3,)))},
    ),
    compute_capabilities=("8.6", "12.0"),
    workspace_mib=512,
    tf32=True,
    timeout_s=12.5,
    memory_limit_mib=2000,
)


def test_a_request_survives_json():
    read = BuildRequest.from_json(json.loads(json.dumps(REQUEST.as_json())))
    assert read == REQUEST
    kinds = [[type(triple) for triple in profile.values()] for profile in read.profiles]
    assert kinds == [[tuple, tuple], [tuple, ValueTriple]], "equal to a plain tuple, but not one"


def test_a_report_survives_json_and_names_its_measured_fields():
    report = BuildReport(
        backend="tensorrt_rtx",
        version="1.7",
        engine_bytes=1,
        engine_sha256="sha256:00",
        profiles=REQUEST.profiles,
        compute_capabilities=("8.6",),
        parse_seconds=0.5,
        build_seconds=1.5,
        peak_rss_bytes=3,
        activation_memory_bytes=None,
        warnings=("w",),
        layers=({"name": "conv"},),
    )
    data = json.loads(json.dumps(report.as_json()))
    assert BuildReport.from_json(data) == report
    assert set(MEASURED_FIELDS) <= set(data)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_of_the_table_exists_under_its_name(name):
    try:
        assert get_backend(name).name == name
    except MissingError as error:
        assert "pip install" in error.hint  # noqa: PT017


def test_an_unknown_backend_lists_the_known():
    with pytest.raises(UsageError, match="unknown backend 'tensorflow'") as caught:
        get_backend("tensorflow")
    assert "tensorrt_rtx" in caught.value.hint


def test_a_backend_that_is_not_installed_is_exit_3():
    class Absent:
        name = "tensorrt"

        def available(self):
            return Availability("tensorrt", False, None, False, False, "pip install tensorrt")

    with pytest.raises(MissingError) as caught:
        require_installed(Absent())
    assert (caught.value.exit_status, caught.value.hint) == (3, "pip install tensorrt")


def test_the_types_import_nothing_heavy():
    program = (
        "import sys, trtforge.engine.backend\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'polygraphy', 'tensorrt_rtx', 'tensorrt'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"
