"""ONNX Runtime's own operators, as its optimizer writes them, in standard operators again."""

import math
from collections.abc import Callable
from typing import Any

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.readiness import contrib_attention, contrib_integer, contrib_norm
from trtforge.graph.readiness.forward_types import learn_types
from trtforge.graph.readiness.quantizing import MICROSOFT, input_of
from trtforge.graph.readiness.writing import Writer

_GELU_OPSET = 20
_ERF_OPSET, _ELEMENTWISE_OPSET, _CLIP_OPSET, _SOFTMAX_OPSET = 9, 7, 11, 13
_QUICK_ALPHA = 1.702
"""Source: ContribOperators.md, QuickGelu."""

_TANH_SCALE, _TANH_CUBE = math.sqrt(2 / math.pi), 0.044715
"""Source: https://onnx.ai/onnx/operators/onnx__Gelu.html"""


class ContribToStandard:
    """Write ONNX Runtime's fused operators as what they were fused from.

    Matches: com.microsoft Gelu, BiasGelu, FastGelu, QuickGelu, BiasAdd, FusedMatMul,
    TransposeMatMul, FusedConv, FusedGemm, SkipLayerNormalization, EmbedLayerNormalization,
    Attention, MultiHeadAttention, DynamicQuantizeMatMul and MatMulIntegerToFloat
    (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md), which models
    hold that ONNX Runtime has optimized at the level "extended".
    Rewrites to: their definition in operators of ONNX, from opset 7 on (attention: 13,
    normalizations: 17).
    Refuses when: a statistic, mask or cache of the operator is used, or a type or rank that the
    definition needs is not known.
    """

    name = "contrib-to-standard"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        own = [node for node in editor.nodes() if node.domain == MICROSOFT and node.op in _RULES]
        if not own:
            return
        learn_types(editor)
        for node in own:
            rewrite, opset = _RULES[node.op]
            plan = rewrite(editor, node)
            if isinstance(plan, str):
                editor.refuse(node, plan)
            elif editor.allows(node, opset):
                editor.match(node, f"{node.op} in standard operators")
                plan()


Plan = Callable[[], None]
"""Does a rewrite that has been found possible."""

_Rule = Callable[[Editor, gs.Node], Plan | str]


def _type(editor: Editor, *tensors: gs.Tensor | None) -> Any:
    """Return the first element type that is known."""
    return next((d for t in tensors if t is not None and (d := editor.dtype(t)) is not None), None)


_UNKNOWN = "the element type is not known"


def _gelu(approximate: str) -> _Rule:
    def rule(editor: Editor, node: gs.Node) -> Plan | str:
        source, bias = node.inputs[0], input_of(node, 1)
        dtype = _type(editor, source, bias, node.outputs[0])
        if dtype is None:
            return _UNKNOWN

        def write() -> None:
            writer, x = Writer(editor, node, dtype), source
            dims = editor.dims(source)
            if bias is not None:
                x = writer.write("Add", [source, bias], dims)
            if editor.opset >= _GELU_OPSET:
                writer.finish("Gelu", [x], approximate=approximate)
            elif approximate == "tanh":
                _tanh_gelu(writer, x)
            else:
                _erf_gelu(writer, x)

        return write

    return rule


def _erf_gelu(writer: Writer, x: gs.Tensor) -> None:
    """x/2 * (1 + erf(x / sqrt 2))."""
    far = writer.write("Erf", [writer.write("Div", [x, writer.number("root", math.sqrt(2))])])
    share = writer.write("Add", [far, writer.number("one", 1.0)])
    product = writer.write("Mul", [x, share])
    writer.finish("Mul", [product, writer.number("half", 0.5)])


def _tanh_gelu(writer: Writer, x: gs.Tensor) -> None:
    """x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))."""
    cube = writer.write("Mul", [writer.write("Mul", [x, x]), x])
    bent = writer.write("Add", [x, writer.write("Mul", [cube, writer.number("cube", _TANH_CUBE)])])
    far = writer.write("Tanh", [writer.write("Mul", [bent, writer.number("scale", _TANH_SCALE)])])
    share = writer.write("Add", [far, writer.number("one", 1.0)])
    product = writer.write("Mul", [x, share])
    writer.finish("Mul", [product, writer.number("half", 0.5)])


def _quick_gelu(editor: Editor, node: gs.Node) -> Plan | str:
    source = node.inputs[0]
    dtype = _type(editor, source, node.outputs[0])
    if dtype is None:
        return _UNKNOWN

    def write() -> None:
        writer = Writer(editor, node, dtype)
        alpha = writer.number("alpha", float(node.attrs.get("alpha", _QUICK_ALPHA)))
        gate = writer.write("Sigmoid", [writer.write("Mul", [source, alpha])])
        writer.finish("Mul", [source, gate])

    return write


def _bias_add(editor: Editor, node: gs.Node) -> Plan | str:
    source, bias, skip = node.inputs
    dtype = _type(editor, source, bias, skip)

    def write() -> None:
        writer = Writer(editor, node, dtype)
        writer.finish("Add", [writer.write("Add", [source, bias]), skip])

    return write if dtype is not None else _UNKNOWN


def _matmul(editor: Editor, node: gs.Node) -> Plan | str:
    if node.attrs.get("transBatchA", 0) or node.attrs.get("transBatchB", 0):
        return "it transposes batches"
    alpha = float(node.attrs.get("alpha", 1.0))
    dtype = _type(editor, *node.inputs[:2], node.outputs[0])
    turned = [bool(node.attrs.get(f"trans{side}", 0)) for side in "AB"]
    ranks = [editor.dims(tensor) for tensor in node.inputs[:2]]
    if any(turn and dims is None for turn, dims in zip(turned, ranks, strict=True)):
        return "the rank of an operand that it transposes is not known"
    if dtype is None:
        return _UNKNOWN

    def write() -> None:
        writer = Writer(editor, node, dtype)
        operands = []
        for tensor, turn, dims in zip(node.inputs[:2], turned, ranks, strict=True):
            if turn and dims is not None and len(dims) > 1:
                perm = [*range(len(dims) - 2), len(dims) - 1, len(dims) - 2]
                shape = tuple(dims[axis] for axis in perm)
                tensor = writer.write("Transpose", [tensor], shape, perm=perm)
            operands.append(tensor)
        if alpha == 1.0:
            writer.finish("MatMul", operands)
        else:
            product = writer.write("MatMul", operands)
            writer.finish("Mul", [product, writer.number("alpha", alpha)])

    return write


_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""The activations that ONNX Runtime fuses, and what their parameters are called, in order."""


def _activate(writer: Writer, x: gs.Tensor, activation: str, given: "list[float]") -> None:
    names = _ACTIVATIONS[activation]
    if activation == "Clip":
        bounds = [writer.number(name, value) for name, value in zip(names, given, strict=False)]
        writer.finish("Clip", [x, *bounds])
        return
    writer.finish(activation, [x], **dict(zip(names, map(float, given), strict=False)))


def _conv(editor: Editor, node: gs.Node) -> Plan | str:
    activation = str(node.attrs.get("activation", ""))
    if activation and activation not in _ACTIVATIONS:
        return f"the activation {activation} is not known"
    dtype = _type(editor, node.inputs[1], node.inputs[0])
    if dtype is None:
        return _UNKNOWN
    added = input_of(node, 3)
    own = ("activation", "activation_params")
    attributes = {key: value for key, value in node.attrs.items() if key not in own}
    operands = [tensor for tensor in node.inputs[:3] if tensor.name]

    def write() -> None:
        writer = Writer(editor, node, dtype)
        if not activation and added is None:
            writer.finish("Conv", operands, **attributes)
            return
        x = writer.write("Conv", operands, **attributes)
        if not activation:
            writer.finish("Add", [x, added])
            return
        if added is not None:
            x = writer.write("Add", [x, added])
        _activate(writer, x, activation, list(node.attrs.get("activation_params", ())))

    return write


def _gemm(editor: Editor, node: gs.Node) -> Plan | str:
    activation = str(node.attrs.get("activation", ""))
    if activation not in _ACTIVATIONS or activation == "Clip":
        return f"the activation {activation or 'none'} is not known"
    dtype = _type(editor, *node.inputs[:2])
    if dtype is None:
        return _UNKNOWN
    kept = ("transA", "transB", "alpha", "beta")
    attributes = {key: node.attrs[key] for key in kept if key in node.attrs}
    names = [f"activation_{role}" for role in _ACTIVATIONS[activation]]

    def write() -> None:
        writer = Writer(editor, node, dtype)
        x = writer.write("Gemm", list(node.inputs), **attributes)
        given = [node.attrs[name] for name in names if name in node.attrs]
        _activate(writer, x, activation, given)

    return write


_RULES: dict[str, tuple[_Rule, int]] = {
    "Attention": (contrib_attention.attention, _SOFTMAX_OPSET),
    "BiasAdd": (_bias_add, _ELEMENTWISE_OPSET),
    "BiasGelu": (_gelu("none"), _ERF_OPSET),
    "DynamicQuantizeMatMul": (contrib_integer.dynamic_matmul, contrib_integer.OPSET),
    "EmbedLayerNormalization": (contrib_norm.embedding, contrib_norm.OPSET),
    "FastGelu": (_gelu("tanh"), _ELEMENTWISE_OPSET),
    "FusedConv": (_conv, _CLIP_OPSET),
    "FusedGemm": (_gemm, _CLIP_OPSET),
    "FusedMatMul": (_matmul, _ELEMENTWISE_OPSET),
    "Gelu": (_gelu("none"), _ERF_OPSET),
    "MatMulIntegerToFloat": (contrib_integer.matmul_to_float, contrib_integer.OPSET),
    "MultiHeadAttention": (contrib_attention.multi_head, _SOFTMAX_OPSET),
    "QuickGelu": (_quick_gelu, _ELEMENTWISE_OPSET),
    "SkipLayerNormalization": (contrib_norm.skip, contrib_norm.OPSET),
    "TransposeMatMul": (_matmul, _ELEMENTWISE_OPSET),
}
