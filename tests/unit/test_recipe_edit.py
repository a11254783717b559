"""Keep rules written into a recipe: nothing else changes, and what cannot be done is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from trtforge.errors import RecipeError
from trtforge.recipe.edit import add_keep_rules, rule_text, with_keep_rules
from trtforge.recipe.precision import KeepRule

NEW = [KeepRule(name="/head/MatMul"), KeepRule(name="n_a", type="fp16")]
HEAD = "version: 1\nname: r\nmodel: {onnx: m.onnx}\n"
KEPT = [{"name": "/head/MatMul"}, {"name": "n_a", "type": "fp16"}]

FORMS = {
    "block": (
        "precision:  # types\n  type: fp16\n  keep:  # why\n    # softmax is touchy\n"
        "    - op: Softmax   # see #12\n    - {name: '/x/*'}\ntargets: []\n",
        'precision:  # types\n  type: fp16\n  keep:  # why\n    - {name: "/head/MatMul"}\n'
        "    - {name: n_a, type: fp16}\n    # softmax is touchy\n"
        "    - op: Softmax   # see #12\n    - {name: '/x/*'}\ntargets: []\n",
    ),
    "not indented": (
        "precision:\n  keep:\n  - op: Softmax\n  type: fp16\n",
        'precision:\n  keep:\n  - {name: "/head/MatMul"}\n  - {name: n_a, type: fp16}\n'
        "  - op: Softmax\n  type: fp16\n",
    ),
    "flow": (
        "precision: {type: fp16, keep: [{op: Softmax}]}  # short\n",
        'precision: {type: fp16, keep: [{name: "/head/MatMul"}, {name: n_a, type: fp16}, '
        "{op: Softmax}]}  # short\n",
    ),
    "empty list": (
        "precision:\n    type: fp16\n    keep: []\n",
        'precision:\n    type: fp16\n    keep: [{name: "/head/MatMul"}, {name: n_a, type: fp16}]\n',
    ),
    "no list": (
        "precision:\n    type: fp16   # half\n",
        'precision:\n    keep:\n      - {name: "/head/MatMul"}\n      - {name: n_a, type: fp16}\n'
        "    type: fp16   # half\n",
    ),
    "no list, flow": (
        "precision: {type: fp16}\n",
        'precision: {keep: [{name: "/head/MatMul"}, {name: n_a, type: fp16}], type: fp16}\n',
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_rules_go_in_front_and_all_else_stays(form, newline, mark):
    before, after = (mark + (HEAD + text).replace("\n", newline) for text in FORMS[form])
    edited = with_keep_rules(before, NEW)
    assert edited == after
    assert with_keep_rules(edited, NEW) == edited, "a second time nothing is left to do"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no section"),
        ("precision:\n", "no section"),
        ("precision: fp16\n", "no section"),
        ("precision: {type: fp16, keep: null}\n", "not a list"),
        ("precision: {type: fp16, keep: Softmax}\n", "not a list"),
        ("x: &k [{op: Add}]\nprecision: {keep: *k}\n", "anchor or alias"),
        ("precision: {keep: &k [{op: Add}]}\nx: *k\n", "anchor or alias"),
        ("x: &p {type: fp16}\nprecision: *p\n", "anchor or alias"),
    ],
)
def test_forms_that_cannot_be_extended_are_refused(text, why):
    with pytest.raises(RecipeError, match=why) as caught:
        with_keep_rules(HEAD + text, NEW)
    assert caught.value.code == "TF0216"
    assert caught.value.exit_status == 2


def test_the_file_is_written_whole_and_only_when_it_is_what_it_was(tmp_path):
    path = tmp_path / "r.yaml"
    before = (HEAD + "precision: {type: fp16}\n").encode()
    path.write_bytes(before)
    assert add_keep_rules(path, NEW, before)
    written = path.read_bytes()
    assert YAML(typ="safe").load(written)["precision"]["keep"] == KEPT
    assert not add_keep_rules(path, NEW, written)
    assert path.read_bytes() == written
    with pytest.raises(RecipeError, match="changed") as caught:
        add_keep_rules(path, NEW, before)
    assert caught.value.code == "TF0217"
    assert path.read_bytes() == written
    path.unlink()
    with pytest.raises(RecipeError, match="cannot be read"):
        add_keep_rules(path, NEW, written)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text))
def test_any_name_is_written_so_that_it_is_read_back(name):
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return
    rule = KeepRule(name=name)
    assert YAML(typ="safe", pure=True).load(rule_text(rule)) == {"name": name}
    for text, _ in FORMS.values():
        edited = with_keep_rules(HEAD + text, [rule])
        assert YAML(typ="safe", pure=True).load(edited)["precision"]["keep"][0] == {"name": name}
