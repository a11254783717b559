"""Operators whose results are values of their inputs' type, so that rounding them does nothing."""

from typing import Any

from onnx import NodeProto, helper

from trtforge.graph.nodes import STANDARD_DOMAINS
from trtforge.precision.opgroups import CONTROL_FLOW, MOVERS, SEQUENCES

EXACT = (
    MOVERS
    | CONTROL_FLOW
    | SEQUENCES
    | frozenset(["Neg", "Abs", "Sign", "Relu", "ThresholdedRelu", "Hardmax", "Floor", "Ceil"])
    | frozenset(["Round", "Max", "Min", "Clip", "ReduceMax", "ReduceMin", "TopK", "OneHot"])
    | frozenset(["Constant", "ConstantOfShape", "EyeLike", "Unique", "CenterCropPad"])
    | frozenset(["Dropout", "Resize", "Upsample"])
)
"""Under the conditions of `is_exact`. They choose, move, or change a sign. Rounding to an integer
is among them since an FP16 (BF16) number that is none lies below 1024 (128), where the type has
every integer. The pooling operators are not: of a window that holds nothing but -inf, ONNX
Runtime's FP32 kernels give the lowest FP32 number, which rounds to -inf."""

_INPUTS_SINCE = {"Clip": 11, "Pad": 11}
"""Before that opset, bounds and padding are FP32 attributes, with values that no type bounds."""


def is_exact(node: NodeProto, opset: int) -> bool:
    """Return whether all results of a node are values of its narrow inputs' type.

    Args:
        node: of the typed graph; its inputs hold values of their types.
        opset: the version of the standard operator set.
    """
    if node.domain not in STANDARD_DOMAINS or node.op_type not in EXACT:
        return False
    attributes = {
        a.name: helper.get_attribute_value(a) for a in node.attribute if not a.HasField("g")
    }
    if opset < _INPUTS_SINCE.get(node.op_type, 0):
        return not {"min", "max", "value"} & set(attributes)
    if node.op_type in ("Resize", "Upsample"):
        return _is_nearest(attributes)
    if node.op_type.startswith("Scatter"):
        return attributes.get("reduction", b"none") in (b"none", b"max", b"min")
    if node.op_type == "Dropout":  # in training it scales
        return len(node.input) < 3 or not node.input[2]
    return True


def _is_nearest(attributes: dict[str, Any]) -> bool:
    # tf_crop_and_resize fills in an FP32 attribute.
    place = attributes.get("coordinate_transformation_mode", b"half_pixel")
    return bool(attributes.get("mode", b"nearest") == b"nearest" and place != b"tf_crop_and_resize")
