"""FP8 by arithmetic: what QuantizeLinear and DequantizeLinear do to a tensor, in fast operators.

ONNX Runtime converts to FP8 and back a value at a time, which takes 10 to 40 ns; an elementwise
FP32 operator takes 0.3. The result has the same bits: a test runs all FP16 and BF16 values, and
FP32 ones on both sides of every half-way point.
"""

from collections.abc import Callable, Collection, Iterator, Mapping

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from trtforge.graph.external import ExternalFiles
from trtforge.graph.nodes import STANDARD_DOMAINS
from trtforge.graph.stand_ins import mark_dequantizing
from trtforge.graph.weights import graph_nodes, tensor_array

_UNIT = 2.0**-9
"""E4M3's least step, of which all its values are multiples ("Float stored in 8 bits", onnx.ai)."""

_LARGEST = 448.0 / _UNIT

_SHIFT = 2.0**20
"""a - 2^20 a has the exponent of 2^20 a, so that FP32's 24 bits round it to E4M3's four bits of a;
ties go to even, as 2^20 a is an even multiple of the step wherever a is half-way."""

_LEAST = 1.5 * 2.0**23
"""In place of 2^20 a where a has less than four bits: FP32's step is 1 there, like subnormals'."""

_SCALES = (2.0**-100, 2.0**100)
"""Within these, a power of two that occurs here changes a scale's exponent alone."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)

Constant = Callable[[float], str]
"""Gives the name of an FP32 constant of a value."""

Fresh = Callable[[str], str]
"""Gives a name that nothing has."""


def float8_pairs(
    main: GraphProto,
    types: Mapping[str, int],
    constants: Mapping[str, TensorProto],
    files: ExternalFiles,
    kept: Collection[str],
) -> dict[str, float]:
    """Find the FP8 tensors of a main graph that nothing but DequantizeLinear reads.

    ONNX operators since opset 19: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html

    Args:
        main: the typed graph.
        types: element types of its tensors.
        constants: its tensors that never change, by name.
        files: has the bytes of external ones.
        kept: tensors that must be there.

    Returns:
        The scale of each QuantizeLinear and DequantizeLinear around such a tensor, by its result.
    """
    readers: dict[str, list[NodeProto]] = {}
    for node in main.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    taken = {*kept, *(value.name for value in main.output), *_read_in_bodies(main)}
    found: dict[str, float] = {}
    for node in main.node:
        if node.op_type != "QuantizeLinear" or node.output[0] in taken:
            continue
        if types.get(node.input[0]) not in _FLOATS:
            continue
        around = (node, *readers.get(node.output[0], ()))
        scales = [_scale(one, constants, files) for one in around]
        if all(one.op_type == "DequantizeLinear" for one in around[1:]) and None not in scales:
            pairs = zip(around, scales, strict=True)
            found |= {one.output[0]: scale for one, scale in pairs if scale is not None}
    return found


def quantized(
    node: NodeProto, scale: float, constant: Constant, fresh: Fresh
) -> Iterator[NodeProto]:
    """Yield what brings x / scale to half the E4M3 value, in units of its least step.

    Args:
        node: a QuantizeLinear, its input FP32; its result's name is that of what comes out.
        scale: its scale.
        constant: see `Constant`.
        fresh: see `Fresh`.
    """
    names = ("quotient", "magnitude", "bounded", "shifted", "step", "less", "rounded", "sign")
    at = {name: fresh(f"{node.output[0]}_{name}") for name in names}
    for operator, inputs, result in (
        ("Div", [node.input[0], constant(scale * _UNIT)], at["quotient"]),
        ("Abs", [at["quotient"]], at["magnitude"]),
        ("Min", [at["magnitude"], constant(_LARGEST)], at["bounded"]),
        ("Mul", [at["bounded"], constant(_SHIFT)], at["shifted"]),
        ("Max", [at["shifted"], constant(_LEAST)], at["step"]),
        ("Sub", [at["bounded"], at["step"]], at["less"]),
        ("Add", [at["less"], at["step"]], at["rounded"]),
        # Half a unit of x's sign: a zero keeps its own.
        ("Clip", [at["quotient"], constant(-0.5), constant(0.5)], at["sign"]),
        ("Mul", [at["rounded"], at["sign"]], node.output[0]),
    ):
        name = node.name if result == node.output[0] else ""
        yield helper.make_node(operator, inputs, [result], name)


def dequantized(node: NodeProto, scale: float, constant: Constant) -> NodeProto:
    """Return the node that stands for a DequantizeLinear of what `quantized` gives."""
    factor = constant(2 * _UNIT * scale)
    product = helper.make_node("Mul", [node.input[0], factor], node.output, node.name)
    mark_dequantizing(product, "fp8")
    return product


def _scale(
    node: NodeProto, constants: Mapping[str, TensorProto], files: ExternalFiles
) -> float | None:
    """Return the one scale of an FP8 conversion that saturates; None for any other."""
    tensors = [constants.get(name) for name in node.input[1:] if name]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    is_other = node.domain not in STANDARD_DOMAINS or not attributes.get("saturate", 1)
    if is_other or attributes.get("block_size", 0) or len(tensors) != 2:
        return None
    scale, zero = tensors
    if scale is None or zero is None or zero.data_type != TensorProto.FLOAT8E4M3FN:
        return None
    values = tensor_array(scale, files)
    if values.size != 1 or tensor_array(zero, files).any():
        return None
    found = float(values.reshape(()))
    return found if _SCALES[0] <= found <= _SCALES[1] else None


def _read_in_bodies(main: GraphProto) -> Iterator[str]:
    for node in graph_nodes(main):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from (value.name for value in attribute.g.output)
                yield from (name for inner in attribute.g.node for name in inner.input)
