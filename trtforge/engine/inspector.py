"""What an engine says of its own layers: the inspector's JSON, in both of its forms.

TensorRT 8 to 10 write one text per tensor, "Format/Datatype"; TensorRT 11 and TensorRT-RTX write
"Format" and "Datatype" apart, and "I/O Tensors" in place of "Bindings" (TensorRT documentation,
"Migrating IEngineInspector Usage from TensorRT 10.x to 11.x"). An engine that was not built with
detailed profiling verbosity knows the names of its layers and nothing else.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtforge.engine.layers import onnx_nodes
from trtforge.engine.network_types import bytes_of

# In the order tried: "FP16" must not be found in "BFP16", nor "INT8" in "UINT8".
_TYPES = (
    ("bf16", r"\bBF16|\bBFloat16"),
    ("fp16", r"\bFP16|\bHalf\b|\bFloat16"),
    ("fp64", r"\bFP64|\bDouble\b"),
    ("fp8", r"\bFP8|\bFloat8"),
    ("fp4", r"\bFP4|\bFloat4"),
    ("fp32", r"\bFP32|\bFloat\b|\bFloat32"),
    ("uint8", r"\bUInt8"),
    ("int8", r"\bInt8"),
    ("int4", r"\bInt4"),
    ("int32", r"\bInt32"),
    ("int64", r"\bInt64"),
    ("bool", r"\bBool"),
)
_QUANTIZED = ("int8", "fp8", "int4", "fp4")
_PRODUCT = re.compile(
    r"conv|gemm|gemv|matmul|matrix|fullyconnected|correlation|attention|mha|fc(?![a-z])"
)
_COMPUTES_NOTHING = re.compile(r"reformat|noop|constant|copy|^cast$|^shuffle$")


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine, as it says itself.

    Attributes:
        name: often several nodes' names, joined by " + ".
        kind: the layer's type, e.g. CaskConvolution or kgen; empty when it is not told.
        onnx_nodes: the ONNX nodes that it came from; empty when it is not told.
        type: what it computes in: of both operands where they are quantized alike, else of its
            first result; "unknown" when it is not told.
        is_product: whether it multiplies and accumulates, by its kind and name.
        outputs: type and number of elements of each result; None for a number that is not told.
        weights: type -> number of elements, where they are told.
    """

    name: str
    kind: str
    onnx_nodes: tuple[str, ...]
    type: str
    is_product: bool
    outputs: tuple[tuple[str, int | None], ...]
    weights: Mapping[str, int]


@dataclass(frozen=True)
class EngineTypes:
    """What an engine's layers compute in.

    Attributes:
        layers: how many there are.
        nodes: type -> layers; reformatting and constants compute nothing and are not counted.
        weights_bytes: type -> bytes of the weights that layers tell; None when none tells any.
        activations_bytes: type -> bytes of all results; None when a number is not told.
        products: ONNX node -> the type in which its products are computed.
    """

    layers: int
    nodes: Mapping[str, int]
    weights_bytes: Mapping[str, int] | None
    activations_bytes: Mapping[str, int] | None
    products: Mapping[str, str]


def engine_layers(document: Any) -> tuple[EngineLayer, ...] | None:
    """Read the inspector's JSON: of the whole engine, or a list of layers.

    Returns:
        The layers, or None when this is no such document.
    """
    layers = document.get("Layers") if isinstance(document, Mapping) else document
    if not isinstance(layers, list) or not layers:
        return None
    if not all(isinstance(layer, str) or _is_layer(layer) for layer in layers):
        return None
    return tuple(_layer(layer) for layer in layers)


def engine_types(layers: Sequence[EngineLayer]) -> EngineTypes:
    """Count what the layers of an engine say."""
    counted = [layer for layer in layers if not _COMPUTES_NOTHING.search(layer.kind.lower())]
    weights: Counter[str] = Counter()
    for layer in layers:
        for kind, count in layer.weights.items():
            weights[kind] += bytes_of(count, kind)
    results: Counter[str] = Counter()
    told = True
    for layer in layers:
        for kind, elements in layer.outputs:
            told &= elements is not None and kind != "unknown"
            results[kind] += bytes_of(elements or 0, kind)
    return EngineTypes(
        layers=len(layers),
        nodes=dict(sorted(Counter(layer.type for layer in counted).items())),
        weights_bytes=dict(sorted(weights.items())) or None,
        activations_bytes=dict(sorted(results.items())) if told and results else None,
        products=_products(layers),
    )


def _products(layers: Sequence[EngineLayer]) -> dict[str, str]:
    """Return ONNX node -> type, from layers that are seen to multiply: others claim nothing."""
    found: dict[str, set[str]] = defaultdict(set)
    for layer in layers:
        for name in layer.onnx_nodes if layer.is_product else ():
            found[name].add(layer.type)
    return {name: kinds.pop() if len(kinds) == 1 else "mixed" for name, kinds in found.items()}


def _is_layer(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("Name"), str)


def _layer(layer: Any) -> EngineLayer:
    if isinstance(layer, str):
        return EngineLayer(layer, "", tuple(onnx_nodes(layer)), "unknown", False, (), {})
    kind = f"{layer.get('LayerType', '')}"
    inputs, outputs = (_tensors(layer.get(side)) for side in ("Inputs", "Outputs"))
    weights: Counter[str] = Counter()
    for name in ("Weights", "Bias"):
        held = layer.get(name)
        if isinstance(held, Mapping) and isinstance(held.get("Count"), int) and held["Count"]:
            weights[_type_in(held.get("Type"))] += held["Count"]
    # Names are the user's, except those of kernels that the library writes itself.
    kernel = layer["Name"] if layer["Name"].startswith("__myl") else ""
    is_product = bool(_PRODUCT.search(f"{kind} {layer.get('ParameterType', '')} {kernel}".lower()))
    first = [kind for kind, _ in inputs[:1]]
    own = layer.get("Weights")
    if isinstance(own, Mapping) and own.get("Count"):
        operands = [*first, _type_in(own.get("Type"))]
    else:
        operands = [kind for kind, _ in inputs[:2]]
    quantized = len(operands) == 2 and operands[0] == operands[1] and operands[0] in _QUANTIZED
    result = outputs[0][0] if outputs else "unknown"
    return EngineLayer(
        name=layer["Name"],
        kind=kind,
        onnx_nodes=tuple(onnx_nodes(str(layer.get("Metadata", "")))),
        type=operands[0] if is_product and quantized else result,
        is_product=is_product,
        outputs=tuple(outputs),
        weights=dict(weights),
    )


def _tensors(listed: Any) -> list[tuple[str, int | None]]:
    tensors = []
    for tensor in listed if isinstance(listed, list) else ():
        if not isinstance(tensor, Mapping):
            continue
        text = next(
            (tensor[key] for key in ("Datatype", "DataType", "Format/Datatype") if key in tensor),
            tensor.get("Format"),
        )
        dims = tensor.get("Dimensions")
        sizes = dims if isinstance(dims, list) else [None]
        whole = [size for size in sizes if isinstance(size, int) and size >= 0]
        count = math.prod(whole) if len(whole) == len(sizes) else None
        tensors.append((_type_in(text), count))
    return tensors


def _type_in(text: Any) -> str:
    """Find the type named in a text such as "Row major linear FP16 format" or "Half"."""
    for kind, pattern in _TYPES:
        if re.search(pattern, str(text), re.IGNORECASE):
            return kind
    return "unknown"


def inspect_engine(job: Mapping[str, Any]) -> Any:
    """Load the engine of a job and ask for its layers; inside the worker process only.

    Args:
        job: `engine` (path), `backend`, `allow_host_code`.

    Returns:
        The inspector's JSON document.

    Raises:
        MissingError: no NVIDIA driver, or the library is not installed.
        BuildError: the engine cannot be loaded, or tells nothing.
    """
    from trtforge.engine.environment import ELSEWHERE, driver
    from trtforge.engine.flavour import FLAVOURS
    from trtforge.engine.infer import load_engine
    from trtforge.engine.tensorrt import load_module
    from trtforge.errors import BuildError, MissingError

    name = Path(job["engine"]).name
    if (reason := driver().reason) is not None:
        raise MissingError("TF0603", f"cannot load {name}: {reason}", ELSEWHERE)
    engine, runtime = load_engine(job)
    trt = load_module(FLAVOURS[job["backend"]])
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    del inspector, engine, runtime  # in this order: none may outlive what it came from
    try:
        return json.loads(text)
    except ValueError as error:
        raise BuildError(
            "TF0750",
            f"what {name} says of its layers is no JSON: {str(text)[:80]!r}",
            hint="build it again, with the option profiling: detailed",
        ) from error
