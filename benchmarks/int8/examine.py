"""examine.py judge MODEL QUANTIZED HELD | build FILE | fp16 MODEL OUT: one JSON line.

judge: both graphs as written (no optimizations) on held-out samples: SQNR of each output, also of
what is left after taking away the mean over the samples (a random network's outputs hardly vary),
agreement of the arg-max of the last output, and how many matrix products have both operands
quantized. build: the bytes of the TensorRT-RTX engine.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import onnx
from samples import feeds

_PRODUCTS = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])


def judge(model: str, quantized: str, held: str) -> dict[str, Any]:
    """Compare a quantized file with its original."""
    reference, candidate = _outputs(model, held), _outputs(quantized, held)
    proto = onnx.load(quantized, load_external_data=False)
    onnx.checker.check_model(quantized)
    made = {name: node.op_type for node in proto.graph.node for name in node.output}
    products = [node for node in proto.graph.node if node.op_type in _PRODUCTS]
    both = [n for n in products if all(made.get(i) == "DequantizeLinear" for i in n.input[:2])]
    return {
        "products": len(products),
        "quantized": len(both),
        "pairs": sum(node.op_type == "QuantizeLinear" for node in proto.graph.node),
        "bytes": sum(p.stat().st_size for p in Path(quantized).parent.iterdir()),
        "sqnr_db": [_sqnr(a, b) for a, b in zip(reference, candidate, strict=True)],
        "centred_db": [
            _sqnr(a - a.mean(0), b - a.mean(0)) for a, b in zip(reference, candidate, strict=True)
        ],
        "agreement": float(np.mean(_classes(reference[-1]) == _classes(candidate[-1]))),
    }


def _outputs(path: str, held: str) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    rows = [session.run(None, sample) for sample in feeds(held, names)]
    return [np.concatenate(column).astype(np.float64) for column in zip(*rows, strict=True)]


def _sqnr(reference: Any, candidate: Any) -> float:
    noise = max(float(((candidate - reference) ** 2).sum()), 1e-300)
    return round(float(10 * np.log10((reference**2).sum() / noise)), 2)


def _classes(values: Any) -> Any:
    return values.reshape(len(values), -1).argmax(1)


def build(path: str) -> dict[str, Any]:
    """Build an engine as `trtforge build` does."""
    from trtforge.engine.backend import BuildRequest, load_backend
    from trtforge.errors import ForgeError
    from trtforge.graph.model import Model

    specs = [spec for spec in Model.load(Path(path)).contract.inputs if spec.is_dynamic]

    def shape(dims: Any, size: int) -> tuple[int, ...]:
        return tuple(dim if isinstance(dim, int) else size for dim in dims)

    profile = {s.name: (shape(s.dims, 1), shape(s.dims, 8), shape(s.dims, 8)) for s in specs}
    with tempfile.TemporaryDirectory() as folder:
        engine = Path(folder) / "engine"
        request = BuildRequest(
            onnx=Path(path),
            output=engine,
            log=Path(folder) / "log",
            backend="tensorrt_rtx",
            profiles=(profile,) if profile else (),
        )
        try:
            load_backend("tensorrt_rtx").build(request)
        except ForgeError as error:
            return {"failed": str(error)[:300]}
        return {"engine_bytes": engine.stat().st_size}


def fp16(model: str, target: str) -> dict[str, Any]:
    """Write the FP16 form of a model, cleaned."""
    from trtforge.graph.model import Model
    from trtforge.graph.passes import PassRequest, run_passes
    from trtforge.precision.cast import typed
    from trtforge.recipe.schema import Precision

    cleaned = run_passes(Model.load(Path(model)), PassRequest(prove=False)).model
    typed(cleaned, None, Precision(type="fp16")).model.save(Path(target))
    return {}


_JOBS = {"judge": judge, "build": build, "fp16": fp16}

if __name__ == "__main__":
    print(json.dumps(_JOBS[sys.argv[1]](*sys.argv[2:])))
