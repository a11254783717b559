"""Make models/resnet50.onnx and synthetic data for it: seeded, from the onnx package, no download.

Run `python recipes/vision/make_model.py`; it needs nothing beyond trtforge's own dependencies.

The onnx package ships ResNet-50's graph with its weights left out (`light_resnet50.onnx`, each
weight a ConstantOfShape). This script raises its opset, makes the batch dynamic, and puts in
He-initialized weights and batch-normalization statistics measured on synthetic images, so that
activations have the ranges that a trained network's have. It classifies nothing: it is for
building, timing and comparing, with the real graph, sizes and ranges.
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, version_converter

SEED = 20261122
OPSET = 17
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_resnet50.onnx"
INPUT, OUTPUT = "image", "logits"
STATISTICS_SAMPLES = 16


def rng_for(name: str) -> np.random.Generator:
    """Return a generator that depends on the seed and a name, not on the order of calls."""
    digest = hashlib.sha256(f"{SEED}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def light_graph() -> onnx.ModelProto:
    """Return ResNet-50 without weights: opset raised, batch dynamic, ending at the logits."""
    model = version_converter.convert_version(onnx.load(LIGHT), OPSET)
    model.ir_version = 8  # from 4 on, initializers need not be inputs too
    graph = model.graph
    nodes = [node for node in graph.node if node.op_type != "Softmax"]
    names = {graph.input[0].name: INPUT, nodes[-1].output[0]: OUTPUT}
    for node in nodes:
        if node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"  # the same for two inputs, and what exporters write today
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    float32 = TensorProto.FLOAT
    graph.input.append(helper.make_tensor_value_info(INPUT, float32, ["N", 3, 224, 224]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, float32, ["N", 1000]))
    return model


def put_in_weights(model: onnx.ModelProto) -> None:
    """Replace every ConstantOfShape by a seeded initializer, and name the nodes."""
    graph = model.graph
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = {
        node.output[0]: tuple(int(size) for size in shapes[node.input[0]])
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    }
    made |= {name: value.shape for name, value in shapes.items() if value.dtype == np.float32}
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    tensors = [
        numpy_helper.from_array(initial(name, shape), name.removeprefix("gpu_0/"))
        for name, shape in made.items()
        if any(name in node.input for node in nodes)
    ]
    reshape = next(node for node in nodes if node.op_type == "Reshape")
    reshape.input[1] = "flat_shape"
    tensors.append(numpy_helper.from_array(np.array([-1, 2048], np.int64), "flat_shape"))
    for node in nodes:
        node.input[:] = [name.removeprefix("gpu_0/") for name in node.input]
        node.name = f"/{readable_name(node)}"
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)


def readable_name(node: onnx.NodeProto) -> str:
    """Name a node after its weights, or after its output where it has none."""
    has_weights = node.op_type in ("Conv", "BatchNormalization", "Gemm")
    source = node.input[1] if has_weights else node.output[0]
    return f"{source.removesuffix('_w_0').removesuffix('_s_0')}/{node.op_type}"


def initial(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a weight's first value: He for filters, near one and zero for scale and bias."""
    rng = rng_for(name)
    if name.endswith("_w_0"):
        fan_in = int(np.prod(shape[1:]))
        return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
    if name.endswith("_bn_s_0"):
        # A residual branch's last scale is small in trained networks; sums stay bounded.
        middle = 0.4 if "branch2c" in name else 1.0
        return rng.uniform(0.6 * middle, 1.4 * middle, shape).astype(np.float32)
    if name.endswith("_bn_b_0"):
        return (rng.standard_normal(shape) * 0.2).astype(np.float32)
    return np.zeros(shape, np.float32)


def images(count: int, name: str) -> np.ndarray:
    """Return synthetic images (count,3,224,224) float32, normalized as ImageNet's are.

    Each is a sum of colour noise at five scales, coarse ones stronger, as in photographs.
    """
    rng = rng_for(name)
    total = np.zeros((count, 3, 224, 224), np.float32)
    for size in (2, 7, 14, 56, 224):
        noise = rng.standard_normal((count, 3, size, size)).astype(np.float32)
        total += np.repeat(np.repeat(noise, 224 // size, 2), 224 // size, 3) * 6 / (6 + size)
    total += rng.standard_normal((count, 3, 1, 1)).astype(np.float32) * 0.5
    pixels = np.clip(0.45 + 0.2 * total, 0, 1)
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    pixels -= np.array(mean, np.float32)[:, None, None]
    return (pixels / np.array(deviation, np.float32)[:, None, None]).astype(np.float32)


def measuring_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with each BatchNormalization written out on its batch's own statistics.

    One run then gives the mean and variance of every layer, each measured on inputs that are
    already normalized: y = (x - mean) / sqrt(variance + epsilon) * scale + bias.
    """
    measuring = onnx.ModelProto()
    measuring.CopyFrom(model)
    graph = measuring.graph
    nodes: list[onnx.NodeProto] = []
    axes = {"axes": [0, 2, 3], "keepdims": 1}
    column = numpy_helper.from_array(np.array([1, -1, 1, 1], np.int64), "column")
    epsilon = numpy_helper.from_array(np.array(1e-5, np.float32), "epsilon")
    graph.initializer.extend([column, epsilon])
    for node in graph.node:
        if node.op_type != "BatchNormalization":
            nodes.append(node)
            continue
        x, scale, bias = node.input[:3]
        y = node.output[0]
        nodes += [
            helper.make_node("ReduceMean", [x], [f"{y}.mean"], **axes),
            helper.make_node("Sub", [x, f"{y}.mean"], [f"{y}.centered"]),
            helper.make_node("Mul", [f"{y}.centered"] * 2, [f"{y}.square"]),
            helper.make_node("ReduceMean", [f"{y}.square"], [f"{y}.variance"], **axes),
            helper.make_node("Add", [f"{y}.variance", "epsilon"], [f"{y}.sum"]),
            helper.make_node("Sqrt", [f"{y}.sum"], [f"{y}.root"]),
            helper.make_node("Div", [f"{y}.centered", f"{y}.root"], [f"{y}.normal"]),
            helper.make_node("Reshape", [scale, "column"], [f"{y}.scale"]),
            helper.make_node("Reshape", [bias, "column"], [f"{y}.bias"]),
            helper.make_node("Mul", [f"{y}.normal", f"{y}.scale"], [f"{y}.scaled"]),
            helper.make_node("Add", [f"{y}.scaled", f"{y}.bias"], [y]),
        ]
        for kind in ("mean", "variance"):
            value = helper.make_tensor_value_info(f"{y}.{kind}", TensorProto.FLOAT, None)
            graph.output.append(value)
    del graph.node[:]
    graph.node.extend(nodes)
    return measuring


def put_in_statistics(model: onnx.ModelProto) -> None:
    """Measure every BatchNormalization's mean and variance, and centre the logits."""
    run = runner(measuring_graph(model))
    found = run(images(STATISTICS_SAMPLES, "statistics"))
    values = {}
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            values[node.input[3]] = found[f"{node.output[0]}.mean"].ravel()
            values[node.input[4]] = found[f"{node.output[0]}.variance"].ravel()
        elif node.op_type == "Gemm":
            values[node.input[2]] = -found[OUTPUT].mean(axis=0)
    for tensor in model.graph.initializer:
        if tensor.name in values:
            array = values[tensor.name].astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def runner(model: onnx.ModelProto) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from images to all outputs by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return lambda batch: dict(zip(names, session.run(names, {INPUT: batch}), strict=True))


def make_resnet50() -> onnx.ModelProto:
    """Return ResNet-50: `image` (N,3,224,224) float32 -> `logits` (N,1000)."""
    model = light_graph()
    put_in_weights(model)
    put_in_statistics(model)
    model.graph.name = "resnet50"
    model.producer_name = "trtforge recipes/vision/make_model.py"
    model.doc_string = "ResNet-50's graph with seeded random weights; it classifies nothing"
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Write the model and its data, and print what was made as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models")
    parser.add_argument("--calibration-samples", type=int, default=64)
    parser.add_argument("--test-samples", type=int, default=16)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    model = make_resnet50()
    path = chosen.out / "resnet50.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    np.savez(chosen.out / "calib.npz", image=images(chosen.calibration_samples, "calibration"))
    test = images(chosen.test_samples, "test")
    np.savez(chosen.out / "test.npz", image=test)
    logits = runner(model)(test)[OUTPUT]
    figures = {
        "model": str(path),
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "nodes": len(model.graph.node),
        "opset": OPSET,
        "finite": bool(np.isfinite(logits).all()),
        "logits_deviation": round(float(logits.std()), 3),
        "classes_seen": len(set(logits.argmax(1).tolist())),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
