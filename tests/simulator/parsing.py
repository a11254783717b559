"""OnnxParser: what it refuses and how it says so, as seen with NVIDIA's parser."""

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from . import onnx_layers
from .saying import say

_PLUGIN = "Plugin not found, are the plugin name, version, and namespace correct?"
_NO_TYPE = "Failed to convert ONNX date type to TensorRT data type."


class OnnxParser:
    def __init__(self, network: Any, logger: Any) -> None:
        self._network = network
        self._logger = logger
        self._errors: list[Any] = []

    def parse_from_file(self, model: str) -> bool:
        path = Path(model)
        if not path.is_file():
            self._refuse("MODEL_DESERIALIZE_FAILED", f"Failed to open file: {path}")
            return False
        try:
            loaded = onnx_layers.load(path)
        except (DecodeError, UnicodeDecodeError):
            return True  # "the parser is not a validator": garbage is an empty network
        except (onnx.checker.ValidationError, OSError, ValueError) as error:
            self._refuse("INVALID_GRAPH", f"Failed to import initializer: {error}")
            return False
        for error in _problems(loaded, self._trt.LayerType.__members__):
            self._refuse(*error)
        if not self._errors:
            self._infer(loaded)
        for error in self._errors:
            say(self._trt, self._logger, "ERROR", f"In node {error.node()}: {error.desc()}")
        return not self._errors

    def _infer(self, model: Any) -> None:
        try:
            self._network._fill(model)
        except onnx.shape_inference.InferenceError as error:
            self._refuse("INVALID_GRAPH", str(error))

    def _refuse(self, code: str, desc: str, node: int = -1, found: Any = None) -> None:
        self._errors.append(
            self._trt.ParserError._made(
                _code=getattr(self._trt.ErrorCode, code),
                _desc=desc,
                _node=node,
                _name="" if found is None else found.name,
                _operator="" if found is None else found.op_type,
            )
        )

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def clear_errors(self) -> None:
        self._errors.clear()

    def supports_operator(self, op_name: str) -> bool:
        return op_name in onnx_layers.LAYER_TYPES


def _problems(model: Any, kinds: Container[str]) -> Iterator[tuple[Any, ...]]:
    for held in model.graph.input:
        if held.type.tensor_type.elem_type not in onnx_layers.DATA_TYPES:
            yield ("UNSUPPORTED_GRAPH", _NO_TYPE)
    for index, node in enumerate(model.graph.node):
        if node.domain not in ("", "ai.onnx"):
            yield ("INVALID_NODE", _PLUGIN, index, node)
        elif onnx_layers.LAYER_TYPES.get(node.op_type) not in kinds:
            yield ("UNSUPPORTED_NODE", "false", index, node)


class ParserError:
    def code(self) -> Any:
        return self._code

    def desc(self) -> str:
        return str(self._desc)

    def node(self) -> int:
        return int(self._node)

    def node_name(self) -> str:
        return str(self._name)

    def node_operator(self) -> str:
        return str(self._operator)

    def local_function_stack(self) -> list[str]:
        return []

    def local_function_stack_size(self) -> int:
        return 0
