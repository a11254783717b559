"""INetworkDefinition, its layers and tensors."""

from typing import Any

import numpy as np
import onnx

from . import onnx_layers
from .module import only


class INetworkDefinition:
    def _fill(self, model: Any) -> None:
        """Take the layers of a parsed model."""
        values = onnx_layers.infer(model, {})
        layers = list(onnx_layers.layers_of(model, values))
        self._model = model
        self._tensors = {
            name: self._trt.ITensor._made(_network=self, _value=value, _is_input=False)
            for name, value in values.items()
        }
        constant = {tensor.name for tensor in model.graph.initializer}
        for held in model.graph.input:
            if held.name not in constant:
                self._tensors[held.name]._is_input = True
                self._inputs.append(self._tensors[held.name])
        self._outputs += [self._tensor(held.name) for held in model.graph.output]
        self._layers += [self._layer(layer) for layer in layers]

    def _tensor(self, name: str | None) -> Any:
        if name is None:
            return None
        unknown = onnx_layers.Value(name, "FLOAT", None)
        made = self._trt.ITensor._made(_network=self, _value=unknown, _is_input=False)
        return self._tensors.setdefault(name, made)

    def _layer(self, layer: onnx_layers.Layer) -> Any:
        return self._trt.ILayer._made(
            _layer=layer,
            _inputs=[self._tensor(name) for name in layer.inputs],
            _outputs=[self._tensor(name) for name in layer.outputs],
            _attention=None,
        )

    def _infer_again(self) -> None:
        shapes = {tensor.name: tensor._value.shape for tensor in self._inputs}
        values = onnx_layers.infer(self._model, shapes)
        list(onnx_layers.layers_of(self._model, values))  # with the tensors that layers add
        for name, value in values.items():
            self._tensor(name)._value = value

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def name(self) -> str:
        return "" if self._model is None else str(self._model.graph.name)

    @property
    def flags(self) -> int:
        return int(self._flags)

    def get_flag(self, flag: Any) -> bool:
        if flag.name == "STRONGLY_TYPED" and self._trt.__version__[:3] != "10.":
            return True  # 11 knows no other networks
        return bool(self._flags >> int(flag) & 1)

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


class ITensor:
    @property
    def name(self) -> str:
        return str(self._value.name)

    @property
    def dtype(self) -> Any:
        return getattr(self._trt.DataType, self._value.dtype)

    @property
    def shape(self) -> Any:
        return self._trt.Dims._made(_sizes=self._value.shape)

    @shape.setter
    def shape(self, shape: Any) -> None:
        self._value.shape = tuple(shape)
        self._network._infer_again()

    @property
    def is_network_input(self) -> bool:
        return bool(self._is_input)

    @property
    def is_network_output(self) -> bool:
        return any(tensor is self for tensor in self._network._outputs)

    @property
    def is_shape_tensor(self) -> bool:
        return self._is_input and onnx_layers.decides_shapes(self._network._model, self.name)


class ILayer:
    @property
    def name(self) -> str:
        return str(self._layer.name)

    @property
    def metadata(self) -> str:
        return str(self._layer.metadata)

    @property
    def type(self) -> Any:
        return getattr(self._trt.LayerType, self._layer.kind)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]

    @property
    @only("10")
    def precision_is_set(self) -> bool:
        return False


class IConvolutionLayer:
    @property
    def num_groups(self) -> int:
        return int(onnx_layers.attributes(self._layer.node).get("group", 1))

    @property
    def kernel_size_nd(self) -> tuple[int, ...]:
        return tuple(self._layer.weights[0].shape[2:])

    @property
    def num_output_maps(self) -> int:
        return int(self._layer.weights[0].shape[0])


class IDeconvolutionLayer:
    num_groups = IConvolutionLayer.num_groups
    kernel_size_nd = IConvolutionLayer.kernel_size_nd

    @property
    def num_output_maps(self) -> int:
        return int(self._layer.weights[0].shape[1]) * self.num_groups


class IPoolingLayer:
    @property
    def type(self) -> Any:
        return getattr(self._trt.PoolingType, self._layer.mode)


class IReduceLayer:
    @property
    def op(self) -> Any:
        return getattr(self._trt.ReduceOperation, self._layer.mode)


class IResizeLayer:
    @property
    def resize_mode(self) -> Any:
        return getattr(self._trt.InterpolationMode, self._layer.mode)


class IAttentionBoundaryLayer:
    @property
    def attention(self) -> Any:
        if self._attention is None:
            self._attention = self._trt.IAttention._made(_decomposable=False)
        return self._attention


class IAttention:
    @property
    def decomposable(self) -> bool:
        return bool(self._decomposable)

    @decomposable.setter
    def decomposable(self, value: bool) -> None:
        self._decomposable = value


class Dims:
    def __init__(self, shape: Any = ()) -> None:
        self._sizes = tuple(int(size) for size in shape)

    def __len__(self) -> int:
        if self._sizes is None:
            return -1  # as the library: Python then raises a ValueError
        return len(self._sizes)

    def __getitem__(self, arg0: Any) -> Any:
        return self._sizes[arg0]

    def __eq__(self, arg0: Any) -> bool:
        return tuple(self._sizes) == tuple(arg0)

    def __str__(self) -> str:
        return str(self._sizes)

    def __repr__(self) -> str:
        return str(self._sizes)


class Weights:
    def __init__(self, type: Any = None, a: Any = None) -> None:
        self._array = np.zeros(0, np.float32) if a is None else np.ascontiguousarray(a)

    def numpy(self) -> Any:
        return self._array

    def __len__(self) -> int:
        return int(self._array.size)

    @property
    def size(self) -> int:
        return int(self._array.size)

    @property
    def nbytes(self) -> int:
        return int(self._array.nbytes)

    @property
    def dtype(self) -> Any:
        kind = onnx.helper.np_dtype_to_tensor_dtype(self._array.dtype)
        return getattr(self._trt.DataType, onnx_layers.DATA_TYPES[kind])
