"""docs/debugging.md: its example prints what is shown, options and numbers are the code's.

To accept what is printed: TRTFORGE_UPDATE_GOLDENS=1 pytest tests/docs/test_debugging_page.py
"""

import re
from pathlib import Path

import pytest
from debug_faults import FAULTS, planted, subject_of_model
from documents import REPOSITORY, blocks_of, masked, run_script, transcripts, updates_goldens

from trtforge.cli.commands.debug import debug
from trtforge.pipeline import layers
from trtforge.pipeline.debug import examine
from trtforge.pipeline.debug_subject import DebugOptions
from trtforge.verify import jumps
from trtforge.verify.layers import MEMORY_BYTES

FILE = REPOSITORY / "docs" / "debugging.md"
ROWS = {
    "attention_logits": "attention logits",
    "vanishing_variance": "variance of",
    "additive_mask": "mask of",
    "weight": "weight of",
    "cancellation": "difference of",
    "two": "two faults",
    "three": "three faults",
}


def test_the_example_prints_what_is_shown(checkout: Path, environment: dict[str, str]) -> None:
    page = FILE.read_text(encoding="utf-8")
    ((command, text),) = transcripts(list(blocks_of(page)))
    printed = run_script(command, checkout, environment)
    if updates_goldens():
        before, after = (f"{command}```\n\n```text\n{one}" for one in (text, printed))
        FILE.write_text(page.replace(before, after), encoding="utf-8")
    else:
        assert masked(printed) == masked(text)


def test_every_option_is_told() -> None:
    page = FILE.read_text(encoding="utf-8")
    options = {name for parameter in debug.params for name in parameter.opts if name[:2] == "--"}
    common = {"--quiet", "--verbose"}
    assert not {name for name in options - common if not re.search(rf"`{name}[` ]", page)}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_table_is_what_is_needed(fault, tmp_path: Path) -> None:
    if fault.__name__ not in ROWS:
        return
    line = next(
        line
        for line in FILE.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| {ROWS[fault.__name__]}")
    )
    model, culprits = planted(fault)
    result = examine(subject_of_model(model, tmp_path), DebugOptions())
    assert line.endswith(f"| {len(culprits)} | {result.evaluations} |")


def test_the_numbers_are_those_of_the_code() -> None:
    page = " ".join(FILE.read_text(encoding="utf-8").split())
    for name, kind in (("FP16", "fp16"), ("BF16", "bf16"), ("INT8", "int8"), ("FP32", "fp32")):
        assert f"{jumps.attainable_db(kind):.0f} dB for {name}" in page
    assert f"{jumps.attainable_db('fp8'):.0f} dB for FP8 E4M3" in page
    assert f"more than {jumps.JUMP_DB:.0f} dB" in page
    assert f"of {layers.LAYER_SAMPLES} samples" in page
    assert f"fit into {MEMORY_BYTES >> 20} MiB" in page
    defaults = DebugOptions()
    assert f"`--samples` ({defaults.samples})" in page
    assert f"`--evaluations` ({defaults.evaluations})" in page
