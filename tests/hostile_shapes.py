"""Hostile graphs: shape arithmetic, and operators that look as if they did nothing."""

import numpy as np
from hostile_text import Builder, hostile

_XY = "(float[N,4] x) => (float[N,4] y)"
_MAX, _MIN = 2**63 - 1, -(2**63) + 1


def _ints(name: str, *values: int) -> str:
    """A Constant of a list of integers."""
    return f"{name} = Constant<value_ints = [{', '.join(map(str, values))}]>() "


def _resize(attributes: str, given: str, dims: str) -> str:
    return f"(float[N,2,4,4] x) => (float[N,2,{dims}] y) {{ y = Resize<{attributes}>(x, {given}) }}"


RESHAPE_GRAPHS: dict[str, Builder] = {
    "reshape_zero_and_minus_one": hostile(
        f"(float[N,M,4] x) => (float[N,K] y) {{ {_ints('s', 0, -1)} y = Reshape(x, s) }}"
    ),
    "reshape_twice_zeros_mean_other_dims": hostile(
        f"(float[N,M,4] x) => (float[A,B] y) {{ {_ints('s', 4, -1)} {_ints('t', -1, 0)}"
        " a = Reshape(x, s) y = Reshape(a, t) }"
    ),
    "reshape_three_times": hostile(
        f"(float[N,M,4] x) => (float[A,B,C] y) {{ {_ints('s', -1)} {_ints('t', 2, -1)}"
        f" {_ints('u', 0, 2, -1)} a = Reshape(x, s) b = Reshape(a, t) y = Reshape(b, u) }}"
    ),
    "reshape_allowzero": hostile(
        f"(float[N,M,0] x) => (float[0,K] y) {{ {_ints('s', 0, 7)} y = Reshape<allowzero = 1>(x,"
        f" s) }}"
    ),
    "reshape_allowzero_then_zero": hostile(
        f"(float[N,M,0] x) => (float[A,B] y) {{ {_ints('s', 0, 7, 2)} {_ints('t', 0, 14)}"
        " a = Reshape<allowzero = 1>(x, s) y = Reshape(a, t) }"
    ),
    "reshape_to_its_own_shape": hostile(
        "(float[N,M] x) => (float[N,M] y) { s = Shape(x) a = Reshape(x, s) y = Neg(a) }"
    ),
    "reshape_to_another_of_the_same_rank": hostile(
        f"(float[N,M,4] x) => (float[A,B,C] y) {{ {_ints('s', 0, 4, -1)} a = Reshape(x, s) y ="
        f" Neg(a) }}"
    ),
    "reshape_by_gathered_dims": hostile(
        "(float[N,M,4] x) => (float[A,B] y) { s = Shape(x) zero = Constant<value_int = 0>()"
        f" n = Gather(s, zero) {_ints('ax', 0)} m = Unsqueeze(n, ax) {_ints('r', -1)}"
        " t = Concat<axis = 0>(m, r) a = Reshape(x, t) y = Relu(a) }"
    ),
    "reshape_by_known_dims": hostile(
        "(float[N,6,4] x) => (float[A,3,B] y) { s = Shape(x) one = Constant<value_int = 1>()"
        " n = Gather(s, one) two = Constant<value_int = 2>() h = Div(n, two)"
        f" {_ints('ax', 0)} {_ints('r', -1)} hu = Unsqueeze(h, ax) nn = Shape<start = 0, end ="
        " 1>(x)"
        " t = Concat<axis = 0>(nn, hu, r) y = Reshape(x, t) }"
    ),
    "integer_division_chain": hostile(
        "(float[N,7,4] x) => (float[A,B] y) { s = Shape(x) one = Constant<value_int = 1>()"
        " n = Gather(s, one) two = Constant<value_int = 2>() h = Div(n, two) back = Mul(h, two)"
        f" {_ints('z', 0)} {_ints('ax', 1)} b = Unsqueeze(back, z) p = Slice(x, z, b, ax)"
        f" {_ints('t', 0, -1)} y = Reshape(p, t) }}"
    ),
    "negative_integer_division": hostile(
        "(int64[N] x) => (int64[N] y) { two = Constant<value_int = 2>() m = Constant<value_int ="
        " -3>()"
        " a = Mul(x, m) b = Div(a, two) c = Mul(b, two) y = Mod(c, m) }",
        given={"x": np.arange},
    ),
    "flatten_axes": hostile(
        "(float[N,M,4] x) => (float[A,B] y, float[1,C] z, float[D,1] w)"
        " { y = Flatten<axis = -1>(x) z = Flatten<axis = 0>(x) w = Flatten<axis = 3>(x) }"
    ),
    "flatten_then_reshape_back": hostile(
        "(float[N,M,4] x) => (float[N,M,4] y) { s = Shape(x) a = Flatten<axis = 2>(x) b = Relu(a)"
        " y = Reshape(b, s) }"
    ),
    "squeeze_without_axes": hostile(
        "(float[N,1,M,1] x) => (float y) { a = Squeeze(x) y = ReduceSum<keepdims = 0>(a) }",
        sizes=({"N": 2, "M": 1}, {"N": 3, "M": 2}),
    ),
    "squeeze_then_unsqueeze_elsewhere": hostile(
        f"(float[N,1,4] x) => (float[N,4,1] y) {{ {_ints('s', 1)} {_ints('t', -1)}"
        " a = Squeeze(x, s) y = Unsqueeze(a, t) }"
    ),
    "unsqueeze_twice": hostile(
        f"(float[N,4] x) => (float[1,N,1,4] y) {{ {_ints('s', 1)} {_ints('t', 0)}"
        " a = Unsqueeze(x, s) y = Unsqueeze(a, t) }"
    ),
    "expand_to_smaller": hostile(
        f"(float[N,4] x) => (float[N,4] y) {{ {_ints('s', 1, 1)} a = Expand(x, s) y = Neg(a) }}"
    ),
    "expand_both_ways": hostile(
        f"(float[N,1] x) => (float[2,N,3] y) {{ {_ints('s', 2, 1, 3)} a = Expand(x, s) y ="
        f" Neg(a) }}"
    ),
    "expand_for_a_broadcast": hostile(
        "(float[N,4] x, float[4] z) => (float[N,4] y) { s = Shape(x) a = Expand(z, s) y = Add(x,"
        " a) }"
    ),
    "constant_of_shape_of_input": hostile(
        "(float[N,M] x) => (float[N,M] y) { s = Shape(x) o = ConstantOfShape<value = float[1]"
        " {1}>(s)"
        " z = ConstantOfShape(s) a = Mul(x, o) y = Add(a, z) }"
    ),
    "range_of_a_dim": hostile(
        "(float[N,M] x) => (float[N,M] y) { s = Shape(x) one = Constant<value_int = 1>()"
        " zero = Constant<value_int = 0>() m = Gather(s, one) r = Range(zero, m, one)"
        " f = Cast<to = 1>(r) y = Add(x, f) }"
    ),
    "shape_start_and_end": hostile(
        "(float[N,M,4] x) => (int64[1] a, int64[2] b, int64[0] c, int64 d) {"
        " a = Shape<start = 1, end = -1>(x) b = Shape<start = -2>(x) c = Shape<start = 2, end ="
        " 1>(x)"
        " d = Size(x) }"
    ),
    "shapes_of_many_rewrites": hostile(
        "(float[N,M,4] x) => (int64[K] y) { t = Transpose<perm = [2,0,1]>(x) s = Shape(t)"
        f" {_ints('i', 2, 0)} g = Gather(s, i) {_ints('a', -1)} {_ints('b', _MIN)} {_ints('z', 0)}"
        f" {_ints('st', -1)} r = Slice(g, a, b, z, st) y = Concat<axis = 0>(r, g) }}"
    ),
    "if_on_a_known_dim": hostile(
        "(float[N,4] x) => (float[N,4] y) { s = Shape(x) one = Constant<value_int = 1>()"
        " n = Gather(s, one) four = Constant<value_int = 4>() c = Equal(n, four)"
        " y = If(c) <then_branch = t () => (float[N,4] u) { u = Neg(x) },"
        " else_branch = e () => (float[N,4] v) { v = Exp(x) }> }"
    ),
}

SLICE_GRAPHS: dict[str, Builder] = {
    "slice_backwards": hostile(
        f"(float[N,L] x) => (float[N,L] y) {{ {_ints('a', -1)} {_ints('b', _MIN)} {_ints('ax', 1)}"
        f" {_ints('st', -1)} y = Slice(x, a, b, ax, st) }}"
    ),
    "slice_everything": hostile(
        f"(float[N,L] x) => (float[N,L] y) {{ {_ints('a', 0, 0)} {_ints('b', _MAX, _MAX)}"
        f" {_ints('ax', -1, 0)} c = Slice(x, a, b, ax) y = Neg(c) }}"
    ),
    "slice_almost_everything": hostile(
        f"(float[N,4] x) => (float[N,3] y) {{ {_ints('a', 0)} {_ints('b', -1)} {_ints('ax', 1)}"
        " c = Slice(x, a, b, ax) y = Neg(c) }"
    ),
    "slice_of_slice": hostile(
        f"(float[N,9] x) => (float[N,K] y) {{ {_ints('a', 1)} {_ints('b', -1)} {_ints('ax', 1)}"
        f" {_ints('d', -4)} {_ints('e', 100)} {_ints('st', 2)} c = Slice(x, a, b, ax)"
        " y = Slice(c, d, e, ax, st) }"
    ),
    "slices_of_two_axes": hostile(
        f"(float[N,5,6] x) => (float[N,A,B] y) {{ {_ints('a', 1)} {_ints('b', 4)} {_ints('p', 1)}"
        f" {_ints('q', 2)} {_ints('c', -3)} {_ints('d', _MAX)} t = Slice(x, a, b, p)"
        " y = Slice(t, c, d, q) }"
    ),
    "slice_to_nothing": hostile(
        f"(float[N,4] x) => (float[N,4] y) {{ {_ints('a', 2)} {_ints('b', 2)} {_ints('ax', 1)}"
        " c = Slice(x, a, b, ax) y = Concat<axis = 1>(c, x) }"
    ),
    "gather_from_behind": hostile(
        f"(float[N,4] x) => (float[N,3] y) {{ {_ints('i', -1, 0, -4)} y = Gather<axis = 1>(x, i) }}"
    ),
    "gather_scalar_and_list": hostile(
        f"(float[N,4] x) => (float[N] y, float[N,1] z) {{ i = Constant<value_int = -2>()"
        f" {_ints('j', 2)}"
        " y = Gather<axis = 1>(x, i) z = Gather<axis = -1>(x, j) }"
    ),
    "gather_all_in_order": hostile(
        f"(float[N,4] x) => (float[N,4] y, float[N,4] z) {{ {_ints('i', 0, 1, 2, 3)}"
        f" {_ints('j', 3, 2, 1, 0)} y = Gather<axis = 1>(x, i) z = Gather<axis = 1>(x, j) }}"
    ),
    "split_unevenly": hostile(
        f"(float[N,7] x) => (float[N,7] y) {{ {_ints('s', 2, 4, 1)} a, b, c = Split<axis = 1>(x, s)"
        " y = Concat<axis = 1>(c, b, a) }"
    ),
    "split_and_concat_back": hostile(
        f"(float[N,7] x) => (float[N,7] y) {{ {_ints('s', 2, 5)} a, b = Split<axis = 1>(x, s)"
        " c = Concat<axis = -1>(a, b) y = Neg(c) }"
    ),
    "split_with_a_smaller_last": hostile(
        "(float[N,7] x) => (float[N,3] a, float[N,1] c) { a, b, c = Split<axis = 1, num_outputs"
        " = 3>(x) }"
    ),
    "split_into_one": hostile(
        "(float[N,7] x) => (float[N,7] y) { a = Split<axis = 1, num_outputs = 1>(x) y = Neg(a) }"
    ),
    "concat_with_nothing": hostile(
        "(float[N,4] x) => (float[N,4] y) { e = Constant<value = float[1,0] {}>() s = Shape<end"
        " = 1>(x)"
        f" {_ints('o', 0)} t = Concat<axis = 0>(s, o) z = Expand(e, t) a = Concat<axis = 1>(x, z)"
        " y = Neg(a) }"
    ),
    "concat_of_one": hostile(f"{_XY} {{ a = Concat<axis = 1>(x) y = Neg(a) }}"),
    "concat_of_concats": hostile(
        "(float[N,4] x) => (float[A,B] y) { a = Concat<axis = 1>(x, x) b = Concat<axis = 0>(a, a)"
        " c = Concat<axis = -1>(x, x) y = Concat<axis = 0>(b, c) }"
    ),
    "pad_negative": hostile(
        f"(float[N,5] x) => (float[N,4] y) {{ {_ints('p', 0, -2, 0, 1)} y = Pad(x, p) }}"
    ),
    "pad_nothing_in_all_modes": hostile(
        f"(float[N,4] x) => (float[N,4] y) {{ {_ints('p', 0, 0, 0, 0)} a = Pad(x, p)"
        ' b = Pad<mode = "reflect">(a, p) c = Pad<mode = "edge">(b, p) y = Neg(c) }'
    ),
    "pad_before_conv": hostile(
        f"(float[N,2,5,5] x) => (float[N,3,5,5] y) {{ {_ints('p', 0, 0, 1, 1, 0, 0, 1, 1)}"
        " a = Pad(x, p) y = Conv(a, W) }",
        weights={"W": (3, 2, 3, 3)},
    ),
    "pad_with_ones_before_conv": hostile(
        f"(float[N,2,5,5] x) => (float[N,3,5,5] y) {{ {_ints('p', 0, 0, 1, 1, 0, 0, 1, 1)}"
        " one = Constant<value_float = 1.0>() a = Pad(x, p, one) y = Conv(a, W) }",
        weights={"W": (3, 2, 3, 3)},
    ),
    "pad_channels_before_conv": hostile(
        f"(float[N,2,5,5] x) => (float[N,3,3,3] y) {{ {_ints('p', 0, 1, 0, 0, 0, 0, 0, 0)}"
        " a = Pad(x, p) y = Conv(a, W) }",
        weights={"W": (3, 3, 3, 3)},
    ),
    "pad_before_average_pool": hostile(
        f"(float[N,2,5,5] x) => (float[N,2,A,B] y) {{ {_ints('p', 0, 0, 1, 1, 0, 0, 1, 1)}"
        " a = Pad(x, p) y = AveragePool<kernel_shape = [2,2]>(a) }"
    ),
}

NO_OP_GRAPHS: dict[str, Builder] = {
    "transpose_without_perm": hostile("(float[N,M,4] x) => (float[4,M,N] y) { y = Transpose(x) }"),
    "transpose_of_a_scalar": hostile(
        f"{_XY} {{ k = Constant<value_float = 2.0>() t = Transpose(k) a = Add(t, x)"
        " m = ReduceMax<keepdims = 0>(a) u = Transpose(m) y = Sub(x, u) }"
    ),
    "transposes_that_cancel": hostile(
        "(float[N,M,4] x) => (float[N,M,4] y) { a = Transpose<perm = [1,2,0]>(x)"
        " b = Transpose<perm = [2,0,1]>(a) y = Neg(b) }"
    ),
    "transposes_that_do_not_cancel": hostile(
        "(float[N,M,4] x) => (float[A,B,C] y) { a = Transpose<perm = [1,2,0]>(x)"
        " b = Transpose<perm = [1,2,0]>(a) y = Neg(b) }"
    ),
    "transpose_around_a_broadcast": hostile(
        "(float[N,3,4] x) => (float[N,3,4] y) { a = Transpose<perm = [0,2,1]>(x) b = Add(a, w)"
        " y = Transpose<perm = [0,2,1]>(b) }",
        weights={"w": (3,)},
    ),
    "transpose_around_reduction": hostile(
        "(float[N,3,4] x) => (float[N,1,4] y) { a = Transpose<perm = [0,2,1]>(x)"
        f" {_ints('ax', 2)} b = ReduceMean(a, ax) y = Transpose<perm = [0,2,1]>(b) }}"
    ),
    "transpose_around_softmax": hostile(
        "(float[N,3,4] x) => (float[N,3,4] y) { a = Transpose<perm = [0,2,1]>(x)"
        " b = Softmax<axis = 1>(a) y = Transpose<perm = [0,2,1]>(b) }"
    ),
    "transpose_around_concat_and_split": hostile(
        "(float[N,3,4] x, float[N,3,4] z) => (float[N,A,4] y) { a = Transpose<perm = [0,2,1]>(x)"
        " b = Transpose<perm = [0,2,1]>(z) c = Concat<axis = 2>(a, b)"
        " y = Transpose<perm = [0,2,1]>(c) }"
    ),
    "transpose_of_ones": hostile(
        "(float[1,1,N] x) => (float[N,1,1] y) { a = Transpose<perm = [2,0,1]>(x) y = Neg(a) }"
    ),
    "casts_that_lose": hostile(
        "(float[N,4] x, int64[N] i, bool[N] b) => (float[N,4] y, float[N] j, bool[N] c) {"
        " h = Cast<to = 10>(x) y = Cast<to = 1>(h) s = Cast<to = 6>(i) j = Cast<to = 1>(s)"
        " f = Cast<to = 1>(b) c = Cast<to = 9>(f) }"
    ),
    "cast_through_integers": hostile(
        "(float[N,4] x) => (float[N,4] y, float[N,4] z) { k = Constant<value_float = 100.3>()"
        " a = Mul(x, k) i = Cast<to = 7>(a) y = Cast<to = 1>(i) b = Cast<to = 9>(x)"
        " z = Cast<to = 1>(b) }"
    ),
    "cast_through_double": hostile(
        "(float[N,4] x) => (float[N,4] y, float16[N,4] z) { d = Cast<to = 11>(x) y = Cast<to ="
        " 1>(d)"
        " z = Cast<to = 10>(d) }"
    ),
    "cast_of_a_constant_to_int8": hostile(
        f"{_XY} {{ k = Cast<to = 3>(w) f = Cast<to = 1>(k) y = Add(x, f) }}",
        weights={"w": np.asarray([127.9, -128.2, 3.7, -3.7], np.float32)},
    ),
    "cast_to_the_same": hostile(f"{_XY} {{ a = Cast<to = 1>(x) b = CastLike(a, x) y = Neg(b) }}"),
    "tile_once_and_twice": hostile(
        f"(float[N,4] x) => (float[N,8] y) {{ {_ints('a', 1, 1)} {_ints('b', 1, 2)} c = Tile(x, a)"
        " y = Tile(c, b) }"
    ),
    "resize_by_one": hostile(
        _resize('mode = "linear"', '"", s', "4,4"),
        weights={"s": np.ones(4, np.float32)},
    ),
    "resize_to_the_same_size": hostile(
        _resize(
            'mode = "cubic", coordinate_transformation_mode = "align_corners"', '"", "", s', "4,4"
        ),
        weights={"s": np.asarray([2, 2, 4, 4])},
        sizes=({"N": 2}, {"N": 2}),
    ),
    "resize_with_roi": hostile(
        _resize(
            'mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize"',
            'roi, "", s',
            "4,4",
        ),
        weights={
            "roi": np.asarray([0, 0, 0.2, 0.2, 1, 1, 0.9, 0.9], np.float32),
            "s": np.asarray([2, 2, 4, 4]),
        },
        sizes=({"N": 2}, {"N": 2}),
    ),
    "wheres_that_broadcast": hostile(
        "(float[N,4] x, bool[N,1] c) => (float[2,N,4] y, float[N,4] z) { y = Where(c, x, w)"
        " t = Constant<value = bool {1}>() z = Where(t, x, x) }",
        weights={"w": (2, 1, 4)},
    ),
    "where_always": hostile(
        f"{_XY} {{ t = Constant<value = bool[4] {{1,1,1,1}}>() a = Where(t, x, w) y = Neg(a) }}",
        weights={"w": (1, 4)},
    ),
    "where_always_widens": hostile(
        "(float[N,4] x) => (float[2,N,4] y) { t = Constant<value = bool[2,1,1] {1,1}>()"
        " a = Where(t, x, w) y = Neg(a) }",
        weights={"w": (1, 4)},
    ),
    "reduce_over_nothing": hostile(
        "(float[N,4] x) => (float[N,4] y, float[1,1] z) { e = Constant<value = int64[0] {}>()"
        " a = ReduceSum<noop_with_empty_axes = 1>(x, e) y = Neg(a) z = ReduceMax(x, e) }"
    ),
    "identity_chains": hostile(
        f"{_XY} {{ a = Identity(x) b = Identity(a) c = Relu(b) d = Identity(c) y = Identity(d) }}"
    ),
}

SHAPE_GRAPHS: dict[str, Builder] = RESHAPE_GRAPHS | SLICE_GRAPHS | NO_OP_GRAPHS
