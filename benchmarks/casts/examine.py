"""examine.py judge MODEL CAST HELD | samples DATA FOLDER N | planted FOLDER: one JSON line.

judge: the cast file on held-out samples, as ONNX Runtime runs it (as written, without
optimizations: its kernels still compute FP16 in FP32) and emulated, every result rounded to its
type; what it holds. samples: the first samples as single .npz files. planted: the models of
tests/planted_faults.py with their data.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "int8"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import numpy as np
import onnx
from samples import count, feeds

_JUDGED = 24
"""Samples at most: on eight, the rounding of a few weights alone moves resnet50 by 1.5 dB."""


def judge(original: str, cast: str, held: str) -> dict[str, Any]:
    """Compare a cast file with its original."""
    from trtforge.graph.execute import Session
    from trtforge.graph.model import Model
    from trtforge.precision.attest import attest
    from trtforge.precision.emulate import emulate

    names = list(Session(Path(original)).input_names)
    runs = list(feeds(held, names, min(_JUDGED, count(held))))
    reference = _outputs(lambda: Session(Path(original)), runs)
    before, after = (onnx.load(path, load_external_data=False) for path in (original, cast))
    found: dict[str, Any] = {
        "nodes": len(after.graph.node),
        "casts": _casts(after.graph) - _casts(before.graph),
        "bytes": sum(p.stat().st_size for p in Path(cast).parent.iterdir()),
    }
    for name, session in (
        ("written", lambda: Session(Path(cast))),
        ("emulated", lambda: Session(emulate(Model.load(Path(cast))))),
    ):
        try:
            found[f"{name}_db"] = _worst(reference, _outputs(session, runs))
        except Exception as error:  # what a peer writes may fail in any way
            found[f"{name}_failed"] = str(error).splitlines()[0][:200]
    try:
        macs = attest(Model.load(Path(cast)), {n: v.shape for n, v in runs[0].items()}).macs
        found["wide_macs"] = macs.get("fp32", 0) / max(sum(macs.values()), 1)
    except Exception as error:
        found["macs_failed"] = str(error).splitlines()[0][:200]
    return found


def _outputs(session: Callable[[], Any], runs: list[dict[str, Any]]) -> list[Any]:
    loaded = session()
    with np.errstate(all="ignore"):
        rows = [list(loaded.run(run).values()) for run in runs]
    return [np.stack(column) for column in zip(*rows, strict=True) if column[0].dtype.kind == "f"]


def _worst(reference: list[Any], candidate: list[Any]) -> str:
    from trtforge.precision.range_check import sqnr_db

    pairs = zip(reference, candidate, strict=True)
    worst = min((sqnr_db(a.reshape(-1), b.reshape(-1)) for a, b in pairs), default=math.inf)
    return f"{worst:.1f}"


def _casts(graph: onnx.GraphProto) -> int:
    inner = (a.g for node in graph.node for a in node.attribute if a.HasField("g"))
    return sum(node.op_type == "Cast" for node in graph.node) + sum(map(_casts, inner))


def samples(data: str, folder: str, number: str) -> dict[str, Any]:
    """Write the first samples one by one, with the model's names for inputs."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    model, _, path = data.partition("::")
    names = [value.name for value in onnx.load(model, load_external_data=False).graph.input]
    constants = {w.name for w in onnx.load(model, load_external_data=False).graph.initializer}
    names = [name for name in names if name not in constants]
    for index, sample in enumerate(feeds(path, names, int(number))):
        np.savez(Path(folder) / f"{index}.npz", **sample)
    return {}


def planted(folder: str) -> dict[str, Any]:
    """Write all models with a fault; tell their names, and what is planted."""
    from planted_faults import BUILDERS

    found = {}
    for build in BUILDERS:
        fault = build()
        onnx.save(fault.proto, Path(folder) / f"{fault.name}.onnx")
        np.savez(Path(folder) / f"{fault.name}.npz", **fault.data)
        found[fault.name] = fault.fault
    return found


_JOBS = {"judge": judge, "samples": samples, "planted": planted}

if __name__ == "__main__":
    print(json.dumps(_JOBS[sys.argv[1]](*sys.argv[2:])))
