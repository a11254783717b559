"""What a parsed network computes in, counted from its description (`layers.describe`)."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHORT_TYPES = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float64": "fp64",
    "float8_e4m3fn": "fp8",
    "float4_e2m1fn": "fp4",
}
"""A tensor's dtype -> its name in recipes; other types have the same name in both."""

PRODUCTS = frozenset(
    ["CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM", "ATTENTION_INPUT"]
)
"""Types of layers that multiply and accumulate."""

_COMPUTES_NOTHING = frozenset(["CONSTANT", "CAST", "QUANTIZE", "DEQUANTIZE", "DYNAMIC_QUANTIZE"])
_MOVES = frozenset(["SHUFFLE", "SLICE", "IDENTITY", "GATHER", "PADDING"])
_MOVES_IN_MODE = {"POOLING": "MAX", "RESIZE": "NEAREST", "REDUCE": "MAX"}
_HALF_BYTES = frozenset(["int4", "fp4"])
_WIDTH_BYTES = {
    "fp64": 8, "int64": 8, "fp32": 4, "int32": 4, "fp16": 2, "bf16": 2,
    "fp8": 1, "int8": 1, "uint8": 1, "bool": 1, "float8_e8m0fnu": 1,
}  # fmt: skip


@dataclass(frozen=True)
class NetworkTypes:
    """What a network computes in.

    Attributes:
        layers: layer type -> type of the first result -> number of layers; every layer counts.
        nodes: type -> layers; constants and conversions compute nothing and are not counted.
        weights_bytes: type -> bytes of constants and of what convolutions hold themselves.
        products: ONNX node -> the type in which its products are computed; INT8 (FP8) where both
            operands come out of a DEQUANTIZE layer of that type, "mixed" where layers of one node
            differ.
        tensors: tensor -> its type, for every result.
    """

    layers: Mapping[str, Mapping[str, int]]
    nodes: Mapping[str, int]
    weights_bytes: Mapping[str, int]
    products: Mapping[str, str]
    tensors: Mapping[str, str]


def short_type(dtype: str) -> str:
    """Return "fp16" for "float16", ..."""
    return SHORT_TYPES.get(dtype, dtype)


def bytes_of(count: int, kind: str) -> int:
    """Return the bytes that `count` elements of a type take; 0 for types of unknown width."""
    if kind in _HALF_BYTES:
        return (count + 1) // 2
    return count * _WIDTH_BYTES.get(kind, 0)


def layer_counts(layers: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Return layer type -> type of the first result -> number of layers, keys sorted."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for layer in layers:
        if layer["outputs"]:
            counts[layer["type"]][short_type(layer["outputs"][0]["dtype"])] += 1
    return {kind: dict(sorted(counts[kind].items())) for kind in sorted(counts)}


def network_types(layers: Sequence[Mapping[str, Any]]) -> NetworkTypes:
    """Count a description of a parsed network.

    Raises:
        KeyError, TypeError: it is no such description.
    """
    nodes: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    products: dict[str, set[str]] = defaultdict(set)
    stored: dict[str, str] = {}
    for layer in layers:
        results = [short_type(tensor["dtype"]) for tensor in layer["outputs"]]
        if not results:
            continue
        kind = layer["type"]
        for held in layer.get("weights", ()):
            held_type = short_type(held["dtype"])
            weights[held_type] += bytes_of(held["count"], held_type)
        if kind == "CONSTANT":
            shape = layer["outputs"][0]["shape"] or ()
            weights[results[0]] += bytes_of(math.prod(shape), results[0])
        _follow(layer, stored)
        if kind in _COMPUTES_NOTHING:
            continue
        computed = _product_type(layer, stored) if kind in PRODUCTS else results[0]
        nodes[computed] += 1
        if kind in PRODUCTS:
            for name in layer["onnx_nodes"]:
                products[name].add(computed)
    return NetworkTypes(
        layers=layer_counts(layers),
        nodes=dict(sorted(nodes.items())),
        weights_bytes=dict(sorted(weights.items())),
        products={
            name: found.copy().pop() if len(found) == 1 else "mixed"
            for name, found in products.items()
        },
        tensors={
            tensor["name"]: short_type(tensor["dtype"])
            for layer in layers
            for tensor in layer["outputs"]
        },
    )


def _follow(layer: Mapping[str, Any], stored: dict[str, str]) -> None:
    """Note which tensors are dequantized values, moved or not: tensor -> the type stored."""
    inputs = [tensor for tensor in layer["inputs"] if tensor is not None]
    if not inputs:
        return
    source: str | None = None
    if layer["type"] == "DEQUANTIZE":
        source = short_type(inputs[0]["dtype"])
    elif layer["type"] in _MOVES or layer.get("mode") == _MOVES_IN_MODE.get(layer["type"], ""):
        source = stored.get(inputs[0]["name"])
    elif layer["type"] == "CONCATENATION":
        found = {stored.get(tensor["name"]) for tensor in inputs}
        source = found.pop() if len(found) == 1 else None
    if source is not None:
        stored.update({tensor["name"]: source for tensor in layer["outputs"]})


def _product_type(layer: Mapping[str, Any], stored: Mapping[str, str]) -> str:
    operands = [stored.get(tensor["name"]) for tensor in layer["inputs"][:2] if tensor is not None]
    if len(operands) == 2 and operands[0] == operands[1] and operands[0] is not None:
        return operands[0]
    return short_type(layer["outputs"][0]["dtype"])
