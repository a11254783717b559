"""From the options of a command to the sections of a recipe, for models without a recipe."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trtforge.errors import Problem, RecipeError, UsageError
from trtforge.recipe.broken import Broken
from trtforge.recipe.calibration import Calibration
from trtforge.recipe.fields import Section
from trtforge.recipe.laws import recipe_laws
from trtforge.recipe.nodes import Source, plain
from trtforge.recipe.schema import FloatType, Precision, ShapeRange

if TYPE_CHECKING:
    from trtforge.graph.contract import IoContract

_WITH_RANGES = ("int8", "fp8")

_SectionType = TypeVar("_SectionType", bound=Section)


@dataclass(frozen=True)
class Asked:
    """What the options of `trtforge quantize` and `trtforge calibrate` say, as they were written.

    Attributes:
        quantize: a value of `precision.quantize`.
        type: the type of what is not quantized.
        block_size: weights that share a scale, for int4_weight_only.
        attention: quantize the products of attention.
        compact: leave unquantized what makes an engine larger.
        unquantized: `first`, `last`.
        keep: `op=Softmax`, `name=/head/*`, `path=loop/*`, each with or without `:fp32`.
        force: likewise, with or without `:fp16`; `type` where nothing is said.
        io_types: a value of `precision.io_types`.
        techniques: `default`, `none`, or names with commas between them; None for `default`.
        data: a file or folder, `module:name`, or a mapping as in a recipe: `{images: photos}`.
        synthetic: random samples in place of data.
        method: a calibration method; None for the recipes' default.
        percentile: of method percentile.
        samples: how many samples to use; None for all.
        reuse: a calibration cache to take in place of measuring.
        allow_stale: take it even where it belongs to another graph or data.
        shapes: `name=1x3x224x224` texts for dynamic inputs.
        budget: `sqnr_db=42`, or more keys of a recipe's budget with commas between them.
        held_out: samples that the mix which a budget chooses is judged on.
    """

    quantize: str = "int8"
    type: str = "fp32"
    block_size: int | None = None
    attention: bool = False
    compact: bool = False
    unquantized: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    io_types: str = "keep"
    techniques: str | None = None
    data: str | None = None
    synthetic: bool = False
    method: str | None = None
    percentile: float | None = None
    samples: int | None = None
    reuse: Path | None = None
    allow_stale: bool = False
    shapes: tuple[str, ...] = ()
    budget: str | None = None
    held_out: Path | None = None

    def as_recipe(self) -> dict[str, Any]:
        """Return the sections as data of a recipe, not yet validated.

        Raises:
            UsageError: TF0107, a rule, a mapping or a budget cannot be read.
        """
        words = [word.strip() for word in (self.techniques or "default").split(",")]
        precision = {
            "type": self.type,
            "quantize": self.quantize,
            "attention": self.attention,
            "compact": self.compact,
            "unquantized": list(dict.fromkeys(self.unquantized)),
            "keep": [_node_rule(text, "keep") for text in self.keep],
            "force": [_node_rule(text, "force", _least(self.type)) for text in self.force],
            "io_types": self.io_types,
            "techniques": words[0] if words in (["default"], ["none"]) else words,
            "block_size": self.block_size,
            "budget": None if self.budget is None else _budget(self.budget),
        }
        calibration = {
            "data": _data(self.data),
            "synthetic": self.synthetic,
            "method": self.method,
            "percentile": self.percentile,
            "samples": self.samples,
            "reuse": None if self.reuse is None else str(self.reuse),
            "accept_stale": self.allow_stale,
        }
        is_measured = self.data is not None or self.reuse is not None or self.synthetic
        return {
            "precision": _given(precision),
            **({"calibration": _given(calibration)} if is_measured else {}),
            **({"verify": {"data": str(self.held_out)}} if self.held_out is not None else {}),
        }

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
    return precision.quantize in _WITH_RANGES


def casts_by_data(precision: Precision, calibration: Calibration | None) -> bool:
    """Whether what becomes FP16 or BF16 can be chosen by what samples show."""
    if precision.type not in ("fp16", "bf16") or precision.budget is not None:
        return False
    return calibration is not None and (calibration.data is not None or calibration.synthetic)


def sections(asked: Asked) -> tuple[Precision, Calibration | None]:
    """Return both sections, held against each other.

    Raises:
        UsageError: TF0107, an option cannot be read.
        RecipeError: everything that a recipe with these values would be refused for; TF0108, ranges
            are needed and nothing gives them.
    """
    data = asked.as_recipe()
    errors: list[ErrorDetails] = []
    precision = _validated(Precision, data, "precision", errors)
    calibration = _validated(Calibration, data, "calibration", errors)
    if errors or any(_laws(data)):
        raise RecipeError.of(_problems(data, errors))
    assert precision is not None
    return precision, calibration


def _problems(data: Mapping[str, Any], errors: list[ErrorDetails]) -> list[Problem]:
    """Put what is wrong into the words that it would have in a recipe."""
    from trtforge.recipe.compose import compose
    from trtforge.recipe.translate import corrected, law_problems, validation_problems

    root, _ = compose(Source("the options", json.dumps(data), has_lines=False))  # JSON is YAML
    assert root is not None
    found = validation_problems(root, errors)
    found += law_problems(root, _laws(corrected(data, errors)))
    return [replace(problem, where=None) for problem in found]


def _laws(data: Mapping[str, Any]) -> Iterator[Broken]:
    quantize = data["precision"].get("quantize")
    if "calibration" not in data and quantize in _WITH_RANGES:
        yield Broken(
            (),
            "TF0108",
            f"{quantize} needs the ranges of activations, and there is no data",
            "give --data FILE (or a folder), --reuse CACHE, or --synthetic to try things out",
        )
        return
    yield from recipe_laws(data)


def _validated(
    kind: type[_SectionType],
    data: Mapping[str, Any],
    name: str,
    errors: list[ErrorDetails],
) -> _SectionType | None:
    """Return a section; where it is wrong, add what is to `errors`."""
    if name not in data:
        return None
    try:
        return kind.model_validate(data[name])
    except ValidationError as error:
        for one in error.errors(include_url=False):
            errors.append({**one, "loc": (name, *one["loc"])})
        return None


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _data(text: str | None) -> Any:
    """Read what --data says: a mapping, the name of Python code, or a path."""
    if text is None:
        return None
    if text.lstrip().startswith("{"):
        from trtforge.recipe.compose import compose

        root, problems = compose(Source("--data", text, has_lines=False))
        if problems:
            raise UsageError("TF0107", problems[0].message, problems[0].hint)
        return None if root is None else plain(root)
    module, colon, name = text.partition(":")
    is_code = colon and name.isidentifier() and all(map(str.isidentifier, module.split(".")))
    if is_code and not Path(text).exists() and len(module) > 1:  # not a drive's letter
        return {"python": text}
    return text


def _budget(text: str) -> dict[str, Any]:
    """Read what --budget says: keys and values of a recipe's budget."""
    from trtforge.recipe.compose import compose

    found: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        root, problems = compose(Source("--budget", value, has_lines=False))
        if not key or not equals or key in found or problems or root is None:
            raise UsageError(
                "TF0107",
                f"'{text}' is not a budget",
                "write sqnr_db=30, top1_drop=0.5 or metric=file.py:function,at_least=0.9",
            )
        found[key] = plain(root)
    return found


def _least(kind: str) -> str:
    return "fp16" if kind == "auto" else kind


def _node_rule(text: str, kind: str, default: str = "") -> dict[str, str]:
    key, equals, pattern = text.partition("=")
    rest, colon, found = pattern.rpartition(":")
    if not (colon and found in get_args(FloatType)):
        rest, found = pattern, default
    if key not in ("op", "name", "path") or not equals or not rest:
        raise UsageError(
            "TF0107",
            f"'{text}' is not a {kind} rule",
            "write op=Softmax, name=/head/* or path=loop/*, then :fp16",
        )
    return {key: rest} | ({"type": found} if found else {})
