"""`trtforge migrate`: a recipe from the command line or the spec of another tool."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.disk import write_text
from trtforge.errors import ForgeError, Place, Problem, RecipeError, UsageError
from trtforge.recipe.migration.arguments import split_command
from trtforge.recipe.migration.polygraphy import from_polygraphy
from trtforge.recipe.migration.result import Draft, Finding
from trtforge.recipe.migration.tao import from_tao
from trtforge.recipe.migration.trtexec import from_trtexec
from trtforge.recipe.migration.writing import recipe_text

if TYPE_CHECKING:
    from trtforge.graph.model import Model

_TOOLS = {"trtexec": "tensorrt", "tensorrt_rtx": "tensorrt_rtx", "polygraphy": "tensorrt"}
"""Program -> the backend that it stands for."""


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

    @property
    def folder(self) -> Path:
        """The folder that the recipe's paths are relative to."""
        return (self.options.out or Path("recipe.yaml")).absolute().parent


def migrate(command: str | Sequence[str], options: MigrateOptions | None = None) -> Migration:
    """Turn a `trtexec` or `polygraphy` command line, or a TAO spec, into a recipe.

    Args:
        command: the command as one text or as its words, or the path of a spec (.yaml, .yml).
        options: where the recipe goes, and what the command does not say.

    Raises:
        UsageError: the command cannot be read, is of no known tool, or names no model.
        DataError: the calibration cache that it names cannot be read.
        RecipeError: a flag is refused (TF0124, one problem each) and not `partial`; or the recipe
            that comes of it contradicts itself.
        MissingError: a file cannot be written.
    """
    options = options or MigrateOptions()
    words = [command] if isinstance(command, str) else list(command)
    is_spec = len(words) == 1 and words[0].lower().endswith((".yaml", ".yml"))
    source = words[0] if len(words) == 1 else " ".join(words)
    work = _Work(options, source)
    draft = _spec(Path(words[0]), work) if is_spec else _command(command, work)
    _complete(draft, work)
    refused = [one for one in draft.findings if one.action == "refused"]
    if refused and not options.partial:
        raise RecipeError.of(
            [Problem("TF0124", f"{one.flag}: nothing does this here", one.why) for one in refused]
        )
    if options.out is not None and not refused:
        _convert_cache(draft, work)
    _check(draft.values)
    text = recipe_text(draft.values, source, draft.findings)
    if options.out is not None:
        write_text(options.out, text)
        work.written.insert(0, options.out)
    return Migration(text, tuple(draft.findings), tuple(work.written))


def _command(command: str | Sequence[str], work: _Work) -> Draft:
    program, arguments = split_command(command)
    if program not in _TOOLS:
        raise UsageError(
            "TF0122",
            f"'{program}' is no tool whose command lines are known here",
            f"known are {', '.join(_TOOLS)}, and TAO specs as .yaml files",
        )
    draft = Draft(work.options.backend or _TOOLS[program])
    model = _model_at(_model_of(arguments))
    draft.has_pairs = None if model is None else _has_pairs(model)
    if program == "polygraphy":
        if arguments[:1] not in (["convert"], ["run"]):
            raise UsageError(
                "TF0122",
                f"'polygraphy {' '.join(arguments[:1])}' builds no engine",
                "`polygraphy convert` and `polygraphy run` do",
            )
        from_polygraphy(arguments, draft)
    else:
        from_trtexec(arguments, draft)
    if model is not None and "shapes" not in draft.values:
        _take_ones(model, draft)
    return draft


def _spec(path: Path, work: _Work) -> Draft:
    from trtforge.recipe.compose import compose
    from trtforge.recipe.nodes import Source, plain

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "TF0120", f"cannot read '{path}': {error}", "name a TAO spec", Place(file=str(path))
        ) from error
    root, problems = compose(Source(str(path), text))
    spec = None if root is None else plain(root)
    if problems or not isinstance(spec, Mapping):
        why = problems[0].message if problems else "it holds no keys"
        raise UsageError("TF0120", f"cannot read '{path}': {why}", None, Place(file=str(path)))
    draft = Draft(work.options.backend or "tensorrt")
    from_tao(spec, draft)
    return draft


def _model_of(arguments: Sequence[str]) -> Path | None:
    found = [word.partition("--onnx=")[2] or word for word in arguments if ".onnx" in word]
    return Path(found[0]) if found else None


def _model_at(path: Path | None) -> "Model | None":
    """Return the model that a command names, None where it is not here or cannot be read."""
    if path is None or not path.is_file():
        return None
    from trtforge.graph.model import Model

    try:
        return Model.load(path)
    except ForgeError:
        return None


def _has_pairs(model: "Model") -> bool:
    return any(node.op_type == "DequantizeLinear" for node in model.proto.graph.node)


def _take_ones(model: "Model", draft: Draft) -> None:
    """Give dynamic inputs the shape that trtexec and Polygraphy choose where none is given."""
    shapes = {
        spec.name: [dim if isinstance(dim, int) else 1 for dim in spec.dims]
        for spec in model.contract.inputs
        if spec.is_dynamic and spec.rank_known
    }
    if shapes:
        bounds = ("min", "opt", "max")
        ranges = {name: {key: [*dims] for key in bounds} for name, dims in shapes.items()}
        why = "none were given, so every dynamic dimension is 1, as the tool takes it: widen them"
        draft.put("(shapes)", "shapes", ranges, why)


def _complete(draft: Draft, work: _Work) -> None:
    """Put in what every recipe has, and make paths relative to the recipe's folder."""
    model = draft.get("model.onnx")
    if not model:
        raise UsageError(
            "TF0123", "the command names no ONNX model", "a recipe is made of a build: --onnx=FILE"
        )
    data = work.options.data
    if data is not None:
        draft.set("calibration.data", _relative(data, work.folder))
        for finding in list(draft.findings):
            if finding.action == "refused" and finding.flag.lstrip("-") in ("int8", "fp8"):
                draft.findings.remove(finding)
                kind = finding.flag.lstrip("-")
                draft.put(finding.flag, "precision.quantize", kind, "calibrated on --data")
    for place in ("model.onnx", "calibration.reuse"):
        if (path := draft.get(place)) is not None:
            draft.set(place, _relative(path, work.folder))
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(str(model)).stem).strip("-._") or "model"
    draft.set("version", 1)
    draft.set("name", work.options.name or stem[:63])
    targets = draft.values.setdefault("targets", [{}])
    targets[0] = {"name": "engine", "backend": draft.backend, **targets[0]}


def _relative(path: str, folder: Path) -> str:
    if Path(path).is_absolute():
        return path
    return Path(os.path.relpath(Path(path).absolute(), folder)).as_posix()


def _convert_cache(draft: Draft, work: _Work) -> None:
    """Write an old calibration cache that was named as trtforge's own, beside the recipe."""
    named = draft.get("calibration.reuse")
    if named is None or work.options.out is None:
        return
    path = work.folder / named
    if not path.is_file():
        draft.findings.append(
            Finding(
                named, "elsewhere", "trtforge calib convert", "the file is not here: convert it"
            )
        )
        return
    from trtforge.precision.foreign import read_any

    _, cache = read_any(path)
    converted = work.options.out.with_suffix(".calib.json")
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

    problems = [
        Problem(one.code, f"{dotted(one.loc)}: {one.message}", one.hint)
        for one in recipe_laws(values)
    ]
    if not problems:
        try:
            Recipe.model_validate(values)
        except ValidationError as error:
            problems = [
                Problem("TF0125", f"{dotted(one['loc'])}: {one['msg']}", "change the command")
                for one in error.errors()
            ]
    if problems:
        raise RecipeError.of(problems)
