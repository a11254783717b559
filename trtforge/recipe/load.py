"""From a recipe file to a Recipe, or to every error in it at once, each with its place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from trtforge.errors import Place, Problem, RecipeError
from trtforge.recipe import codes, laws, scalars
from trtforge.recipe.compose import compose
from trtforge.recipe.fields import FrozenDict
from trtforge.recipe.files import file_problems, read_source
from trtforge.recipe.nodes import Entry, Loc, Mapping, Node, Scalar, Source, plain
from trtforge.recipe.nodes import Sequence as SequenceNode
from trtforge.recipe.overrides import apply_override
from trtforge.recipe.schema import ByPosition, Recipe
from trtforge.recipe.translate import corrected, law_problems, place_at, validation_problems
from trtforge.recipe.wording import describe

_MOST_PROBLEMS = 100
"""More are counted, not shown."""

_PLAIN = re.compile(r"[A-Za-z/.][A-Za-z0-9/._-]*")
"""Text written without quotes; the emitter's own rule lets `{onnx: :0}` through."""


@dataclass(frozen=True)
class RecipeSource:
    """Where every value of a recipe was written."""

    root: Node

    def place(self, loc: Loc, code: str = "") -> Place:
        """Return the place of a value: file, line and column, or the `--set` that gave it."""
        return place_at(self.root, loc, code)


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe and where it came from.

    Attributes:
        recipe: the recipe, overrides applied.
        path: the file as it was named.
        base_dir: the file's folder; the recipe's paths are relative to it.
        overrides: path -> value of every `--set`, in the order given.
        source: the places of all values.
    """

    recipe: Recipe
    path: Path
    base_dir: Path
    overrides: dict[str, Any]
    source: RecipeSource

    def resolve(self, text: str) -> Path:
        """Return the file that a path in the recipe means."""
        return self.base_dir / text

    def problem(self, loc: Loc, code: str, message: str, hint: str | None = None) -> Problem:
        """Return a problem of the value at a location such as ("shapes", 0, "image", "min")."""
        return Problem(code, message, hint, self.source.place(loc, code))

    def with_inputs(self, names: Sequence[str]) -> "LoadedRecipe":
        """Return the recipe with the names of the model's inputs in profiles by position.

        Args:
            names: the model's inputs, in its order.

        Raises:
            RecipeError: TF0231, a profile has more ranges than the model has inputs.
        """
        if not any(isinstance(profile, ByPosition) for profile in self.recipe.shapes):
            return self
        assert isinstance(self.source.root, Mapping)
        entry = self.source.root.get("shapes")
        assert entry is not None
        assert isinstance(entry.value, SequenceNode), "a profile by position lies in a list"
        profiles = tuple(_profile_by_name(one, names) for one in entry.value.items)
        surplus = [
            Problem("TF0231", *_surplus(index, one, names), one.items[len(names)].span.place())
            for index, one in enumerate(entry.value.items)
            if isinstance(one, SequenceNode) and len(one.items) > len(names)
        ]
        if surplus:
            raise RecipeError.of(surplus)
        shapes = Entry(entry.key, replace(entry.value, items=profiles))
        root = self.source.root.with_entry(shapes)
        recipe, _ = _check(root, None)
        assert recipe is not None, "it was valid, and names break no law"
        return replace(self, recipe=recipe, source=RecipeSource(root))

    def as_yaml(self, recipe: Recipe | None = None) -> str:
        """Return the resolved recipe as YAML: defaults and overrides written out.

        Args:
            recipe: a recipe to write in place of this one (fewer targets, for example).
        """
        return dump_recipe(recipe if recipe is not None else self.recipe)


def load_recipe(
    path: Path, overrides: Sequence[str] = (), *, check_files: bool = True
) -> LoadedRecipe:
    """Read, override and check a recipe.

    Args:
        path: the YAML file.
        overrides: `a.b=c` texts, applied in order before anything is checked.
        check_files: whether the files that the recipe names must be there. False for a recipe
            in a bundle, which is a record.

    Raises:
        RecipeError: with every problem found, in reading order.
    """
    path = Path(path)
    source = read_source(path)
    root, problems = compose(source)
    if not isinstance(root, Mapping):
        raise RecipeError.of([*problems, _not_a_mapping(source, root)])
    tree: Node = root
    applied: dict[str, Any] = {}
    for text in overrides:
        override = apply_override(tree, text)
        tree = override.root
        problems += override.problems
        if not override.problems:
            applied[override.path] = override.value
    recipe, found = _check(tree, path.parent if check_files else None)
    problems += found
    if problems or recipe is None:
        raise RecipeError.of(_in_reading_order(problems))
    return LoadedRecipe(recipe, path, path.parent, FrozenDict(applied), RecipeSource(tree))


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML that loads to the same recipe; equal recipes give equal text."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.width = 100
    yaml.sort_base_mapping_type_on_output = False
    yaml.allow_unicode = True
    yaml.Representer = _Representer
    stream = StringIO()
    yaml.dump(recipe.model_dump(mode="json", exclude_none=True), stream)
    return stream.getvalue()


class _Representer(SafeRepresenter):
    """Quotes every text that a plain scalar would not give back, and never makes aliases."""

    def represent_text(self, text: str) -> Any:
        """Represent a string."""
        safe = _PLAIN.fullmatch(text) is not None and scalars.resolve(text) == text
        style = None if safe else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value out."""
        return True


_Representer.add_representer(str, _Representer.represent_text)


def _check(root: Node, folder: Path | None) -> tuple[Recipe | None, list[Problem]]:
    """Return the recipe where it is valid, and everything that is wrong."""
    data = plain(root)
    recipe: Recipe | None = None
    errors: list[ErrorDetails] = []
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    problems = validation_problems(root, errors)
    meant = corrected(data, errors)
    problems += law_problems(root, laws.recipe_laws(meant))
    for loc, message, hint in file_problems(meant, folder) if folder is not None else ():
        problems.append(Problem(codes.NO_FILE, message, hint, place_at(root, loc)))
    return recipe, problems


def _profile_by_name(profile: Node, names: Sequence[str]) -> Node:
    """Return a profile's node with names for keys, which stand where their ranges do."""
    if not isinstance(profile, SequenceNode):
        return profile
    entries = (
        Entry(Scalar(item.span, name, name), item)
        for name, item in zip(names, profile.items, strict=False)
        if not (isinstance(item, Scalar) and item.value is None)
    )
    return Mapping(profile.span, tuple(entries))


def _surplus(index: int, profile: SequenceNode, names: Sequence[str]) -> tuple[str, str]:
    known = ", ".join(f"'{name}'" for name in names) or "none"
    return (
        f"profile {index} has {len(profile.items)} ranges, the model's inputs are {len(names)}: "
        f"{known}",
        "give one range per input, in this order; ~ for an input of fixed shape",
    )


def _not_a_mapping(source: Source, root: Node | None) -> Problem:
    if root is None:
        return Problem(
            codes.NOT_A_RECIPE,
            "the recipe is empty",
            "a recipe starts with `version: 1`, `name: ...` and `model: {onnx: ...}`",
            source.whole(),
        )
    return Problem(
        codes.NOT_A_RECIPE,
        f"a recipe is a mapping; this is {describe(plain(root))}",
        "write `version: 1`, `name: ...` and `model: {onnx: ...}`, each on its own line",
        root.span.place(),
    )


def _in_reading_order(problems: list[Problem]) -> list[Problem]:
    """Sort by line and column, overrides last; drop repetitions; cap what is shown."""

    def position(problem: Problem) -> tuple[bool, int, int]:
        where = problem.where
        if where is None or where.line is None:
            return (True, 0, 0)
        return (False, where.line, where.column or 0)

    ordered = sorted(dict.fromkeys(problems), key=position)
    left = len(ordered) - _MOST_PROBLEMS
    if left <= 0:
        return ordered
    last = ordered[_MOST_PROBLEMS - 1]
    more = Problem(last.code, f"{left} more problems are not shown", "mend these first", last.where)
    return [*ordered[:_MOST_PROBLEMS], more]
