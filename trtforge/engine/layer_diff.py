"""What changed between the layers of two engines: precision, fusion, memory, time."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtforge.engine.inspector import engine_layers
from trtforge.engine.layers import onnx_nodes
from trtforge.engine.network_types import bytes_of, short_type

CONSTANT = "CONSTANT"
"""The type of layers of a parsed network that hold weights and compute nothing."""

_POINTWISE = re.compile(r"^PWN\((.*)\)$")

_GROWN = 1.05
"""Times and sizes that differ by less than this are the same: kernels are timed with noise."""


@dataclass(frozen=True)
class LayerRow:
    """One layer, of an engine or of a parsed network.

    Attributes:
        name: of the layer.
        kind: its type, e.g. CaskConvolution; CONVOLUTION in a parsed network.
        nodes: the ONNX nodes that it came from.
        type: what it computes in.
        bytes: of its results; None where a size is not told.
        weights_bytes: of the weights that it tells.
        ms: how long it takes, milliseconds; None where nothing was timed.
    """

    name: str
    kind: str
    nodes: frozenset[str]
    type: str
    bytes: int | None
    weights_bytes: int
    ms: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "name": self.name,
            "kind": self.kind,
            "nodes": sorted(self.nodes),
            "type": self.type,
            "bytes": self.bytes,
            "weights_bytes": self.weights_bytes,
            "ms": self.ms,
        }


@dataclass(frozen=True)
class LayerChange:
    """Layers of both sides that compute the same nodes, and what is not the same.

    Attributes:
        before: of the first; several where they were fused.
        after: of the second.
        what: `precision`, `fusion`, `kind`, `memory`, `slower`, `faster`.
    """

    before: tuple[LayerRow, ...]
    after: tuple[LayerRow, ...]
    what: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "before": [layer.as_json() for layer in self.before],
            "after": [layer.as_json() for layer in self.after],
            "what": list(self.what),
        }


@dataclass(frozen=True)
class LayersDifference:
    """What changed.

    Attributes:
        totals: for `before` and `after`: layers, types (type -> layers), bytes, weights_bytes, ms
            of those that were timed, and how many were.
        changes: layers that compute the same nodes and differ, in the second's order.
        removed: layers whose nodes no layer of the second computes; constants are no such layers.
        added: layers whose nodes no layer of the first computes, likewise.
    """

    totals: Mapping[str, Mapping[str, Any]]
    changes: tuple[LayerChange, ...]
    removed: tuple[LayerRow, ...] = ()
    added: tuple[LayerRow, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether no layer changed."""
        return not (self.changes or self.removed or self.added)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "totals": {side: dict(facts) for side, facts in self.totals.items()},
            "changes": [change.as_json() for change in self.changes],
            "removed": [layer.as_json() for layer in self.removed],
            "added": [layer.as_json() for layer in self.added],
        }


def layer_rows(
    document: Any, times: Mapping[str, float] | None = None
) -> tuple[LayerRow, ...] | None:
    """Read layers: the inspector's JSON, a parsed network as builds describe it, or a profile.

    A profile (`trtexec --exportProfile`) tells names and times alone.

    Args:
        document: the JSON data.
        times: layer name -> milliseconds, as `layer_times` reads them.

    Returns:
        The layers in order; None when this is no such document.
    """
    timed = times or {}
    if _is_network(document):
        return tuple(_of_network(layer) for layer in document)
    found = engine_layers(document)
    if found is None:
        measured = layer_times(document)
        return None if measured is None else tuple(_of_profile(*one) for one in measured.items())
    rows = []
    for layer in found:
        sizes = [None if n is None else bytes_of(n, kind) for kind, n in layer.outputs]
        known = [size for size in sizes if size is not None]
        rows.append(
            LayerRow(
                layer.name,
                layer.kind,
                frozenset(layer.onnx_nodes),
                layer.type,
                sum(known) if sizes and len(known) == len(sizes) else None,
                sum(bytes_of(count, kind) for kind, count in layer.weights.items()),
                timed.get(layer.name),
            )
        )
    return tuple(rows)


def layer_times(document: Any) -> dict[str, float] | None:
    """Read the profile that `trtexec --exportProfile` writes.

    Returns:
        Layer name -> mean milliseconds; None when this is no such document.
    """
    if not isinstance(document, list):
        return None
    entries = [one for one in document if isinstance(one, Mapping) and "name" in one]
    times = {str(one["name"]): one.get("averageMs") for one in entries}
    known = {name: float(ms) for name, ms in times.items() if isinstance(ms, int | float)}
    return known or None


def diff_layers(before: Sequence[LayerRow], after: Sequence[LayerRow]) -> LayersDifference:
    """Match layers by the ONNX nodes that they compute, else by name, and compare them."""
    groups, removed, added = _matched(before, after)
    changes = []
    for first, second in groups:
        what = tuple(_changes(first, second))
        if what:
            changes.append(LayerChange(first, second, what))
    return LayersDifference(
        {"before": _totals(before), "after": _totals(after)}, tuple(changes), removed, added
    )


def _is_network(document: Any) -> bool:
    return isinstance(document, list) and bool(document) and all(map(_is_parsed, document))


def _is_parsed(layer: Any) -> bool:
    """Whether this is a layer of a parsed network, as `engine.layers` describes it."""
    if not isinstance(layer, Mapping):
        return False
    texts = [layer.get("name"), layer.get("type")]
    lists = [layer.get("onnx_nodes"), layer.get("outputs"), layer.get("weights", [])]
    if not all(isinstance(one, list) for one in lists):
        return False
    nodes, outputs, weights = lists
    if not all(isinstance(one, Mapping) for one in (*outputs, *weights)):
        return False
    texts += [*nodes, *(one.get("dtype") for one in (*outputs, *weights))]
    shapes = [one.get("shape") for one in outputs]
    known = [shape for shape in shapes if shape is not None]
    if not all(isinstance(shape, list) for shape in known):
        return False
    numbers = [one.get("count") for one in weights] + [dim for shape in known for dim in shape]
    is_text = all(isinstance(one, str) for one in texts)
    return is_text and all(isinstance(one, int) for one in numbers)


def _of_profile(name: str, ms: float) -> LayerRow:
    return LayerRow(name, "", frozenset(onnx_nodes(name)), "unknown", None, 0, ms)


def _of_network(layer: Mapping[str, Any]) -> LayerRow:
    total: int | None = 0
    for tensor in layer["outputs"]:
        shape = tensor.get("shape")
        if shape is None or any(dim < 0 for dim in shape) or total is None:
            total = None
            continue
        count = 1
        for dim in shape:
            count *= dim
        total += bytes_of(count, short_type(tensor["dtype"]))
    weights = sum(
        bytes_of(one["count"], short_type(one["dtype"])) for one in layer.get("weights", [])
    )
    if layer["type"] == CONSTANT:
        weights, total = total or 0, 0
    first = layer["outputs"][0]["dtype"] if layer["outputs"] else "unknown"
    return LayerRow(
        layer["name"],
        layer["type"],
        frozenset(layer["onnx_nodes"]),
        short_type(first),
        total,
        weights,
    )


Group = tuple[tuple[LayerRow, ...], tuple[LayerRow, ...]]


def _matched(
    before: Sequence[LayerRow], after: Sequence[LayerRow]
) -> tuple[list[Group], tuple[LayerRow, ...], tuple[LayerRow, ...]]:
    """Layers that share a node, directly or through others, belong together; else equal names."""
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        parents.setdefault(key, key)
        while parents[key] != key:
            parents[key] = parents[parents[key]]
            key = parents[key]
        return key

    sides = (("a", before), ("b", after))
    for side, layers in sides:
        for index, layer in enumerate(layers):
            for shared in _keys(layer):
                parents[root((side, str(index)))] = root(shared)
    groups: dict[tuple[str, str], tuple[list[LayerRow], list[LayerRow]]] = defaultdict(
        lambda: ([], [])
    )
    for place, (side, layers) in enumerate(sides):
        for index, layer in enumerate(layers):
            groups[root((side, str(index)))][place].append(layer)
    both = [(tuple(a), tuple(b)) for a, b in groups.values() if a and b]
    removed = tuple(one for a, b in groups.values() if not b for one in a if one.kind != CONSTANT)
    added = tuple(one for a, b in groups.values() if not a for one in b if one.kind != CONSTANT)
    return both, removed, added


def _keys(layer: LayerRow) -> Iterable[tuple[str, str]]:
    """ONNX nodes; where none are told, the names that the layer's own is joined of.

    Layers are named after their nodes: "conv1 + relu1", "PWN(relu1)". Copies are not: their names
    say which layer they are made for.
    """
    names: Iterable[str] = layer.nodes
    if not names and layer.name.lower().startswith("reformat"):
        names = [layer.name]
    elif not names:
        names = [_POINTWISE.sub(r"\1", part) for part in layer.name.split(" + ")]
    return [("node", name) for name in names]


def _changes(before: Sequence[LayerRow], after: Sequence[LayerRow]) -> Iterable[str]:
    if {layer.type for layer in before} != {layer.type for layer in after}:
        yield "precision"
    if len(before) != len(after):
        yield "fusion"
    elif sorted(layer.kind for layer in before) != sorted(layer.kind for layer in after):
        yield "kind"
    sizes = [_sum(layer.bytes for layer in side) for side in (before, after)]
    if None not in sizes and _differs(sizes[0] or 0, sizes[1] or 0):
        yield "memory"
    times = [_sum(layer.ms for layer in side) for side in (before, after)]
    if None not in times and _differs(times[0] or 0, times[1] or 0):
        yield "slower" if (times[1] or 0) > (times[0] or 0) else "faster"


def _differs(first: float, second: float) -> bool:
    low, high = sorted((first, second))
    return high > low * _GROWN


def _sum(values: Iterable[float | None]) -> float | None:
    found = list(values)
    return None if None in found else sum(one for one in found if one is not None)


def _totals(layers: Sequence[LayerRow]) -> dict[str, Any]:
    timed = [layer.ms for layer in layers if layer.ms is not None]
    return {
        "layers": len(layers),
        "types": dict(sorted(Counter(layer.type for layer in layers).items())),
        "bytes": _sum(layer.bytes for layer in layers),
        "weights_bytes": sum(layer.weights_bytes for layer in layers),
        "ms": sum(timed) if timed else None,
        "timed": len(timed),
    }
