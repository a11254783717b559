"""The pure parts of the engine room: progress, log, remedies, targets, messages, arrays."""

import hashlib
import itertools
import os
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from trtforge.engine import arrays, messages
from trtforge.engine.engine_file import EngineFile
from trtforge.engine.layers import onnx_nodes
from trtforge.engine.native_log import NOISE, LogBook
from trtforge.engine.progress import PhaseTree, Progress
from trtforge.engine.remedies import BUILDER_REMEDIES, PARSER_REMEDIES, explain
from trtforge.engine.targets import check_types, set_targets, target_names
from trtforge.errors import BuildError, MissingError, Place

CUDA_NOISE = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient "
    "for CUDA runtime version))"
)


def test_nested_phases_fill_their_parents_step():
    tree = PhaseTree()
    tree.start("build", None, 2)
    assert tree.step("build", 0) == 0.5
    tree.start("inner", "build", 1)
    assert tree.step("inner", 0) == 0.75
    tree.finish("inner")
    tree.start("next", "build", 1)
    assert tree.finish("next") == 0.875
    assert tree.step("build", 1) == 1.0


def test_a_phase_that_nobody_announced_changes_nothing():
    tree = PhaseTree()
    tree.start("build", None, 4)
    assert (tree.step("other", 3), tree.finish("other"), tree.step("build", 9)) == (0.0, 0.0, 1.0)


def test_progress_is_scaled_and_says_only_what_is_new():
    said = []
    progress = Progress(lambda share, phase: said.append((round(share, 4), phase)), 0.1, 1.0)
    for fraction, phase in [(0.0, "a"), (0.0001, "a"), (0.5, "a"), (0.5, "b")]:
        progress(fraction, phase)
    assert said == [(0.1, "a"), (0.55, "a"), (0.55, "b")]


def test_the_log_keeps_lines_counts_errors_and_reads_facts():
    lines = []
    book = LogBook("tensorrt_rtx", lines.append, scrub="/home/me/")
    book.record("VERBOSE", "chatter")
    book.record("INFO", "Input filename: /home/me/m.onnx")
    book.record("INFO", "Total Activation Memory: 100 bytes")
    book.record("INFO", "Total Activation Memory: 70 bytes")
    book.record("WARNING", "twice")
    book.record("WARNING", "twice")
    book.record("ERROR", "Error Code 4: real")
    book.record("ERROR", CUDA_NOISE)
    book.record("INTERNAL_ERROR", "worse")
    assert lines[0] == "[I] Input filename: m.onnx"
    assert [line[:3] for line in lines] == ["[I]"] * 3 + ["[W]"] * 2 + ["[E]"] * 2 + ["[F]"]
    assert book.errors == ["Error Code 4: real", "worse"]
    assert list(book.warnings) == ["twice"]
    assert book.activation_bytes == 100


def test_noise_is_noise_only_for_the_flavour_that_makes_it():
    tactic = "Error Code: 9: Skipping tactic 0xaa15e430 due to exception canImplement1"
    assert LogBook("tensorrt_rtx", print).is_noise(CUDA_NOISE)
    assert not LogBook("tensorrt", print).is_noise(CUDA_NOISE)
    assert LogBook("tensorrt", print).is_noise(tactic)
    assert not LogBook("tensorrt_rtx", print).is_noise(tactic)
    assert not LogBook("tensorrt_rtx", print).is_noise(CUDA_NOISE.replace("35", "351"))
    assert all(noise.reason for noise in NOISE)


def test_verbose_lines_are_written_when_asked_for():
    lines = []
    LogBook("tensorrt_rtx", lines.append, verbose=True).record("VERBOSE", "chatter")
    assert lines == ["[V] chatter"]


@pytest.mark.parametrize(
    ("message", "remedies", "reason", "hint"),
    [
        ("false", PARSER_REMEDIES, "not supported", "rewrite"),
        (
            "Assertion failed: Non-zero zero point is not supported.",
            PARSER_REMEDIES,
            "zero",
            "symm",
        ),
        ("OutOfMemory (Requested size was 8468736 bytes.)", BUILDER_REMEDIES, "8468736", "raise"),
        ("HW-specific datatypes: fp8_e4m3.", BUILDER_REMEDIES, "fp8", "8.9"),
        (
            "b_DQ: input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8.",
            PARSER_REMEDIES,
            "it dequantizes Int32",
            "QuantizeBias=False",
        ),
        (
            "checks failed:\n\nError during shape inference of\n__r = reshape(/l/a.1), shape=(1)",
            BUILDER_REMEDIES,
            "the shape of reshape(/l/a.1)",
            "keep LSTM",
        ),
    ],
)
def test_messages_get_a_reason_and_a_remedy(message, remedies, reason, hint):
    said = explain(message, remedies)
    assert reason in said[0]
    assert hint in said[1]


def test_an_unknown_message_is_passed_on_as_one_line():
    assert explain(" something new ", BUILDER_REMEDIES) == ("something new", None)
    text = "first\n  second\n[checkMacros.cpp::catchCudaError::250] (cudaError 35: no driver)\n"
    assert explain(text, PARSER_REMEDIES) == ("first second", None)


@pytest.mark.parametrize(
    ("metadata", "nodes"),
    [
        ("[ONNX Layer: conv1]", ["conv1"]),
        ("[ONNX Layer: a][ONNX Layer: /b/c[0]]", ["a", "/b/c[0]"]),
        ("[ONNX Layer: a]\x1e[ONNX Layer: b]", ["a", "b"]),
        ("", []),
    ],
)
def test_onnx_nodes_are_read_from_metadata(metadata, nodes):
    assert onnx_nodes(metadata) == nodes


class FakeConfig:
    num_compute_capabilities = 0

    def __init__(self, takes: bool = True) -> None:
        self.calls = []
        self.takes = takes

    def set_compute_capability(self, member, index):
        self.calls.append((member, index))
        return self.takes


def fake_trt():
    members = SimpleNamespace(SM75=75, SM89=89, SM120=120, CURRENT=1, NONE=0)
    return SimpleNamespace(ComputeCapability=members, __name__="fake", __version__="9")


def test_targets_are_named_in_rising_order_and_set_once_each():
    assert target_names(fake_trt()) == {"7.5": "SM75", "8.9": "SM89", "12.0": "SM120"}
    config = FakeConfig()
    set_targets(fake_trt(), config, ("12.0", "8.9", "12.0"))
    assert config.calls == [(120, 0), (89, 1)]
    assert config.num_compute_capabilities == 2


def test_a_target_that_is_not_taken_is_a_failure():
    with pytest.raises(BuildError, match=r"did not take compute capability 8\.9"):
        set_targets(fake_trt(), FakeConfig(takes=False), ("8.9",))


def layer(kind: str, dtype: str) -> dict:
    return {"name": "l", "type": kind, "onnx_nodes": ["n"], "outputs": [{"dtype": dtype}]}


@pytest.mark.parametrize(
    ("kind", "dtype", "capabilities", "fits"),
    [
        ("CONVOLUTION", "float32", ("7.5",), True),
        ("MATRIX_MULTIPLY", "float16", ("7.5",), True),
        ("MATRIX_MULTIPLY", "float32", ("8.0", "12.0"), True),
        ("MATRIX_MULTIPLY", "float32", ("8.0", "7.5"), False),
        ("CAST", "bfloat16", ("8.0",), True),
        ("CAST", "bfloat16", ("7.5",), False),
        ("QUANTIZE", "float8_e4m3fn", ("8.9",), True),
        ("QUANTIZE", "float8_e4m3fn", ("8.6",), False),
        ("QUANTIZE", "float8_e4m3fn", (), True),
    ],
)
def test_types_and_targets(kind, dtype, capabilities, fits):
    if fits:
        check_types([layer(kind, dtype)], capabilities, "m.onnx")
        return
    with pytest.raises(BuildError) as caught:
        check_types([layer(kind, dtype)], capabilities, "m.onnx")
    assert caught.value.where == Place(file="m.onnx", node="n")


def test_errors_cross_the_process_border_whole():
    for error in (
        MissingError("TF0301", "no space", "free some", Place(file="x")),
        BuildError("TF0608", "no\nengine ü", None, Place(file="m", node="n"), details="tail"),
    ):
        back = messages.raised(messages.decode(messages.encode(messages.failure(error))))
        assert type(back) is type(error)
        assert back.problems == error.problems
        assert back.details == error.details


@pytest.mark.parametrize("line", [b"", b"text\n", b"[1]\n", b"{}\n", b"\xff\n", b"null\n"])
def test_other_lines_are_no_messages(line):
    assert messages.decode(line) is None


def test_arrays_keep_names_types_and_order(tmp_path):
    given = {
        "file": np.arange(6, dtype=np.float32).reshape(2, 3),
        "/a/b:0": np.array(3, dtype=np.int64),
        "half": np.ones((2, 2), np.float16).T,
        "bf16": np.ones((2, 3), ml_dtypes.bfloat16).T,
        "fp8": np.full((3,), 1.5, ml_dtypes.float8_e4m3fn),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
    }
    back = arrays.load(tmp_path / "x.npz", arrays.store(tmp_path / "x.npz", given))
    assert list(back) == list(given)
    for name, array in given.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_an_engine_file_appears_whole_with_its_digest(tmp_path):
    path = tmp_path / "m.engine"
    chunks = [os.urandom(1000), os.urandom(3), b""]
    with EngineFile(path) as file:
        assert [file.write(chunk) for chunk in chunks] == [1000, 3, 0]
        assert not path.exists()
        written = file.commit()
    assert path.read_bytes() == b"".join(chunks)
    assert written.size == 1003
    assert written.sha256 == f"sha256:{hashlib.sha256(b''.join(chunks)).hexdigest()}"
    assert list(tmp_path.iterdir()) == [path]


def test_an_engine_file_that_is_left_early_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="stop"), EngineFile(tmp_path / "m.engine") as file:
        raise ValueError(f"stop after {file.write(b'abc')}")
    assert list(tmp_path.iterdir()) == []


def test_pairs_of_progress_never_fall_for_the_phases_of_a_real_build():
    tree = PhaseTree()
    shares = [tree.start("Building engine", None, 6)]
    for step, name in enumerate(["Cloning", "Preparing", "Subgraph"]):
        shares.append(tree.start(name, "Building engine", 3))
        shares.extend(tree.step(name, index) for index in range(3))
        shares.append(tree.finish(name))
        shares.append(tree.step("Building engine", step))
    shares.append(tree.finish("Building engine"))
    assert all(a <= b for a, b in itertools.pairwise(shares))
    assert shares[-1] == 1.0
