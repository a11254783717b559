"""Builds ONNX files with the real TensorRT-RTX parser and builder; one JSON line per file.

A program of its own: a native crash must not take the tests along, and only one logger may be
registered per process.
"""

import json
import sys

import tensorrt_rtx as trt


class Log(trt.ILogger):
    """Collects errors."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message[:300])


LOG = Log()


def build(path: str) -> tuple[list[str], int]:
    """Errors, and the size of the engine."""
    LOG.errors.clear()
    builder = trt.Builder(LOG)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, LOG)
    if not parser.parse_from_file(path):
        return [parser.get_error(i).desc()[:300] for i in range(parser.num_errors)], 0
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    dynamic = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape:
            dynamic = True
            dims = [[size if dim < 0 else dim for dim in shape] for size in (1, 4, 16)]
            profile.set_shape(tensor.name, *dims)
    if dynamic:
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        return LOG.errors or ["the builder returned nothing"], 0
    return list(LOG.errors), int(engine.nbytes)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        errors, size = build(name)
        sys.stdout.write(json.dumps({"file": name, "errors": errors, "bytes": size}) + "\n")
        sys.stdout.flush()
