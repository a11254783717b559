"""Hostile graphs: layers with odd parameters, and what only looks like a layer."""

import numpy as np
from hostile_text import Builder, hostile

_XY = "(float[N,4] x) => (float[N,4] y)"
_IMAGE = "(float[N,4,6,6] x) => (float[N,A,B,C] y)"
_BN: dict[str, tuple[int, ...]] = {"s_pos": (4,), "b": (4,), "m": (4,), "v_pos": (4,)}


def _scalar(name: str, value: float) -> str:
    return f"{name} = Constant<value_float = {float(value)!r}>() "


def _conv(attributes: str, **weights: tuple[int, ...]) -> Builder:
    text = f"{_IMAGE} {{ c = Conv<{attributes}>(x, W) n = Mul(c, k) y = Add(n, l) }}"
    return hostile(text, weights={"k": (8, 1, 1), "l": (1, 8, 1, 1)} | weights)


def _deconv(attributes: str) -> Builder:
    normed = "BatchNormalization(c, s_pos, b, m, v_pos)"
    text = f"{_IMAGE} {{ c = ConvTranspose<{attributes}>(x, W) y = {normed} }}"
    return hostile(text, weights={"W": (4, 4, 3, 3)} | _BN)


CONV_GRAPHS: dict[str, Builder] = {
    "conv_same_upper": _conv('auto_pad = "SAME_UPPER", strides = [2,2]', W=(8, 4, 3, 3)),
    "conv_same_lower": _conv('auto_pad = "SAME_LOWER", strides = [2,3]', W=(8, 4, 2, 2)),
    "conv_valid": _conv('auto_pad = "VALID", dilations = [2,2]', W=(8, 4, 2, 3)),
    "conv_grouped": _conv("group = 2, pads = [1,0,2,1]", W=(8, 2, 3, 3)),
    "deconv_output_padding": _deconv("strides = [2,2], output_padding = [1,0], pads = [1,1,0,0]"),
    "deconv_output_shape": _deconv("strides = [2,2], output_shape = [12,11]"),
    "deconv_grouped": hostile(
        f"{_IMAGE} {{ c = ConvTranspose<group = 2>(x, W) y = BatchNormalization(c, s_pos, b, m,"
        f" v_pos) }}",
        weights={"W": (4, 2, 3, 3)} | _BN,
    ),
    "batchnorms_share_parameters": hostile(
        "(float[N,4,6,6] x) => (float[N,4,A,B] y) { c = Conv(x, W)"
        " d = BatchNormalization(c, s_pos, b, m, v_pos) r = Relu(d) e = Conv(r, W)"
        " f = BatchNormalization(e, s_pos, b, m, v_pos) y = BatchNormalization(f, s_pos, s_pos,"
        " b, v_pos) }",
        weights={"W": (4, 4, 3, 3)} | _BN,
    ),
    "conv_weights_are_shared": hostile(
        "(float[N,4,6,6] x) => (float[N,4,A,B] y) { c = Conv(x, W) d = Conv(x, W)"
        " e = BatchNormalization(c, s_pos, b, m, v_pos) y = Add(d, e) }",
        weights={"W": (4, 4, 3, 3)} | _BN,
    ),
    "conv_weights_are_an_output": hostile(
        "(float[N,4,6,6] x) => (float[N,4,A,B] y, float[4,4,3,3] W) { c = Conv(x, W)"
        " y = BatchNormalization(c, s_pos, b, m, v_pos) }",
        weights={"W": (4, 4, 3, 3)} | _BN,
    ),
    "conv_weights_are_computed": hostile(
        "(float[N,4,6,6] x) => (float[N,4,A,B] y) { V = Mul(W, g) c = Conv(x, V, b)"
        " y = BatchNormalization(c, s_pos, b, m, v_pos) }",
        weights={"W": (4, 4, 3, 3), "g": (4, 1, 1, 1)} | _BN,
    ),
    "batchnorm_before_conv": hostile(
        "(float[N,4,6,6] x) => (float[N,4,6,6] y) { d = BatchNormalization(x, s_pos, b, m, v_pos)"
        " y = Conv<pads = [1,1,1,1]>(d, W) }",
        weights={"W": (4, 4, 3, 3)} | _BN,
    ),
    "conv_times_a_vector_along_the_width": hostile(
        "(float[N,4,6,6] x) => (float[N,4,4,4] y) { c = Conv(x, W) d = Mul(c, k) y = Add(d, k) }",
        weights={"W": (4, 4, 3, 3), "k": (4,)},
    ),
    "conv_plus_a_widening_constant": hostile(
        "(float[1,4,6,6] x) => (float[2,4,4,4] y) { c = Conv(x, W) y = Add(c, k) }",
        weights={"W": (4, 4, 3, 3), "k": (2, 4, 1, 1)},
    ),
    "conv_of_one_channel_times_many": hostile(
        "(float[N,4,6,6] x) => (float[N,4,4,4] y) { c = Conv(x, W) y = Mul(c, k) }",
        weights={"W": (1, 4, 3, 3), "k": (4, 1, 1)},
    ),
    "max_pool_with_indices": hostile(
        "(float[N,4,6,6] x) => (float[N,4,3,3] y, int64[N,4,3,3] i)"
        " { a = Identity(x) y, i = MaxPool<kernel_shape = [2,2], strides = [2,2]>(a) }"
    ),
    "conv_one_dim": hostile(
        "(float[N,4,L] x) => (float[N,4,A] y) { c = Conv<pads = [1,1]>(x, W)"
        " y = BatchNormalization(c, s_pos, b, m, v_pos) }",
        weights={"W": (4, 4, 3)} | _BN,
    ),
}

MATRIX_GRAPHS: dict[str, Builder] = {
    "gemm_with_everything": hostile(
        "(float[4,N] x) => (float[N,3] y) { g = Gemm<alpha = 0.5, beta = 2.0, transA = 1, transB"
        " = 1>"
        "(x, W, c) h = Mul(g, k) y = Add(h, c) }",
        weights={"W": (3, 4), "c": (3,), "k": (1, 3)},
    ),
    "gemm_with_a_scalar_bias": hostile(
        "(float[N,4] x) => (float[N,3] y) { g = Gemm<beta = 0.5>(x, W, c) y = Add(g, k) }",
        weights={"W": (4, 3), "c": np.float32(2), "k": (1, 1)},
    ),
    "gemm_plus_rows": hostile(
        "(float[2,4] x) => (float[2,3] y) { g = Gemm(x, W) y = Add(g, k) }",
        weights={"W": (4, 3), "k": (2, 1)},
    ),
    "matmul_one_dim": hostile(
        "(float[4] x, float[N,4] z) => (float[3] y, float[N] w, float v)"
        " { y = MatMul(x, W) w = MatMul(z, x) v = MatMul(x, x) }",
        weights={"W": (4, 3)},
    ),
    "matmul_broadcast_plus_bias": hostile(
        "(float[N,1,2,4] x) => (float[N,5,2,3] y) { a = MatMul(x, W) y = Add(a, c) }",
        weights={"W": (5, 4, 3), "c": (3,)},
    ),
    "matmul_plus_a_matrix": hostile(
        "(float[2,4] x) => (float[2,3] y) { a = MatMul(x, W) y = Add(a, c) }",
        weights={"W": (4, 3), "c": (2, 3)},
    ),
    "matmul_plus_a_widening_bias": hostile(
        "(float[N,4] x) => (float[5,N,3] y) { a = MatMul(x, W) y = Add(c, a) }",
        weights={"W": (4, 3), "c": (5, 1, 3)},
    ),
    "matmuls_share_weights": hostile(
        "(float[N,4] x) => (float[N,4] y) { a = MatMul(x, W) b = Add(a, c) d = MatMul(b, W) e ="
        " Mul(d, c)"
        " t = Transpose(W) y = MatMul(e, t) }",
        weights={"W": (4, 4), "c": (4,)},
    ),
    "lstm_with_gaps": hostile(
        "(float[L,N,4] x, float[1,N,3] h) => (float[L,1,N,3] y, float[1,N,3] yc) {"
        ' a = Identity(x) y, "", yc = LSTM<hidden_size = 3>(a, W, R, "", "", h) }',
        weights={"W": (1, 12, 4), "R": (1, 12, 3)},
    ),
    "gru_with_gaps": hostile(
        "(float[L,N,4] x) => (float[1,N,3] yh) { a = Identity(x)"
        ' "", yh = GRU<hidden_size = 3, linear_before_reset = 1>(a, W, R, b) }',
        weights={"W": (1, 9, 4), "R": (1, 9, 3), "b": (1, 18)},
    ),
    "clip_with_gaps": hostile(
        f'{_XY} {{ {_scalar("hi", 0.5)} a = Clip(x, "", hi) {_scalar("lo", -0.5)} b = Clip(a, lo)'
        ' y = Clip(b, "", "") }'
    ),
}

SCALE_GRAPHS: dict[str, Builder] = {
    "constants_that_broadcast": hostile(
        f"{_XY} {{ a = Mul(x, k) b = Mul(a, l) c = Add(b, l) y = Add(c, k) }}",
        weights={"k": (4,), "l": (1, 1)},
    ),
    "constants_that_widen": hostile(
        "(float[N,4] x) => (float[2,N,4] y) { a = Mul(x, k) b = Mul(a, l) y = Mul(b, l) }",
        weights={"k": (4,), "l": (2, 1, 1)},
    ),
    "neutral_constants_that_widen": hostile(
        "(float[N,4] x) => (float[2,N,4] y, float[1,N,4] z) { a = Mul(x, one) y = Neg(a)"
        " b = Add(x, zero) z = Neg(b) }",
        weights={"one": np.ones((2, 1, 1), np.float32), "zero": np.zeros((1, 1, 1), np.float32)},
    ),
    "neutral_constants": hostile(
        f"{_XY} {{ a = Mul(x, one) b = Add(a, zero) c = Sub(b, zero) d = Div(c, one) e = Pow(d,"
        " one)"
        " f = Sub(zero, e) y = Div(one, f) }",
        weights={"one": np.ones(1, np.float32), "zero": np.zeros((), np.float32)},
    ),
    "times_zero": hostile(
        f"{_XY} {{ a = Log(x) b = Mul(a, zero) y = Add(b, x) }}",
        weights={"zero": np.zeros(4, np.float32)},
    ),
    "divided_by_zero": hostile(
        f"{_XY} {{ a = Div(x, zero) b = Div(a, k) y = Mul(b, k) }}",
        weights={"zero": np.asarray([0, 1, -0.0, 2], np.float32), "k": (4,)},
    ),
    "subtracted_the_other_way": hostile(
        f"{_XY} {{ a = Sub(k, x) b = Sub(l, a) c = Sub(b, k) y = Sub(c, l) }}",
        weights={"k": (4,), "l": (1,)},
    ),
    "divided_the_other_way": hostile(
        f"{_XY} {{ a = Abs(x) b = Add(a, k_pos) c = Div(l_pos, b) d = Div(c, k_pos) y ="
        f" Div(k_pos, d) }}",
        weights={"k_pos": (4,), "l_pos": (1,)},
    ),
    "powers": hostile(
        f"{_XY} {{ {_scalar('two', 2)} {_scalar('half', 0.5)} {_scalar('three', 3)} a = Pow(x, two)"
        " b = Pow(a, half) c = Sqrt(a) d = Pow(x, three) e = Sub(b, d) y = Add(e, c) }"
    ),
    "same_value_under_other_names": hostile(
        f"{_XY} {{ a = Mul(x, k) b = Mul(x, l) c = Sub(a, b) d = Add(c, m) y = Sub(d, n) }}",
        weights={
            "k": np.arange(4, dtype=np.float32),
            "l": np.arange(4, dtype=np.float32),
            "m": np.arange(4, dtype=np.float32).reshape(1, 4),
            "n": np.arange(4, dtype=np.float32),
        },
    ),
    "same_bytes_of_other_types": hostile(
        f"{_XY} {{ f = Cast<to = 1>(i) a = Mul(x, z) y = Add(a, f) }}",
        weights={"i": np.zeros(4, np.int32), "z": np.zeros(4, np.float32)},
    ),
    "signed_zeros_are_two_values": hostile(
        f"{_XY} {{ a = Div(x, p) b = Div(x, n) y = Where(c, a, b) }}",
        weights={
            "p": np.zeros(4, np.float32),
            "n": -np.zeros(4, np.float32),
            "c": np.asarray([True, False, True, False]),
        },
    ),
    "common_subexpressions": hostile(
        f"{_XY} {{ a = Relu(x) b = Relu(x) c = Add(a, b) d = Add(b, a) e = Sub(a, k) f = Sub(b, k)"
        " g = Sub(e, d) h = Mul(f, c) y = Add(g, h) }",
        weights={"k": (4,)},
    ),
    "nearly_common_subexpressions": hostile(
        f"{_XY} {{ a = LeakyRelu(x) b = LeakyRelu<alpha = 0.01>(x) c = LeakyRelu<alpha = 0.02>(x)"
        " d = Sub(x, k) e = Sub(k, x) f = Sum(a, b, c, d) y = Sub(f, e) }",
        weights={"k": (4,)},
    ),
    "integers_times_constants_twice": hostile(
        "(int64[N,4] x, int32[N] i) => (int64[N,4] y, int32[N] z) { k = Constant<value_int = 3>()"
        " l = Constant<value_ints = [2, 5, 7, -1]>() a = Mul(x, k) b = Mul(a, l) c = Add(b, k)"
        " d = Sub(c, l) y = Sub(k, d) j = Add(i, m) z = Add(j, m) }",
        weights={"m": np.asarray([2**31 - 1], np.int32)},
    ),
    "commutes_only_as_it_seems": hostile(
        "(int64[N,4] x) => (int64[N,4] y) { k = Constant<value_int = 3>() a = Sub(x, k) b ="
        " Sub(k, x)"
        " c = Mul(a, b) d = Mul(b, a) e = Pow(x, k) f = Add(c, d) y = Add(f, e) }"
    ),
}

LAYER_GRAPHS: dict[str, Builder] = CONV_GRAPHS | MATRIX_GRAPHS | SCALE_GRAPHS
