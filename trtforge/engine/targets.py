"""Compute capabilities: "8.9" in recipes, SM89 in the library, and which takes which types."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trtforge.errors import BuildError, Place


@dataclass(frozen=True)
class Refusal:
    """A type that GPUs of some compute capabilities cannot compute in."""

    dtype: str
    capabilities: tuple[str, ...]
    layer_type: str | None
    reason: str


REFUSALS: tuple[Refusal, ...] = (
    # Source: the refusals of the TensorRT-RTX 1.7.1 builder itself, for each target.
    Refusal("float8_e4m3fn", ("7.5", "8.0", "8.6"), None, "FP8 needs compute capability 8.9"),
    Refusal("bfloat16", ("7.5",), None, "BF16 needs compute capability 8.0"),
    Refusal("int4", ("7.5",), None, "INT4 needs compute capability 8.0"),
    Refusal("float32", ("7.5",), "MATRIX_MULTIPLY", "there is no FP32 GEMM for Turing; use fp16"),
)

_DATA_CENTRE = dict.fromkeys(
    ("9.0", "10.0", "10.3"), "; for GPUs of data centres use the backend tensorrt"
)
"""Hopper and data-centre Blackwell. Source: TensorRT-RTX's support matrix names neither."""


def target_names(trt: Any) -> dict[str, str]:
    """What this version of the library can build for: "8.9" -> "SM89", in rising order."""
    members = [
        name for name in dir(trt.ComputeCapability) if name[:2] == "SM" and name[2:].isdigit()
    ]
    found = {f"{int(name[2:]) // 10}.{int(name[2:]) % 10}": name for name in members}
    return dict(sorted(found.items(), key=lambda item: int(item[1][2:])))


def set_targets(trt: Any, config: Any, capabilities: Sequence[str]) -> None:
    """Make `config` build for `capabilities`, each once, in the order given.

    Raises:
        BuildError: the library does not know one of them, or does not take it.
    """
    names = target_names(trt)
    wanted = tuple(dict.fromkeys(capabilities))
    for capability in wanted:
        if capability not in names:
            raise BuildError(
                "TF0606",
                f"compute capability {capability} is unknown to {trt.__name__} {trt.__version__}",
                hint=f"it builds for: {', '.join(names)}{_DATA_CENTRE.get(capability, '')}",
            )
    config.num_compute_capabilities = len(wanted)
    for index, capability in enumerate(wanted):
        member = getattr(trt.ComputeCapability, names[capability])
        if not config.set_compute_capability(member, index):
            raise BuildError(
                "TF0606",
                f"{trt.__name__} {trt.__version__} did not take compute capability {capability}",
                hint=f"it lists: {', '.join(names)}",
            )


def check_types(layers: Sequence[dict[str, Any]], capabilities: Sequence[str], file: str) -> None:
    """Refuse a network whose types a target does not have, before any time is spent on it.

    Args:
        layers: the network as `layers.describe` gives it.
        capabilities: the targets asked for; none are checked when it is empty.
        file: the model's name, for the message.

    Raises:
        BuildError: names the first layer concerned, the type, the targets and the reason.
    """
    for refusal in REFUSALS:
        targets = [item for item in capabilities if item in refusal.capabilities]
        layer = _first_with(layers, refusal) if targets else None
        if layer is not None:
            raise BuildError(
                "TF0607",
                f"layer '{layer['name']}' computes in {refusal.dtype}, which compute capability "
                f"{', '.join(targets)} cannot: {refusal.reason}",
                hint=f"leave {', '.join(targets)} out of compute_capabilities, or choose another "
                "precision",
                where=Place(file=file, node=(layer["onnx_nodes"] or [layer["name"]])[0]),
            )


def _first_with(layers: Sequence[dict[str, Any]], refusal: Refusal) -> dict[str, Any] | None:
    for layer in layers:
        if refusal.layer_type not in (None, layer["type"]):
            continue
        if any(tensor["dtype"] == refusal.dtype for tensor in layer["outputs"]):
            return layer
    return None
