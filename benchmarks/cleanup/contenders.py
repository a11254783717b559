"""Who is measured: the command of each contender, and a child program for those without one.

As a program (`python -P contenders.py NAME IN.onnx OUT.onnx`, under the peers' Python) it runs the
library calls of the contenders that have no command line of their own.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

TRTFORGE = "trtforge"
NO_PROOF = "trtforge-no-proof"
PROTOBUF6 = "trtforge-protobuf6"
SLIM = "onnxslim"
SIM = "onnxsim"
SCRIPT = "onnxscript"
RUNTIME = "onnxruntime-basic"
FLOOR = "floor-onnx"
FLOOR_IR = "floor-onnx-ir"

OURS = (TRTFORGE, NO_PROOF, PROTOBUF6)
PEERS = (SLIM, SIM, SCRIPT, RUNTIME)
FLOORS = (FLOOR, FLOOR_IR)
NAMES = (*OURS, *PEERS, *FLOORS)

TITLES = {
    TRTFORGE: "trtforge",
    NO_PROOF: "trtforge --no-proof",
    PROTOBUF6: "trtforge (protobuf 6)",
    SLIM: "onnxslim",
    SIM: "onnxsim",
    SCRIPT: "onnxscript optimizer",
    RUNTIME: "ONNX Runtime basic",
    FLOOR: "onnx.load + onnx.save",
    FLOOR_IR: "onnx_ir load + save",
}

PROTOBUF_LIMIT = 2**31
"""A protobuf message must stay below this many bytes, so larger weights lie outside of it."""

PACKAGES = (
    "trtforge",
    "onnx",
    "onnxruntime",
    "onnxslim",
    "onnxsim",
    "onnxscript",
    "onnx-ir",
    "onnx-graphsurgeon",
    "protobuf",
    "numpy",
    "tensorrt-rtx",
    "nncf",
    "nvidia-modelopt",
    "torch",
)
"""Packages whose versions are written down, for each environment."""


@dataclass(frozen=True)
class Environments:
    """The `bin` folders of the Python environments.

    Attributes:
        trtforge: has trtforge.
        peers: has all peers.
        peers_protobuf6: has onnxslim with protobuf 6; with protobuf 7 it fails above 2 GB.
        trtforge_protobuf6: has trtforge with protobuf 6.
    """

    trtforge: Path
    peers: Path
    peers_protobuf6: Path | None = None
    trtforge_protobuf6: Path | None = None

    def named(self) -> dict[str, Path]:
        """Return the environments that were given, by name."""
        given = {
            "trtforge": self.trtforge,
            "peers": self.peers,
            "peers, protobuf 6": self.peers_protobuf6,
            "trtforge, protobuf 6": self.trtforge_protobuf6,
        }
        return {name: folder for name, folder in given.items() if folder is not None}


def command(
    name: str, environments: Environments, source: Path, target: Path, *, large: bool
) -> list[str] | None:
    """Return the command that makes `target` of `source`.

    Args:
        name: one of `NAMES`.
        environments: where the programs are.
        source: the model.
        target: the file to write; its folder is empty.
        large: the model has more than 2 GB, so the output's weights must be external.

    Returns:
        The command, or None where this contender does not take part.
    """
    files = [str(source), str(target)]
    external = ["--save-as-external-data"] if large else []
    if name == PROTOBUF6:
        if environments.trtforge_protobuf6 is None or not large:
            return None
        return _trtforge(environments.trtforge_protobuf6, source, target)
    if name in OURS:
        proof = ["--no-proof"] if name == NO_PROOF else []
        return [*_trtforge(environments.trtforge, source, target), *proof]
    if name == SLIM:
        folder = environments.peers_protobuf6 if large else None
        return [str((folder or environments.peers) / "onnxslim"), *files, *external]
    if name == SIM:
        return [str(environments.peers / "onnxsim"), *files, *external]
    return [str(environments.peers / "python"), "-P", str(Path(__file__).resolve()), name, *files]


def _trtforge(folder: Path, source: Path, target: Path) -> list[str]:
    return [str(folder / "trtforge"), "optimize", str(source), "-o", str(target)]


def _external_name(source: Path, target: Path) -> str | None:
    """Name the output's file of weights; None where the weights fit into the model's file."""
    beside = source.parent.glob(f"{source.name}*")
    total = sum(file.stat().st_size for file in beside)
    return f"{target.name}.data" if total >= PROTOBUF_LIMIT else None


def _onnx_load_save(source: Path, target: Path) -> None:
    import onnx

    model = onnx.load(source)
    if name := _external_name(source, target):
        onnx.save(model, target, save_as_external_data=True, location=name)
    else:
        onnx.save(model, target)


def _onnx_ir_load_save(source: Path, target: Path) -> None:
    import onnx_ir

    onnx_ir.save(onnx_ir.load(source), target, external_data=_external_name(source, target))


def _onnxscript_optimizer(source: Path, target: Path) -> None:
    import onnx_ir
    from onnxscript import optimizer

    model = optimizer.optimize(onnx_ir.load(source))
    onnx_ir.save(model, target, external_data=_external_name(source, target))


def _onnxruntime_basic(source: Path, target: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    if name := _external_name(source, target):
        prefix = "session.optimized_model_external_initializers"
        options.add_session_config_entry(f"{prefix}_file_name", name)
        options.add_session_config_entry(f"{prefix}_min_size_in_bytes", "1024")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


_LIBRARY_CALLS: Mapping[str, Callable[[Path, Path], None]] = {
    FLOOR: _onnx_load_save,
    FLOOR_IR: _onnx_ir_load_save,
    SCRIPT: _onnxscript_optimizer,
    RUNTIME: _onnxruntime_basic,
}

if __name__ == "__main__":
    _LIBRARY_CALLS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
