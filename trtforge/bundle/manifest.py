"""The manifest of a bundle: contract, targets, digests of every file, provenance and verdicts.

The file is canonical JSON and carries a digest of itself, so that a changed byte anywhere in a
bundle, the manifest included, is noticed. (Noticed, not proven: against someone who rewrites both,
only a signature helps.)
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from trtforge.bundle.paths import MANIFEST_NAME, SIGNATURE_NAME, folded, path_problem, shown
from trtforge.recipe.fields import Name
from trtforge.recipe.schema import BackendName, FloatType, QuantizedType, ShapeRange

BUNDLE_SCHEMA: Final = "trtforge.bundle/2"
READ_SCHEMAS: Final = ("trtforge.bundle/1", BUNDLE_SCHEMA)
"""Formats that are read. The first does not tell `force` and `io_types` of the precision."""

SCHEMA_PREFIX: Final = "trtforge.bundle/"

Verdict = Literal["pass", "fail", "not_run"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Rfc3339 = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


def _sound_path(path: str) -> str:
    if problem := path_problem(path):
        raise ValueError(f"file name '{shown(path)}' is not allowed: {problem}")
    if path in (MANIFEST_NAME, SIGNATURE_NAME):
        raise ValueError(f"'{path}' cannot be listed in the manifest")
    return path


RelativePath = Annotated[str, AfterValidator(_sound_path)]


class Part(BaseModel):
    """The base of all parts: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RecipeFacts(Part):
    """The recipe, as resolved.

    Attributes:
        name: its name.
        sha256: of the resolved recipe's text, overrides included.
    """

    name: Name
    sha256: Sha256


class TensorFacts(Part):
    """One input or output: name, numpy type name, and dims (a name or None where dynamic)."""

    name: str
    dtype: str
    dims: tuple[int | str | None, ...]


class ModelFacts(Part):
    """The typed ONNX that the engines were built from.

    Attributes:
        digest: of its content, external data included.
        opset: of the default operator domain.
        included: whether the bundle holds the file.
        inputs: in the model's order.
        outputs: in the model's order.
    """

    digest: Digest
    opset: int
    included: bool
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]


class NodeRuleFacts(Part):
    """Nodes that compute in a type of their own, as the recipe says."""

    op: str | None = None
    name: str | None = None
    path: str | None = None
    type: FloatType


class PrecisionFacts(Part):
    """What the recipe asks for; what the graph really has stands in the attestation.

    Attributes:
        type: of what is not quantized.
        quantize: what weights and activations are quantized to.
        keep: nodes that are not quantized, and the type that they have.
        force: nodes whose type no ranges decide; None in a bundle that does not tell.
        io_types: whether inputs and outputs are narrow too; None in a bundle that does not tell.
    """

    type: FloatType
    quantize: QuantizedType
    keep: tuple[NodeRuleFacts, ...] = ()
    force: tuple[NodeRuleFacts, ...] | None = None
    io_types: Literal["keep", "convert"] | None = None


class DataFacts(Part):
    """Data that calibration used: its digest, and what it is for people."""

    digest: str
    source: str = ""


class CalibrationFacts(Part):
    """Where the ranges of activations come from.

    Attributes:
        method: a calibration method, or what another tool called its own.
        options: settings of the method.
        samples: how many were seen; 0 where a reused cache does not tell.
        tensors: how many have a range.
        data: what was seen.
        synthetic: whether any of it was made up.
        origin: what a reused cache was converted from; empty for trtforge's own.
    """

    method: str
    options: dict[str, int | float | str] = Field(default_factory=dict)
    samples: Annotated[int, Field(ge=0)]
    tensors: Annotated[int, Field(ge=0)]
    data: tuple[DataFacts, ...] = ()
    synthetic: bool
    origin: str = ""


class TargetFacts(Part):
    """One target.

    Attributes:
        name: of the target.
        backend: that built it.
        version: of the backend's library.
        engine: the engine's file in the bundle; None where the backend builds none.
        compute_capabilities: that the engine was built for; empty means the library's default.
        bytes: the engine's size; 0 where there is none.
        options: of the builder, those that the recipe gives.
    """

    name: Name
    backend: BackendName
    version: str
    engine: RelativePath | None = None
    compute_capabilities: tuple[str, ...] = ()
    bytes: Annotated[int, Field(ge=0)] = 0
    options: dict[str, JsonValue] = Field(default_factory=dict)


class FileFacts(Part):
    """One file of the bundle."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0, strict=True)]


class Provenance(Part):
    """Where the bundle comes from.

    Attributes:
        source_digest: of the original model, external data included.
        overrides: what `--set` changed in the recipe.
        versions: of the libraries that can change the result.
        platform: operating system and machine, e.g. "linux-x86_64".
    """

    source_digest: Digest
    overrides: dict[str, JsonValue] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    platform: str


class VerdictFacts(Part):
    """One verdict: what, why, and the few figures worth seeing without opening a report."""

    verdict: Verdict
    reason: str | None = None
    figures: dict[str, JsonValue] = Field(default_factory=dict)


class Verdicts(Part):
    """All verdicts on the bundle; engine parity by target."""

    graph_parity: VerdictFacts
    engine_parity: dict[str, VerdictFacts] = Field(default_factory=dict)
    attest: VerdictFacts


class ManifestDraft(Part):
    """All of a manifest that its files do not tell.

    Attributes:
        timings: seconds that each stage took, e.g. {"build:rtx": 2.1}; not part of the content.
    """

    name: Name
    trtforge: str
    recipe: RecipeFacts
    model: ModelFacts
    profiles: tuple[dict[str, ShapeRange], ...] = ()
    precision: PrecisionFacts
    calibration: CalibrationFacts | None = None
    targets: tuple[TargetFacts, ...]
    provenance: Provenance
    verdicts: Verdicts
    timings: dict[str, float] = Field(default_factory=dict)


class Manifest(ManifestDraft):
    """The manifest of a written bundle.

    Attributes:
        id: 8 hexadecimal digits over the content, see `bundle_id`.
        created: when the bundle was written, RFC 3339 in UTC.
        files: every file of the bundle but the manifest and a signature.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_tag: Literal["trtforge.bundle/1", "trtforge.bundle/2"] = Field(
        BUNDLE_SCHEMA, alias="schema"
    )
    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
    created: Rfc3339
    files: dict[RelativePath, FileFacts]

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if len({folded(path) for path in self.files}) != len(self.files):
            raise ValueError("two file names differ in case or spelling only")
        for target in self.targets:
            if target.engine is not None and target.engine not in self.files:
                raise ValueError(f"the engine of target '{target.name}' is not among the files")
        return self

    @property
    def folder_name(self) -> str:
        """The name that the bundle's folder is written under."""
        return f"{self.name}-{self.id}"

    def as_json(self) -> dict[str, Any]:
        """Return the manifest as plain JSON data."""
        return self.model_dump(mode="json", by_alias=True)

    def content(self) -> dict[str, Any]:
        """Return what makes two bundles equal: everything but times."""
        data = self.as_json()
        for measured in ("created", "timings"):
            del data[measured]
        return data


def bundle_id(draft: ManifestDraft, files: Mapping[str, FileFacts]) -> str:
    """Return 8 hexadecimal digits that name a bundle's content.

    They are the first of the sha256 over the canonical JSON of: the recipe's digest, the typed
    model's digest, and the digests of the engines and of the calibration. Reports, logs and times
    do not count, so building the same again gives the same name.
    """
    engines = {target.engine for target in draft.targets}
    counted = {
        path: facts.sha256
        for path, facts in files.items()
        if path in engines or path.startswith("calibration/")
    }
    content = {
        "recipe": draft.recipe.model_dump(mode="json"),
        "model": draft.model.digest,
        "files": counted,
    }
    return hashlib.sha256(canonical_json(content)).hexdigest()[:8]


def canonical_json(data: Any) -> bytes:
    """Return the one spelling of JSON data: keys sorted, ASCII, no spaces, no NaN.

    Raises:
        ValueError: a float is NaN or infinite; JSON has neither.
    """
    text = json.dumps(
        data, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False
    )
    return text.encode("ascii")


def manifest_bytes(data: Mapping[str, Any]) -> bytes:
    """Return the manifest's file: readable, in one spelling, with a digest of all the rest.

    Args:
        data: `Manifest.as_json()`, with or without its "digest".
    """
    body = {key: value for key, value in data.items() if key != "digest"}
    digest = "sha256:" + hashlib.sha256(canonical_json(body)).hexdigest()
    whole = {**body, "digest": digest}
    text = json.dumps(whole, sort_keys=True, ensure_ascii=True, indent=2, allow_nan=False)
    return text.encode("ascii") + b"\n"
