"""Weights that are dequantized once: the numbers of ONNX Runtime's DequantizeLinear."""

import numpy as np
import pytest
from emulation_samples import TYPES, differing, nodes, values, written
from onnx import TensorProto, helper, numpy_helper

from trtforge.graph.model import Model
from trtforge.precision.emulate import emulate

STORED = {
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int4": TensorProto.INT4,
    "uint4": TensorProto.UINT4,
    "int32": TensorProto.INT32,
    "fp8": TensorProto.FLOAT8E4M3FN,
    "fp8 e5m2": TensorProto.FLOAT8E5M2,
}
FORMS: dict[str, tuple[str, tuple[int, ...]]] = {
    "whole": ("", ()),
    "first axis": ("axis = 0", (6,)),
    "last axis": ("axis = -1", (5,)),
    "blocks": ("axis = 0, block_size = 2", (3, 5)),
    "blocks that do not fit": ("axis = 1, block_size = 2", (6, 3)),
}


def weighted(kind: str, stored: int, form: str, zero: bool) -> Model:
    attributes, shape = FORMS[form]
    called = f"<{attributes}>" if attributes else ""
    inputs = "q, scale, zero" if zero else "q, scale"
    text = (
        f"(T[2, 6] x) => (T[2, 5] y) {{ w = DequantizeLinear{called}({inputs}) y = MatMul(x, w) }}"
    )
    model = written(text, kind, scale=np.abs(values(*shape, seed=3)) + np.float32(0.01))
    low = 0 if stored in (TensorProto.UINT4, TensorProto.UINT8) else -8
    weights = [low + number % 8 for number in range(30)]
    tensors = [helper.make_tensor("q", stored, [6, 5], weights)]
    if zero:
        count = int(np.prod(shape))
        tensors.append(helper.make_tensor("zero", stored, shape, [n % 3 for n in range(count)]))
    model.proto.graph.initializer.extend(tensors)
    return model


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stored", STORED)
def test_weights_have_the_values_of_the_kernel(stored: str, form: str, kind: str) -> None:
    for zero in (False, True):
        if zero and stored in ("int32", "fp8", "fp8 e5m2"):
            continue  # ONNX has no zero points but 0 there
        model = weighted(kind, STORED[stored], form, zero)
        twin = emulate(model)
        assert not nodes(twin, "DequantizeLinear")
        assert differing(model, {"x": values(2, 6).astype(TYPES[kind])}) == []


def test_what_may_change_or_ends_the_graph_stays_a_node() -> None:
    text = """(float16[2, 6] x, int8[6] q) => (float16[2, 6] y, float16[6] v) {
      w = DequantizeLinear(q, scale)
      v = DequantizeLinear(r, scale)
      y = Sum(x, w, v)
    }"""
    model = written(text, "float16", scale=np.float32(0.3), r=np.arange(6, dtype=np.int8))
    assert len(nodes(emulate(model), "DequantizeLinear")) == 2
    feeds = {"x": values(2, 6).astype(np.float16), "q": np.arange(-3, 3, dtype=np.int8)}
    assert differing(model, feeds) == []
    model.proto.graph.initializer.append(numpy_helper.from_array(feeds["q"], "q"))
    assert len(nodes(emulate(model), "DequantizeLinear")) == 2, "a caller may override it"
