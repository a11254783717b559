"""What the attention passes and the precision room leave builds with the real TensorRT-RTX."""

from pathlib import Path
from typing import Any

import models_graph as mg
import numpy as np
import onnx
import pytest
from attention_spellings import LENGTH, LOWEST, Spelling, applied, written
from onnx import ModelProto, TensorProto

from trtforge.engine.backend import BuildReport, BuildRequest, get_backend
from trtforge.graph.model import Model
from trtforge.precision.cast import typed
from trtforge.recipe.schema import Precision

STATIC: dict[str, Any] = {"dims": (2, LENGTH), "mask_dims": (2, 1, LENGTH, LENGTH)}


def built(model: Model, folder: Path) -> BuildReport:
    path = folder / "model.onnx"
    model.save(path)
    request = BuildRequest(
        onnx=path,
        output=folder / "model.engine",
        log=folder / "build.log",
        backend="tensorrt_rtx",
        compute_capabilities=("8.6",),
    )
    return get_backend("tensorrt_rtx").build(request)


def with_mask_of(proto: ModelProto, fill: float) -> ModelProto:
    """Let a Where of 0 and `fill` make the mask from a condition."""
    mask = next(one for one in proto.graph.input if one.name == "mask")
    mask.name, mask.type.tensor_type.elem_type = "kept", TensorProto.BOOL
    proto.graph.initializer.append(mg.tensor("mask.fill", np.float32(fill)))
    proto.graph.initializer.append(mg.tensor("mask.zero", np.float32(0)))
    proto.graph.node.insert(0, mg.node("Where", ["kept", "mask.zero", "mask.fill"], ["mask"]))
    onnx.checker.check_model(proto, full_check=True)
    return proto


@pytest.mark.parametrize("kind", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("fill", [-np.inf, -1e4, LOWEST])
@pytest.mark.parametrize(
    "spelling", [Spelling(mask="add"), Spelling(mask="add", shared=2, keys="swapped")]
)
def test_a_fused_attention_builds_in_each_type(
    spelling: Spelling, fill: float, kind: str, tmp_path: Path
) -> None:
    fused, outcome = applied(with_mask_of(written(spelling, **STATIC), fill))
    assert outcome.rewrites == 1
    precision = Precision.model_validate({"type": kind})
    assert built(typed(fused, None, precision).model, tmp_path).engine_bytes > 0


def test_a_scale_on_the_queries_makes_a_smaller_engine(tmp_path: Path) -> None:
    """The reason for the pass: one kernel, where there were several."""
    proto = written(mask="where", **STATIC)
    moved, outcome = applied(proto, "attention-scale")
    assert outcome.rewrites == 1
    sizes = []
    for name, model in (("before", Model(proto)), ("after", moved)):
        folder = tmp_path / name
        folder.mkdir()
        half = typed(model, None, Precision(type="fp16")).model
        sizes.append(built(half, folder).engine_bytes)
    assert sizes[1] < sizes[0]


def test_no_guard_makes_a_smaller_engine(tmp_path: Path) -> None:
    proto = written(softmax=("guard",), **STATIC)
    bare, outcome = applied(proto, "softmax-guard")
    assert outcome.rewrites == 1
    sizes = []
    for name, model in (("before", Model(proto)), ("after", bare)):
        folder = tmp_path / name
        folder.mkdir()
        sizes.append(built(model, folder).engine_bytes)
    assert sizes[1] < sizes[0]
