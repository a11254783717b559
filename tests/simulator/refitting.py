"""Refitter: weights of an engine that was built to take new ones."""

from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from . import onnx_layers
from .saying import say


class Refitter:
    def __init__(self, engine: Any, logger: Any) -> None:
        self._engine = engine
        self._logger = logger
        self._given: dict[str, Any] = {}

    def get_all_weights(self) -> list[str]:
        return [tensor.name for tensor in self._engine._model.graph.initializer]

    def get_missing_weights(self) -> list[str]:
        return sorted(self._engine._missing - set(self._given))

    def set_named_weights(self, name: str, weights: Any) -> bool:
        array = weights.numpy() if hasattr(weights, "numpy") else weights
        known = {tensor.name: tensor for tensor in self._engine._model.graph.initializer}
        held = None if name not in known else numpy_helper.to_array(known[name])
        if not self._engine.refittable or held is None:
            return self._refuse(f"{name} cannot be refitted")
        if held.size != array.size or held.dtype != array.dtype:
            return self._refuse(f"{name} is {held.dtype} of {held.size} elements")
        self._given[name] = array.reshape(held.shape)
        return True

    def refit_cuda_engine(self) -> bool:
        if missing := self.get_missing_weights():
            return self._refuse(f"weights are missing: {missing[0]}")
        for tensor in self._engine._model.graph.initializer:
            if tensor.name in self._given:
                made = numpy_helper.from_array(self._given[tensor.name], tensor.name)
                tensor.CopyFrom(made)
        self._engine._missing.clear()
        self._engine._session = None
        self._engine._values = onnx_layers.infer(self._engine._model, {})
        return True

    def _refuse(self, text: str) -> bool:
        say(self._trt, self._logger, "ERROR", f"Error Code 3: API Usage Error ({text})")
        return False


class OnnxParserRefitter:
    def __init__(self, refitter: Any, logger: Any) -> None:
        self._refitter = refitter
        self._logger = logger

    def refit_from_file(self, model: str) -> bool:
        try:
            held = {tensor.name: tensor for tensor in onnx.load(model).graph.initializer}
        except (OSError, ValueError, DecodeError) as error:
            return bool(self._refitter._refuse(f"the model cannot be read: {error}"))
        for name in self._refitter.get_all_weights():
            if name not in held:
                return bool(self._refitter._refuse(f"the model has no weights {name}"))
            if not self._refitter.set_named_weights(
                name, self._trt.Weights(numpy_helper.to_array(held[name]))
            ):
                return False
        return bool(self._refitter.refit_cuda_engine())
