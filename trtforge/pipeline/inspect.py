"""`trtforge inspect`: tells an ONNX file, an engine, a bundle and a calibration cache apart."""

from collections import Counter
from pathlib import Path
from typing import Any

from trtforge.errors import Place, UsageError
from trtforge.pipeline.engine_files import built_beside, engine_file
from trtforge.pipeline.file_kinds import first_bytes, kind_of, plan_versions
from trtforge.pipeline.store import file_sha256


def inspect_path(path: Path) -> dict[str, Any]:
    """Return what a file or folder is, as JSON data with a `kind`.

    Raises:
        UsageError: there is nothing there, or it is none of these things.
        GraphError, DataError, IntegrityError: it is one of them, but not sound.
    """
    readers = {
        "bundle": _bundle,
        "onnx": _onnx,
        "calibration cache (TensorRT text)": _text_cache,
        "calibration cache": _json_cache,
        "engine layers": _layers,
        "engine": _engine,
    }
    return readers[kind_of(path)](path)


def _bundle(path: Path) -> dict[str, Any]:
    from trtforge.bundle.read import open_bundle

    manifest = open_bundle(path).manifest.as_json()
    manifest["files"] = {name: facts["bytes"] for name, facts in manifest["files"].items()}
    return {"kind": "bundle", "digests": "all files as the manifest says", **manifest}


def _onnx(path: Path) -> dict[str, Any]:
    from trtforge.graph.model import Model
    from trtforge.graph.weights import storage_bytes

    model = Model.load(path)
    graph = model.proto.graph
    operators = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in graph.node
    )
    return {
        "kind": "onnx",
        "digest": model.digest(),
        "opset": model.opset,
        "ir_version": model.proto.ir_version,
        "producer": f"{model.proto.producer_name} {model.proto.producer_version}".strip(),
        **model.contract.as_json(),
        "nodes": len(graph.node),
        "operators": dict(sorted(operators.items())),
        "initializers": len(graph.initializer),
        "initializer_bytes": sum(map(storage_bytes, graph.initializer)),
    }


def _engine(path: Path) -> dict[str, Any]:
    known = engine_file(path)
    if known.target is None:
        return _bare_engine(path)
    facts: dict[str, Any] = {"target": known.target, "options": dict(known.options)}
    if known.is_stripped:
        facts["weights"] = "stripped: they are put back from the ONNX that it was built from"
    return _bare_engine(path) | facts


def _bare_engine(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size == 0:
        raise UsageError("TF0720", f"'{path}' is empty", "build the engine again", Place(str(path)))
    facts: dict[str, Any] = {"kind": "engine", "bytes": size, "sha256": file_sha256(path)}
    if (versions := plan_versions(first_bytes(path))) is not None:
        serialization, version = versions
        return facts | {
            "flavour": "tensorrt",
            "serialization_version": serialization,
            "tensorrt_version": version if serialization == 0 else None,
        }
    if (built := built_beside(path)) is not None:
        return facts | {"built": built}
    return facts | {"note": "no published header, and no build.json beside it tells more"}


def _layers(path: Path) -> dict[str, Any]:
    from trtforge.engine.layer_diff import diff_layers
    from trtforge.pipeline.layer_documents import read_layers

    rows = read_layers(path)
    totals = diff_layers(rows, rows).totals["before"]
    return {"kind": "engine layers", **totals, "rows": [row.as_json() for row in rows]}


def _text_cache(path: Path) -> dict[str, Any]:
    from trtforge.precision.trt_text import read_trt_text

    table = read_trt_text(path)
    return {
        "kind": "calibration cache (TensorRT text)",
        "header": table.header,
        "algorithm": table.algorithm,
        "tensors": len(table.scales),
        "dead_tensors": list(table.dead_tensors),
        "scales": dict(table.scales),
    }


def _json_cache(path: Path) -> dict[str, Any]:
    from trtforge.precision.foreign import read_any, what_is

    name, cache = read_any(path)
    kind = "calibration cache" if name == "trtforge" else f"calibration cache ({what_is(name)})"
    facts = cache.as_json()
    for name, found in cache.ranges.items():
        if found.histogram is not None:  # its counts are a wall of text
            histogram = found.histogram.restore()
            facts["ranges"][name]["histogram"] = {
                "covers": 2.0**histogram.exponent,
                "values": int(histogram.counts.sum()),
                "zeros": histogram.zeros,
            }
        del facts["ranges"][name]["amax_total"]
    return {"kind": kind, **facts}
