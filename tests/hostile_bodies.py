"""Hostile graphs: bodies of If, Loop and Scan, their scopes, and local functions."""

from hostile_text import Builder, hostile

_IN = "(float[N,4] x, bool flag) => (float[N,4] y)"


def _if(then: str, other: str, outputs: str = "y") -> str:
    return f"{outputs} = If(flag) <then_branch = t () => {then}, else_branch = e () => {other}>"


_NESTED = """u = If(other) <
    then_branch = tt () => (float[N,4] uu) { i = Add(x, a)  uu = Mul(i, w) },
    else_branch = te () => (float[N,4] uv) { i = Sub(x, a)  uv = Mul(i, w) }>"""

_LOOP = """(int64 i, bool c, float[N,4] s) => (bool d, float[N,4] t, float[N,4] scan)"""

IF_GRAPHS: dict[str, Builder] = {
    "if_reads_outer_names": hostile(
        f"{_IN} {{ a = Relu(x) "
        + _if("(float[N,4] u) { u = Add(a, x) }", "(float[N,4] v) { v = Mul(a, a) }")
        + "}"
    ),
    "if_nested_reads_all_levels": hostile(
        "(float[N,4] x, bool flag, bool other) => (float[N,4] y) { a = Tanh(x) "
        + _if(f"(float[N,4] u) {{ {_NESTED} }}", "(float[N,4] v) { v = Add(a, w) }")
        + "}",
        weights={"w": (4,)},
    ),
    "siblings_use_the_same_inner_names": hostile(
        f"{_IN} {{ "
        + _if(
            "(float[N,4] u) <float[4] w = {1,2,3,4}> { i = Mul(x, w) u = Neg(i) }",
            "(float[N,4] v) <float[4] w = {5,6,7,8}> { i = Mul(x, w) v = Abs(i) }",
        )
        + "}"
    ),
    "two_ifs_with_the_same_inner_names": hostile(
        f"{_IN} {{ "
        + _if(
            "(float[N,4] u) { i = Neg(x) u = Exp(i) }",
            "(float[N,4] v) { i = Abs(x) v = Exp(i) }",
            "a",
        )
        + _if(
            "(float[N,4] u) { i = Abs(x) u = Exp(i) }",
            "(float[N,4] v) { i = Neg(x) v = Exp(i) }",
            "b",
        )
        + " y = Sub(a, b) }"
    ),
    "bodies_give_back_outer_tensors": hostile(
        f"{_IN} {{ a = Relu(x) b = Neg(x) " + _if("(float[N,4] a) { }", "(float[N,4] b) { }") + "}",
        refused="TF0403",
    ),
    "bodies_hand_outer_tensors_on": hostile(
        f"{_IN} {{ a = Relu(x) b = Identity(a) "
        + _if("(float[N,4] u) { u = Identity(b) }", "(float[N,4] v) { v = Identity(x) }")
        + "}"
    ),
    "bodies_have_duplicate_initializers": hostile(
        f"{_IN} <float[4] w = {{1,2,3,4}}> {{ z = Mul(x, w) "
        + _if(
            "(float[N,4] u) <float[4] w1 = {1,2,3,4}, float[4] w2 = {1,2,3,4}>"
            " { i = Mul(z, w1) u = Add(i, w2) }",
            "(float[N,4] v) <float[4] w3 = {1,2,3,4}> { i = Mul(z, w3) v = Add(i, w) }",
        )
        + "}"
    ),
    "bodies_fold": hostile(
        f"{_IN} <float[4] w = {{1,2,3,4}}> {{ "
        + _if(
            "(float[N,4] u) { k = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>() m = Mul(k, w)"
            " n = Sqrt(m) u = Add(x, n) }",
            "(float[N,4] v) { s = Shape(x) k = Constant<value_ints = [1]>() z = ConstantOfShape(k)"
            " r = Reshape(x, s) v = Add(r, z) }",
        )
        + "}"
    ),
    "if_of_two_outputs_one_unused": hostile(
        f"{_IN} {{ "
        + _if(
            "(float[N,4] u, float p) { u = Neg(x) p = ReduceSum<keepdims = 0>(x) }",
            "(float[N,4] v, float q) { v = Abs(x) q = ReduceMax<keepdims = 0>(x) }",
            "y, unused",
        )
        + "}"
    ),
    "if_nobody_reads": hostile(
        f"{_IN} {{ a = Relu(x) "
        + _if("(float[N,4] u) { u = Add(a, x) }", "(float[N,4] v) { v = Mul(a, a) }", "dead")
        + " y = Exp(x) }"
    ),
    "if_always": hostile(
        f"{_IN} <bool yes = {{1}}> {{ a = Relu(x) y = If(yes) <"
        "then_branch = t () => (float[N,4] u) { u = Add(a, x) },"
        "else_branch = e () => (float[N,4] v) { v = Mul(a, a) }> }"
    ),
    "if_never_computed": hostile(
        f"{_IN} <bool yes = {{1}}> {{ no = Not(yes) a = Relu(x) b = If(no) <"
        "then_branch = t () => (float[N,4] u) { i = Add(a, x) u = Neg(i) },"
        "else_branch = e () => (float[N,4] v) { i = Mul(a, a) v = Abs(i) }> i = Exp(b) y ="
        " Add(i, b) }"
    ),
    "if_always_within_if": hostile(
        f"{_IN} <bool yes = {{1}}> {{ "
        + _if(
            "(float[N,4] u) { u = If(yes) < then_branch = tt () => (float[N,4] p) { p = Neg(x) },"
            " else_branch = te () => (float[N,4] q) { q = Abs(x) } > }",
            "(float[N,4] v) { v = Exp(x) }",
        )
        + "}"
    ),
    "if_always_within_if_always": hostile(
        f"{_IN} <bool yes = {{1}}, bool no = {{0}}> {{ a = If(yes) < then_branch = t () =>"
        " (float[N,4] u) { i = Tanh(x) k = If(no) < then_branch = tt () => (float[N,4] p)"
        " { p = Neg(i) }, else_branch = te () => (float[N,4] q) { j = Abs(i) q = Sqrt(j) } >"
        " u = Softplus(k) }, else_branch = e () => (float[N,4] v) { v = Neg(x) } > y = Exp(a) }"
    ),
    "if_always_twice_with_the_same_node_names": hostile(
        f"{_IN} <bool yes = {{1}}> {{ a = If(yes) < then_branch = t () => (float[N,4] u)"
        " { [n] i = Tanh(x) [m] u = Sqrt(i) }, else_branch = e () => (float[N,4] v)"
        " { [n] v = Neg(x) } > [k] y = If(yes) < then_branch = t () => (float[N,4] u)"
        " { [n] i = Abs(a) [m] u = Sqrt(i) }, else_branch = e () => (float[N,4] v)"
        " { [n] v = Neg(a) } > }"
    ),
    "if_always_gives_an_outer_value": hostile(
        f"{_IN} <bool yes = {{1}}> {{ a = Relu(x) y = If(yes) <"
        "then_branch = t () => (float[N,4] u) { u = Identity(a) },"
        "else_branch = e () => (float[N,4] v) { v = Neg(a) }> }"
    ),
    "if_branches_of_other_ranks": hostile(
        "(float[N,4] x, bool flag) => (float y) { a = "
        "If(flag) <then_branch = t () => (float[N,4] u) { u = Neg(x) },"
        " else_branch = e () => (float[M] v) { s = Constant<value_ints = [-1]>()"
        " v = Reshape(x, s) }> y = ReduceSum<keepdims = 0>(a) }"
    ),
    "conv_result_is_read_in_a_body": hostile(
        "(float[N,3,6,6] x, bool flag) => (float[N,4,6,6] y) {"
        " c = Conv<pads = [1,1,1,1]>(x, W) n = BatchNormalization(c, s_pos, b, m, v_pos) "
        + _if("(float[N,4,6,6] u) { u = Add(c, n) }", "(float[N,4,6,6] v) { v = Relu(n) }")
        + "}",
        weights={"W": (4, 3, 3, 3), "s_pos": (4,), "b": (4,), "m": (4,), "v_pos": (4,)},
    ),
    "output_is_read_in_a_body": hostile(
        "(float[N,4] x, bool flag) => (float[N,4] a, float[N,4] y) { b = Relu(x) a = Identity(b) "
        + _if("(float[N,4] u) { u = Add(a, b) }", "(float[N,4] v) { v = Mul(a, a) }")
        + "}"
    ),
    "constants_of_a_body_have_outer_names_elsewhere": hostile(
        f"{_IN} {{ "
        + _if(
            "(float[N,4] u) { k = Constant<value_float = 2.0>() u = Mul(x, k) }",
            "(float[N,4] v) { k = Constant<value_float = 3.0>() v = Mul(x, k) }",
            "a",
        )
        + " y = Relu(a) }"
    ),
}

LOOP_GRAPHS: dict[str, Builder] = {
    "loop_reads_outer_names": hostile(
        "(float[N,4] x, int64 n) => (float[N,4] y, float[K,N,4] z) <bool go = {1}> { a = Tanh(x)"
        f" y, z = Loop(n, go, x) <body = b {_LOOP} {{ d = Identity(c) j = Add(s, a)"
        " t = Mul(j, w) scan = Identity(t) }> }",
        weights={"w": (4,)},
        given={"n": 3},
    ),
    "loop_never_runs": hostile(
        "(float[N,4] x) => (float[N,4] y, float[K,N,4] z) <int64 n = {0}, bool go = {1}> {"
        f" y, z = Loop(n, go, x) <body = b {_LOOP} {{ d = Identity(c) t = Neg(s) scan = Abs(t)"
        f" }}> }}"
    ),
    "loop_runs_once": hostile(
        "(float[N,4] x) => (float[N,4] y, float[K,N,4] z) <int64 n = {1}, bool go = {1}> {"
        f" y, z = Loop(n, go, x) <body = b {_LOOP} {{ d = Identity(c) t = Neg(s) scan = Exp(s)"
        f" }}> }}"
    ),
    "loop_runs_a_constant_number": hostile(
        "(float[N,4] x) => (float[N,4] y) <int64 n = {3}> { y, z ="
        f' Loop(n, "", x) <body = b {_LOOP} {{ d = Identity(c) f = Cast<to = 1>(i)'
        " t = Add(s, f) scan = Identity(s) }> }"
    ),
    "loop_ends_by_condition": hostile(
        "(float[N,4] x) => (float[N,4] y) <bool go = {1}> { lim = Constant<value_int = 2>() y, z ="
        f' Loop("", go, x) <body = b {_LOOP} {{ d = Less(i, lim)'
        " t = Add(s, x) scan = Identity(t) }> }"
    ),
    "loop_body_folds": hostile(
        "(float[N,4] x) => (float[N,4] y) <int64 n = {2}, bool go = {1}, float[4] w = {1,2,3,4}> {"
        f" y, z = Loop(n, go, x) <body = b {_LOOP} {{ d = Identity(c) k = Sqrt(w) l = Mul(k, w)"
        " t = Add(s, l) scan = Identity(s) }> }"
    ),
    "loop_in_if_in_loop": hostile(
        "(float[N,4] x, bool flag) => (float[N,4] y) <int64 n = {2}, bool go = {1}> { a = Relu(x)"
        f" y, z = Loop(n, go, x) <body = b {_LOOP} {{ d = Identity(c) "
        " t = If(flag) <then_branch = tb () => (float[N,4] u) { u, su = Loop(n, go, s) <body = b2"
        " (int64 i2, bool c2, float[N,4] s2) => (bool d2, float[N,4] t2, float[N,4] scan2)"
        " { d2 = Identity(c2) t2 = Add(s2, a) scan2 = Identity(s) }> },"
        " else_branch = eb () => (float[N,4] v) { v = Sub(s, a) }> scan = Identity(t) }> }"
    ),
    "scan_reads_outer_names": hostile(
        "(float[L,4] x, float[4] h) => (float[4] y, float[L,4] z) { a = Tanh(h)"
        " y, z = Scan<num_scan_inputs = 1, body = b (float[4] s, float[4] e) =>"
        " (float[4] t, float[4] o) { p = Add(s, e) t = Mul(p, a) o = Identity(t) }>(h, x) }"
    ),
    "scan_backwards": hostile(
        "(float[L,4] x, float[4] h) => (float[4] y, float[L,4] z) {"
        " y, z = Scan<num_scan_inputs = 1, scan_input_directions = [1], body = b"
        " (float[4] s, float[4] e) => (float[4] t, float[4] o)"
        " { t = Sub(s, e) o = Identity(t) }>(h, x) }"
    ),
}

FUNCTION_GRAPHS: dict[str, Builder] = {
    "function_called_twice": hostile(
        "(float[N,4] x) => (float[N,4] y) { a = f.act<slope = 0.25>(x) y = f.act<slope = 4.0>(a) }",
        imports=', "f": 1',
        functions='<domain: "f", opset_import: ["": 18]> act <slope> (x) => (y)'
        " { i = LeakyRelu<alpha: float = @slope>(x) y = Neg(i) }",
    ),
    "function_with_default_attribute": hostile(
        "(float[N,4] x) => (float[N,4] y) { a = f.act(x) y = f.act<slope = 4.0>(a) }",
        imports=', "f": 1',
        functions='<domain: "f", opset_import: ["": 18]> act <slope: float = 0.5> (x) => (y)'
        " { y = LeakyRelu<alpha: float = @slope>(x) }",
        ir_version=9,
    ),
    "function_hands_its_attribute_on": hostile(
        "(float[N,4] x) => (float[N,4] y) { y = f.outer<steep = 0.25>(x) }",
        imports=', "f": 1',
        functions='<domain: "f", opset_import: ["": 18, "f": 1]> outer <steep> (x) => (y)'
        " { i = f.inner<slope: float = @steep>(x) y = f.inner<slope = 3.0>(i) }\n"
        '<domain: "f", opset_import: ["": 18]> inner <slope> (x) => (y)'
        " { i = LeakyRelu<alpha: float = @slope>(x) y = Neg(i) }",
    ),
    "functions_nested_and_shadowing": hostile(
        "(float[N,4] x) => (float[N,4] y) { i = Neg(x) y = f.outer(i, w) }",
        imports=', "f": 1',
        functions='<domain: "f", opset_import: ["": 18, "f": 1]> outer (a, w) => (y)'
        " { i = f.inner(a) x = Mul(i, w) y = f.inner(x) }\n"
        '<domain: "f", opset_import: ["": 18]> inner (w) => (i) { x = Abs(w) i = Sqrt(x) }',
        weights={"w": (4,)},
    ),
    "function_hands_its_input_on": hostile(
        "(float[N,4] x) => (float[N,4] y) { a = Exp(x) b, c = f.two(a) y = Add(b, c) }",
        imports=', "f": 1',
        functions='<domain: "f", opset_import: ["": 18]> two (a) => (b, c)'
        " { b = Identity(a) c = Neg(a) }",
    ),
    "function_with_a_left_out_input": hostile(
        '(float[N,4] x) => (float[N,4] y) { top = Constant<value_float = 0.5>() y = f.lim(x, "",'
        " top) }",
        imports=', "f": 1',
        functions='<domain: "f", opset_import: ["": 18]> lim (x, low, high) => (y)'
        " { y = Clip(x, low, high) }",
    ),
    "function_with_bodies": hostile(
        "(float[N,4] x, bool flag) => (float[N,4] y) { y = f.pick(flag, x) }",
        imports=', "f": 1',
        functions='<domain: "f", opset_import: ["": 18]> pick (c, v) => (r) { w = Tanh(v)'
        " r = If(c) <then_branch = t () => (o) { o = Add(v, w) },"
        " else_branch = e () => (q) { q = Sub(v, w) }> }",
    ),
    "function_of_another_opset": hostile(
        "(float[N,4] x) => (float[N,4] y) { y = f.total(x) }",
        imports=', "f": 1',
        opset=13,
        functions='<domain: "f", opset_import: ["": 13]> total (x) => (y)'
        " { s = ReduceMean<axes = [1]>(x) y = Add(x, s) }",
    ),
    "function_nobody_calls": hostile(
        "(float[N,4] x) => (float[N,4] y) { y = Exp(x) }",
        imports=', "f": 1',
        functions='<domain: "f", opset_import: ["": 18]> two (a) => (b) { b = Neg(a) }',
    ),
    "function_called_in_a_body": hostile(
        f"{_IN} {{ a = Relu(x) "
        + _if("(float[N,4] u) { u = f.two(a) }", "(float[N,4] v) { v = f.two(x) }")
        + "}",
        imports=', "f": 1',
        functions='<domain: "f", opset_import: ["": 18]> two (a) => (b) { i = Neg(a) b = Exp(i) }',
    ),
    "function_named_like_an_operator": hostile(
        "(float[N,4] x) => (float[N,4] y) { a = f.Identity(x) b = f.Relu(a) y = Relu(b) }",
        imports=', "f": 1',
        functions='<domain: "f", opset_import: ["": 18]> Identity (a) => (b) { b = Neg(a) }\n'
        '<domain: "f", opset_import: ["": 18]> Relu (a) => (b) { b = Abs(a) }',
    ),
    "function_of_constants": hostile(
        "(float[N,4] x) => (float[N,4] y) { k = f.three() y = Add(x, k) }",
        imports=', "f": 1',
        functions='<domain: "f", opset_import: ["": 18]> three () => (c)'
        " { a = Constant<value_float = 1.0>() b = Constant<value_float = 2.0>() c = Add(a, b) }",
    ),
}

BODY_GRAPHS: dict[str, Builder] = IF_GRAPHS | LOOP_GRAPHS | FUNCTION_GRAPHS
