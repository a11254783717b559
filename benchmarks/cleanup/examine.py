"""A child program that looks at graphs: what they hold, what they compute, what RTX makes of them.

Run under trtforge's Python (`python -P examine.py COMMAND ...`), so that a native crash or the
memory of one look does not touch the measuring process. The last line on stdout is one JSON object.

    describe MODEL                     nodes, operator domains, opset, bytes, files
    reference MODEL OUTPUTS.npz        run the model as written, keep its outputs
    compare MODEL OUTPUTS.npz OTHER    describe OTHER, run it as written, compare
    build MODEL                        parse and build with TensorRT-RTX: seconds and engine bytes
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)
BATCH = 2
LENGTH = 37
STANDARD_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
PROFILE_BATCH = (1, 2, 8)
PROFILE_LENGTH = (1, 64, 128)
PERTURBATION = 1e-4
_LOGITS = "logits of output "
CARRIES_VALUES = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"}


def describe(path: Path) -> dict[str, Any]:
    """Count what the file holds; nodes of subgraphs and of functions count."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    nodes = [node for body in bodies for node in _all_nodes(body)]
    own = {function.domain for function in model.functions}
    external = {
        entry.value
        for tensor in _all_tensors(model, nodes)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = [path, *(path.parent / name for name in sorted(external))]
    initial = {tensor.name for tensor in model.graph.initializer}
    return {
        "nodes": len(nodes),
        "domains": sorted({node.domain for node in nodes} - STANDARD_DOMAINS - own),
        "functions": len(model.functions),
        "opset": max(
            (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
            default=0,
        ),
        "inputs": [value.name for value in model.graph.input if value.name not in initial],
        "outputs": [value.name for value in model.graph.output],
        "bytes": sum(file.stat().st_size for file in files),
        "files": [str(file) for file in files],
    }


def _all_nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _all_nodes(graph.node)


def _all_tensors(model: Any, nodes: list[Any]) -> Iterator[Any]:
    yield from model.graph.initializer
    for node in nodes:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from attribute.g.initializer


def reference(path: Path, outputs: Path) -> dict[str, Any]:
    """Run a model as written on every seed and keep what it gives.

    Says also how many dB are left when the largest weight in the file is off by `PERTURBATION`:
    what the comparison is able to see on this model.
    """
    import numpy as np

    session = _session(path)
    kept = {}
    for seed, feeds in _all_feeds(path):
        for name, value in _outputs(session, feeds).items():
            kept[f"{seed}/{name}"] = value
    np.savez(outputs, **kept)
    return {"outputs": len(kept), "perturbed_db": str(_perturbed_db(path, kept))}


def _perturbed_db(path: Path, kept: dict[str, Any]) -> float | None:
    """Compare the model with itself after a change; None where its weights are not in the file."""
    import numpy as np
    import onnx

    model = onnx.load(path, load_external_data=False)
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    floats = [tensor for tensor in floats if not tensor.external_data]
    if not floats:
        return None
    largest = max(floats, key=lambda tensor: int(np.prod(tensor.dims)))
    values = onnx.numpy_helper.to_array(largest)
    noise = np.random.default_rng(2026).standard_normal(values.shape, dtype=np.float32)
    changed = values * (1 + PERTURBATION * noise)
    largest.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), largest.name))
    seed, feeds = next(_all_feeds(path))
    found = _outputs(_session(path, model), feeds)
    return min(sqnr_db(kept[f"{seed}/{name}"], value) for name, value in found.items())


def _outputs(session: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    """Run once; the graph's own outputs go by number, logits by `_LOGITS` and their output's."""
    import numpy as np

    names = [value.name for value in session.get_outputs()]
    own = sum(not name.startswith(_LOGITS) for name in names)
    keys = [str(index) for index in range(own)] + names[own:]
    return dict(zip(keys, map(np.asarray, session.run(None, feeds)), strict=True))


def compare(path: Path, outputs: Path, other: Path) -> dict[str, Any]:
    """Describe `other` and hold its outputs against those that `path` gave."""
    original, found = describe(path), describe(other)
    found["contract_kept"] = all(found[side] == original[side] for side in ("inputs", "outputs"))
    found["foreign_domains"] = sorted(set(found["domains"]) - set(original["domains"]))
    del found["files"]
    try:
        found.update(_compared(path, outputs, other))
    except Exception as error:  # ONNX Runtime's errors have no common type; the run goes on
        found["cannot_run"] = " ".join(str(error).split())[:200]
    return found


def _compared(path: Path, outputs: Path, other: Path) -> dict[str, Any]:
    """Return the lowest SQNR over all outputs and seeds, and whether logits are among them."""
    import numpy as np

    session = _session(other)
    taken = {value.name for value in session.get_inputs()}
    lowest, without_logits = float("inf"), False
    with np.load(outputs) as wanted:
        for seed, feeds in _all_feeds(path):
            found = _outputs(session, {name: feeds[name] for name in feeds if name in taken})
            for place in (key for key in wanted.files if key.startswith(f"{seed}/")):
                name = place.partition("/")[2]
                if name in found:
                    lowest = min(lowest, sqnr_db(wanted[place], found[name]))
                elif name.startswith(_LOGITS):
                    without_logits = True
                else:
                    lowest = -float("inf")
    return {"sqnr_db": str(lowest), "without_logits": without_logits}


def sqnr_db(reference_values: Any, candidate: Any) -> float:
    """Signal to noise in dB; inf where the two are the same, -inf where they cannot be compared."""
    import numpy as np

    if candidate.shape != reference_values.shape or candidate.dtype != reference_values.dtype:
        return -float("inf")
    signal, other = reference_values.astype(np.float64), candidate.astype(np.float64)
    if np.array_equal(signal, other, equal_nan=True):
        return float("inf")
    noise = float(np.sum((signal - other) ** 2))
    power = float(np.sum(signal**2))
    if not np.isfinite(noise) or not np.isfinite(power) or power == 0:
        return -float("inf")
    return float(10 * np.log10(power / noise)) if noise else float("inf")


def _session(path: Path, model: Any = None) -> Any:
    """Load a model to be run as written, in one thread: sums are then made in the same order.

    What an output's Softmax takes becomes an output too: a Softmax that saturates gives 0 and 1
    whatever the graph before it computes, and would make any two graphs equal.
    """
    import onnx
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.use_deterministic_compute = True
    folder = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(folder, str(path.parent))
    given = model is not None
    model = model if given else onnx.load(path, load_external_data=False)
    changed = _add_logits(model) or given
    source = model.SerializeToString() if changed else str(path)
    del model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _add_logits(model: Any) -> bool:
    """Add the tensors before the last Softmax to the outputs; says whether there are any."""
    import onnx

    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    own = list(graph.output)
    for index, value in enumerate(own):
        node = makers.get(value.name)
        while node is not None and node.op_type in CARRIES_VALUES:
            node = makers.get(node.input[0])
        if node is not None and node.op_type in ("Softmax", "LogSoftmax", "Sigmoid"):
            logits = f"{_LOGITS}{index}"
            graph.node.append(onnx.helper.make_node("Identity", [node.input[0]], [logits]))
            kind = value.type.tensor_type.elem_type
            graph.output.append(onnx.helper.make_tensor_value_info(logits, kind, None))
    return len(graph.output) > len(own)


def _all_feeds(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Make inputs for every seed: N(0, 1) for floats, indices below the table's rows, masks.

    Masks are ones; with the last seed, their last quarter is zeros, as of padded sequences.
    """
    import numpy as np
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    rows = _table_rows(graph)
    initial = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initial]
    for seed in SEEDS:
        random = np.random.default_rng([seed, 2026])
        sizes: dict[str, int] = {}
        feeds: dict[str, Any] = {}
        for value in inputs:
            tensor = value.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            shape = [_size(dim, axis, seed, sizes) for axis, dim in enumerate(tensor.shape.dim)]
            if dtype.kind == "f":
                feeds[value.name] = random.standard_normal(shape).astype(dtype)
            elif value.name in rows:
                feeds[value.name] = random.integers(0, rows[value.name], shape).astype(dtype)
            else:
                feeds[value.name] = np.ones(shape, dtype)
                if seed == SEEDS[-1] and len(shape) > 1:  # a mask that is lost would show
                    feeds[value.name][..., shape[-1] - shape[-1] // 4 :] = 0
        yield seed, feeds


def _size(dim: Any, axis: int, seed: int, sizes: dict[str, int]) -> int:
    """Choose a dimension's size; one symbol has one size."""
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    default = BATCH if axis == 0 else LENGTH + seed
    return sizes.setdefault(dim.dim_param, default) if dim.dim_param else default


def _table_rows(graph: Any) -> dict[str, int]:
    """Say for each input that indexes constant tables how many rows the smallest of them has."""
    dims = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    holds = {value.name: value.name for value in graph.input}
    rows: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in CARRIES_VALUES and node.input[0] in holds:
            holds[node.output[0]] = holds[node.input[0]]
        elif node.op_type == "Constant":
            tensor = next((entry.t for entry in node.attribute if entry.name == "value"), None)
            dims[node.output[0]] = list(tensor.dims) if tensor is not None else []
        elif node.op_type == "Gather" and node.input[1] in holds and dims.get(node.input[0]):
            axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 0)
            name, size = holds[node.input[1]], dims[node.input[0]][axis]
            rows[name] = min(rows.get(name, size), size)
    return rows


def build(path: Path) -> dict[str, Any]:
    """Parse and build one FP32 engine for the default compute capabilities."""
    import tensorrt_rtx

    from trtforge.engine.network import make_attention_decomposable

    logger = tensorrt_rtx.Logger(tensorrt_rtx.Logger.INTERNAL_ERROR)
    builder = tensorrt_rtx.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt_rtx.OnnxParser(network, logger)
    started = time.perf_counter()
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        return {"cannot_build": " ".join(errors[0].split())[:200] if errors else "cannot parse"}
    parsed = time.perf_counter()
    attention = make_attention_decomposable(tensorrt_rtx, network)
    config = builder.create_builder_config()
    _add_profile(builder, config, network)
    engine = builder.build_serialized_network(network, config)
    ended = time.perf_counter()
    if engine is None:
        return {"cannot_build": "the builder refuses the network"}
    return {
        "parse_seconds": parsed - started,
        "build_seconds": ended - parsed,
        "bytes": engine.nbytes,
        "layers": network.num_layers,
        "attention_layers": attention,
    }


def _add_profile(builder: Any, config: Any, network: Any) -> None:
    """Add one profile where an input is dynamic."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor for tensor in tensors if -1 in tuple(tensor.shape)]
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        bounds = [_bounds(size, axis) for axis, size in enumerate(tuple(tensor.shape))]
        profile.set_shape(tensor.name, *([bound[which] for bound in bounds] for which in range(3)))
    config.add_optimization_profile(profile)


def _bounds(size: int, axis: int) -> tuple[int, int, int]:
    if size >= 0:
        return (size, size, size)
    return PROFILE_BATCH if axis == 0 else PROFILE_LENGTH


COMMANDS = {"describe": describe, "reference": reference, "compare": compare, "build": build}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(COMMANDS[sys.argv[1]](*map(Path, sys.argv[2:]))) + "\n")
