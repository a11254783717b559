"""What NVIDIA's API has, read from the real bindings: classes, members, parameters, values."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .bindings import CACHE, bindings, stub_libraries

# Runs where the real bindings are imported; pybind writes each signature into the docstring.
_READ = r"""
import inspect, json, re, sys
import tensorrt_bindings as trt


def parameters(text):
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text + ","):
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    found = []
    for part in filter(None, parts):
        name, _, rest = part.partition(":")
        kind, equals, _ = rest.partition(" = ")
        found.append([name.strip(), kind.strip(), bool(equals)])
    return found


def overloads(function, name):
    found = []
    for line in (function.__doc__ or "").splitlines():
        match = re.match(rf"(?:\d+\. )?{re.escape(name)}\((.*)\) -> .+$", line)
        if match and not match[1].startswith("*args"):
            found.append(parameters(match[1]))
    return [[row for row in each if row[0] != "self"] for each in found]


def described(kind):
    facts = {"bases": [base.__name__ for base in kind.__bases__ if "tensorrt" in base.__module__]}
    facts["depth"] = len(kind.__mro__)
    facts |= {"methods": {}, "static": {}, "properties": {}, "values": {}, "aliases": {}}
    if isinstance(members := getattr(kind, "__members__", None), dict):
        facts["members"] = {name: int(member) for name, member in members.items()}
    facts["init"] = overloads(kind.__dict__.get("__init__"), "__init__")
    for name, value in kind.__dict__.items():
        if "pybind11" in name or name in ("__doc__", "__module__", "__init__", "__entries"):
            continue
        if name in facts.get("members", ()) or name == "__members__":
            continue
        if isinstance(value, property):
            said = re.search(r"\) -> (\S+)", value.fget.__doc__ or "")
            facts["properties"][name] = [value.fset is not None, said[1] if said else ""]
        elif inspect.isclass(value):
            facts["aliases"][name] = value.__qualname__
        elif type(value).__name__ == "pybind11_static_property":
            facts["values"][name] = getattr(kind, name)
        elif hasattr(type(value), "__members__"):
            facts["values"][name] = value.name
        elif isinstance(value, (int, str)):
            facts["values"][name] = value
        elif isinstance(value, staticmethod) or inspect.isbuiltin(value):
            facts["static"][name] = overloads(getattr(kind, name), name)
        elif callable(value):
            facts["methods"][name] = overloads(value, name)
    return facts


facts = {"version": trt.__version__, "classes": {}, "functions": {}, "constants": {}}
waiting = [value for value in vars(trt).values() if inspect.isclass(value)]
while waiting:
    kind = waiting.pop()
    if "tensorrt" not in kind.__module__ or kind.__qualname__ in facts["classes"]:
        continue
    facts["classes"][kind.__qualname__] = described(kind)
    waiting += [value for value in kind.__dict__.values() if inspect.isclass(value)]
for name, value in vars(trt).items():
    if hasattr(type(value), "__members__"):
        facts["constants"][name] = [type(value).__qualname__, value.name]
    elif inspect.isbuiltin(value):
        facts["functions"][name] = overloads(value, name)
json.dump(facts, sys.stdout, indent=1)
"""


def specification_file(version: str) -> Path:
    """The API of one release of TensorRT as JSON, kept in .cache/.

    Keys: version; classes, each with bases and their depth, init, methods and static (name ->
    overloads, each a list of [parameter, type, has a default]), properties (name -> [writable,
    type]), members of an enumeration (name -> value), values and aliases; functions; constants.
    """
    digest = hashlib.sha256(_READ.encode()).hexdigest()[:8]
    file = CACHE / "tensorrt-simulator" / f"{bindings(version).name}-{digest}.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(_read(version))
        partial.replace(file)
    return file


def specification(version: str) -> dict[str, Any]:
    """The API of one release of TensorRT, see `specification_file`."""
    facts: dict[str, Any] = json.loads(specification_file(version).read_text())
    return facts


def _read(version: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        stub_libraries(version.split(".")[0], Path(folder))
        return subprocess.run(
            [sys.executable, "-c", _READ],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": folder,
                "PYTHONPATH": str(bindings(version)),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
