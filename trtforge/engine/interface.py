"""The inputs and outputs of an engine, and which of its profiles takes a batch.

Inside the worker process only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtforge.engine.arrays import Array, numpy_type
from trtforge.engine.backend import Dims, ShapeTriple, ValueTriple, profiles_as_json
from trtforge.engine.layers import TYPE_NAMES
from trtforge.engine.profiles import covering_profile
from trtforge.errors import BuildError

_PACKED = ("INT4", "FP4")


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of an engine.

    Attributes:
        profiles: see `engine_profiles`.
        inputs: name -> type.
        outputs: name -> type.
        on_host: inputs and outputs that the engine reads and writes in host memory.
        deciding: the inputs that decide shapes by their values: name -> own shape, () or (n,).
        aliases: output -> the input whose memory it is written to, as a cache of keys and values.
    """

    profiles: tuple[dict[str, ShapeTriple], ...]
    inputs: Mapping[str, np.dtype[Any]]
    outputs: Mapping[str, np.dtype[Any]]
    on_host: frozenset[str]
    deciding: Mapping[str, Dims]
    aliases: Mapping[str, str]

    @classmethod
    def of(cls, engine: Any) -> "Interface":
        """Ask an ICudaEngine."""
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        types = {name: _numpy_type(name, engine.get_tensor_dtype(name)) for name in names}
        is_input = {name: engine.get_tensor_mode(name).name == "INPUT" for name in names}
        outputs = {name: types[name] for name in names if not is_input[name]}
        return cls(
            engine_profiles(engine),
            {name: types[name] for name in names if is_input[name]},
            outputs,
            frozenset(name for name in names if engine.get_tensor_location(name).name == "HOST"),
            {
                name: tuple(engine.get_tensor_shape(name))
                for name in names
                if is_input[name] and engine.is_shape_inference_io(name)
            },
            _aliases(engine, outputs),
        )

    def check(self, feeds: Mapping[str, Array]) -> None:
        """Refuse feeds that are not the engine's inputs.

        Raises:
            BuildError: TF0616.
        """
        if set(feeds) != set(self.inputs):
            raise BuildError(
                "TF0616",
                f"the engine's inputs are {', '.join(self.inputs)}; given: "
                f"{', '.join(feeds) or 'none'}",
                hint="feed each input under the name that the model declares",
            )
        for name, array in feeds.items():
            if array.dtype != self.inputs[name]:
                raise BuildError(
                    "TF0616",
                    f"input '{name}' of the engine is {self.inputs[name]}, not {array.dtype}",
                    hint="feed each input in the type that the model declares",
                )

    def as_json(self) -> dict[str, Any]:
        """Return what a caller in another process needs to make inputs, as plain JSON data."""
        return {
            "inputs": {name: dtype.name for name, dtype in self.inputs.items()},
            "outputs": {name: dtype.name for name, dtype in self.outputs.items()},
            "deciding": {name: list(shape) for name, shape in self.deciding.items()},
            "profiles": profiles_as_json(self.profiles),
        }


def _aliases(engine: Any, outputs: Mapping[str, Any]) -> dict[str, str]:
    if not hasattr(engine, "get_aliased_input_tensor"):  # TensorRT 10.13 has no aliases
        return {}
    found = {name: engine.get_aliased_input_tensor(name) for name in outputs}
    return {name: source for name, source in found.items() if source}


def _numpy_type(name: str, dtype: Any) -> np.dtype[Any]:
    if dtype.name in _PACKED:
        raise BuildError(
            "TF0631",
            f"'{name}' is {dtype.name}: two values to a byte, which numpy does not have",
            hint="cast it inside of the model, so that its ends are INT8 or floats",
        )
    return numpy_type(TYPE_NAMES.get(dtype.name, dtype.name.lower()))


def engine_profiles(engine: Any) -> tuple[dict[str, ShapeTriple], ...]:
    """The optimization profiles of an ICudaEngine: shapes of its inputs, or values."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name).name == "INPUT"]
    return tuple(
        {name: _profile_of(engine, name, index) for name in inputs}
        for index in range(engine.num_optimization_profiles)
    )


def _profile_of(engine: Any, name: str, index: int) -> ShapeTriple:
    if engine.is_shape_inference_io(name):
        # by position: the bindings call the first `name` and the second `profile_index`
        return ValueTriple(_triple(engine.get_tensor_profile_values(index, name)))
    return _triple(engine.get_tensor_profile_shape(name, index))


def _triple(shapes: Any) -> ShapeTriple:
    low, mid, high = (tuple(shape) for shape in shapes)
    return low, mid, high


def choose_profile(profiles: tuple[dict[str, ShapeTriple], ...], feeds: Mapping[str, Array]) -> int:
    """The first profile that the feeds lie in: their shapes, and values that decide shapes.

    Raises:
        BuildError: there is none.
    """
    declared = profiles[0] if profiles else {}
    deciding = {name for name, triple in declared.items() if isinstance(triple, ValueTriple)}
    shapes: dict[str, Dims] = {
        name: tuple(map(int, array.ravel())) if name in deciding else array.shape
        for name, array in feeds.items()
    }
    index = covering_profile(profiles, shapes)
    if index is None:
        shown = ", ".join(
            f"{name}{' =' if name in deciding else ''} {list(shape)}"
            for name, shape in shapes.items()
        )
        raise BuildError(
            "TF0614",
            f"no optimization profile of the engine covers {shown}",
            hint=f"the engine has {len(profiles)} profile(s); build it with a wider one",
        )
    return index
