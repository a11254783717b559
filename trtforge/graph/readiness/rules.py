"""What TensorRT's parser wants of operators that it takes: attributes, constants and types.

Source of every rule: the errors of TensorRT-RTX 1.7.1.116 for onnx's own test models.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

Objection = tuple[str, str]
"""Why a node is not taken, and what to do about it."""

_QUANTIZABLE = frozenset(
    {
        TensorProto.INT8,
        TensorProto.INT4,
        TensorProto.FLOAT8E4M3FN,
        TensorProto.FLOAT4E2M1,
    }
)
_SYMMETRIC = (
    "quantize symmetrically to INT8 (ONNX Runtime's quantizer: QInt8, extra_options "
    "ActivationSymmetric=True, WeightSymmetric=True), or give the float model and "
    "`precision.quantize: int8`; the pass asymmetric-to-float computes the same in floats"
)
_FIRST_BROADCAST_OPSET = 7
_BROADCASTING = frozenset({"Add", "Div", "Gemm", "Max", "Min", "Mul", "PRelu", "Pow", "Sub"})
"""Operators whose older forms the parser refuses ("Pre-opset 7 broadcasting is unsupported")."""

_ACCEPTED = frozenset(
    {
        TensorProto.UNDEFINED,
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.DOUBLE,  # taken for FP32; at inputs and outputs it is refused elsewhere
        TensorProto.INT8,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.BOOL,
        TensorProto.UINT8,  # only to be cast
        TensorProto.INT4,
        TensorProto.FLOAT8E4M3FN,
        TensorProto.FLOAT4E2M1,
        TensorProto.FLOAT8E8M0,
    }
)


def type_objection(data_type: int, name: str) -> Objection | None:
    """Return why a tensor of some type cannot be in an engine, or None."""
    if data_type in _ACCEPTED:
        return None
    word = TensorProto.DataType.Name(data_type)
    if word == "STRING":
        return f"'{name}' holds text", "do what concerns text before the engine"
    if word.startswith("FLOAT8"):
        return f"'{name}' is {word}", "use FLOAT8E4M3FN, the FP8 that TensorRT has"
    if word.startswith("COMPLEX"):
        return f"'{name}' is {word}", "compute real and imaginary parts as two tensors"
    return f"'{name}' is {word}", "use INT32 or INT64 (FP32 or INT8 for quantized values)"


@dataclass(frozen=True)
class NodeView:
    """A node with what is known around it.

    Attributes:
        node: the node.
        opset: of ai.onnx.
        type_of: element type of a tensor, 0 when not known.
        constant: values of a constant tensor, None for others.
        is_fed: whether a tensor is an input of the model.
        is_output: whether a tensor is an output of the model.
    """

    node: NodeProto
    opset: int
    type_of: Callable[[str], int]
    constant: Callable[[str], np.ndarray | None]
    is_fed: Callable[[str], bool]
    is_output: Callable[[str], bool]

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute's value; texts as str."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def input(self, index: int) -> str:
        """Return the name of an input, "" when it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""


def objections(view: NodeView) -> Iterator[Objection]:
    """Yield what TensorRT would not take about a node whose operator it knows."""
    for rule in (_uint8, _old_broadcast, *_RULES.get(view.node.op_type, ())):
        found = rule(view)
        if found is not None:
            yield found


def _old_broadcast(view: NodeView) -> Objection | None:
    if view.opset >= _FIRST_BROADCAST_OPSET or view.node.op_type not in _BROADCASTING:
        return None
    return (
        f"it is written in opset {view.opset}, before ONNX broadcast as numpy does",
        "raise the model to opset 13 or newer (onnx.version_converter), or export it anew",
    )


def _uint8(view: NodeView) -> Objection | None:
    if view.node.op_type in ("Cast", "QuantizeLinear", "DequantizeLinear", "If", "Loop", "Scan"):
        return None
    for name in view.node.input:
        if name and view.type_of(name) == TensorProto.UINT8 and view.node.op_type != "Equal":
            return (
                f"it reads '{name}', which is UINT8: TensorRT only casts those",
                "put a Cast to FP32, FP16 or INT32 before it, right behind the input",
            )
    return None


def _cast(view: NodeView) -> Objection | None:
    to = int(view.attribute("to", 0))
    if to == TensorProto.UINT8 and not view.is_output(view.node.output[0]):
        return "it casts to UINT8 within the graph", "cast to INT32 instead"
    return type_objection(to, view.node.output[0])


def _quantize(view: NodeView) -> Objection | None:
    zero = view.input(2)
    declared = int(view.attribute("output_dtype", 0))
    data_type = view.type_of(zero) if zero else (declared or TensorProto.UINT8)
    if data_type == TensorProto.UINT8 and not _moved(view, zero):
        return (
            "it quantizes to UINT8, which TensorRT takes for INT8 without a word: values above "
            "127 steps would be clipped",
            _SYMMETRIC,
        )
    return _quantized_type(view.node.output[0], data_type) or _zero_point(view, zero)


def _dequantize(view: NodeView) -> Objection | None:
    source, zero = view.input(0), view.input(2)
    data_type = view.type_of(source)
    if data_type == TensorProto.INT32:
        return (
            f"it dequantizes '{source}', which is INT32",
            "leave biases unquantized (ONNX Runtime's quantizer: QuantizeBias=False)",
        )
    if data_type == TensorProto.UINT8 and not _moved(view, zero):
        if view.constant(source) is not None or view.is_fed(source):
            return f"it dequantizes '{source}', which is UINT8", _SYMMETRIC
        return None  # what quantizes it is named
    return _quantized_type(source, data_type) or _zero_point(view, zero)


def _quantized_type(name: str, data_type: int) -> Objection | None:
    if data_type in _QUANTIZABLE or data_type in (TensorProto.UNDEFINED, TensorProto.UINT8):
        return None
    word = TensorProto.DataType.Name(data_type)
    return f"'{name}' is quantized as {word}", "quantize to INT8, FP8 E4M3, INT4 or FP4 E2M1"


def _moved(view: NodeView, zero: str) -> bool:
    """Whether a zero point is constant and not 0."""
    values = view.constant(zero) if zero else None
    return values is not None and bool(np.any(values.astype(np.float64)))


def _zero_point(view: NodeView, zero: str) -> Objection | None:
    if not zero:
        return None
    if view.constant(zero) is None:
        if view.is_fed(zero):
            return f"its zero point ('{zero}') is an input", _SYMMETRIC
        return None
    if _moved(view, zero):
        return "its zero point is not 0", _SYMMETRIC
    return None


def _constant_input(index: int, role: str) -> Callable[[NodeView], Objection | None]:
    def rule(view: NodeView) -> Objection | None:
        name = view.input(index)
        if name and view.is_fed(name):
            return f"its {role} ('{name}') are an input of the model", "make them a constant"
        return None

    return rule


def _only(
    name: str, role: str, *accepted: Any, remedy: str
) -> Callable[[NodeView], Objection | None]:
    """Refuse values of an attribute but some; the first one is the default."""

    def rule(view: NodeView) -> Objection | None:
        value = view.attribute(name, accepted[0])
        if value in accepted:
            return None
        return f"its {role} is {value}, and TensorRT knows {_listed(accepted)}", remedy

    return rule


def _listed(values: tuple[Any, ...]) -> str:
    return " and ".join(str(value) for value in values)


def _one_output(view: NodeView) -> Objection | None:
    extra = [name for name in view.node.output[1:] if name]
    if not extra:
        return None
    return f"its further output '{extra[0]}' is used", "export the model without that output"


def _dilations(view: NodeView) -> Objection | None:
    dilations = view.attribute("dilations", [1])
    if all(dilation == 1 for dilation in dilations):
        return None
    return f"its dilations are {list(dilations)}", "pool a strided slice, or write it as Conv"


def _training(view: NodeView) -> Objection | None:
    mode = view.attribute("training_mode", 0)
    if view.node.op_type == "Dropout" and (name := view.input(2)):
        values = view.constant(name)
        mode = view.is_fed(name) if values is None else bool(values.reshape(-1)[0])
    if not mode:
        return None
    return "it is in training mode", "export the model for inference, after `model.eval()`"


def _range_type(view: NodeView) -> Objection | None:
    data_type = view.type_of(view.input(0))
    if data_type not in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        return None
    return "it counts in FP16 or BF16", "count in FP32 or INT64 and cast the result"


_Rule = Callable[[NodeView], Objection | None]

_EXPORT = "export the model without it"
_REDUCTION_AXES = (_constant_input(1, "axes"),)

_RULES: dict[str, tuple[_Rule, ...]] = {
    "Attention": (
        _one_output,
        _only("softcap", "softcap", 0.0, remedy="export attention as MatMul and Softmax"),
    ),
    "AveragePool": (_dilations,),
    "BatchNormalization": (_training,),
    "Cast": (_cast,),
    "DequantizeLinear": (_dequantize,),
    "Dropout": (_training,),
    "LayerNormalization": (_one_output,),
    "LpPool": (_dilations, _only("p", "norm", 2, 1, remedy="compute it from Pow and AveragePool")),
    "MaxPool": (_dilations, _one_output),
    "QuantizeLinear": (_quantize,),
    "Range": (_range_type,),
    "Resize": (
        _only("antialias", "antialias", 0, remedy=_EXPORT),
        _only(
            "keep_aspect_ratio_policy",
            "keep_aspect_ratio_policy",
            "stretch",
            remedy="compute the sizes beforehand",
        ),
        _only(
            "coordinate_transformation_mode",
            "coordinate transformation",
            "half_pixel",
            "align_corners",
            "asymmetric",
            "pytorch_half_pixel",
            "tf_half_pixel_for_nn",
            remedy="crop with Slice, then resize",
        ),
    ),
    "ScatterElements": (_only("reduction", "reduction", "none", remedy=_EXPORT),),
    "ScatterND": (_only("reduction", "reduction", "none", remedy=_EXPORT),),
    "Squeeze": _REDUCTION_AXES,
    "STFT": (_constant_input(1, "frame step"),),
    "TensorScatter": (_only("mode", "mode", "linear", remedy=_EXPORT),),
    "Unsqueeze": _REDUCTION_AXES,
    **{
        f"Reduce{kind}": _REDUCTION_AXES
        for kind in (
            "L1",
            "L2",
            "LogSum",
            "LogSumExp",
            "Max",
            "Mean",
            "Min",
            "Prod",
            "Sum",
            "SumSquare",
        )
    },
}
