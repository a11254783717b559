"""Members of simulated classes: bound and checked as NVIDIA's bindings bind and check them."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Overload = Sequence[tuple[str, str, bool]]
"""Parameters of one form of a method: name, type as pybind writes it, whether it has a default."""


class Kinds:
    """The classes of the module being made, to check arguments against; filled as it is made."""

    def __init__(self) -> None:
        self.known: dict[str, type] = {}

    def takes(self, annotation: str, value: Any) -> bool:
        """Whether an argument of this type, as pybind names it, can be `value`."""
        if annotation in _PLAIN:
            return _PLAIN[annotation](value)
        name = annotation.removeprefix("tensorrt_bindings.tensorrt.").rpartition("::")[2]
        kind = self.known.get(name)
        if kind is None:
            return True
        if name == "Dims":
            return isinstance(value, kind) or _is_dims(value)
        if name == "Weights" and hasattr(value, "dtype"):
            return True
        if hasattr(kind, "__members__"):
            return isinstance(value, kind)
        is_derived = isinstance(value, kind) and "_specified" not in vars(type(value))
        if is_derived and "_ready" not in vars(value):
            raise TypeError(f"{name}.__init__() must be called when overriding __init__")
        return value is None or isinstance(value, kind)


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return hasattr(value, "__bytes__")
    return True


def _is_dims(value: Any) -> bool:
    is_list = isinstance(value, list | tuple)
    return is_list and len(value) <= 8 and all(_is_int(item) for item in value)


def _is_int(value: Any) -> bool:
    return hasattr(value, "__int__") and not isinstance(value, str | float)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


_PLAIN: dict[str, Callable[[Any], bool]] = {
    "typing.SupportsInt": _is_int,
    "int": _is_int,
    "typing.SupportsFloat": lambda value: hasattr(value, "__float__"),
    "str": lambda value: isinstance(value, str),
    "bool": _is_bool,
    "tuple": lambda value: isinstance(value, tuple),
    "list": lambda value: isinstance(value, list),
    "slice": lambda value: isinstance(value, slice),
    "numpy.ndarray": lambda value: type(value).__name__ == "ndarray",
    "typing_extensions.Buffer": _is_buffer,
}


def bound(
    kinds: Kinds, overload: Overload, args: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Give the arguments to an overload's parameters; None when they do not fit it."""
    if len(args) > len(overload):
        return None
    values: dict[str, Any] = {}
    for index, (name, annotation, has_default) in enumerate(overload):
        if index < len(args):
            values[name] = args[index]
        elif name in named and not name.startswith("arg"):
            values[name] = named[name]
        elif not has_default:
            return None
        if name in values and not kinds.takes(annotation, values[name]):
            return None
    if set(named) - set(values) or any(overload[i][0] in named for i in range(len(args))):
        return None
    return values


def method(
    kinds: Kinds, name: str, overloads: Sequence[Overload], behaviour: Callable[..., Any] | None
) -> Callable[..., Any]:
    """A method that takes what NVIDIA's takes, and does what `behaviour` does."""
    accepted = set(inspect.signature(behaviour).parameters) if behaviour is not None else set()

    def call(self: Any, *args: Any, **named: Any) -> Any:
        for values in _fitting(kinds, overloads, args, named):
            if behaviour is None or not set(values) <= accepted:
                raise NotImplementedError(f"tensorrt.{name} is not simulated")
            return behaviour(self, **values)
        raise TypeError(f"{name}(): incompatible function arguments: {args}, {dict(named)}")

    call.__name__ = name.rpartition(".")[2]
    return call


def _fitting(
    kinds: Kinds,
    overloads: Sequence[Overload],
    args: tuple[Any, ...],
    named: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    for overload in overloads:
        if (values := bound(kinds, overload, args, named)) is not None:
            yield values


def attribute(
    kinds: Kinds, name: str, specified: Sequence[Any], behaviour: property | None
) -> property:
    """A property as NVIDIA's: writable where theirs is, refusing values of other types."""
    writable, annotation = specified

    def missing(self: Any, *value: Any) -> Any:
        raise NotImplementedError(f"tensorrt.{name} is not simulated")

    read = missing if behaviour is None or behaviour.fget is None else behaviour.fget
    write = missing if behaviour is None or behaviour.fset is None else behaviour.fset

    def checked(self: Any, value: Any) -> None:
        if not kinds.takes(annotation, value):
            raise TypeError(f"{name}: incompatible value: {value!r}")
        write(self, value)

    return property(read, checked if writable else None)
