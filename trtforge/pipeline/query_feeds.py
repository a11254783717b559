"""What queries of `trtforge bench` hold: recorded samples, or random ones of a model's shapes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtforge.errors import DataError, UsageError

if TYPE_CHECKING:
    from trtforge.graph.contract import IoContract
    from trtforge.graph.inputs import Feeds, Shapes
    from trtforge.graph.model import Model
    from trtforge.pipeline.bench import BenchOptions
    from trtforge.recipe.schema import ShapeRange
    from trtforge.verify.cases import Samples

    Profiles = Sequence[Mapping[str, ShapeRange]]

DISTINCT = 16
"""Different batches that queries go through, so that no cache holds a single one."""


def query_feeds(
    model: "Model", options: "BenchOptions", profiles: "Profiles" = ()
) -> "Iterator[Feeds]":
    """Yield different batches, the same for the same options.

    Args:
        model: what is measured, or was built into the engine that is.
        options: data, shapes and the size of a batch; or the corner of a profile.
        profiles: of the bundle. Random inputs are as the first one that takes the batch is tuned
            for, and have its values where these decide shapes.

    Raises:
        UsageError: TF0104 to TF0106, a shape is none or does not fit; TF0143, too few samples.
        DataError: the data does not fit the model.
    """
    batch = options.load.samples_per_query
    if options.data is not None:
        yield from _recorded(model, options.data, batch, profiles)
        return
    from trtforge.graph.inputs import random_feeds

    shapes = options.corner
    if shapes is None:
        shapes = _random_shapes(model, options, profiles)
        _check_batch(model.contract, shapes, batch)
    for seed in range(DISTINCT):
        yield random_feeds(model, dict(shapes), seed)


def _recorded(model: "Model", path: Path, batch: int, profiles: "Profiles") -> "Iterator[Feeds]":
    from trtforge.graph.sources.value_rows import ValueRows

    source = _opened(model, path, profiles)
    whole = [_rounded(one, model) for one in source.batches(batch, DISTINCT * batch)]
    if isinstance(source, ValueRows):  # a batch ends where values change, and is filled up
        whole = [_filled(one, source.deciding, source.static_batch, batch) for one in whole]
    sizes = [len(next(iter(one.values()))) for one in whole]
    if max(sizes) < batch:
        raise too_few(path, source.count, batch)
    yield from (one for one, size in zip(whole, sizes, strict=True) if size == max(sizes))


def _opened(model: "Model", path: Path, profiles: "Profiles") -> "Samples":
    """Open recorded data, which may be the FP32 original's of a model with narrow inputs."""
    from trtforge.graph.sources.value_rows import open_arrays
    from trtforge.precision.ends import narrow_ends, with_wide_ends

    try:
        return open_arrays(path, model.contract, profiles)
    except DataError as error:
        if error.code != "TF0505" or not narrow_ends(model.contract):
            raise
    return open_arrays(path, with_wide_ends(model.contract), profiles)


def _rounded(feeds: "Feeds", model: "Model") -> "Feeds":
    """Samples in the types that the model takes."""
    from trtforge.engine.arrays import numpy_type
    from trtforge.precision.ends import narrow_ends

    kinds = narrow_ends(model.contract)
    return {
        name: array.astype(numpy_type(kinds[name])) if name in kinds else array
        for name, array in feeds.items()
    }


def _filled(feeds: "Feeds", deciding: frozenset[str], least: int, batch: int) -> "Feeds":
    rows = np.arange(max(batch, least))
    return {
        name: array if name in deciding else np.take(array, rows % len(array), axis=0)
        for name, array in feeds.items()
    }


def _random_shapes(model: "Model", options: "BenchOptions", profiles: "Profiles") -> "Shapes":
    from trtforge.graph.deciding import deciding_inputs
    from trtforge.graph.inputs import Values, resolve_shapes
    from trtforge.pipeline.corners import free_shapes
    from trtforge.pipeline.rooms import given_shapes

    contract, batch = model.contract, options.load.samples_per_query
    deciding = deciding_inputs(model)
    texts = {text: text.rpartition("=")[0] in deciding for text in options.shapes}
    given = given_shapes(contract, [text for text, is_value in texts.items() if not is_value])
    for text in (text for text, is_value in texts.items() if is_value):
        name, values = _given_values(model, text)
        given[name] = values
    if profiles:
        profile = next((one for one in profiles if _takes(one, batch)), profiles[0])
        shapes = resolve_shapes(contract, profile, "opt") | given
    else:
        shapes = dict(free_shapes(contract, given)["opt"])
    for spec in contract.inputs:
        is_free = spec.name not in given and not isinstance(shapes[spec.name], Values)
        if is_free and spec.dims and not isinstance(spec.dims[0], int):
            shapes[spec.name] = (batch, *shapes[spec.name][1:])
    return shapes


def assumed_shapes(
    model: "Model", options: "BenchOptions", profiles: "Profiles"
) -> dict[str, tuple[int, ...]]:
    """The inputs of open sizes that nothing gives, beside that of the batch, and what is taken."""
    if options.data is not None or options.corner is not None or profiles:
        return {}
    from trtforge.pipeline.corners import named_sizes

    given = {text.rpartition("=")[0] for text in options.shapes}
    shapes = _random_shapes(model, options, profiles)
    told = named_sizes(model.contract, {name: shapes[name] for name in given})
    return {
        spec.name: tuple(shapes[spec.name])
        for spec in model.contract.inputs
        if spec.name not in given
        and any(not isinstance(dim, int) and dim not in told for dim in spec.dims[1:])
    }


def _check_batch(contract: "IoContract", shapes: "Shapes", batch: int) -> None:
    """Refuse a number of samples that the inputs do not hold, as each would be counted."""
    dims = [(spec.dims, shapes[spec.name]) for spec in contract.inputs]
    free = [
        size
        for own, given in dims
        for dim, size in zip(own, given, strict=False)
        if not isinstance(dim, int)
    ]
    first = [given[0] for _, given in dims if given]
    if batch in free or (batch == 1 and not free) or (not free and batch in first):
        return
    held = (free or first or [1])[0]
    raise UsageError(
        "TF0143",
        f"a query is to hold {batch} sample{'' if batch == 1 else 's'}, and the inputs hold {held}",
        f"give --batch {held}",
    )


def _takes(profile: "Mapping[str, ShapeRange]", batch: int) -> bool:
    return all(
        one.min[0] <= batch <= one.max[0] or one.min[0] == one.max[0]
        for one in profile.values()
        if one.min and not one.values
    )


def _given_values(model: "Model", text: str) -> tuple[str, Any]:
    """Read `k=5` or `k=-1x12` of an input that decides shapes by its values."""
    from trtforge.graph.inputs import Values

    name, _, numbers = text.rpartition("=")
    try:
        values = Values(int(one) for one in numbers.replace(",", "x").split("x"))
    except ValueError:
        values = Values()
    wanted = math.prod(dim for dim in model.contract.input(name).dims if isinstance(dim, int))
    if len(values) != wanted or not all(-(2**31) <= one < 2**31 for one in values):
        raise UsageError(
            "TF0106",
            f"'{text}' gives no values of input '{name}', which decides shapes by them",
            f"it takes {wanted}: write {name}={'x'.join(['4'] * wanted)}",
        )
    return name, values


def too_few(path: Path, count: int, batch: int) -> UsageError:
    """Data with fewer samples than a query takes."""
    return UsageError(
        "TF0143",
        f"'{path.name}' has {count} samples, a query takes {batch}",
        "give a smaller --batch, or more samples",
    )
