"""Nodes that compute what another operator would: a mark that says so in their `doc_string`."""

from onnx import NodeProto

_DEQUANTIZES = "stands for DequantizeLinear of "


def mark_dequantizing(node: NodeProto, kind: str) -> None:
    """Say that a node stands for a DequantizeLinear.

    Args:
        node: changed in place.
        kind: the type that it would read, in the words of reports: `fp8`.
    """
    node.doc_string = _DEQUANTIZES + kind


def dequantized_kind(node: NodeProto) -> str | None:
    """Return the type that a node marked so would read; None for any other node."""
    doc = node.doc_string
    return doc.removeprefix(_DEQUANTIZES) if doc.startswith(_DEQUANTIZES) else None
