"""An ONNX model in memory: loaded through a gate, saved byte for byte alike, edited as a graph.

Weights stay in their files, memory-mapped, until a pass needs their values; those that a pass makes
are held once, beside the model.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs
from onnx import ModelProto, TensorProto

from trtforge.errors import GraphError, Place
from trtforge.graph import dialect, loading, opset, saving
from trtforge.graph.contract import IoContract, TensorSpec, contract_of
from trtforge.graph.external import ExternalFiles
from trtforge.graph.names import did_you_mean
from trtforge.graph.weights import tensor_array

__all__ = ["IoContract", "Model", "TensorSpec", "source_digest", "source_files"]


class Model:
    """One ONNX model. Treat it as a value: every change makes a new Model.

    Args:
        proto: the model; not copied, must not be changed afterwards.
        base_dir: the folder that external weights are relative to, None without any.
        files: the bytes of the weights that are not in `proto`, in place of `base_dir`.
    """

    def __init__(
        self, proto: ModelProto, base_dir: Path | None = None, *, files: ExternalFiles | None = None
    ) -> None:
        self.proto = proto
        self._files = files if files is not None else ExternalFiles(base_dir)

    @classmethod
    def load(cls, path: Path) -> "Model":
        """Read and validate an ONNX file; its big weights stay there, mapped into memory.

        Raises:
            GraphError: TF0401 not readable, TF0402 not an ONNX model, TF0403 refused by
                onnx.checker, TF0404 external data, TF0405 NaN or Inf, TF0406 outputs.
        """
        proto, files = loading.read_model(path)
        return cls(proto, files=files)

    def save(self, path: Path) -> tuple[Path, ...]:
        """Write the model; see `saving.write_model`.

        Returns:
            All files written, the model first.

        Raises:
            GraphError: TF0403, TF0404.
            MissingError: TF0301 no space left, TF0302 not writable.
        """
        return saving.write_model(self.proto, self._files, path)

    @property
    def base_dir(self) -> Path | None:
        """The folder that external weights are relative to."""
        return self._files.base_dir

    @property
    def files(self) -> ExternalFiles:
        """The mapped external files."""
        return self._files

    @cached_property
    def contract(self) -> IoContract:
        """Names, types and dimensions of inputs and outputs."""
        return contract_of(self.proto)

    @property
    def opset(self) -> int:
        """The version of the ai.onnx operator set, 0 when the model imports none."""
        for imported in self.proto.opset_import:
            if imported.domain in ("", "ai.onnx"):
                return int(imported.version)
        return 0

    def digest(self) -> str:
        """Return "sha256:..." of the content; where the weights are stored does not matter."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return saving.content_digest(self.proto, self._files)

    @cached_property
    def initializers(self) -> dict[str, TensorProto]:
        """The initializers of the outermost graph by name; external ones without bytes."""
        return {tensor.name: tensor for tensor in self.proto.graph.initializer}

    def initializer(self, name: str) -> np.ndarray:
        """Return an initializer's values, read-only; a mapped view where possible.

        Raises:
            GraphError: TF0409, there is none of that name; TF0404, its file is gone.
        """
        tensor = self.initializers.get(name)
        if tensor is None:
            raise GraphError(
                "TF0409",
                f"the model has no initializer '{name}'",
                did_you_mean(name, self.initializers),
                Place(node=name),
            )
        return tensor_array(tensor, self._files)

    def to_graph(self) -> gs.Graph:
        """Import into GraphSurgeon; weights stay lazy, and everything can be put back.

        Raises:
            GraphError: TF0410, GraphSurgeon cannot read the model.
        """
        return dialect.import_graph(self.proto, self._files)

    def with_graph(self, graph: gs.Graph) -> "Model":
        """Return this model with another graph.

        What GraphSurgeon drops is put back: documentation, metadata, value_info, unused
        initializers, functions, the attributes it does not know.

        Raises:
            GraphError: TF0410, the graph cannot be written as ONNX.
        """
        proto, files = dialect.export_model(self.proto, graph, self._files)
        return Model(proto, files=files)

    def with_opset(self, version: int) -> "Model":
        """Return this model at an operator set of at least `version`.

        Raises:
            GraphError: TF0407, an operator cannot be raised.
        """
        if self.opset >= version:
            return self
        return Model(opset.raised(self.proto, self._files, version), files=self._files)


def source_digest(path: Path) -> str:
    """Return "sha256:..." over the bytes of a model file and its external files.

    Raises:
        GraphError: TF0401, TF0402, TF0404.
    """
    return loading.files_digest(path)


def source_files(path: Path) -> tuple[Path, ...]:
    """Return a model file and its external files, the model first.

    Raises:
        GraphError: TF0401, TF0402, TF0404.
    """
    return loading.model_files(path)
