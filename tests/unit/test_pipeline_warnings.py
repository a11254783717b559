"""Warnings of the typed graph: those about engines only where such an engine is built."""

from pathlib import Path

from trtforge.pipeline.events import Event, Warned
from trtforge.pipeline.plan import stages_of
from trtforge.pipeline.run import BuildOptions, job_of, run_stages
from trtforge.pipeline.stages.precision import warnings_of

UP_TO_PRECISION = ("import", "optimize", "calibrate", "precision")
LARGER = "is expected to be larger than the FP16 one"


def warned(digits: Path, store: Path, target: str) -> list[str]:
    events: list[Event] = []
    options = BuildOptions(store=store, targets=(target,))
    job = job_of(digits / "int8.yaml", options, events.append)
    stages = [stage for stage in stages_of(job.recipe) if stage.kind in UP_TO_PRECISION]
    entries, _ = run_stages(job, stages, options.effort)
    said = [event.text for event in events if isinstance(event, Warned)]
    assert [text for text in warnings_of(entries["precision"], job.recipe) if LARGER in text] == [
        text for text in said if LARGER in text
    ]
    return said


def test_a_recipe_without_an_rtx_target_has_no_engine_that_could_be_larger(
    digits: Path, tmp_path: Path
) -> None:
    """The second of each is from the store, which holds one typed graph for all targets."""
    for _ in range(2):
        assert not [text for text in warned(digits, tmp_path, "cpu") if LARGER in text]
        assert len([text for text in warned(digits, tmp_path, "rtx") if LARGER in text]) == 1
