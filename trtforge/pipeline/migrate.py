"""`trtforge migrate`: a recipe from the command line or the spec of another tool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.disk import check_outputs, write_text
from trtforge.errors import ForgeError, Place, Problem, RecipeError, UsageError
from trtforge.recipe.migration.arguments import split_command
from trtforge.recipe.migration.polygraphy import from_polygraphy
from trtforge.recipe.migration.result import Draft, Finding, KnownModel, KnownTensor
from trtforge.recipe.migration.tao import from_tao
from trtforge.recipe.migration.trtexec import from_trtexec
from trtforge.recipe.migration.writing import recipe_text
from trtforge.recipe.writing import recipe_name, relative_path

if TYPE_CHECKING:
    from trtforge.graph.contract import TensorSpec

_TOOLS = {"trtexec": "tensorrt", "tensorrt_rtx": "tensorrt_rtx", "polygraphy": "tensorrt"}
"""Program -> the backend that it stands for."""

_INSTEAD = {
    "surgeon": "`trtforge optimize` cleans a model up",
    "inspect": "`trtforge inspect` says what a file is",
    "debug": "`trtforge debug` finds the nodes that break parity",
    "check": "`trtforge inspect` and `trtforge optimize` refuse a model that is not sound",
}
"""Polygraphy's other tools -> what does it here."""

_OTHER_SOURCES = ("--loadEngine", "--deploy", "--model", "--uff", "--serialized")
_OTHER_MODELS = {
    **dict.fromkeys((".plan", ".engine", ".trt"), "an engine"),
    **dict.fromkeys((".pb", ".pbtxt", ".h5", ".keras"), "a TensorFlow model"),
    **dict.fromkeys((".caffemodel", ".prototxt"), "a Caffe model"),
    ".etlt": "an encrypted TAO model",
    ".hdf5": "a TAO model",
    ".tlt": "an encrypted TAO model",
    ".py": "a script",
    ".uff": "a UFF model",
}
"""Suffix -> what such a file is."""


@dataclass(frozen=True)
class MigrateOptions:
    """How a command becomes a recipe.

    Attributes:
        out: the recipe to write; its folder is what its paths are relative to. None: nothing is
            written, and paths are relative to the current folder.
        name: the recipe's name; None for the model's.
        backend: in place of the one that the tool stands for.
        data: calibration data, which command lines do not name.
        partial: write the recipe even where flags are refused.
    """

    out: Path | None = None
    name: str | None = None
    backend: str | None = None
    data: str | None = None
    partial: bool = False


@dataclass(frozen=True)
class Migration:
    """What came of it.

    Attributes:
        text: the recipe.
        findings: one per flag, in order.
        written: the files written: the recipe, and the calibration cache converted.
    """

    text: str
    findings: tuple[Finding, ...]
    written: tuple[Path, ...] = ()

    @property
    def refused(self) -> tuple[Finding, ...]:
        """The flags that nothing does."""
        return tuple(one for one in self.findings if one.action == "refused")

    def as_json(self) -> dict[str, Any]:
        """Return the migration as plain JSON data."""
        return {
            "recipe": self.text,
            "findings": [finding.as_json() for finding in self.findings],
            "written": [str(path) for path in self.written],
        }


@dataclass
class _Work:
    options: MigrateOptions
    source: str
    written: list[Path] = field(default_factory=list)
    models: dict[str, KnownModel | None] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder that the recipe's paths are relative to."""
        return (self.options.out or Path("recipe.yaml")).absolute().parent

    def model_at(self, path: str) -> KnownModel | None:
        """Return what is known of a model, None where it is not here or cannot be read."""
        if path not in self.models:
            self.models[path] = _known(Path(path)) if Path(path).is_file() else None
        return self.models[path]


def migrate(command: str | Sequence[str], options: MigrateOptions | None = None) -> Migration:
    """Turn a `trtexec` or `polygraphy` command line, or a TAO spec, into a recipe.

    Args:
        command: the command as one text or as its words, or the path of a spec (.yaml, .json).
        options: where the recipe goes, and what the command does not say.

    Raises:
        UsageError: the command cannot be read, is of no known tool, or names no model.
        DataError: the calibration cache that it names cannot be read.
        RecipeError: a flag is refused (TF0124, one problem each) and not `partial`; or the recipe
            that comes of it contradicts itself.
        MissingError: a file cannot be written.
    """
    options = options or MigrateOptions()
    if options.out is not None and options.out.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(
            "TF0126",
            f"'{options.out}' is no place for a recipe",
            "name a .yaml file: -o model.yaml",
        )
    words = [command] if isinstance(command, str) else list(command)
    is_spec = len(words) == 1 and _is_spec(words[0])
    source = words[0] if len(words) == 1 else " ".join(words)
    work = _Work(options, source)
    draft = _spec(Path(words[0]), work) if is_spec else _command(command, work)
    _complete(draft, work)
    refused = [one for one in draft.findings if one.action == "refused"]
    if refused and not options.partial:
        raise RecipeError.of(
            [Problem("TF0124", f"{one.flag}: nothing does this here", one.why) for one in refused]
        )
    if options.out is not None:
        check_outputs([options.out], [Path(words[0]) if is_spec else None])
        _convert_cache(draft, work)
    _say_missing(draft, work)
    _check(draft.values)
    text = recipe_text(draft.values, source, draft.findings)
    if options.out is not None:
        write_text(options.out, text)
        work.written.insert(0, options.out)
    return Migration(text, tuple(draft.findings), tuple(work.written))


def _is_spec(word: str) -> bool:
    """Whether a text is the path of a spec; a command may end in `--exportTimes=times.json`."""
    return word.lower().endswith((".yaml", ".yml", ".json")) and " -" not in word


def _command(command: str | Sequence[str], work: _Work) -> Draft:
    program, arguments = split_command(command, _TOOLS)
    if program not in _TOOLS:
        raise UsageError(
            "TF0122",
            f"'{program}' is no tool whose command lines are known here",
            f"known are {', '.join(_TOOLS)}, and TAO specs as .yaml or .json files",
        )
    draft = Draft(work.options.backend or _TOOLS[program], work.model_at, work.options.data)
    if program == "polygraphy":
        verb = arguments[0] if arguments else ""
        if verb not in ("convert", "run"):
            raise UsageError(
                "TF0122",
                f"'polygraphy {verb}' builds no engine",
                _INSTEAD.get(verb, "`polygraphy convert` and `polygraphy run` do"),
            )
        from_polygraphy(arguments, draft)
    else:
        from_trtexec(arguments, draft)
    return draft


def _spec(path: Path, work: _Work) -> Draft:
    from trtforge.recipe.compose import compose
    from trtforge.recipe.nodes import Source, plain

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(
            "TF0120", f"cannot read '{path}': {why}", _SPEC, Place(file=str(path))
        ) from error
    root, problems = compose(Source(str(path), text))
    spec = None if root is None else plain(root)
    if problems or not isinstance(spec, Mapping):
        why = problems[0].message if problems else "it holds no keys"
        raise UsageError("TF0120", f"cannot read '{path}': {why}", _SPEC, Place(file=str(path)))
    draft = Draft(work.options.backend or "tensorrt", work.model_at, work.options.data)
    from_tao(spec, draft)
    return draft


_SPEC = "name a TAO spec: YAML or JSON with keys"


def _known(path: Path) -> KnownModel | None:
    from trtforge.graph.model import Model

    try:
        model = Model.load(path)
    except ForgeError:
        return None
    sides = (model.contract.inputs, model.contract.outputs)
    inputs, outputs = ({spec.name: _known_tensor(spec) for spec in side} for side in sides)
    pairs = any(node.op_type == "DequantizeLinear" for node in model.proto.graph.node)
    return KnownModel(pairs, inputs, outputs)


def _known_tensor(spec: "TensorSpec") -> KnownTensor:
    dims = [dim if isinstance(dim, int) else None for dim in spec.dims]
    return KnownTensor(spec.dtype, tuple(dims) if spec.rank_known else None)


def _take_ones(draft: Draft) -> None:
    """Give dynamic inputs the shape that trtexec and Polygraphy choose where none is given."""
    model = draft.model
    if model is None or "shapes" in draft.values:
        return
    shapes = {
        name: [1 if dim is None else dim for dim in tensor.dims]
        for name, tensor in model.inputs.items()
        if tensor.dims is not None and None in tensor.dims
    }
    if shapes:
        bounds = ("min", "opt", "max")
        ranges = {name: {key: [*dims] for key in bounds} for name, dims in shapes.items()}
        why = "none were given, so every dynamic dimension is 1, as the tool takes it: widen them"
        draft.put("(shapes)", "shapes", ranges, why)


def _complete(draft: Draft, work: _Work) -> None:
    """Put in what every recipe has, and make paths relative to the recipe's folder."""
    model = _onnx_of(draft)
    _take_ones(draft)
    _refuse_options(draft)
    _unwritten_cache(draft)
    for place in ("model.onnx", "calibration.reuse", "calibration.data"):
        if (path := draft.get(place)) is not None:
            draft.set(place, relative_path(path, work.folder))
    draft.set("version", 1)
    draft.set("name", work.options.name or recipe_name(Path(str(model)).stem))
    targets = draft.values.setdefault("targets", [{}])
    targets[0] = {"name": "engine", "backend": draft.backend, **targets[0]}


def _onnx_of(draft: Draft) -> str:
    """Return the model's path; what is said of a command that names none tells why."""
    model = str(draft.get("model.onnx") or "")
    kind = _OTHER_MODELS.get(Path(model).suffix.lower())
    if model and kind is None:
        return model
    hint = "a recipe is made of a build: --onnx=FILE"
    if kind is not None:
        raise UsageError("TF0123", f"'{model}' is {kind} and no ONNX model", hint)
    told = [one for one in draft.findings if one.flag.startswith(_OTHER_SOURCES)]
    why = f": {told[0].flag}: {told[0].why}" if told else ""
    if told and told[0].action == "elsewhere":
        hint = f"`{told[0].where}` does it; {hint}"
    raise UsageError("TF0123", f"the command names no ONNX model{why}", hint)


def _unwritten_cache(draft: Draft) -> None:
    """A cache that is not there is written by Polygraphy, from the data."""
    cache = draft.get("calibration.reuse")
    if cache is not None and draft.get("calibration.data") and not Path(cache).is_file():
        del draft.values["calibration"]["reuse"]
        why = "it is not here, so the data is measured; a build keeps what it finds"
        draft.findings[:] = [
            Finding(one.flag, "not needed", "", why) if one.where == "calibration.reuse" else one
            for one in draft.findings
        ]


def _refuse_options(draft: Draft) -> None:
    """Take out options that the backend does not have; the flags that gave them are refused."""
    from trtforge.recipe.engine_options import REFUSED

    options = draft.get("targets.0.options") or {}
    for key, (why, remedy) in REFUSED.get(draft.backend, {}).items():
        if options.pop(key, None) is None:
            continue
        for index, one in enumerate(draft.findings):
            if one.where == f"targets.0.options.{key}":
                draft.findings[index] = Finding(one.flag, "refused", "", f"{why}: {remedy}")
    if options == {} and draft.get("targets"):
        draft.values["targets"][0].pop("options", None)


def _say_missing(draft: Draft, work: _Work) -> None:
    """Say which of the files that the recipe names are not here; they may come later."""
    for place in ("model.onnx", "calibration.reuse", "calibration.data"):
        named = draft.get(place)
        if named is None or (work.folder / named).exists():
            continue
        why = "the file is not here; a build needs it"
        if place == "calibration.reuse":
            why = f"{why}, and `trtforge calib convert` makes it trtforge's own"
        told = [index for index, one in enumerate(draft.findings) if one.where == place]
        if not told:
            draft.note(named, place, why)
        for index in told:
            one = draft.findings[index]
            draft.findings[index] = replace(one, why="; ".join(filter(None, (one.why, why))))


def _convert_cache(draft: Draft, work: _Work) -> None:
    """Write an old calibration cache that was named as trtforge's own, beside the recipe."""
    named = draft.get("calibration.reuse")
    if named is None or work.options.out is None:
        return
    path = work.folder / named
    if not path.is_file():
        return
    from trtforge.precision.foreign import read_any

    _, cache = read_any(path)
    converted = work.options.out.with_suffix(".calib.json")
    check_outputs([converted], [path])
    cache.save(converted)
    work.written.append(converted)
    draft.set("calibration.reuse", converted.name)


def _check(values: Mapping[str, Any]) -> None:
    """Hold the recipe against its schema and laws, so that what is written can be built.

    Raises:
        RecipeError: a value is out of range, or two contradict each other.
    """
    from pydantic import ValidationError

    from trtforge.recipe.laws import recipe_laws
    from trtforge.recipe.schema import Recipe
    from trtforge.recipe.sections import dotted
    from trtforge.recipe.translate import is_echo
    from trtforge.recipe.wording import word

    problems = [
        Problem(one.code, f"{dotted(one.loc)}: {one.message}", one.hint)
        for one in recipe_laws(values)
    ]
    if not problems:
        try:
            Recipe.model_validate(values)
        except ValidationError as error:
            for one in error.errors():
                _, message, hint = word(one["type"], one.get("ctx", {}), one["input"], None)
                text = f"{dotted(one['loc'])} {message}"
                if not is_echo(one):
                    problems.append(Problem("TF0125", text, hint or "change the command"))
    if problems:
        raise RecipeError.of(problems)
