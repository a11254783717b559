"""Hostile graphs: what ONNX files may look like (names, types, versions, metadata, odd places)."""

from typing import Any

import numpy as np
from hostile_text import Builder, hostile
from onnx import ModelProto, TensorProto, helper, numpy_helper

_XY = "(float[N,4] x) => (float[N,4] y)"


def _shadowed(proto: ModelProto) -> None:
    """Initializers are inputs too, as IR version 3 wants it."""
    for tensor in proto.graph.initializer:
        proto.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )


def _lying(proto: ModelProto) -> None:
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [7, 9, 1]))


def _named(*names: str) -> Any:
    def change(proto: ModelProto) -> None:
        for node, name in zip(proto.graph.node, names, strict=True):
            node.name = name

    return change


def _renamed(names: dict[str, str]) -> Any:
    def change(proto: ModelProto) -> None:
        for info in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
            info.name = names.get(info.name, info.name)
        for node in proto.graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]

    return change


def _annotated(proto: ModelProto) -> None:
    for name, scale in (("a", "s"), ("x", "s"), ("gone", "s")):
        annotation = proto.graph.quantization_annotation.add(tensor_name=name)
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=scale)


def _documented(proto: ModelProto) -> None:
    proto.doc_string, proto.producer_name, proto.domain = "about", "maker", "com.example"
    helper.set_model_props(proto, {"classes": "a,b", "empty": ""})
    proto.graph.doc_string = "the graph"
    for node in proto.graph.node:
        node.doc_string = f"about {node.op_type}"


def _sparse(proto: ModelProto) -> None:
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [2.0, 3.0])
    indices = helper.make_tensor("w.indices", TensorProto.INT64, [2], [1, 6])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 4]))


def _of_type(name: str, kind: int, values: list[float]) -> Any:
    def change(proto: ModelProto) -> None:
        array = np.asarray(values, np.float32).astype(helper.tensor_dtype_to_np_dtype(kind))
        proto.graph.initializer.append(numpy_helper.from_array(array, name))

    return change


def _spell_out(named: Any) -> None:
    for imported_or_node in named:
        imported_or_node.domain = "ai.onnx"


def _no_shape(proto: ModelProto) -> None:
    for info in proto.graph.output:
        info.type.tensor_type.ClearField("shape")


def _custom(domain: str) -> str:
    return (
        f'{_XY} {{ a = Identity(x) b = {domain}.Magic<depth = 3, mode = "x">(a, w) y = Relu(b) }}'
    )


_FOUR = [1.0, -2.0, 3.0, -4.0]

NAME_GRAPHS: dict[str, Builder] = {
    "initializers_are_inputs": hostile(
        f"{_XY} {{ a = Mul(x, w) y = Add(a, w) }}",
        weights={"w": (4,)},
        change=_shadowed,
        ir_version=3,
        opset=9,
    ),
    "output_is_an_input": hostile("(float[N,4] x) => (float[N,4] x, float[N,4] y) { y = Relu(x) }"),
    "only_output_is_an_input": hostile("(float[N,4] x) => (float[N,4] x) { }"),
    "output_is_an_initializer": hostile(
        "(float[N,4] x) => (float[4] w, float[N,4] y) { y = Mul(x, w) }", weights={"w": (4,)}
    ),
    "output_is_an_input_described_otherwise": hostile(
        "(float[N,4] x) => (float[?,?] x, float[N,4] y) { y = Relu(x) }"
    ),
    "output_is_an_initializer_described_otherwise": hostile(
        "(float[N,4] x) => (float[K] w, float[N,4] y) { y = Mul(x, w) }", weights={"w": (4,)}
    ),
    "output_is_a_constant": hostile(
        "(float[N,4] x) => (float[2] k, float[N,4] y)"
        " { k = Constant<value_floats = [1.0, 2.0]>() y = Relu(x) }"
    ),
    "output_is_folded": hostile(
        "(float[N,4] x) => (float[4] k, float[N,4] y) { k = Exp(w) y = Mul(x, k) }",
        weights={"w": (4,)},
    ),
    "outputs_are_the_same_constant": hostile(
        "(float[N,4] x) => (float[4] k, float[4] l, float[N,4] y)"
        " { k = Exp(w) l = Exp(w) y = Relu(x) }",
        weights={"w": (4,)},
    ),
    "outputs_are_the_same_value": hostile(
        "(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Exp(x) z = Exp(x) }"
    ),
    "outputs_are_identities_of_one_tensor": hostile(
        "(float[N,4] x) => (float[N,4] y, float[N,4] z) { a = Exp(x) y = Identity(a) z ="
        " Identity(a) }"
    ),
    "outputs_are_identities_of_an_input": hostile(
        "(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Identity(x) z = Identity(y) }"
    ),
    "output_is_inner_too": hostile(
        "(float[N,4] x) => (float[N,4] a, float[N,4] b, float[N,4] y)"
        " { a = Relu(x) b = Identity(a) c = Neg(b) y = Add(a, c) }"
    ),
    "output_is_listed_twice": hostile(
        "(float[N,4] x) => (float[N,4] y, float[N,4] y) { y = Exp(x) }"
    ),
    "inputs_nobody_reads": hostile(
        "(float[N,4] x, float[M] z, int64 i) => (float[N,4] y) { y = Exp(x) }"
    ),
    "nodes_share_a_name": hostile(
        f"{_XY} {{ a = Relu(x) b = Identity(a) y = Neg(b) }}", change=_named("n", "n", "n")
    ),
    "nodes_are_named_like_tensors": hostile(
        f"{_XY} {{ a = Relu(x) b = Identity(a) y = Neg(b) }}", change=_named("x", "y", "a")
    ),
    "names_are_strange": hostile(
        f"{_XY} {{ a = Mul(x, w) y = Add(a, w) }}",
        weights={"w": (4,)},
        change=_renamed({"x": "in:0 /ü", "a": "0", "w": "w/../é\\n", "y": "out put.1"}),
    ),
    "names_look_generated": hostile(
        f"{_XY} {{ a = Mul(x, w) b = Mul(a, w) c = Exp(w) y = Add(b, c) }}",
        weights={"w": (4,)},
        change=_renamed({"a": "w_1", "b": "w_0", "c": "y_1"}),
    ),
    "one_dim_param_for_all": hostile(
        "(float[N,N] x, float[N,N] z) => (float[N,N] y) { a = Transpose(z) y = MatMul(x, a) }"
    ),
    "two_dim_params_for_one_size": hostile(
        "(float[N,4] x, float[B,4] z) => (float[C,4] y) { y = Add(x, z) }",
        sizes=({"N": 2, "B": 2}, {"N": 3, "B": 1}),
    ),
    "dims_without_a_name": hostile(
        "(float[?,4] x) => (float[?,?] y) { a = Shape(x) y = Reshape(x, a) }"
    ),
    "outputs_without_a_shape": hostile(
        f"{_XY} {{ a = Relu(x) y = Identity(a) }}", change=_no_shape
    ),
}

TYPE_GRAPHS: dict[str, Builder] = {
    "scalars": hostile(
        "(float x, float z) => (float y) { a = Mul(x, s) b = Add(a, z) y = Identity(b) }",
        weights={"s": np.float32(2)},
    ),
    "zero_size_dims": hostile(
        "(float[N,0] x) => (float[N,0] y, float[N] z) <float[0] w = {}> { a = Add(x, w)"
        " y = Identity(a) axes = Constant<value_ints = [1]>() z = ReduceSum<keepdims = 0>(x,"
        " axes) }"
    ),
    "dynamic_dim_of_zero": hostile(
        "(float[N,4] x) => (float[N,4] y, float[K] z) { a = Exp(x) y = Mul(a, w)"
        " s = Constant<value_ints = [-1]>() z = Reshape(y, s) }",
        weights={"w": (4,)},
        sizes=({"N": 0}, {"N": 2}),
    ),
    "strings": hostile(
        '(string[N] s) => (string[N] y, string[K] z) <string[2] w = {"a", "b"}> { y = Identity(s)'
        " i = Constant<value_ints = [1]>() u = Gather(w, i) z = Concat<axis = 0>(y, u) }",
        given={"s": ["p", "q"]},
    ),
    "bfloat16_constants": hostile(
        f"{_XY} {{ a = Cast<to = 1>(w) y = Mul(x, a) }}",
        change=_of_type("w", TensorProto.BFLOAT16, _FOUR),
    ),
    "float8_constants": hostile(
        f"{_XY} {{ a = DequantizeLinear(w, s) y = Mul(x, a) }}",
        opset=19,
        ir_version=9,
        weights={"s": np.float32(0.5)},
        change=_of_type("w", TensorProto.FLOAT8E4M3FN, _FOUR),
    ),
    "float8_casts": hostile(
        f"{_XY} {{ a = Cast<to = 17>(x) y = Cast<to = 1>(a) }}", opset=19, ir_version=9
    ),
    "float8_constants_saturate": hostile(
        f"{_XY} {{ a = Cast<to = 19>(k) b = Cast<to = 1>(a) c = Min(b, k) y = Add(x, c) }}",
        opset=19,
        ir_version=9,
        weights={"k": np.asarray([1e6, -1e6, 3.3, 1e-9], np.float32)},
    ),
    "int4_constants": hostile(
        f"{_XY} {{ a = DequantizeLinear(w, s) y = Mul(x, a) }}",
        opset=21,
        ir_version=10,
        weights={"s": np.float32(0.5)},
        change=_of_type("w", TensorProto.INT4, _FOUR),
    ),
    "uint4_constants_twice": hostile(
        f"{_XY} {{ a = DequantizeLinear(w, s) b = DequantizeLinear(w, t) c = Mul(x, a) y ="
        f" Add(c, b) }}",
        opset=21,
        ir_version=10,
        weights={"s": np.float32(0.5), "t": np.float32(0.5)},
        change=_of_type("w", TensorProto.UINT4, [0, 3, 9, 15]),
    ),
    "half_and_double": hostile(
        "(float16[N,4] x, double[N,4] z) => (float16[N,4] y, double[N,4] w)"
        " { a = Cast<to = 11>(x) w = Add(a, z) b = Cast<to = 10>(z) y = Mul(x, b) }"
    ),
    "nan_constants": hostile(
        f"{_XY} {{ m = IsNaN(k) a = Where(m, x, k) y = Add(a, x) }}",
        weights={"k": np.asarray([1, np.nan, 2, np.nan], np.float32)},
        refused="TF0405",
    ),
    "infinite_mask": hostile(
        f"{_XY} {{ a = Add(x, k) y = Softmax(a) }}",
        weights={"k": np.asarray([0, -np.inf, 0, -np.inf], np.float32)},
    ),
    "infinity_times_zero": hostile(
        f"{_XY} {{ a = Mul(x, z) b = Mul(a, k) c = Add(b, k) y = Sub(c, k) }}",
        weights={"k": np.asarray([np.inf, 1, 2, 3], np.float32), "z": np.zeros(4, np.float32)},
    ),
    "sequences_inside": hostile(
        "(float[N,4] x) => (float[K,4] y) { a = Relu(x) s = SequenceConstruct(a, x, a)"
        " i = Constant<value_int = 1>() t = SequenceErase(s, i) y = ConcatFromSequence<axis ="
        " 0>(t) }"
    ),
    "sequence_of_splits": hostile(
        "(float[N,4] x) => (float[N,2] y, int64 n) { two = Constant<value_int = 2>()"
        " s = SplitToSequence<axis = 1>(x, two) i = Constant<value_int = -1>() y = SequenceAt(s, i)"
        " n = SequenceLength(s) }"
    ),
    "empty_sequence": hostile(
        "(float[N,4] x) => (float[K,4] y) { e = SequenceEmpty<dtype = 1>() s = SequenceInsert(e, x)"
        " t = SequenceInsert(s, x) y = ConcatFromSequence<axis = 0>(t) }"
    ),
    "optional_inside": hostile(
        "(float[N,4] x) => (float[N,4] y, bool h) { a = Relu(x) o = Optional(a)"
        " h = OptionalHasElement(o) y = OptionalGetElement(o) }"
    ),
    "sequence_input": hostile(
        "(seq(float[N,4]) s) => (float[K,4] y) { y = ConcatFromSequence<axis = 0>(s) }",
        refused="TF0406",
    ),
    "sequence_output": hostile(
        "(float[N,4] x) => (seq(float[N,4]) y) { y = SequenceConstruct(x, x) }", refused="TF0406"
    ),
    "optional_input": hostile(
        "(optional(float[N,4]) o) => (bool y) { y = OptionalHasElement(o) }", refused="TF0406"
    ),
    "sparse_initializer": hostile(
        "(float[N,2] x) => (float[N,4] y) { y = MatMul(x, w) }", change=_sparse
    ),
}

FILE_GRAPHS: dict[str, Builder] = {
    "value_info_lies": hostile(
        f"{_XY} {{ a = Relu(x) b = Identity(a) y = Neg(b) }}", change=_lying
    ),
    "quantization_annotations": hostile(
        f"{_XY} {{ a = Relu(x) b = Identity(a) y = Neg(b) }}",
        weights={"s": (1,)},
        change=_annotated,
    ),
    "documented": hostile(
        f"{_XY} {{ a = Relu(x) b = Identity(a) y = Neg(b) }}", change=_documented
    ),
    "unused_imports": hostile(
        f"{_XY} {{ a = Identity(x) y = Neg(a) }}", imports=', "com.unused": 7, "ai.onnx.ml": 3'
    ),
    "domain_spelled_out_in_the_import": hostile(
        f"{_XY} {{ a = Identity(x) b = Relu(a) c = Dropout(b) y = Neg(c) }}",
        change=lambda proto: _spell_out(proto.opset_import),
    ),
    "domain_spelled_out": hostile(
        f"{_XY} {{ a = Identity(x) b = Relu(a) c = Dropout(b) y = Neg(c) }}",
        change=lambda proto: _spell_out([*proto.opset_import, *proto.graph.node]),
        refused="TF0403",
    ),
    "custom_domain": hostile(_custom("com.magic"), imports=', "com.magic": 2', weights={"w": (4,)}),
    "custom_domain_of_constants": hostile(
        f"{_XY} {{ a = com.magic.Exp(w) b = com.magic.Identity(x) y = Add(a, b) }}",
        imports=', "com.magic": 2',
        weights={"w": (4,)},
    ),
    "microsoft_domain": hostile(
        f"{_XY} {{ a = com.microsoft.Gelu(x) b = Identity(a) y = com.microsoft.QuickGelu(b) }}",
        imports=', "com.microsoft": 1',
    ),
    "random_is_not_folded": hostile(
        f"{_XY} {{ r = RandomNormal<shape = [4], seed = 1.0>() z = Mul(r, k) y = Add(x, z) }}",
        weights={"k": np.zeros(4, np.float32)},
    ),
    "random_twice_is_not_one": hostile(
        "(float[N,4] x) => (bool y) { a = RandomUniform<shape = [4]>() b = RandomUniform<shape ="
        " [4]>()"
        " d = Sub(a, b) e = Abs(d) s = ReduceSum<keepdims = 0>(e) z = Constant<value_float = 0.0>()"
        " y = Greater(s, z) }"
    ),
    "dropout_in_training": hostile(
        f"{_XY} <float r = {{0.0}}, bool t = {{1}}> {{ a, m = Dropout(x, r, t) y = Relu(a) }}"
    ),
    "constants_of_all_forms": hostile(
        f"{_XY} {{ a = Constant<value_float = 2.0>() b = Constant<value_int = 3>()"
        " c = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>() d = Constant<value_ints = [1, 2,"
        " 3, 4]>()"
        " e = Constant<value = float[4] {4, 3, 2, 1}>() f = Cast<to = 1>(b) g = Cast<to = 1>(d)"
        " h = Sum(a, c, e, f, g) y = Mul(x, h) }"
    ),
    "text_constants": hostile(
        "(float[N,4] x) => (float[N,4] y, string s, string[2] t) { s = Constant<value_string ="
        ' "a">()'
        ' t = Constant<value_strings = ["b", "c"]>() y = Neg(x) }'
    ),
    **{
        f"opset_{opset}": hostile(
            f"{_XY} {{ a = Relu(x) b = Identity(a) c = Mul(b, w) d = Softmax<axis = 1>(c)"
            " e = Flatten<axis = 1>(d) y = Add(e, x) }",
            opset=opset,
            ir_version=ir_version,
            weights={"w": (4,)},
        )
        for opset, ir_version in ((7, 4), (9, 4), (13, 7), (17, 8), (21, 10), (24, 11))
    },
}

FORM_GRAPHS: dict[str, Builder] = NAME_GRAPHS | TYPE_GRAPHS | FILE_GRAPHS
