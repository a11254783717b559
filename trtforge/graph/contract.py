"""What a model promises its callers: names, element types and dimensions of inputs and outputs."""

from dataclasses import dataclass
from typing import Any

from onnx import ModelProto, TensorProto, ValueInfoProto

from trtforge.errors import GraphError, Place
from trtforge.graph.names import did_you_mean
from trtforge.graph.weights import numpy_dtype


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: as in the model.
        dtype: numpy's name of the element type, e.g. "float32", "bfloat16"; or "string".
        dims: one entry per axis: a number, the name of a dynamic dimension, or None for a
            dynamic dimension without a name.
        rank_known: False when the model declares no shape at all; dims is then empty.
    """

    name: str
    dtype: str
    dims: tuple[int | str | None, ...]
    rank_known: bool = True

    @property
    def is_dynamic(self) -> bool:
        """Whether any dimension is open."""
        return not self.rank_known or any(not isinstance(dim, int) for dim in self.dims)

    @property
    def dims_text(self) -> str:
        """The dimensions for people: `[batch, 3, ?]`."""
        if not self.rank_known:
            return "(of unknown rank)"
        return f"[{', '.join('?' if dim is None else str(dim) for dim in self.dims)}]"

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data; unknown dims are null, an unknown shape is null as a whole."""
        dims = list(self.dims) if self.rank_known else None
        return {"name": self.name, "dtype": self.dtype, "dims": dims}


@dataclass(frozen=True)
class IoContract:
    """Inputs and outputs in the model's order; initializers are no inputs."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def input(self, name: str) -> TensorSpec:
        """Return the input of that name.

        Raises:
            GraphError: TF0409, there is none.
        """
        for spec in self.inputs:
            if spec.name == name:
                return spec
        raise GraphError(
            "TF0409",
            f"the model has no input '{name}'",
            did_you_mean(name, (spec.name for spec in self.inputs)),
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "inputs": [spec.as_json() for spec in self.inputs],
            "outputs": [spec.as_json() for spec in self.outputs],
        }


def contract_of(proto: ModelProto) -> IoContract:
    """Read the contract of a model.

    Inputs that have an initializer are constants for TensorRT, whatever the IR version, and
    so they are no part of the contract.

    Raises:
        GraphError: TF0406, an input or output is not a tensor.
    """
    initialized = {tensor.name for tensor in proto.graph.initializer}
    initialized |= {sparse.values.name for sparse in proto.graph.sparse_initializer}
    return IoContract(
        tuple(_spec(info) for info in proto.graph.input if info.name not in initialized),
        tuple(_spec(info) for info in proto.graph.output),
    )


def _spec(info: ValueInfoProto) -> TensorSpec:
    if not info.type.HasField("tensor_type"):
        kind = info.type.WhichOneof("value") or "undeclared type"
        raise GraphError(
            "TF0406",
            f"'{info.name}' is not a tensor ({kind})",
            "TensorRT takes and returns tensors only; export the model without sequences or maps",
            Place(node=info.name),
        )
    tensor = info.type.tensor_type
    string = tensor.elem_type == TensorProto.STRING
    dtype = "string" if string else numpy_dtype(tensor.elem_type).name
    dims = tuple(_dim(dim) for dim in tensor.shape.dim)
    return TensorSpec(info.name, dtype, dims, rank_known=tensor.HasField("shape"))


def _dim(dim: Any) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return str(dim.dim_param) or None
