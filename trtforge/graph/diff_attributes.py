"""Attributes of nodes and other single fields of two models: as JSON data, and how they differ."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, TensorProto, helper

from trtforge.graph.diff_values import compare_values, dtype_name, json_number
from trtforge.graph.external import ExternalFiles
from trtforge.graph.weights import is_external, tensor_array

_SHOWN_ELEMENTS = 16
"""Up to here a tensor's values are part of what is shown of it."""

_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_TENSORS: dict[int, Callable[[AttributeProto], list[TensorProto]]] = {
    AttributeProto.TENSOR: lambda attribute: [attribute.t],
    AttributeProto.TENSORS: lambda attribute: list(attribute.tensors),
    AttributeProto.SPARSE_TENSOR: lambda attribute: _parts(attribute.sparse_tensor),
    AttributeProto.SPARSE_TENSORS: lambda attribute: [
        part for sparse in attribute.sparse_tensors for part in _parts(sparse)
    ],
}


@dataclass(frozen=True)
class FieldChange:
    """One thing that has another value.

    Attributes:
        what: an attribute's name, or "op", "input 1", "opset ai.onnx" and the like.
        before: JSON data; None when there was none.
        after: JSON data; None when there is none.
        note: how far the two are apart, where that can be said.
    """

    what: str
    before: Any
    after: Any
    note: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"what": self.what, "before": self.before, "after": self.after, "note": self.note}


def field_changes(*fields: tuple[str, Any, Any]) -> Iterator[FieldChange]:
    """Yield those fields (what, before, after) whose values differ."""
    for what, before, after in fields:
        if before != after:
            yield FieldChange(what, before, after)


def subgraphs_of(attribute: AttributeProto | None) -> Iterator[tuple[str, GraphProto]]:
    """Yield the graphs that an attribute holds, labelled "then_branch" or "bodies[1]"."""
    if attribute is None:
        return
    if attribute.HasField("g"):
        yield attribute.name, attribute.g
    for index, graph in enumerate(attribute.graphs):
        yield f"{attribute.name}[{index}]", graph


def attribute_change(
    before: AttributeProto | None,
    after: AttributeProto | None,
    files: tuple[ExternalFiles, ExternalFiles],
) -> FieldChange | None:
    """Compare one attribute of a node, subgraphs left aside.

    Args:
        before: as it was, None when it is new.
        after: as it is, None when it is gone.
        files: what holds the bytes of either model that are not in it.

    Returns:
        None when both say the same, however they are stored.

    Raises:
        GraphError: TF0402, TF0404, bytes of a tensor cannot be had.
    """
    one = before if before is not None else after
    if one is None or all(a is None or a.type in _GRAPHS for a in (before, after)):
        return None
    if before is None or after is None:
        shown = (_shown(a, f) for a, f in zip((before, after), files, strict=True))
        return FieldChange(one.name, *shown)
    old, new = _tensors(before), _tensors(after)
    stored_elsewhere = any(map(is_external, (*old, *new)))
    if not stored_elsewhere and before.SerializeToString() == after.SerializeToString():
        return None
    note = None
    if old and before.type == after.type and _layout(old) == _layout(new):
        found = [
            compare_values(first, second, files) for first, second in zip(old, new, strict=True)
        ]
        notes = [str(difference) for difference in found if difference is not None]
        if not notes:
            return None
        note = notes[0]
    values = _shown(before, files[0]), _shown(after, files[1])
    return FieldChange(one.name, *values, note) if note or values[0] != values[1] else None


def _shown(attribute: AttributeProto | None, files: ExternalFiles) -> Any:
    """An attribute's value as JSON data; None for none."""
    if attribute is None:
        return None
    if attribute.ref_attr_name:
        return f"@{attribute.ref_attr_name}"
    tensors = _tensors(attribute)
    if tensors:
        shown = [_shown_tensor(tensor, files) for tensor in tensors]
        return shown[0] if attribute.type == AttributeProto.TENSOR else shown
    if attribute.type in _GRAPHS:
        return "graph"
    if attribute.type == AttributeProto.UNDEFINED:  # allowed in IR version 1
        return " ".join(str(attribute).split())
    return _plain(helper.get_attribute_value(attribute))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return json_number(float(str(np.float32(value))))  # 0.1, not 0.10000000149011612
    if hasattr(value, "DESCRIPTOR"):
        return " ".join(str(value).split())
    return [_plain(item) for item in value]


def _shown_tensor(tensor: TensorProto, files: ExternalFiles) -> dict[str, Any]:
    shown: dict[str, Any] = {"dtype": dtype_name(tensor), "dims": list(tensor.dims)}
    values = tensor_array(tensor, files).reshape(-1)
    if values.size <= _SHOWN_ELEMENTS:
        shown["values"] = [_element(value) for value in values]
    return shown


def _element(value: Any) -> Any:
    """One element of a tensor; numbers that JSON has not are text."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool | int | str):
        return value
    return str(value) if isinstance(value, complex) else json_number(float(value))


def _tensors(attribute: AttributeProto) -> list[TensorProto]:
    of_type = _TENSORS.get(attribute.type)
    return of_type(attribute) if of_type is not None else []


def _parts(sparse: Any) -> list[TensorProto]:
    return [sparse.values, sparse.indices]


def _layout(tensors: list[TensorProto]) -> list[tuple[int, tuple[int, ...]]]:
    return [(tensor.data_type, tuple(tensor.dims)) for tensor in tensors]
