"""`trtforge init`: a commented recipe for a model, which builds as it is."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.disk import is_special, write_text
from trtforge.errors import ForgeError, Place, UsageError
from trtforge.recipe.writing import comment, recipe_name, relative_path, yaml_text

if TYPE_CHECKING:
    from trtforge.graph.contract import TensorSpec
    from trtforge.graph.model import Model
    from trtforge.pipeline.first_shapes import FirstShapes

_MOST_OPERATORS = 6
_TARGETS: dict[str, tuple[str, str]] = {
    # The GPUs are the portable set of TensorRT-RTX's support matrix: Ampere, Ada, Blackwell.
    "tensorrt_rtx": (
        "An engine for these GPUs, built on any machine; developer.nvidia.com/cuda-gpus has all.",
        '{name: rtx, backend: tensorrt_rtx, compute_capabilities: ["8.6", "8.9", "12.0"]}',
    ),
    "tensorrt": (
        "TensorRT 10 or 11, built on a machine with the GPU that it is for.",
        "{name: gpu, backend: tensorrt}",
    ),
    "onnxruntime": (
        "No engine: the typed ONNX itself, for any machine.",
        "{name: cpu, backend: onnxruntime}",
    ),
}
"""Backend -> what it is, and its target."""

_TOLERANCE_DB = {"fp16": 30, "bf16": 20}
"""What a type of so many bits easily keeps: rounding noise of FP16 is some 60 dB below the signal,
of BF16 some 45, and deep networks add it up."""


@dataclass(frozen=True)
class InitOptions:
    """What recipe is written, and where.

    Attributes:
        out: the recipe; None for the model's name with .yaml in the current folder.
        data: samples of the inputs: .npz, .npy, a folder of these, or Python code.
        backends: one target each.
        name: the recipe's name; None for the model's.
        force: write even where a file is.
    """

    out: Path | None = None
    data: Path | None = None
    backends: tuple[str, ...] = ("tensorrt_rtx", "onnxruntime")
    name: str | None = None
    force: bool = False


@dataclass(frozen=True)
class InitResult:
    """What was written.

    Attributes:
        path: the recipe.
        text: what it says.
        facts: what was found in the model, as plain JSON data.
        notes: what its author should do before the build.
    """

    path: Path
    text: str
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "path": str(self.path),
            "recipe": self.text,
            "model": dict(self.facts),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class _Draft:
    source: Path
    out: Path
    options: InitOptions
    model: "Model"
    shapes: "FirstShapes"
    facts: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """What the recipe's paths are relative to."""
        return self.out.absolute().parent

    @property
    def data(self) -> str | None:
        """The samples, as the recipe names them."""
        data = self.options.data
        return None if data is None else relative_path(data, self.folder)


def init(source: Path, options: InitOptions | None = None) -> InitResult:
    """Write a recipe for an ONNX model.

    Args:
        source: the ONNX file.
        options: where the recipe goes, and for what it is.

    Raises:
        UsageError: TF0160, there is a file already; TF0161, it is the model or the data.
        GraphError: the model is refused.
        DataError: the data cannot be read, or does not fit the model.
        MissingError: the recipe cannot be written.
    """
    options = options or InitOptions()
    out = options.out or Path(f"{source.stem}.yaml")
    _require_place(out, source, options)
    from trtforge.graph.model import Model
    from trtforge.pipeline.first_shapes import first_shapes

    model = Model.load(source)
    data = None if options.data is None else _samples(options.data, model)
    shapes = first_shapes(model, data)
    draft = _Draft(source, out, options, model, shapes, _facts(model, shapes))
    text = "\n".join(
        [_head(draft), _shapes(draft), _precision(draft), _targets(draft), _verify(draft)]
    )
    write_text(out, text)
    return InitResult(out, text, draft.facts, tuple(draft.notes))


def _require_place(out: Path, source: Path, options: InitOptions) -> None:
    for kind, path in (("model", source), ("data", options.data)):
        if path is not None and out.exists() and path.exists() and out.samefile(path):
            raise UsageError(
                "TF0161", f"'{out}' is the {kind}, not a recipe", "name another file: -o FILE.yaml"
            )
    if out.exists() and not is_special(out) and not options.force:
        raise UsageError(
            "TF0160",
            f"'{out}' exists",
            "overwrite it with --force, or name another file: -o FILE.yaml",
            Place(file=str(out)),
        )


def _samples(data: Path, model: "Model") -> Any:
    from trtforge.graph.sources import open_source
    from trtforge.recipe.calibration import Calibration

    return open_source(Calibration(data=str(data)), model.contract, Path)


def _facts(model: "Model", shapes: "FirstShapes") -> dict[str, Any]:
    import math

    from trtforge.graph.weights import model_nodes, model_tensors, storage_bytes
    from trtforge.precision.counting import type_name

    elements: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for tensor in model_tensors(model.proto):
        elements[type_name(tensor.data_type)] += math.prod(tensor.dims)
        sizes[type_name(tensor.data_type)] += storage_bytes(tensor)
    kinds = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for node in model_nodes(model.proto)
        if node.op_type != "Constant"
    )
    return {
        "opset": model.opset,
        "producer": f"{model.proto.producer_name} {model.proto.producer_version}".strip(),
        **model.contract.as_json(),
        "operators": dict(kinds.most_common()),
        "parameters": sum(n for kind, n in elements.items() if kind not in _NO_PARAMETERS),
        "weight_bytes": dict(sizes),
        "macs": _macs(model, shapes),
    }


_NO_PARAMETERS = ("int64", "int32", "bool", "string")


def _macs(model: "Model", shapes: "FirstShapes") -> int | None:
    """Multiply-accumulates at `opt`, None where shapes are not known."""
    from trtforge.precision.counting import Count

    at = {
        spec.name: tuple(dim for dim in spec.dims if isinstance(dim, int))
        for spec in model.contract.inputs
    } | shapes.at(1)
    try:
        return sum(node.macs for node in Count(model, at).nodes)
    except ForgeError:
        return None


def _head(draft: _Draft) -> str:
    facts = draft.facts
    operators: Mapping[str, int] = facts["operators"]
    shown = [f"{count} {kind}" for kind, count in list(operators.items())[:_MOST_OPERATORS]]
    if len(operators) > _MOST_OPERATORS:
        shown.append("...")
    nodes = sum(operators.values())
    made_by = f", made by {facts['producer']}" if facts["producer"] else ""
    lines = [
        f"Written by `trtforge init`. Build it: trtforge build {shlex.quote(str(draft.out))}",
        "",
        f"{draft.source.name}: opset {facts['opset']}{made_by}",
        f"  {nodes} node{'s' if nodes != 1 else ''}: {', '.join(shown)}",
        f"  {_size(draft)}",
        *_tensor_lines("input", draft.model.contract.inputs),
        *_tensor_lines("output", draft.model.contract.outputs),
    ]
    values = {
        "version": 1,
        "name": recipe_name(draft.options.name or draft.source.stem),
        "model": {"onnx": relative_path(draft.source, draft.folder)},
    }
    return comment(lines, hanging="    ") + yaml_text(values)


def _size(draft: _Draft) -> str:
    facts = draft.facts
    text = f"{_amount(facts['parameters'])} parameters, "
    text += f"{sum(facts['weight_bytes'].values()) / 1e6:.1f} MB"
    if facts["macs"] is None:
        return text
    where = " at the shapes of `opt`" if draft.shapes.profile else ""
    return f"{text}; {_amount(facts['macs'])} multiply-accumulates{where}"


def _amount(number: int) -> str:
    for unit, name in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= unit:
            return f"{number / unit:.1f}{name}"
    return str(number)


def _tensor_lines(side: str, specs: "Sequence[TensorSpec]") -> list[str]:
    return [f"  {side} {spec.name}: {spec.dtype} {spec.dims_text}" for spec in specs]


def _shapes(draft: _Draft) -> str:
    from trtforge.graph.deciding import deciding_inputs

    deciding = deciding_inputs(draft.model)
    if not draft.shapes.profile and not deciding:
        return comment(["Every input has a fixed shape, so the engine needs no profile."])
    lines = [
        "One profile: kernels are tuned for `opt`, and take every shape from `min` to `max`. Put "
        "in the shapes that your application asks for; the narrower, the faster. For shapes that "
        "you recorded: trtforge profiles suggest "
        f"{shlex.quote(str(draft.source))} --trace shapes.jsonl"
    ]
    told = [draft.shapes.note] if draft.shapes.note else []
    for name in deciding:
        told.append(
            f"input '{name}' decides shapes, so an engine needs the range of its values: "
            f"{name}: {{min: [...], opt: [...], max: [...], values: true}}"
        )
    draft.notes.extend(told)
    text = comment([*lines, *told])
    if not draft.shapes.profile:
        return text
    ranges = {
        name: {
            end: [axis[index] for axis in axes] for index, end in enumerate(("min", "opt", "max"))
        }
        for name, axes in draft.shapes.profile.items()
    }
    return text + yaml_text({"shapes": ranges})


def _precision(draft: _Draft) -> str:
    has_pairs = "DequantizeLinear" in draft.facts["operators"]
    lines = [
        "precision:",
        "  # What is not quantized computes in this type: fp32, fp16 or bf16.",
        f"  type: {_float_type(draft)}",
    ]
    if has_pairs:
        lines.append("  # The model has Q/DQ pairs already: what they quantize stays quantized.")
    else:
        lines += [
            "  # INT8 weights and activations; it takes the section `calibration`. Or fp8 (GPUs",
            "  # from 8.9 on), int8_weight_only, int4_weight_only.",
            "  # quantize: int8",
        ]
    lines += [
        "  # What must stay wider; `trtforge debug` finds it where parity fails.",
        "  # keep: [{op: Softmax, type: fp32}]",
    ]
    text = "\n".join(lines) + "\n"
    about = comment(
        ["Samples of the inputs: ranges are measured on them, for INT8 and for safe FP16."]
    )
    if draft.data is not None:
        return f"{text}\n{about}{yaml_text({'calibration': {'data': draft.data}})}"
    example = "# calibration: {data: calib.npz}   # an array per input, samples along axis 0\n"
    return f"{text}\n{about}{example}"


def _float_type(draft: _Draft) -> str:
    sizes: Mapping[str, int] = draft.facts["weight_bytes"]
    return "bf16" if sizes and max(sizes, key=lambda kind: sizes[kind]) == "bf16" else "fp16"


def _targets(draft: _Draft) -> str:
    asked = draft.options.backends
    refused = {backend: problems for backend in asked if (problems := _refused(draft, backend))}
    draft.notes.extend(dict.fromkeys(problem for one in refused.values() for problem in one))
    chosen = [backend for backend in asked if backend not in refused] or asked
    lines = ["targets:"]
    for backend in dict.fromkeys((*asked, *_TARGETS)):
        about, target = _TARGETS[backend]
        mark = "" if backend in chosen else "# "
        lines.append(f"  # {about}")
        for problem in refused.get(backend, ()):
            lines += _indented(comment([f"Not as the model is: {problem}."])).splitlines()
        lines.append(f"  {mark}- {target}")
    return "\n".join([*lines, ""])


def _refused(draft: _Draft, backend: str) -> list[str]:
    """Say what keeps a backend from taking the model's inputs and outputs."""
    from trtforge.graph.readiness.support import interface_problems

    found = interface_problems(draft.model, backend)
    return [f"TensorRT does not take '{one.node}': {one.reason}; {one.remedy}" for one in found]


def _verify(draft: _Draft) -> str:
    lines = [
        "verify:",
        "  # What counts as the same function as the original's. INT8 keeps some 20 dB.",
        f"  tolerance: {{sqnr_db: {_TOLERANCE_DB[_float_type(draft)]}}}",
        "  # Samples to judge by, better others than those for calibration; `labels` in it show "
        "accuracy.",
    ]
    data = draft.data
    if data is not None and data.endswith((".npz", ".npy")):
        return "\n".join(lines) + "\n" + _indented(yaml_text({"data": data}))
    return "\n".join([*lines, "  # data: test.npz", ""])


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
