"""The inputs and outputs of an engine as a session needs them; inside the worker process only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from trtforge.engine.arrays import Array
from trtforge.engine.backend import Dims, ShapeTriple
from trtforge.engine.infer import engine_profiles
from trtforge.engine.layers import dtype_of
from trtforge.errors import BuildError

_PACKED = ("INT4", "FP4")


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of an engine.

    Attributes:
        profiles: see `infer.engine_profiles`.
        inputs: name -> type.
        outputs: name -> type.
        on_host: inputs and outputs that the engine reads and writes in host memory.
        deciding: the inputs that decide shapes by their values: name -> own shape, () or (n,).
    """

    profiles: tuple[dict[str, ShapeTriple], ...]
    inputs: Mapping[str, np.dtype[Any]]
    outputs: Mapping[str, np.dtype[Any]]
    on_host: frozenset[str]
    deciding: Mapping[str, Dims]

    @classmethod
    def of(cls, engine: Any) -> "Interface":
        """Ask an ICudaEngine."""
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        types = {name: _numpy_type(name, engine.get_tensor_dtype(name)) for name in names}
        is_input = {name: engine.get_tensor_mode(name).name == "INPUT" for name in names}
        return cls(
            engine_profiles(engine),
            {name: types[name] for name in names if is_input[name]},
            {name: types[name] for name in names if not is_input[name]},
            frozenset(name for name in names if engine.get_tensor_location(name).name == "HOST"),
            {
                name: tuple(engine.get_tensor_shape(name))
                for name in names
                if is_input[name] and engine.is_shape_inference_io(name)
            },
        )

    def check(self, feeds: Mapping[str, Array]) -> None:
        """Refuse feeds that are not the engine's inputs.

        Raises:
            BuildError: TF0623.
        """
        if set(feeds) != set(self.inputs):
            raise BuildError(
                "TF0623",
                f"the engine's inputs are {', '.join(self.inputs)}; given: {', '.join(feeds)}",
            )
        for name, array in feeds.items():
            if array.dtype != self.inputs[name]:
                raise BuildError(
                    "TF0623",
                    f"input '{name}' of the engine is {self.inputs[name]}, not {array.dtype}",
                )


def _numpy_type(name: str, dtype: Any) -> np.dtype[Any]:
    if dtype.name in _PACKED:
        raise BuildError(
            "TF0625", f"'{name}' is {dtype.name}: two values to a byte, which numpy does not have"
        )
    known = dtype_of(dtype)
    return np.dtype(getattr(ml_dtypes, known, known))
