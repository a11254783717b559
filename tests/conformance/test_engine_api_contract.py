"""Every member of NVIDIA's API that the engine room uses exists in 10.16, in 11.4 and in RTX.

The bindings of TensorRT 10 and 11 import without the engine library (`simulator.bindings`).
"""

import ast
import json
import os
import re
import subprocess
import sys
from operator import attrgetter
from pathlib import Path
from typing import get_args

import pytest
import tensorrt_rtx
from api_uses import Uses, constants, holds_api, uses
from simulator.bindings import VERSIONS, bindings, stub_libraries

from trtforge.engine import layer_diff, layers, native_log, network_types, options
from trtforge.engine.layers import TYPE_NAMES
from trtforge.pipeline import attest_views
from trtforge.recipe.engine_options import REFUSED, EngineOptions

REPOSITORY = Path(__file__).parents[2]
ENGINE = REPOSITORY / "trtforge" / "engine"
ALL, RTX, TRT = ("10", "11", "rtx"), ("rtx",), ("10", "11")

# Options are looked up by name in tables; RTX need not have what it refuses.
_NOT_ON_RTX = set(REFUSED["tensorrt_rtx"])


def flavours_of(option: str) -> tuple[str, ...]:
    return TRT if option in _NOT_ON_RTX else ALL


# Types of layers that a network's description is read by, which is plain data then.
LAYER_TYPES = [
    *network_types.PRODUCTS,
    *network_types._COMPUTES_NOTHING,
    *network_types._MOVES,
    *network_types._MOVES_IN_MODE,
    *attest_views._HANDS_ON,
    *("CONCATENATION", layer_diff.CONSTANT),
]

# Class (or "" for the module) -> member -> flavours that must have it.
USED_API: dict[str, dict[str, tuple[str, ...]]] = {
    "": dict.fromkeys(
        [
            "Builder",
            "BuilderFlag",
            "DataType",
            "EngineStat",
            "IAttentionInputLayer",
            "IConvolutionLayer",
            "IDeconvolutionLayer",
            "ILogger",
            "IOutputAllocator",
            "IPoolingLayer",
            "IProgressMonitor",
            "IReduceLayer",
            "IResizeLayer",
            "IRuntimeConfig",
            "IStreamWriter",
            "LayerInformationFormat",
            "LayerType",
            "MemoryPoolType",
            "NetworkDefinitionCreationFlag",
            "OnnxParser",
            "OnnxParserRefitter",
            "ProfilingVerbosity",
            "Refitter",
            "Runtime",
            "__version__",
            "init_libnvinfer_plugins",
        ],
        ALL,
    )
    | dict.fromkeys(["ComputeCapability", "CudaGraphStrategy", "EngineInvalidityDiagnostics"], RTX),
    "Builder": dict.fromkeys(
        [
            "build_serialized_network",
            "build_serialized_network_to_stream",
            "create_builder_config",
            "create_network",
            "create_optimization_profile",
        ],
        ALL,
    ),
    "BuilderFlag": {"TF32": ALL}
    | {name: flavours_of(option) for option, name in options.FLAGS.items()}
    | dict.fromkeys(options.REFIT.values(), ALL)
    | dict.fromkeys([name for names in options.TIMING.values() for name in names], TRT),
    "DataType": dict.fromkeys(["FLOAT", *TYPE_NAMES], ALL),
    "EngineInvalidityDiagnostics": {"__members__": RTX, "MALFORMED_ENGINE": RTX},
    "IAttention": {"decomposable": ALL},
    "IAttentionInputLayer": {"attention": ALL},
    "IBuilderConfig": dict.fromkeys(
        [
            *("add_optimization_profile", "clear_flag", "get_flag", "get_memory_pool_limit"),
            *("profiling_verbosity", "progress_monitor", "set_flag", "set_memory_pool_limit"),
        ],
        ALL,
    )
    | {name: flavours_of(option) for option, name in options.NUMBERS.items()}
    | {name: flavours_of(option) for option, (name, _) in options.CHOICES.items()}
    | dict.fromkeys(["create_timing_cache", "get_timing_cache", "set_timing_cache"], TRT)
    | dict.fromkeys(["num_compute_capabilities", "set_compute_capability"], RTX),
    **dict.fromkeys(
        ["IConvolutionLayer", "IDeconvolutionLayer"],
        dict.fromkeys(["kernel_size_nd", "num_groups", "num_output_maps"], ALL),
    ),
    "IHostMemory": {"nbytes": ALL},
    "ICudaEngine": dict.fromkeys(
        [
            "create_engine_inspector",
            "create_execution_context",
            "get_aliased_input_tensor",
            "get_engine_stat",
            "get_tensor_dtype",
            "get_tensor_location",
            "get_tensor_mode",
            "get_tensor_name",
            "get_tensor_profile_shape",
            "get_tensor_profile_values",
            "get_tensor_shape",
            "is_shape_inference_io",
            "num_io_tensors",
            "num_optimization_profiles",
            *("get_weight_streaming_automatic_budget", "refittable", "streamable_weights_size"),
            "weight_streaming_budget_v2",
        ],
        ALL,
    )
    | {"create_runtime_config": RTX},
    "EngineStat": {"STRIPPED_WEIGHTS_SIZE": ALL},
    "CudaGraphStrategy": {"WHOLE_GRAPH_CAPTURE": RTX},
    "IExecutionContext": dict.fromkeys(
        [
            *("active_optimization_profile", "execute_async_v3", "get_tensor_shape"),
            *("set_input_shape", "set_optimization_profile_async", "set_tensor_address"),
            "set_output_allocator",
        ],
        ALL,
    ),
    "IRuntimeConfig": dict.fromkeys(
        ["create_runtime_cache", "cuda_graph_strategy", "set_runtime_cache"], RTX
    ),
    "IRuntimeCache": dict.fromkeys(["deserialize", "serialize"], RTX),
    "EngineInspector": {"get_engine_information": ALL},
    "ILayer": dict.fromkeys(
        ["get_input", "get_output", "metadata", "name", "num_inputs", "num_outputs", "type"], ALL
    ),
    "ILogger": dict.fromkeys(["log", "Severity"], ALL),
    "INetworkDefinition": dict.fromkeys(
        ["get_input", "get_layer", "get_output", "num_inputs", "num_layers", "num_outputs"], ALL
    ),
    "IOptimizationProfile": dict.fromkeys(["set_shape", "set_shape_input"], ALL),
    "IProgressMonitor": dict.fromkeys(["phase_start", "step_complete", "phase_finish"], ALL),
    "IPoolingLayer": {"type": ALL},
    "IReduceLayer": {"op": ALL},
    "IResizeLayer": {"resize_mode": ALL},
    "IStreamWriter": {"write": ALL},
    "ITensor": dict.fromkeys(["dtype", "is_shape_tensor", "name", "shape"], ALL),
    "LayerInformationFormat": {"JSON": ALL},
    "ITimingCache": dict.fromkeys(["combine", "serialize"], TRT),
    "LayerType": dict.fromkeys(["ATTENTION_INPUT", *LAYER_TYPES], ALL),
    "ILogger.Severity": dict.fromkeys(native_log._LETTERS, ALL),
    "PoolingType": {network_types._MOVES_IN_MODE["POOLING"]: ALL},
    "ReduceOperation": {network_types._MOVES_IN_MODE["REDUCE"]: ALL},
    "InterpolationMode": {network_types._MOVES_IN_MODE["RESIZE"]: ALL},
    "MemoryPoolType": {name: flavours_of(option) for option, (name, _) in options.POOLS.items()},
    "NetworkDefinitionCreationFlag": {"STRONGLY_TYPED": ALL},
    "OnnxParser": dict.fromkeys(["get_error", "num_errors", "parse_from_file"], ALL),
    "ParserError": dict.fromkeys(
        ["code", "desc", "local_function_stack", "node", "node_name", "node_operator"], ALL
    ),
    "OnnxParserRefitter": {"refit_from_file": ALL},
    "ProfilingVerbosity": {"DETAILED": ALL},
    "Refitter": {"refit_cuda_engine": ALL},
    "Runtime": dict.fromkeys(["deserialize_cuda_engine", "engine_host_code_allowed"], ALL)
    | {"get_engine_validity": RTX},
    "TensorIOMode": {"INPUT": ALL},
    "TensorLocation": {"HOST": ALL},
}
for _option, (_, _kind) in options.CHOICES.items():
    USED_API[_kind] = {
        str(value).upper(): flavours_of(_option)
        for value in get_args(get_args(EngineOptions.model_fields[_option].annotation)[0])
    }
    USED_API[""][_kind] = flavours_of(_option)

# How variables of these classes are called in the engine room.
VARIABLES = {
    "trt": "",
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "definition": "INetworkDefinition",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "mine": "ITimingCache",
    "first": "ParserError",
    "layer": "ILayer",
    "attention": "IAttention",
    "plan": "IHostMemory",
    "convolution": "IConvolutionLayer",
    "inspector": "EngineInspector",
    "tensor": "ITensor",
    "profile": "IOptimizationProfile",
    "reader": "OnnxParserRefitter",
    "refitter": "Refitter",
    "runtime": "Runtime",
    "runtime_cache": "IRuntimeCache",
    "runtime_config": "IRuntimeConfig",
    "engine": "ICudaEngine",
    **{name: name for name in USED_API if name},
}
MODULES = [
    *("tensorrt", "network", "layers", "options", "targets", "timing_cache", "progress"),
    *("native_log", "infer", "inspector", "probe", "session", "interface", "refit"),
    *("lane", "weight_streaming", "measuring/served"),
]
# What the inspector wrote is plain data there.
PLAIN_DATA = {"inspector": ("layer", "tensor")}
# Not NVIDIA's: our module called network, a mapping called profile, exceptions and a class's name.
OURS = {
    ("INetworkDefinition", name)
    for name in [
        "network_flags",
        "parse",
        "check_interface",
        "check_profiles",
        "make_attention_decomposable",
        "add_profiles",
        "set_shapes",
    ]
} | {
    ("", "__name__"),
    ("ILayer", "__class__"),
    ("IConvolutionLayer", "__class__"),
    ("ILayer", "attention"),
}

# Functions that look members up by the names in a table, which is held against USED_API above.
LOOKED_UP = {
    *("layers._kernel", "layers._layer"),
    *("options._member", "options._set_property", "targets.set_targets"),
}

ASK = """
import functools, json, sys
import tensorrt_bindings as trt
trt.__name__ = "tensorrt"
from trtforge.engine.network import network_flags

def kind(name):
    return functools.reduce(lambda held, part: getattr(held, part, None), name.split("."), trt)

members = {name: dir(kind(name)) for name in json.loads(sys.argv[1]) if name}
print(json.dumps({"": dir(trt), **members, "flags": network_flags(trt), "v": trt.__version__,
"allocator": trt.IOutputAllocator.__doc__}))
"""


def used_in_source() -> Uses:
    """All uses in the engine room, but for those of what is plain data or ours there."""
    whole = Uses()
    for module in MODULES:
        held = {
            name: kind for name, kind in VARIABLES.items() if name not in PLAIN_DATA.get(module, ())
        }
        found = uses((ENGINE / f"{module}.py").read_text(), held)
        whole.members |= found.members
        whole.compared |= found.compared
        whole.looked_up |= {f"{module}.{name}" for name in found.looked_up}
        whole.unknown |= {f"{module}: {text}" for text in found.unknown}
    whole.members = {pair for pair in whole.members - OURS if pair[1] != "__init__"}
    return whole


TABLE = {(kind, member) for kind, members in USED_API.items() for member in members}


def test_the_table_names_all_that_the_source_uses():
    found = used_in_source()
    assert found.members - TABLE == set()
    assert found.compared <= {member for _, member in TABLE}
    assert found.unknown == {f"session: path.{name}" for name in ("is_file", "read_bytes")}
    assert found.looked_up == LOOKED_UP
    # The options' tables are in USED_API as they are; TensorRT-RTX itself names its targets.
    forms = {(form, member) for form, member in layers._MODES.values()}
    forms |= {("", form) for form, _ in layers._MODES.values()}
    assert forms | {("", form) for form in layers._CONVOLUTIONS.values()} <= TABLE


def test_every_module_that_holds_an_object_of_the_api_is_looked_at():
    holding = {path for path in ENGINE.rglob("*.py") if holds_api(path.read_text(), VARIABLES)}
    # The worker only loads it, ahead of time; what the inspector wrote is plain data.
    without = {ENGINE / "worker.py", ENGINE / "layer_diff.py"}
    assert holding - without <= {ENGINE / f"{module}.py" for module in MODULES}


READERS = ("layer_diff", "network_types")
"""Modules that read the description of a network by the names of its members."""


def test_every_text_that_looks_like_a_member_is_one():
    members = {member for _, member in TABLE}
    files = [ENGINE / f"{module}.py" for module in (*MODULES, *READERS)]
    texts = {
        text
        for file in (*files, Path(attest_views.__file__))
        for text in constants(file.read_text())
        if re.fullmatch(r"[A-Z][A-Z0-9_]{2,}", text) and not re.fullmatch(r"TF\d{4}", text)
    }
    assert len(texts) > 30
    assert texts - members - {"CUDA", "TRT"} == set()


def test_every_option_of_a_recipe_is_applied_or_refused():
    applied = {"refit", "timing_cache", *options.FLAGS, *options.NUMBERS, *options.CHOICES}
    assert set(EngineOptions.model_fields) == applied | (set(options.POOLS) - {"workspace_mib"})
    assert set(REFUSED["tensorrt_rtx"]) <= set(EngineOptions.model_fields)


def test_every_member_exists_in_tensorrt_rtx():
    missing = [
        f"{kind}.{member}"
        for kind, members in USED_API.items()
        for member, flavours in members.items()
        if "rtx" in flavours
        and not hasattr(attrgetter(kind)(tensorrt_rtx) if kind else tensorrt_rtx, member)
    ]
    assert missing == []


def methods_of_the_allocator() -> set[str]:
    """What our allocator defines: the bindings call it by name, and list it in their text alone."""
    (made,) = [
        node
        for node in ast.walk(ast.parse((ENGINE / "lane.py").read_text()))
        if isinstance(node, ast.ClassDef) and node.name == "Allocator"
    ]
    return {one.name for one in made.body if isinstance(one, ast.FunctionDef)}


def test_the_allocators_methods_are_those_that_tensorrt_rtx_calls():
    said = re.findall(r"def (\w+)\(", tensorrt_rtx.IOutputAllocator.__doc__)
    assert methods_of_the_allocator() - {"__init__"} == set(said) - {"__init__"}


@pytest.mark.parametrize(("major", "flags"), [("10", 1 << 1), ("11", 0)])
def test_every_member_exists_in_tensorrt(tmp_path, major, flags):
    version = VERSIONS[major]
    path = bindings(version)
    stub_libraries(major, tmp_path)
    asked = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(list(USED_API))],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(tmp_path),
            "PYTHONPATH": f"{path}{os.pathsep}{REPOSITORY}",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(asked.stdout)
    missing = [
        f"{kind}.{member}"
        for kind, members in USED_API.items()
        for member, flavours in members.items()
        if major in flavours and member not in found[kind]
    ]
    assert missing == []
    assert found["v"] == version
    assert methods_of_the_allocator() <= set(re.findall(r"def (\w+)\(", found["allocator"]))
    assert found["flags"] == flags, "networks are strongly typed on every flavour"
