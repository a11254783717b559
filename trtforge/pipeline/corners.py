"""The shapes at which a model is proven, judged and counted: the corners of its profiles."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from trtforge.graph.inputs import Values, resolve_shapes
from trtforge.graph.model import IoContract

if TYPE_CHECKING:
    from trtforge.recipe.schema import Profile

_CORNERS: tuple[Literal["min", "opt", "max"], ...] = ("min", "opt", "max")


def corner_shapes(
    contract: IoContract, profiles: "Sequence[Profile]"
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return corner name -> input name -> shape (or Values), each distinct set of them once.

    Corners are called `min`, `opt` and `max`; with several profiles `0.min`, `0.opt`, ... A model
    without dynamic inputs has the one corner `opt`.
    """
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for index, profile in enumerate(profiles or ({},)):
        prefix = f"{index}." if len(profiles) > 1 else ""
        for corner in _CORNERS:
            shapes = dict(resolve_shapes(contract, profile, corner))
            if corner == "opt" or shapes not in found.values():
                found[prefix + corner] = shapes
    return found


def named_sizes(contract: IoContract, given: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return how large the named dimensions are that given shapes have."""
    return {
        dim: size
        for spec in contract.inputs
        if spec.name in given and not isinstance(given[spec.name], Values)
        for dim, size in zip(spec.dims, given[spec.name], strict=False)
        if isinstance(dim, str)
    }


def free_shapes(
    contract: IoContract, given: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return corners for a model without profiles.

    Args:
        contract: the model's inputs.
        given: shapes that are known; only the other inputs' dynamic dimensions are chosen here.

    Returns:
        `opt`, and where a dynamic dimension had to be chosen also `min`: dynamic dimensions of
        the same name are equal: as large as a given shape says, else 1 in `min` and 2, 3, 4, ...
        in `opt`, so that a mix-up of dimensions shows.
    """
    told = named_sizes(contract, given or {})
    sizes = dict(told)
    small: dict[str, tuple[int, ...]] = {}
    large: dict[str, tuple[int, ...]] = {}
    for spec in contract.inputs:
        if given and spec.name in given:
            small[spec.name] = large[spec.name] = tuple(given[spec.name])
            continue
        dims = [
            dim if isinstance(dim, int) else sizes.setdefault(f"{dim or spec.name}", len(sizes) + 2)
            for dim in spec.dims
        ]
        large[spec.name] = tuple(dims)
        small[spec.name] = tuple(
            dim if isinstance(dim, int) else told.get(f"{dim or spec.name}", 1) for dim in spec.dims
        )
    return {"opt": large} if small == large else {"min": small, "opt": large}
