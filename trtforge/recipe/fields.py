"""What the sections of a recipe are made of: strict values, frozen mappings, and their base."""

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, StringConstraints
from pydantic_core import PydanticCustomError

from trtforge.recipe.broken import Broken

Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
"""Strict, because pydantic otherwise takes `on`, "5", 5.0 and true for what they are not."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""Names of recipes and targets: they become folder names, so no separators and no spaces."""

MOST_DIMENSIONS = 8
"""Of a shape in TensorRT (`Dims::MAX_DIMS`)."""

Numbers = Annotated[
    tuple[Annotated[int, Field(ge=-(2**31), le=2**31 - 1, strict=True)], ...], Field(max_length=64)
]
"""A shape, or the values of an input that decides shapes; TensorRT's profiles hold 32 bits. More
than 64 values are read by no operator: the longest are the two pads of 8 dimensions."""

_Value = TypeVar("_Value")


class FrozenDict(dict[str, _Value]):
    """A dict that cannot be changed: a recipe is immutable to its leaves, and hashable."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a recipe cannot be changed; make a new one")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def _path_text(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise PydanticCustomError("path_text", "a path must not be empty")
    return value


PathText = Annotated[str, AfterValidator(_path_text)]


class Section(BaseModel):
    """The base of all sections: immutable, and unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=False, validate_default=True, defer_build=True
    )


def keep_laws(broken: Iterable[Broken]) -> None:
    """Raise the first broken law; `load.py` reports all of them itself.

    Raises:
        PydanticCustomError: a law is broken.
    """
    for one in broken:
        raise PydanticCustomError("law", "{message}", {"message": one.message, "hint": one.hint})
