"""Makes the module: every class of the specification, with behaviour where it is simulated."""

import json
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .members import Kinds, attribute, method


class Simulated:
    """What all simulated classes derive from: no attributes but those of the specification."""

    _specified: Any
    _trt: Any

    @classmethod
    def _made(cls, **state: Any) -> Any:
        """Make an object that NVIDIA's API makes by no constructor; `state` is private."""
        made = cls.__new__(cls)
        made.__dict__.update(state)
        if isinstance(made, bytearray):
            made += state["_data"]
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self)
        is_ours = "_specified" in kind.__dict__  # a class derived by the user may have any
        if is_ours and not name.startswith("_"):
            if not hasattr(kind, name):
                raise AttributeError(f"'{kind.__name__}' object has no attribute '{name}'")
            if not isinstance(getattr(kind, name), property):
                raise AttributeError(f"'{kind.__name__}' attribute '{name}' is read-only")
        object.__setattr__(self, name, value)


class Enumerated:
    """A member of an enumeration."""

    __members__: dict[str, "Enumerated"]
    name: str
    value: int

    def __init__(self, value: Any) -> None:
        found = [member for member in self.__members__.values() if int(member) == int(value)]
        if not found:
            raise TypeError(f"{type(self).__name__} has no member {value}")
        self.name, self.value = (found[0].name, found[0].value)

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and int(other) == self.value  # type: ignore[call-overload]

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__}.{self.name}: {self.value}>"

    def __str__(self) -> str:
        return f"{type(self).__qualname__}.{self.name}"


def only(*majors: str) -> Callable[[Any], Any]:
    """Mark a method or a property's getter as one that only these major versions have."""

    def mark(member: Any) -> Any:
        member.majors = majors
        return member

    return mark


def is_for(member: Any, major: str) -> bool:
    """Whether a handwritten member is meant for this major version."""
    marked = member.fget if isinstance(member, property) else member
    return major in getattr(marked, "majors", (major,))


def populate(namespace: dict[str, Any], specification: str) -> None:
    """Fill the namespace of a module called `tensorrt`; `specification` is a JSON file's path."""
    from .behaviours import BEHAVIOURS, FUNCTIONS

    facts = json.loads(Path(specification).read_text())
    trt, kinds = (types.SimpleNamespace(), Kinds())
    major = facts["version"].split(".")[0]
    for name in _bases_first(facts["classes"]):
        if "members" in facts["classes"][name]:
            made = _enumeration(name, facts["classes"][name]["members"])
        else:
            made = _class(kinds, (name, facts["classes"][name], major), BEHAVIOURS.get(name))
            made._trt = trt
        kinds.known[name] = made
    for name, made in kinds.known.items():
        for alias, target in facts["classes"][name]["aliases"].items():
            setattr(made, alias, kinds.known[target])
        for alias, value in facts["classes"][name]["values"].items():
            severity = kinds.known["ILogger.Severity"].__members__  # type: ignore[attr-defined]
            setattr(made, alias, severity.get(value, value))
    trt.__dict__.update({name: kind for name, kind in kinds.known.items() if "." not in name})
    for name, (kind, member) in facts["constants"].items():
        setattr(trt, name, getattr(kinds.known[kind], member))
    for name, overloads in facts["functions"].items():
        function = method(kinds, name, overloads, FUNCTIONS.get(name))
        setattr(trt, name, types.MethodType(function, trt))
    trt.__version__ = facts["version"]
    namespace.update(trt.__dict__)


def _bases_first(classes: Mapping[str, Any]) -> list[str]:
    return sorted(classes, key=lambda name: classes[name]["depth"])


def _enumeration(name: str, members: Mapping[str, int]) -> type:
    kind = type(name.rpartition(".")[2], (Enumerated,), {"__qualname__": name})
    kind.__members__ = {}  # type: ignore[attr-defined]
    for member, value in members.items():
        made = object.__new__(kind)
        made.name, made.value = (member, value)
        kind.__members__[member] = made  # type: ignore[attr-defined]
        setattr(kind, member, made)
    return kind


def _class(kinds: Kinds, specified: tuple[str, Any, str], behaviour: type | None) -> type:
    name, facts, major = specified
    written = {
        key: value
        for key, value in vars(behaviour or object).items()
        if behaviour is not None and is_for(value, major)
    }
    content: dict[str, Any] = {
        key: value
        for key, value in written.items()
        if key.startswith("_") and key not in _CLASS_OWN and key not in facts["methods"]
    }
    content["_specified"] = facts
    content["__init__"] = _constructor(kinds, name, facts, written.get("__init__"))
    for member, overloads in (*facts["methods"].items(), *facts["static"].items()):
        if member in written or not member.startswith("__"):
            full = f"{name}.{member}"
            content[member] = method(kinds, full, overloads, written.get(member))
    for member, form in facts["properties"].items():
        content[member] = attribute(kinds, f"{name}.{member}", form, written.get(member))
    bases = tuple(kinds.known[base] for base in facts["bases"]) or (Simulated,)
    if name in _BUFFERS:
        bases += (bytearray,)
        content |= {own: _hidden(own) for own in dir(bytearray) if not own.startswith("_")}
    return type(name.rpartition(".")[2], bases, content)


def _constructor(
    kinds: Kinds, name: str, facts: Any, written: Callable[..., None] | None
) -> Callable[..., None]:
    if not facts["init"]:

        def refuse(self: Any, *args: Any, **named: Any) -> None:
            raise TypeError(f"tensorrt.{name}: No constructor defined!")

        return refuse

    start = method(kinds, f"{name}.__init__", facts["init"], written or (lambda self: None))

    def construct(self: Any, *args: Any, **named: Any) -> None:
        self.__dict__["_ready"] = True
        start(self, *args, **named)

    return construct


def _hidden(name: str) -> property:
    def refuse(self: Any) -> Any:
        raise AttributeError(name)

    return property(refuse)


_BUFFERS = ("IHostMemory",)
"""Classes with the buffer protocol, to which Python 3.11 knows no other way than bytearray."""

_CLASS_OWN = ("__dict__", "__weakref__", "__doc__", "__module__", "__init__", "__hash__")
