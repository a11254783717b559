"""A small bundle: its draft and files as a build of the digits recipe hands them over."""

import hashlib

from trtforge.bundle.manifest import (
    ManifestDraft,
    ModelFacts,
    NodeRuleFacts,
    PrecisionFacts,
    Provenance,
    RecipeFacts,
    TargetFacts,
    TensorFacts,
    VerdictFacts,
    Verdicts,
)
from trtforge.recipe.schema import ShapeRange

FILES = {
    "recipe.yaml": b"version: 1\nname: digits-int8\n",
    "model.onnx": b"\x08\x0a typed graph",
    "engines/rtx/model.engine": b"ftrt" + bytes(range(256)) * 8,
    "engines/rtx/build.log": b"[I] built\n",
    "calibration/cache.json": b'{"schema": "trtforge.calibration/1"}\n',
    "reports/parity.json": b"{}\n",
    "reports/empty.txt": b"",
}


def digest(content):
    return hashlib.sha256(content).hexdigest()


def draft(**changes):
    facts = {
        "name": "digits-int8",
        "trtforge": "0.1.0",
        "recipe": RecipeFacts(name="digits-int8", sha256=digest(FILES["recipe.yaml"])),
        "model": ModelFacts(
            digest=f"sha256:{digest(FILES['model.onnx'])}",
            opset=19,
            included=True,
            inputs=(TensorFacts(name="image", dtype="float32", dims=("N", 1, 8, 8)),),
            outputs=(TensorFacts(name="logits", dtype="float32", dims=("N", 10)),),
        ),
        "profiles": ({"image": ShapeRange(min=(1, 1), opt=(2, 1), max=(4, 1))},),
        "precision": PrecisionFacts(
            type="fp16",
            quantize="int8",
            force=(NodeRuleFacts(op="Softmax", type="fp16"),),
            io_types="convert",
        ),
        "targets": (
            TargetFacts(
                name="rtx",
                backend="tensorrt_rtx",
                version="1.7.1.116",
                engine="engines/rtx/model.engine",
                compute_capabilities=("8.6",),
                bytes=len(FILES["engines/rtx/model.engine"]),
            ),
        ),
        "provenance": Provenance(
            source_digest=f"sha256:{digest(b'source')}",
            overrides={"precision.type": "fp16"},
            versions={"onnx": "1.23.2"},
            platform="linux-x86_64",
        ),
        "verdicts": Verdicts(
            graph_parity=VerdictFacts(verdict="pass", figures={"sqnr_db": 24.5}),
            engine_parity={"rtx": VerdictFacts(verdict="not_run", reason="no NVIDIA driver")},
            attest=VerdictFacts(verdict="pass"),
        ),
        "timings": {"build:rtx": 2.125},
    }
    return ManifestDraft(**(facts | changes))


def snapshot(folder):
    """Return every file below a folder with its bytes, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
