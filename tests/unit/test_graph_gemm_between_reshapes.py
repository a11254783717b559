"""Gemm between Reshapes becomes MatMul and Add; the numbers stay."""

import graph_chain_cases as cases
import models_graph as mg
import numpy as np
import pytest
from onnx import ModelProto

PASS = "gemm-between-reshapes"


def _wrapped(bias: object = None, dtype: type = np.float32, **gemm: object) -> ModelProto:
    """x (N, M, 4) as rows, times (4, 6), as (N, M, 6); `shape` is what x's rows are put back to."""
    weight = mg.weights(6, 4) if gemm.get("transB") else mg.weights(4, 6)
    constants = {"r": np.array([-1, 4]), "w": weight.astype(dtype)}
    names = ["t", "w"]
    if bias is not None:
        constants["b"] = np.asarray(bias, dtype)
        names.append("b")
    nodes = [
        mg.node("Reshape", ["x", "r"], ["t"]),
        mg.node("Gemm", names, ["u"], **gemm),
        mg.node("Shape", ["x"], ["d"], end=2),
        mg.node("Concat", ["d", "o"], ["s"], axis=0),
        mg.node("Reshape", ["u", "s"], ["y"]),
    ]
    constants["o"] = np.array([6])
    return cases.graph(nodes, {"x": ["N", "M", 4]}, constants, dtype=dtype)


@pytest.mark.parametrize(("dtype", "close"), [(np.float32, 1e-5), (np.float16, 5e-3)])
@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("bias", [None, mg.weights(6), mg.weights(1, 6), np.float32(2)])
def test_rows_need_not_be_laid_out(bias: object, turned: int, dtype: type, close: float) -> None:
    proto = _wrapped(bias, dtype=dtype, transB=turned)
    expected = ["MatMul"] if bias is None else ["MatMul", "Add"]
    cases.becomes(proto, PASS, expected, close)


@pytest.mark.parametrize("gemm", [{"alpha": 0.5}, {"beta": 2.0}])
def test_scaling_gemm_stays(gemm: dict[str, float]) -> None:
    cases.refused(_wrapped(mg.weights(6), **gemm), PASS, "it scales")


@pytest.mark.parametrize(
    ("dims", "target"), [([2, 3, 8], [0, -1]), ([2, 3, 4], [3, 2, 6]), ([2, 3, 4], [6, 6])]
)
def test_other_rows_stay(dims: list[int], target: list[int]) -> None:
    constants = {"r": np.array([-1, 4]), "w": mg.weights(4, 6), "s": np.array(target)}
    nodes = [
        mg.node("Reshape", ["x", "r"], ["t"]),
        mg.node("Gemm", ["t", "w"], ["u"]),
        mg.node("Reshape", ["u", "s"], ["y"]),
    ]
    proto = cases.graph(nodes, {"x": dims}, constants)
    cases.refused(proto, PASS, "do more than")


def test_result_read_elsewhere_stays() -> None:
    proto = _wrapped()
    proto.graph.node.append(mg.node("Abs", ["t"], ["z"]))
    proto.graph.output.append(mg.info("z", [None, 4]))
    cases.refused(proto, PASS, "read by other nodes")


def test_shared_weights_are_not_kept_twice() -> None:
    proto = _wrapped(transB=1)
    proto.graph.node.append(mg.node("Abs", ["w"], ["z"]))
    proto.graph.output.append(mg.info("z", [6, 4]))
    cases.refused(proto, PASS, "would be kept twice")


def test_one_reshape_for_three_gemms_goes() -> None:
    nodes = [mg.node("Reshape", ["x", "r"], ["t"])]
    constants = {"r": np.array([-1, 4]), "s": np.array([0, 3, 4])}
    for name in "qkv":
        constants[f"w{name}"] = mg.weights(4, 4, seed=ord(name))
        nodes.append(mg.node("Gemm", ["t", f"w{name}"], [f"g{name}"]))
        nodes.append(mg.node("Reshape", [f"g{name}", "s"], [name]))
    constants["s"] = np.array([2, 3, 4])
    proto = cases.graph(nodes, {"x": [2, 3, 4]}, constants, ["q", "k", "v"])
    cases.becomes(proto, PASS, ["MatMul"] * 3, 1e-5)
