"""The simulator of TensorRT has what NVIDIA's API has, and nothing else."""

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from engine_models import conv_net, save
from simulator.behaviours import BEHAVIOURS, FUNCTIONS
from simulator.bindings import VERSIONS
from simulator.module import is_for
from simulator.specification import specification

MAJORS = list(VERSIONS)
PYTHONS_OWN = {"__module__", "__doc__", "__dict__", "__weakref__", "__hash__", "__qualname__"}


def foreign(major: str, behaviours: Mapping[str, type]) -> Iterator[str]:
    """Yield handwritten members that NVIDIA's API of this version lacks, or has otherwise."""
    classes = specification(VERSIONS[major])["classes"]
    for name, behaviour in behaviours.items():
        if name not in classes:
            yield name
            continue
        facts = classes[name]
        for member, value in vars(behaviour).items():
            is_private = member.startswith("_") and not member.startswith("__")
            if is_private or member in PYTHONS_OWN:
                continue
            if is_for(value, major) and not agrees(facts, member, value):
                yield f"{name}.{member}"


def agrees(facts: Mapping[str, Any], member: str, value: Any) -> bool:
    if isinstance(value, property):
        writable = facts["properties"].get(member, [None])[0]
        return writable is not None and (value.fset is None or writable)
    overloads = facts["init"] if member == "__init__" else facts["methods"].get(member, ())
    mine = list(inspect.signature(value).parameters)[1:]
    theirs = [[parameter[0] for parameter in overload] for overload in overloads]
    taken = [names for names in theirs if [name for name in mine if name in names] == names]
    return bool(taken) and set(mine) <= {name for names in taken for name in names}


@pytest.mark.parametrize("major", MAJORS)
def test_every_handwritten_member_exists_in_nvidias_api(major: str) -> None:
    assert list(foreign(major, BEHAVIOURS)) == []
    functions = specification(VERSIONS[major])["functions"]
    for name, function in FUNCTIONS.items():
        mine = list(inspect.signature(function).parameters)[1:]
        assert mine in [[row[0] for row in overload] for overload in functions[name]]


@pytest.mark.parametrize("major", MAJORS)
def test_members_that_nvidia_lacks_are_found(major: str) -> None:
    class Wrong:
        engine_capability = property(lambda self: 1, lambda self, value: None)
        num_optimization_profiles = property(lambda self: 1, lambda self, value: None)

        def set_flag(self, flag: Any) -> None: ...
        def get_flag(self, name: Any) -> bool: ...
        def set_flags(self) -> None: ...
        def set_timing_cache(self, cache: Any) -> bool: ...
        def reset(self, hard: bool) -> None: ...

    assert set(foreign(major, {"IBuilderConfig": Wrong, "IBuilder": Wrong})) == {
        "IBuilderConfig.num_optimization_profiles",  # cannot be set
        "IBuilderConfig.get_flag",  # another parameter
        "IBuilderConfig.set_flags",  # no such method
        "IBuilderConfig.set_timing_cache",  # one parameter less
        "IBuilderConfig.reset",  # one more
        "IBuilder",  # no such class
    }


DIRECTORY = """
import inspect, json, tensorrt as trt
kinds = {name: kind for name, kind in vars(trt).items() if inspect.isclass(kind)}
buffer = set(dir(bytearray))  # which a class with the buffer protocol derives from, refused all
public = {
    name: [
        member
        for member in set(dir(kind)) - (buffer if issubclass(kind, bytearray) else set())
        if not member.startswith("_")
    ]
    for name, kind in kinds.items()
}
values = {
    name: {member: int(value) for member, value in kind.__members__.items()}
    for name, kind in kinds.items()
    if hasattr(kind, "__members__")
}
print(json.dumps([trt.__version__, public, values]))
"""


@pytest.mark.parametrize("major", MAJORS)
def test_classes_have_exactly_nvidias_members_and_values(simulations: Any, major: str) -> None:
    facts = specification(VERSIONS[major])
    version, public, values = json.loads(simulations[major].python(DIRECTORY))

    def members(name: str) -> set[str]:
        own = facts["classes"][name]
        sides = ("methods", "static", "properties", "values", "aliases", "members")
        found = {member for side in sides for member in own.get(side, ())}
        inherited = [members(base) for base in own["bases"]]
        return {name for name in found.union(*inherited) if not name.startswith("_")}

    assert version == facts["version"] == VERSIONS[major]
    named = {name for name in facts["classes"] if "." not in name}
    assert set(public) == named
    for name in named - set(values):
        assert set(public[name]) == members(name), name
    for name, found in values.items():
        assert found == facts["classes"][name]["members"], name
    assert len(named) > 190
    assert ("FP16" in values["BuilderFlag"]) == (major == "10")


LAWS = """
import json, sys
import tensorrt as trt
said = []
class Logger(trt.ILogger):
    def __init__(self): trt.ILogger.__init__(self)
    def log(self, severity, msg): said.append([severity.name, msg])
class Careless(trt.ILogger):
    def __init__(self): pass
    def log(self, severity, msg): pass
def kind(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "taken"
logger = Logger()
builder = trt.Builder(logger)
config = builder.create_builder_config()
flags = trt.BuilderFlag
found = {
    "unknown attribute": kind(lambda: setattr(config, "fast", True)),
    "unknown member": kind(lambda: config.fast),
    "method overwritten": kind(lambda: setattr(config, "set_flag", None)),
    "number for a flag": kind(lambda: config.set_flag(3)),
    "wrong keyword": kind(lambda: config.set_flag(name=flags.TF32)),
    "keyword": kind(lambda: config.set_flag(flag=flags.TF32)),
    "not simulated": kind(lambda: config.DLA_core),
    "no constructor": kind(lambda: trt.ICudaEngine()),
    "base not initialized": kind(lambda: trt.Builder(Careless())),
    "read only": kind(lambda: setattr(config, "num_optimization_profiles", 1)),
    "timing cache without a flag": kind(lambda: config.set_timing_cache(None)),
}
profile = builder.create_optimization_profile()
profile.set_shape("image", (4, 3, 16, 16), (2, 3, 16, 16), (8, 3, 16, 16))
found["opt below min"] = config.add_optimization_profile(profile)
config.builder_optimization_level = 9
found["level"] = config.builder_optimization_level

def built(creation, *config_flags):
    said.clear()
    network = builder.create_network(creation)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(sys.argv[1])
    config = builder.create_builder_config()
    for flag in config_flags:
        config.set_flag(flag)
    plan = builder.build_serialized_network(network, config)
    if plan is not None:
        assert len(memoryview(plan)) == plan.nbytes
        assert not any(hasattr(plan, name) for name in dir(bytearray) if name[0] != "_")
    strong = network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return [strong, plan is None, [text for level, text in said if level == "ERROR"]]

found["weak by default"] = built(0)[0]
found["no profile"] = built(0)[1:]
if hasattr(flags, "FP16"):
    strong = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    found["flag on strong types"] = built(strong, flags.FP16)[2][0]
print(json.dumps(found))
"""


@pytest.mark.parametrize("major", MAJORS)
def test_laws_of_the_api(simulations: Any, major: str, tmp_path: Path) -> None:
    model = save(conv_net(), tmp_path)
    found = json.loads(simulations[major].python(LAWS, str(model)))
    # Ten makes weakly typed networks unless told otherwise; eleven knows no others.
    assert found.pop("weak by default") is (major == "11")
    if major == "10":
        assert "strongly typed network takes no flag FP16" in found.pop("flag on strong types")
    refused, errors = found.pop("no profile")
    assert refused
    assert "no optimization profile has been defined" in errors[0]
    assert found == {
        "unknown attribute": "AttributeError",
        "unknown member": "AttributeError",
        "method overwritten": "AttributeError",
        "number for a flag": "TypeError",
        "wrong keyword": "TypeError",
        "keyword": "taken",
        "not simulated": "NotImplementedError",
        "no constructor": "TypeError",
        "base not initialized": "TypeError",
        "read only": "AttributeError",
        "timing cache without a flag": "TypeError",
        "opt below min": -1,
        "level": 3,
    }
