"""What `trtforge diff` found, as aligned lines of text: one section for each thing that changed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from trtforge.report.data import Json
from trtforge.report.figures import size
from trtforge.report.layer_changes import bundle_sections, layers_sections
from trtforge.report.rows import Item, Section

_WIDEST = 60
"""Characters that are shown of one value; metadata hold whole stack traces."""

_DIGEST_DIGITS = 12


def sections(document: Json, *, details: bool = False) -> Iterator[Section]:
    """Yield the sections of a comparison in which something changed.

    Args:
        document: `DiffResult.as_json()`.
        details: digests of values and nodes' outputs, too.
    """
    return SECTIONS[str(document["kind"])](document, details)


def _onnx_sections(document: Json, details: bool) -> Iterator[Section]:
    makers = (
        _contract(document["contract"]),
        _fields("model", document["model"]),
        _operators(document["operators"]),
        _nodes(document["nodes"], details),
        _initializers(document["initializers"], details),
        _functions(document["functions"]),
    )
    return (section for section in makers if section is not None)


SECTIONS: Mapping[str, Callable[[Json, bool], Iterator[Section]]] = {
    "onnx": _onnx_sections,
    "bundle": bundle_sections,
    "engine layers": layers_sections,
}
"""Kind -> what shows a comparison of two of it."""


def _contract(contract: Json) -> Section | None:
    items: list[Item] = []
    for side, key in (("input", "inputs"), ("output", "outputs")):
        found = contract[key]
        for mark, kind in _MARKS:
            items += [Item((mark, side, spec["name"], _spec(spec))) for spec in found[kind]]
        items += [
            Item(("~", side, old["name"], f"{_spec(old)} -> {_spec(new)}"))
            for old, new in _pairs(found["changed"])
        ]
        if found["reordered"]:
            items.append(Item(("~", f"{side}s in another order")))
    return _section("contract", {"changed": items})


def _fields(title: str, changes: Sequence[Json]) -> Section | None:
    items = [Item(("~", change["what"], _change_text(change))) for change in changes]
    return _section(title, {"changed": items})


def _operators(operators: Sequence[Json]) -> Section | None:
    items = [
        Item(
            (
                _mark(entry["before"], entry["after"]),
                entry["op"],
                f"{entry['before']} -> {entry['after']}",
                f"{entry['delta']:+d}",
            )
        )
        for entry in operators
    ]
    return _section("operators", {"changed": items})


def _nodes(nodes: Json, details: bool) -> Section | None:
    def item(mark: str, facts: Json, changes: Sequence[Json] = ()) -> Item:
        notes = [f"{change['what']}: {_change_text(change)}" for change in changes]
        if details:
            notes.insert(0, f"makes {', '.join(filter(None, facts['outputs'])) or 'nothing'}")
        return Item((mark, facts["path"], facts["op"]), tuple(notes))

    groups = {kind: [item(mark, facts) for facts in nodes[kind]] for mark, kind in _MARKS}
    groups["changed"] = [
        item("~", entry["after"] | {"path": entry["before"]["path"]}, entry["changes"])
        for entry in nodes["changed"]
    ]
    groups["reordered"] = [
        Item(("~", path or "graph", "nodes in another order")) for path in nodes["reordered"]
    ]
    return _section(f"nodes: {_span(nodes['count'])}", groups)


def _initializers(found: Json, details: bool) -> Section | None:
    groups = {
        kind: [
            Item((mark, facts["path"], f"{_array(facts)}, {size(facts['bytes'])}"))
            for facts in found[kind]
        ]
        for mark, kind in _MARKS
    }
    groups["renamed"] = [
        Item((">", old["path"], f"renamed to {new['path']}, equal bytes"))
        for old, new in _pairs(found["renamed"])
    ]
    groups["changed"] = [_changed_weight(entry, details) for entry in found["changed"]]
    total = found["bytes"]
    sizes = f"{_number(total['before'])} -> {_number(total['after'])} bytes"
    return _section(f"initializers: {_span(found['count'])} ({sizes})", groups)


def _changed_weight(entry: Json, details: bool) -> Item:
    before, after, values = entry["before"], entry["after"], entry["values"]
    kinds = [_array(before), _array(after)]
    said = [kinds[0] if kinds[0] == kinds[1] else " -> ".join(kinds)]
    if values is not None and values["differing"] is not None:
        said.append(f"{values['differing']} of {values['elements']} values differ")
    elif kinds[0] == kinds[1]:
        said.append("other values")
    if values is not None and values["max_abs"] is not None:
        said.append(f"max abs {float(values['max_abs']):.4g}")
    notes = (f"{_digest(before)} -> {_digest(after)}",) if details else ()
    return Item(("~", before["path"], ", ".join(said)), notes)


def _functions(functions: Json) -> Section | None:
    groups = {kind: [Item((mark, name)) for name in functions[kind]] for mark, kind in _MARKS}
    groups["changed"] = [
        Item(
            ("~", entry["name"]), tuple(f"{c['what']}: {_change_text(c)}" for c in entry["changes"])
        )
        for entry in functions["changed"]
    ]
    return _section("functions", groups)


_MARKS = (("-", "removed"), ("+", "added"))


def _section(title: str, groups: Mapping[str, Sequence[Item]]) -> Section | None:
    """A section of the groups that are not empty, None without any; its title has the counts."""
    kept = tuple((word, tuple(items)) for word, items in groups.items() if items)
    if not kept:
        return None
    counts = ", ".join(f"{len(items)} {word}" for word, items in kept)
    return Section(f"{title}{';' if ':' in title else ':'} {counts}", kept)


def _pairs(entries: Iterable[Json]) -> Iterator[tuple[Json, Json]]:
    return ((entry["before"], entry["after"]) for entry in entries)


def _mark(before: int, after: int) -> str:
    return "+" if before == 0 else "-" if after == 0 else "~"


def _span(counts: Json) -> str:
    before, after = counts["before"], counts["after"]
    return str(before) if before == after else f"{before} -> {after}"


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _spec(spec: Json) -> str:
    return _array(spec) if spec["dims"] is not None else f"{spec['dtype']} of any shape"


def _array(facts: Json) -> str:
    dims = ",".join("?" if dim is None else str(dim) for dim in facts["dims"])
    return f"{facts['dtype']}[{dims}]"


def _digest(facts: Json) -> str:
    algorithm, _, digits = str(facts["digest"]).partition(":")
    return f"{algorithm}:{digits[:_DIGEST_DIGITS]}"


def _change_text(change: Json) -> str:
    text = f"{_value(change['before'])} -> {_value(change['after'])}"
    return f"{text} ({change['note']})" if change["note"] else text


def _value(value: Any) -> str:
    """A value as short text; long ones are cut."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        values = value.get("values")
        text = _array(value) + (f" {_value(values)}" if values is not None else "")
    elif isinstance(value, list):
        text = f"[{', '.join(map(_value, value))}]"
    else:
        text = str(value) if value != "" else "''"
    text = " ".join(text.split())
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
