"""How the layers of two engines differ, and how two bundles do, as sections of text."""

from collections.abc import Iterator, Mapping
from typing import Any

from trtforge.report.data import Json
from trtforge.report.figures import size
from trtforge.report.rows import Item, Section

_TOTALS = (("layers", ""), ("bytes", "size"), ("weights_bytes", "size"), ("ms", "ms"))
_WORDS = {"bytes": "results", "weights_bytes": "weights", "ms": "time"}
_WIDEST = 48


def layers_sections(document: Json, details: bool) -> Iterator[Section]:
    """Yield totals, then layers that changed, vanished and appeared."""
    yield from _layers("layers", document, details)


def bundle_sections(document: Json, details: bool) -> Iterator[Section]:
    """Yield what the manifests say differently, then the layers of each target."""
    items = tuple(Item(("~", key, _pair(*pair))) for key, pair in document["fields"].items())
    if items:
        yield Section(f"manifest: {len(items)} changed", (("changed", items),))
    missing = tuple(
        Item(("-" if side == "before" else "+", name, f"only in {side}"))
        for name, side in document["missing"].items()
    )
    if missing:
        yield Section(f"targets: {len(missing)} in one of them only", (("changed", missing),))
    for name, found in document["targets"].items():
        if found["changes"] or found["removed"] or found["added"]:
            yield from _layers(f"layers of '{name}'", found, details)


def _layers(title: str, document: Json, details: bool) -> Iterator[Section]:
    before, after = document["totals"]["before"], document["totals"]["after"]
    rows = []
    for key, form in _TOTALS:
        if None not in (before[key], after[key]) and (before[key] or after[key]):
            if before[key] == after[key]:
                continue
            change = f"{_figure(before[key], form)} -> {_figure(after[key], form)}"
            rows.append(Item(("~", _WORDS.get(key, key), change)))
    for kind in sorted({*before["types"], *after["types"]}):
        counts = before["types"].get(kind, 0), after["types"].get(kind, 0)
        if counts[0] != counts[1]:
            rows.append(Item(("~", f"in {kind}", f"{counts[0]} -> {counts[1]} layers")))
    if rows:
        yield Section(f"{title}: totals", (("changed", tuple(rows)),))
    groups: list[tuple[str, tuple[Item, ...]]] = []
    ordered = sorted(document["changes"], key=_weight, reverse=True)
    changed = tuple(_change(entry, details) for entry in ordered)
    for word, mark, entries in (
        ("removed", "-", document["removed"]),
        ("added", "+", document["added"]),
    ):
        items = tuple(Item((mark, one["type"], one["kind"], _cut(one["name"]))) for one in entries)
        groups.append((word, items))
    groups.append(("changed", changed))
    found = tuple((what, items) for what, items in groups if items)
    if found:
        summary = ", ".join(f"{len(items)} {what}" for what, items in found)
        yield Section(f"{title}: {summary}", found)


def _weight(entry: Json) -> tuple[float, float]:
    """What is shown first: what time changed most by, then memory."""
    differences = []
    for key in ("ms", "bytes"):
        sums = [_sum(entry[side], key) for side in ("before", "after")]
        differences.append(0.0 if None in sums else abs((sums[1] or 0) - (sums[0] or 0)))
    return differences[0], differences[1]


def _change(entry: Json, details: bool) -> Item:
    sides = entry["before"], entry["after"]
    types = ["/".join(dict.fromkeys(one["type"] for one in side)) for side in sides]
    texts = [f"{types[0]} -> {types[1]}" if types[0] != types[1] else types[0]]
    if len(sides[0]) != len(sides[1]):
        texts.append(f"{len(sides[0])} -> {len(sides[1])} layers")
    for key, form in (("bytes", "size"), ("ms", "ms")):
        sums = [_sum(side, key) for side in sides]
        if sums[0] is not None and sums[1] is not None and sums[0] != sums[1]:
            texts.append(f"{_figure(sums[0], form)} -> {_figure(sums[1], form)}")
    nodes = sorted({name for side in sides for one in side for name in one["nodes"]})
    name = ", ".join(nodes) or min(sides, key=len)[0]["name"]
    notes = [
        f"{mark} {one['kind']} {_cut(one['name'])}"
        for mark, side in zip("-+", sides, strict=True)
        for one in side
    ]
    row = ("~", ", ".join(entry["what"]), _cut(name), ", ".join(texts))
    return Item(row, tuple(notes) if details else ())


def _sum(side: list[Json], key: str) -> float | None:
    values = [one[key] for one in side]
    return None if None in values else sum(values)


def _figure(value: Any, form: str) -> str:
    if form == "size":
        return size(value)
    return f"{value:.3g} ms" if form == "ms" else f"{value}"


def _pair(before: Any, after: Any) -> str:
    """Write two different values with as many digits as tell them apart."""
    texts = next(
        (both for digits in (4, 9) if len(set(both := _both(before, after, digits))) > 1),
        _both(before, after, 17),
    )
    return " -> ".join(texts)


def _both(before: Any, after: Any, digits: int) -> tuple[str, str]:
    return _short(before, digits), _short(after, digits)


def _short(value: Any, digits: int) -> str:
    if value is None or isinstance(value, Mapping):
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."
