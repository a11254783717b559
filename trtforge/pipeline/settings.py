"""From the options of a command to the sections of a recipe, for models without a recipe."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import ValidationError

from trtforge.errors import UsageError
from trtforge.recipe.compose import compose
from trtforge.recipe.laws import Broken, recipe_laws
from trtforge.recipe.nodes import Source, plain
from trtforge.recipe.schema import Calibration, FloatType, Precision, Section, ShapeRange
from trtforge.recipe.wording import describe as described

if TYPE_CHECKING:
    from trtforge.graph.contract import IoContract

_SectionType = TypeVar("_SectionType", bound=Section)


@dataclass(frozen=True)
class Asked:
    """What the options of `trtforge quantize` and `trtforge calibrate` say, as they were written.

    Attributes:
        quantize: a value of `precision.quantize`.
        type: the type of what is not quantized.
        block_size: weights that share a scale, for int4_weight_only.
        attention: quantize the products of attention.
        unquantized: `first`, `last`.
        keep: `op=Softmax`, `name=/head/*`, each with or without `:fp32`.
        techniques: `default`, `none`, or names with commas between them.
        data: a file or folder, `module:name`, or a mapping as in a recipe: `{images: photos}`.
        synthetic: random samples in place of data.
        method: a calibration method; None for the recipes' default.
        percentile: of method percentile.
        samples: how many samples to use; None for all.
        reuse: a calibration cache to take in place of measuring.
        allow_stale: take it even where it belongs to another graph or data.
        shapes: `name=1x3x224x224` texts for dynamic inputs.
    """

    quantize: str = "int8"
    type: str = "fp32"
    block_size: int | None = None
    attention: bool = False
    unquantized: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    techniques: str = "default"
    data: str | None = None
    synthetic: bool = False
    method: str | None = None
    percentile: float | None = None
    samples: int | None = None
    reuse: Path | None = None
    allow_stale: bool = False
    shapes: tuple[str, ...] = ()

    def precision(self) -> Precision:
        """Return the section `precision`.

        Raises:
            UsageError: TF0107, an option has a value that the schema refuses.
        """
        words = [word.strip() for word in self.techniques.split(",")]
        values: dict[str, Any] = {
            "type": self.type,
            "quantize": self.quantize,
            "attention": self.attention,
            "unquantized": tuple(dict.fromkeys(self.unquantized)),
            "keep": tuple(_keep_rule(text) for text in self.keep),
            "techniques": words[0] if words[0] in ("default", "none") and not words[1:] else words,
        }
        if self.block_size is not None:
            values["block_size"] = self.block_size
        return _section(Precision, values)

    def calibration(self) -> Calibration | None:
        """Return the section `calibration`, None where no option says where ranges come from.

        Raises:
            UsageError: TF0107, an option has a value that the schema refuses, or two contradict.
        """
        values = {
            "data": _data(self.data),
            "synthetic": self.synthetic,
            "method": self.method,
            "percentile": self.percentile,
            "samples": self.samples,
            "reuse": None if self.reuse is None else str(self.reuse),
            "accept_stale": self.allow_stale,
        }
        if self.data is None and self.reuse is None and not self.synthetic:
            return None
        given = {name: value for name, value in values.items() if value is not None}
        _refuse(recipe_laws({"calibration": given}))
        return _section(Calibration, given)

    def profiles(self, contract: "IoContract") -> tuple[Mapping[str, ShapeRange], ...]:
        """Return one profile with the shapes that were given.

        Raises:
            UsageError: TF0104 to TF0106, a shape is none, or does not fit the model.
        """
        from trtforge.pipeline.rooms import given_shapes

        found = given_shapes(contract, self.shapes)
        return ({name: ShapeRange(min=at, opt=at, max=at) for name, at in found.items()},)


def needs_ranges(precision: Precision) -> bool:
    """Whether activations are quantized, so that they must have been measured."""
    return precision.quantize in ("int8", "fp8")


def sections(asked: Asked) -> tuple[Precision, Calibration | None]:
    """Return both sections, held against each other.

    Raises:
        UsageError: TF0107, an option is wrong; TF0108, ranges are needed and nothing gives them.
    """
    precision, calibration = asked.precision(), asked.calibration()
    if calibration is None and needs_ranges(precision):
        raise UsageError(
            "TF0108",
            f"{precision.quantize} needs the ranges of activations, and there is no data",
            "give --data FILE (or a folder), --reuse CACHE, or --synthetic to try things out",
        )
    both = {"precision": precision.model_dump(mode="json"), "calibration": calibration}
    if calibration is not None:
        both["calibration"] = calibration.model_dump(mode="json")
    _refuse(recipe_laws(both))
    return precision, calibration


def _section(kind: type[_SectionType], values: Mapping[str, Any]) -> _SectionType:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(key) for key in first["loc"] if not str(key).startswith("("))
        message = f"'{at}' is {described(first['input'])}: {first['msg']}"
        raise UsageError("TF0107", message, "see --help for what it may be") from error


def _refuse(broken: Iterable[Broken]) -> None:
    for one in broken:
        raise UsageError("TF0107", one.message, one.hint)


def _data(text: str | None) -> Any:
    """Read what --data says: a mapping, the name of Python code, or a path."""
    if text is None:
        return None
    if text.lstrip().startswith("{"):
        root, problems = compose(Source("--data", text, has_lines=False))
        if problems:
            raise UsageError("TF0107", problems[0].message, problems[0].hint)
        return None if root is None else plain(root)
    module, colon, name = text.partition(":")
    is_code = colon and name.isidentifier() and all(map(str.isidentifier, module.split(".")))
    if is_code and not Path(text).exists() and len(module) > 1:  # not a drive's letter
        return {"python": text}
    return text


def _keep_rule(text: str) -> dict[str, str]:
    key, equals, pattern = text.partition("=")
    rest, colon, kind = pattern.rpartition(":")
    if not (colon and kind in get_args(FloatType)):
        rest, kind = pattern, ""
    if key not in ("op", "name") or not equals or not rest:
        raise UsageError(
            "TF0107", f"'{text}' is not a keep rule", "write op=Softmax or name=/head/*, then :fp16"
        )
    return {key: rest} | ({"type": kind} if kind else {})
