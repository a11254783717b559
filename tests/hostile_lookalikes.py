"""Hostile graphs: spelled-out layers that are right, and ones that are wrong in a single place."""

import math

from hostile_text import Builder, hostile

_XY = "(float[N,3,8] x) => (float[N,3,8] y)"


def _c(name: str, value: float) -> str:
    return f"{name} = Constant<value_float = {float(value)!r}>() "


def _layer_norm(
    *,
    axes: str = "-1",
    variance_axes: str | None = None,
    square: str = "d2 = Pow(d, two)",
    root: str = "ve = Add(v, eps) sd = Sqrt(ve)",
    scale: str = "n",
    tail: str = "s = Mul(q, g) y = Add(s, b)",
    shape: tuple[int, ...] = (8,),
) -> Builder:
    text = (
        f"{_XY} {{ {_c('two', 2)} {_c('eps', 1e-5)} m = ReduceMean<axes = [{axes}]>(x) d ="
        " Sub(x, m)"
        f" {square} v = ReduceMean<axes = [{variance_axes or axes}]>(d2) {root}"
        f" {scale} = Div(d, sd) q = Identity({scale}) {tail} }}"
    )
    return hostile(text, opset=17, weights={"g": shape, "b": shape})


def _gelu(
    half: float = 0.5, root: float = math.sqrt(2), one: float = 1.0, op: str = "Erf"
) -> Builder:
    return hostile(
        f"{_XY} {{ {_c('r', root)} {_c('o', one)} {_c('h', half)} a = Div(x, r) e = {op}(a) p ="
        " Add(e, o)"
        " m = Mul(x, p) y = Mul(m, h) }"
    )


def _tanh_gelu(
    cubic: float = 0.044715, factor: float = math.sqrt(2 / math.pi), power: float = 3
) -> Builder:
    return hostile(
        f"{_XY} {{ {_c('p', power)} {_c('k', cubic)} {_c('f', factor)} {_c('o', 1)} {_c('h', 0.5)}"
        " c = Pow(x, p) a = Mul(c, k) b = Add(x, a) d = Mul(b, f) t = Tanh(d) e = Add(t, o)"
        " g = Mul(x, e) y = Mul(g, h) }"
    )


def _attention(
    *,
    key_perm: str = "0,1,3,2",
    scale: float = 0.5,
    axis: int = -1,
    mask: str = "t = Identity(s)",
    after: str = "w = Identity(p)",
    extra: str = "",
    outputs: str = "",
) -> Builder:
    return hostile(
        "(float[N,2,L,4] q, float[N,2,L,4] k, float[N,2,L,4] v, bool[N,1,1,L] keep)"
        f" => (float[N,2,L,4] y{outputs}) {{ {_c('c', scale)} kt = Transpose<perm ="
        f" [{key_perm}]>(k)"
        f" a = MatMul(q, kt) s = Mul(a, c) {mask} p = Softmax<axis = {axis}>(t) {after}"
        f" y = MatMul(w, v) {extra} }}"
    )


NORM_GRAPHS: dict[str, Builder] = {
    "layer_norm": _layer_norm(),
    "layer_norm_over_two_axes": _layer_norm(axes="-2,-1", shape=(3, 8)),
    "layer_norm_over_the_middle": _layer_norm(axes="1", shape=(3, 1)),
    "layer_norm_over_axes_apart": _layer_norm(axes="0,2"),
    "layer_norm_of_other_variance_axes": _layer_norm(variance_axes="1"),
    "layer_norm_eps_outside_the_root": _layer_norm(root="vs = Sqrt(v) sd = Add(vs, eps)"),
    "layer_norm_cubed": _layer_norm(square="d1 = Mul(d, d) d2 = Mul(d1, two)"),
    "layer_norm_square_of_x": _layer_norm(square="d2 = Mul(x, x)"),
    "layer_norm_by_self_product": _layer_norm(square="d2 = Mul(d, d)"),
    "layer_norm_times_an_input": _layer_norm(tail="s = Mul(q, x) y = Add(s, b)"),
    "layer_norm_without_bias": _layer_norm(tail="y = Mul(q, g)"),
    "layer_norm_of_a_widening_scale": _layer_norm(shape=(3, 1)),
    "layer_norm_variance_is_read": _layer_norm(tail="s = Mul(q, g) u = Add(s, v) y = Add(u, m)"),
    "rms_norm": hostile(
        f"{_XY} {{ {_c('eps', 1e-6)} {_c('o', 1)} {_c('two', 2)} a = Pow(x, two)"
        " m = ReduceMean<axes = [-1]>(a) e = Add(m, eps) r = Sqrt(e) i = Div(o, r) n = Mul(x, i)"
        " y = Mul(n, g) }",
        opset=17,
        weights={"g": (8,)},
    ),
    "rms_norm_of_a_sum": hostile(
        f"{_XY} {{ {_c('eps', 1e-6)} {_c('two', 2)} a = Pow(x, two)"
        " m = ReduceSum(a, ax) e = Add(m, eps) r = Sqrt(e) n = Div(x, r) y = Mul(n, g) }",
        opset=17,
        weights={"g": (8,), "ax": [-1]},
    ),
    "l2_norm": hostile(
        f"{_XY} {{ {_c('eps', 1e-3)} a = ReduceL2<axes = [-1]>(x) m = Max(a, eps) y = Div(x, m) }}",
        opset=17,
    ),
    "instance_norm": hostile(
        f"{_XY} {{ a = InstanceNormalization<epsilon = 0.01>(x, g, b) c = Mul(a, k) y = Add(c,"
        f" b1) }}",
        weights={"g": (3,), "b": (3,), "k": (3, 1), "b1": (1, 3, 1)},
    ),
    "group_norm": hostile(
        "(float[N,4,5,5] x) => (float[N,4,5,5] y) { r = Constant<value_ints = [0, 2, -1]>()"
        " a = Reshape(x, r) n = InstanceNormalization(a, g, b) s = Shape(x) c = Reshape(n, s)"
        " d = Mul(c, k) y = Add(d, l) }",
        weights={"g": (2,), "b": (2,), "k": (4, 1, 1), "l": (4, 1, 1)},
    ),
}

ACTIVATION_GRAPHS: dict[str, Builder] = {
    "gelu": _gelu(),
    "gelu_of_a_wrong_root": _gelu(root=1.5),
    "gelu_of_a_wrong_half": _gelu(half=0.25),
    "gelu_of_a_wrong_one": _gelu(one=2.0),
    "gelu_of_tanh": _gelu(op="Tanh"),
    "tanh_gelu": _tanh_gelu(),
    "tanh_gelu_of_a_wrong_cubic": _tanh_gelu(cubic=0.05),
    "tanh_gelu_of_a_wrong_factor": _tanh_gelu(factor=0.75),
    "tanh_gelu_of_a_wrong_power": _tanh_gelu(power=2),
    "gelu_of_two_inputs": hostile(
        f"(float[N,3,8] x, float[N,3,8] z) => (float[N,3,8] y) {{ {_c('r', math.sqrt(2))}"
        f" {_c('o', 1)}"
        f" {_c('h', 0.5)} a = Div(x, r) e = Erf(a) p = Add(e, o) m = Mul(z, p) y = Mul(m, h) }}"
    ),
    "gelu_inner_is_an_output": hostile(
        f"(float[N,3,8] x) => (float[N,3,8] y, float[N,3,8] e) {{ {_c('r', math.sqrt(2))}"
        f" {_c('o', 1)}"
        f" {_c('h', 0.5)} a = Div(x, r) e = Erf(a) p = Add(e, o) m = Mul(x, p) y = Mul(m, h) }}"
    ),
    "silu_and_not_silu": hostile(
        "(float[N,3,8] x, float[N,3,8] z) => (float[N,3,8] y) { s = Sigmoid(x) a = Mul(s, x)"
        " t = Sigmoid(z) b = Mul(x, t) y = Sub(a, b) }"
    ),
    "mish_and_not_mish": hostile(
        "(float[N,3,8] x) => (float[N,3,8] y) { p = Softplus(x) t = Tanh(p) a = Mul(x, t)"
        " u = Tanh(x) q = Softplus(u) b = Mul(x, q) y = Sub(a, b) }"
    ),
    "softplus_spelled_out": hostile(
        f"{_XY} {{ {_c('o', 1)} {_c('w', 2)} e = Exp(x) a = Add(e, o) b = Log(a) c = Add(e, w) d"
        " = Log(c)"
        " y = Add(b, d) }"
    ),
    "hard_swish_right_and_wrong": hostile(
        f"{_XY} {{ {_c('three', 3)} {_c('z', 0)} {_c('six', 6)} {_c('five', 5)} a = Add(x, three)"
        " b = Clip(a, z, six) c = Mul(x, b) d = Div(c, six) e = Clip(a, z, five) f = Mul(x, e)"
        " g = Div(f, six) y = Sub(d, g) }"
    ),
    "hard_sigmoid_default_and_not": hostile(
        f"{_XY} {{ a = HardSigmoid(x) b = Mul(x, a) c = HardSigmoid<alpha = 0.16666667, beta ="
        " 0.5>(x)"
        " d = Mul(x, c) y = Sub(b, d) }"
    ),
    "swiglu": hostile(
        "(float[N,3,8] x) => (float[N,3,4] y) { a, b = Split<axis = -1, num_outputs = 2>(x)"
        " s = Sigmoid(a) c = Mul(a, s) y = Mul(c, b) }"
    ),
}

_MASK = f"n = Not(keep) {_c('low', -10000)} {_c('o', 0)} b = Where(n, low, o) t = Add(s, b)"

ATTENTION_GRAPHS: dict[str, Builder] = {
    "attention": _attention(),
    "attention_masked": _attention(mask=_MASK),
    "attention_of_a_wrong_axis": _attention(axis=-2),
    "attention_of_an_unusual_scale": _attention(scale=0.3),
    "attention_doubled_after_softmax": _attention(after=f"{_c('two', 2)} w = Mul(p, two)"),
    "attention_weights_are_an_output": _attention(outputs=", float[N,2,L,L] p"),
    "attention_weights_are_read": _attention(
        extra="r = ReduceSum<keepdims = 0>(w)", outputs=", float r"
    ),
    "attention_of_a_mask_that_multiplies": _attention(mask="f = Cast<to = 1>(keep) t = Mul(s, f)"),
    "attention_transposed_twice": hostile(
        "(float[N,L,2,4] q, float[N,L,2,4] k, float[N,L,2,4] v) => (float[N,L,8] y) {"
        f" {_c('c', 0.5)} qt = Transpose<perm = [0,2,1,3]>(q) kt = Transpose<perm = [0,2,3,1]>(k)"
        " vt = Transpose<perm = [0,2,1,3]>(v) qs = Mul(qt, c) a = MatMul(qs, kt)"
        " p = Softmax<axis = -1>(a) o = MatMul(p, vt) ot = Transpose<perm = [0,2,1,3]>(o)"
        " r = Constant<value_ints = [0, 0, 8]>() y = Reshape(ot, r) }"
    ),
    "rotary_embedding": hostile(
        "(float[N,2,L,8] x, float[N,1,L,8] cos, float[N,1,L,8] sin) => (float[N,2,L,8] y) {"
        " a, b = Split<axis = -1, num_outputs = 2>(x) nb = Neg(b) r = Concat<axis = -1>(nb, a)"
        " xc = Mul(x, cos) rs = Mul(r, sin) y = Add(xc, rs) }"
    ),
    "rotary_embedding_of_a_wrong_sign": hostile(
        "(float[N,2,L,8] x, float[N,1,L,8] cos, float[N,1,L,8] sin) => (float[N,2,L,8] y) {"
        " a, b = Split<axis = -1, num_outputs = 2>(x) na = Neg(a) r = Concat<axis = -1>(b, na)"
        " xc = Mul(x, cos) rs = Mul(r, sin) y = Add(xc, rs) }"
    ),
}

LOOKALIKE_GRAPHS: dict[str, Builder] = NORM_GRAPHS | ACTIVATION_GRAPHS | ATTENTION_GRAPHS
