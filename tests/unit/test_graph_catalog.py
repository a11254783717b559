"""The table of passes: what it says about each of them is true."""

from importlib import import_module

import pytest
from hostile_graphs import HOSTILE

from trtforge.graph import catalog, edit, workshop
from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes


@pytest.mark.parametrize("name", catalog.PASSES)
def test_a_pass_is_called_as_in_the_table_and_says_what_it_does(name: str) -> None:
    module, _, attribute = catalog.PASSES[name].partition(":")
    made = getattr(import_module(module), attribute)
    assert made.name == name
    for word in ("matches", "rewrites to"):
        assert word in (made.__doc__ or "").lower(), word


def test_optional_and_needed_names_are_passes() -> None:
    assert not catalog.OPTIONAL - set(catalog.PASSES)
    assert not set(catalog.NEEDS) - set(catalog.PASSES)
    assert set(catalog.DEFAULT_PASSES) == set(catalog.PASSES) - catalog.OPTIONAL


def test_a_pass_looks_for_nothing_beyond_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an operator that it needs, every pass with needs does nothing on any graph."""
    monkeypatch.setattr(workshop, "NEEDS", {})
    wrong: dict[str, str] = {}
    protos = [HOSTILE[name]().proto for name in HOSTILE if HOSTILE[name]().refused is None]
    needs = {name: set(ops.split()) for name, ops in catalog.NEEDS.items()}
    original = edit.Editor.finish

    def finish(editor: edit.Editor):  # type: ignore[no-untyped-def]
        result = original(editor)
        if result.rewrites and editor.current_pass in needs:
            there = before[id(editor)]
            if not there & needs[editor.current_pass]:
                wrong[editor.current_pass] = str(sorted(there))
        return result

    begin, before = edit.Editor.begin, {}

    def remember(editor: edit.Editor) -> None:
        before[id(editor)] = {node.op for node in editor.graph.nodes}
        begin(editor)

    monkeypatch.setattr(edit.Editor, "finish", finish)
    monkeypatch.setattr(edit.Editor, "begin", remember)
    for proto in protos:
        run_passes(Model(proto), PassRequest(use=tuple(catalog.PASSES), prove=False))
    assert not wrong
