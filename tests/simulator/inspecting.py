"""EngineInspector: what an engine says of its layers, in the form of 10 and in that of 11.

Forms: NVIDIA's documentation, "Engine Inspector" and "Migrating IEngineInspector Usage from
TensorRT 10.x to 11.x". Products take quantized operands in, as engines do; nothing else is fused.
"""

import json
import math
from typing import Any

from . import onnx_layers

_OLD = {"FLOAT": "FP32", "HALF": "FP16", "BF16": "BF16", "INT8": "Int8", "FP8": "FP8"}
_NEW = {"FLOAT": "Float", "HALF": "Half", "BF16": "BFloat16", "INT8": "Int8", "FP8": "FP8"}
_KINDS = {"CONVOLUTION": "CaskConvolution", "MATRIX_MULTIPLY": "MatrixMultiply"}
_PRODUCTS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")


class EngineInspector:
    def get_engine_information(self, format: Any) -> str:
        if format.name != "JSON":
            raise NotImplementedError("only JSON is simulated")
        engine = self._engine
        is_old = self._trt.__version__.startswith("10.")
        layers = _Layers(engine, is_old).told()
        verbosity = engine.profiling_verbosity.name
        if verbosity == "LAYER_NAMES_ONLY":
            layers = [layer["Name"] for layer in layers]
        document: dict[str, Any] = {"Layers": [] if verbosity == "NONE" else layers}
        if is_old:
            document["Bindings"] = [*engine._inputs, *engine._outputs]
        else:
            document["I/O Tensors"] = [
                _io(engine, name) for name in (*engine._inputs, *engine._outputs)
            ]
        return json.dumps(document)


def _io(engine: Any, name: str) -> dict[str, Any]:
    value = engine._values[name]
    return {
        "Name": name,
        "IOMode": "Input" if name in engine._inputs else "Output",
        "DataType": _NEW.get(value.dtype, value.dtype.title()),
        "Dimensions": list(value.shape),
        "Location": "Device",
        "IsShapeInferenceIO": False,
    }


class _Layers:
    def __init__(self, engine: Any, is_old: bool) -> None:
        self._engine = engine
        self._is_old = is_old
        self._values = dict(engine._values)
        layers = list(onnx_layers.layers_of(engine._model, self._values))
        self._layers = [layer for layer in layers if layer.kind != "CONSTANT"]
        self._sources = {
            layer.outputs[0]: str(layer.inputs[0])
            for layer in self._layers
            if layer.kind == "DEQUANTIZE"
        }

    def told(self) -> list[Any]:
        needed = set(self._engine._outputs)
        for layer in self._layers:
            needed.update(name for name in self._operands(layer) if name is not None)
        return [self._told(layer) for layer in self._layers if needed & set(layer.outputs)]

    def _operands(self, layer: onnx_layers.Layer) -> list[str | None]:
        if layer.kind not in _PRODUCTS:
            return layer.inputs
        return [self._sources.get(name or "", name) for name in layer.inputs]

    def _told(self, layer: onnx_layers.Layer) -> dict[str, Any]:
        operands = [name for name in self._operands(layer) if name is not None]
        told: dict[str, Any] = {
            "Name": layer.name,
            "LayerType": _KINDS.get(layer.kind, layer.kind.title()),
            "Outputs": [self._tensor(name) for name in layer.outputs],
            "Metadata": layer.metadata,
        }
        if layer.kind in ("CONVOLUTION", "DECONVOLUTION"):
            told["ParameterType"] = "Convolution"
            held = [  # the kernel first: as a tensor where it is quantized
                (self._values[name].dtype, math.prod(self._values[name].shape or ()))
                for name in operands[1:]
            ]
            held += [(self._float_type(weights), weights.size) for weights in layer.weights]
            operands = operands[:1]
            for key, (dtype, count) in zip(("Weights", "Bias"), held, strict=False):
                told[key] = {"Type": _NEW.get(dtype, dtype), "Count": int(count)}
        told["Inputs"] = [self._tensor(name) for name in operands]
        return told

    def _float_type(self, weights: Any) -> str:
        return {"float32": "FLOAT", "float16": "HALF"}.get(weights.dtype.name, "BF16")

    def _tensor(self, name: str) -> dict[str, Any]:
        value = self._values.get(name) or onnx_layers.Value(name, "FLOAT", None)
        dtype = value.dtype
        facts = self._engine._facts
        if not facts["strongly_typed"] and "FP16" not in facts["flags"] and dtype == "HALF":
            dtype = "FLOAT"  # a weakly typed network computes in what its flags allow
        told = {"Name": name, "Location": "Device", "Dimensions": list(value.shape or ())}
        if self._is_old:
            return told | {"Format/Datatype": f"Row major linear {_OLD.get(dtype, dtype)} format"}
        return told | {"Format": "Row major linear", "Datatype": _NEW.get(dtype, dtype.title())}
