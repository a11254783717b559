"""A report's data as a build makes it: a small INT8 network on two targets."""

from typing import Any

from trtforge.report.data import ReportData

PERCEPTIBLE = {
    "elements": 3600,
    "finite": 3600,
    "sqnr_db": 27.3125,
    "max_abs": 0.8721,
    "max_rel": "inf",
    "cosine": 0.999071,
    "exact_agreement": 0.0,
    "top1_agreement": 0.9944,
    "rows": 360,
    "reference_amax": 21.5,
    "nonfinite": 0,
    "candidate_nonfinite": 0,
}


def parity(**changes: Any) -> dict[str, Any]:
    output = {
        "verdict": "pass",
        "reason": None,
        "dtype": "float32",
        "metrics": PERCEPTIBLE,
        "tolerance": {
            "sqnr_db": 20.0,
            "cosine": None,
            "max_abs": None,
            "max_rel": None,
            "top1_agreement": 0.99,
            "accuracy_drop": 0.01,
            "exact_agreement": None,
        },
        "tolerance_source": "recipe",
        "failures": [],
        "groups": {"data": PERCEPTIBLE, "corner": PERCEPTIBLE},
        "cases": [
            {"name": "corner min", "group": "corner", "metrics": PERCEPTIBLE},
            {
                "name": "corner max",
                "group": "corner",
                "metrics": PERCEPTIBLE | {"sqnr_db": "inf", "max_abs": 0.0},
            },
        ],
        "accuracy": None,
        "errors": {"unit": 32.0, "exact": 12, "lowest": -14, "counts": [88, 500, 2000, 1000]},
    }
    return {
        "schema": "trtforge.parity/1",
        "verdict": "pass",
        "reason": None,
        "reference": "model.onnx (original)",
        "candidate": "model.onnx (emulated)",
        "judged": ["data", "corner"],
        "cases": {"data": 12, "corner": 3, "random": 1},
        "outputs": {"logits": output | changes.pop("output", {})},
        "failures": [],
        "accuracy": {
            "output": "logits",
            "reference": 0.9833,
            "candidate": 0.9806,
            "samples": 360,
        },
    } | changes


def not_run(reason: str) -> dict[str, Any]:
    return parity(
        verdict="not_run",
        reason=reason,
        reference="model.onnx (original)",
        candidate="model.engine (tensorrt_rtx)",
        judged=[],
        cases={},
        outputs={},
        accuracy=None,
    )


def layer(tensor: str, sqnr_db: Any, **changes: Any) -> dict[str, Any]:
    return {
        "tensor": tensor,
        "node": tensor.removesuffix("_output_0"),
        "op": "Relu",
        "type": "fp16",
        "sqnr_db": sqnr_db,
        "max_abs": 0.25,
        "reference_amax": 4.0,
        "nonfinite": 0,
    } | changes


def point(cost: Any, value: Any, layers: Any, **changes: Any) -> dict[str, Any]:
    found = {"cost": cost, "value": value, "layers": layers, "chosen": False, "meets": False}
    return found | changes


OPTIMIZE = {
    "nodes_before": 61,
    "nodes_after": 29,
    "initializer_bytes_before": 143_360,
    "initializer_bytes_after": 139_264,
    "rounds": 2,
    "passes": [
        {"name": "constant-folding", "rewrites": 9, "rolled_back": False, "notes": []},
        {"name": "dead-code", "rewrites": 0, "rolled_back": False, "notes": []},
        {
            "name": "conv-batchnorm",
            "rewrites": 6,
            "rolled_back": False,
            "notes": [
                {"kind": "matched", "node": "/stem/conv", "reason": "folded"},
                {
                    "kind": "refused",
                    "node": "/block2/conv",
                    "reason": "its output is also a graph output",
                },
            ],
        },
        {
            "name": "conv-mul-add",
            "rewrites": 0,
            "rolled_back": True,
            "reason": "SQNR fell to 31.0 dB at max",
            "notes": [],
        },
    ],
    "proof": {
        "verdict": "pass",
        "reason": None,
        "cases": 3,
        "max_abs": 1.9e-6,
        "min_sqnr_db": 131.4,
    },
}

SAMPLE = ReportData(
    name="digits-int8",
    facts={
        "model": "model.onnx",
        "source": "sha256:9f2c1b7d04aa",
        "precision": "fp16, quantized int8",
        "trtforge": "0.1.0",
    },
    graph_parity=parity(),
    engine_parity={"rtx": not_run("no NVIDIA driver")},
    attest={
        "verdict": "pass",
        "reason": None,
        "quantized_macs_share": 0.9412,
        "min_quantized_macs": 0.8,
        "checks": [
            {
                "what": "macs",
                "type": "int8",
                "share": 0.9412,
                "min": 0.8,
                "max": None,
                "verdict": "pass",
                "view": "typed ONNX",
                "reason": None,
            },
            {
                "what": "weights",
                "type": "fp32",
                "share": 0.0478,
                "min": None,
                "max": 0.05,
                "verdict": "pass",
            },
        ],
    },
    attested={
        "macs": {"int8": 1_482_752, "fp16": 92_160, "fp32": 512},
        "weights_bytes": {"int8": 121_344, "fp16": 11_264, "fp32": 6_656},
        "activations_bytes": {"int8": 65_536, "fp16": 16_384},
        "nodes": {"int8": 9, "fp16": 17, "fp32": 3},
        "per_node": [
            {"name": "/stem/conv", "op": "Conv", "type": "int8", "macs": 1_482_752},
            {"name": "/stem/relu", "op": "Relu", "type": "fp16", "macs": 0},
            {"name": "/head/gemm", "op": "Gemm", "type": "fp16", "macs": 5_120},
            {"name": "/head/softmax", "op": "Softmax", "type": "fp32", "macs": 0},
        ],
    },
    layers={
        "schema": "trtforge.layers/1",
        "samples": 8,
        "layers": [layer("/stem/relu_output_0", 41.25), layer("/head/gemm_output_0", 23.5)],
        "first_jump": {
            "tensor": "/head/gemm_output_0",
            "node": "/head/gemm",
            "op": "Gemm",
            "from_db": 41.25,
            "to_db": 23.5,
        },
    },
    budget={
        "schema": "trtforge.budget/1",
        "measure": "sqnr_db",
        "bound": 25.0,
        "points": [
            point(0.25, 18.5, {"int8": 7}),
            point(0.375, 27.25, {"int8": 5, "fp16": 2}, meets=True, chosen=True),
            point(0.5, 33.75, {"fp16": 7}, meets=True),
        ],
    },
    optimize=OPTIMIZE,
    decisions=[
        {
            "node": "/stem/conv",
            "op": "Conv",
            "tensor": "image",
            "action": "quantized",
            "reason": "input and per-channel weights",
        },
        {
            "node": "/head/softmax",
            "op": "Softmax",
            "tensor": "",
            "action": "kept",
            "reason": "keep rule {op: Softmax, type: fp32}",
        },
    ],
    calibration={
        "method": "entropy",
        "samples": 256,
        "ranges": {
            "image": {"min": 0.0, "max": 1.0, "amax": 1.0},
            "/stem/relu_output_0": {
                "min": 0.0,
                "max": 6.8125,
                "amax": 5.921,
                "spark": {"limit": 8.0, "counts": [9000, 700, 60, 8, 4, 2, 1, 0]},
            },
            "/block1/add_output_0": {"min": -4.125, "max": 9.75, "amax": 8.44},
        },
        "warnings": ["tensor '/stem/pad' is constant"],
    },
    contract={
        "inputs": [{"name": "image", "dtype": "float32", "dims": ["N", 1, 8, 8]}],
        "outputs": [{"name": "logits", "dtype": "float32", "dims": ["N", 10]}],
    },
    profiles=[{"image": {"min": [1, 1, 8, 8], "opt": [32, 1, 8, 8], "max": [256, 1, 8, 8]}}],
    targets=[
        {
            "name": "rtx",
            "backend": "tensorrt_rtx",
            "version": "1.7.1.116",
            "engine_bytes": 1_381_204,
            "engine_sha256": "sha256:5d1f0c2ab34e77",
            "compute_capabilities": ["8.6", "8.9", "12.0"],
            "activation_memory_bytes": 2_621_440,
            "warnings": ["Converting conv activation scales to fp32."],
        },
        {"name": "cpu", "backend": "onnxruntime", "version": "1.31.1"},
    ],
    sizes={"original ONNX": 146_000, "typed ONNX": 139_000, "engine rtx": 1_381_204},
    recipe="version: 1\nname: digits-int8\n",
    commands=["trtforge build int8.yaml", "trtforge verify BUNDLE --against model.onnx"],
    environment={
        "platform": "linux-x86_64",
        "python": "3.11.7",
        "onnx": "1.23.2",
        "onnxruntime": "1.31.1",
        "GPU": "none (no NVIDIA driver)",
    },
    timings={"optimize": 0.41, "calibrate": 1.92, "build:rtx": 2.37, "verify": 0.66},
)
