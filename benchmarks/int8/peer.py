"""peer.py MinMax|Entropy|Percentile|nncf MODEL DATA OUT: a peer's own way to an INT8 file.

ONNX Runtime: `quantize_static` after `quant_pre_process`, its documented first step; per channel,
symmetric, and without INT32 biases behind DequantizeLinear, which no TensorRT parser takes.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from samples import count, feeds


def onnxruntime_static(method: str, model: str, data: str, out: str) -> None:
    """Quantize with ONNX Runtime."""
    import onnxruntime
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = f"{out}.prepared.onnx"
    try:
        quant_pre_process(model, prepared)
    except Exception:
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
    session = onnxruntime.InferenceSession(prepared, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._samples = feeds(data, names)

        def get_next(self) -> Any:
            return next(self._samples, None)

    quantize_static(
        prepared,
        out,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=getattr(CalibrationMethod, method),
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
        },
    )
    Path(prepared).unlink()


def nncf_ptq(model: str, data: str, out: str) -> None:
    """Quantize with NNCF's post-training quantization."""
    import nncf
    import onnx

    loaded = onnx.load(model)
    names = [value.name for value in loaded.graph.input]
    samples = count(data)

    class Samples:
        def __iter__(self) -> Any:
            return feeds(data, names)

        def __len__(self) -> int:
            return samples

    operators = {node.op_type for node in loaded.graph.node}
    is_transformer = "Softmax" in operators and "MatMul" in operators and "Relu" not in operators
    options = {"model_type": nncf.ModelType.TRANSFORMER} if is_transformer else {}
    quantized = nncf.quantize(
        loaded,
        nncf.Dataset(Samples()),
        subset_size=samples,
        preset=nncf.QuantizationPreset.PERFORMANCE,
        **options,
    )
    onnx.save(quantized, out)


if __name__ == "__main__":
    kind, *paths = sys.argv[1:5]
    if kind == "nncf":
        nncf_ptq(*paths)
    else:
        onnxruntime_static(kind, *paths)
