"""Shapes to begin with for a model's dynamic inputs: by what a dimension is, tried out once."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from trtforge.errors import ForgeError
from trtforge.graph.contract import TensorSpec
from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.graph.sources.source import DataSource

Range = tuple[int, int, int]
"""min, opt, max of one dimension."""

Role = Literal["batch", "length", "pixels"]

_BATCH: Range = (1, 4, 8)
_ONE: Range = (1, 1, 1)
_LADDERS: dict[Role, tuple[Range, ...]] = {
    "length": (
        *((1, 128, 256), (16, 128, 256), (1, 64, 128), (1, 16, 32), (1, 8, 16), (4, 4, 4)),
        (16000, 16000, 32000),
    ),
    "pixels": (
        *((224, 224, 448), (224, 224, 224), (64, 64, 128), (32, 32, 64), (16, 16, 32)),
        (8, 8, 16),
    ),
}
"""What is tried for a dimension, one after the other; then 1. Speech comes in 16000 samples a
second, and no convolution over it takes 100."""

_STEPS = max(map(len, _LADDERS.values())) + 1
_TRIED_BATCH = 2
"""Whether a batch can be more than one shows at two, and takes less time than at `max`."""

_LENGTH_NAME = re.compile(r"seq|len|tok|past|time|step|frame|word|sample", re.IGNORECASE)
_PIXELS_NAME = re.compile(r"height|width|^[hw]$|image|pixel", re.IGNORECASE)
_MOST_CHANNELS = 4
_SAMPLES_LOOKED_AT = 64

_Key = str | tuple[str, int]
"""A dimension: its name, or input and axis where it has none."""


@dataclass(frozen=True)
class FirstShapes:
    """Where to begin.

    Attributes:
        profile: dynamic input -> min, opt and max of each axis; inputs of unknown rank are absent.
        note: what is to be known of it, None when ONNX Runtime ran the model at all of them.
    """

    profile: Mapping[str, tuple[Range, ...]]
    note: str | None = None

    def at(self, end: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes at min (0), opt (1) or max (2)."""
        return {name: tuple(axis[end] for axis in axes) for name, axes in self.profile.items()}


def first_shapes(model: Model, data: DataSource | None = None) -> FirstShapes:
    """Choose a profile for the dynamic inputs of a model.

    A dimension is a batch, a length or pixels, by its name, its axis and its input's rank; what
    samples have decides where there are some. Dimensions of one name are equal. The first choice
    with which ONNX Runtime runs the model is taken.

    Args:
        model: any model.
        data: samples of it.
    """
    specs = [spec for spec in model.contract.inputs if spec.is_dynamic and spec.rank_known]
    if not specs:
        return FirstShapes({})
    seen = _seen(specs, data)
    roles = _roles(specs)
    choices = [_profile(specs, roles, seen, batch, step) for batch, step in _tries(roles, seen)]
    try:
        session = Session(model)
    except (ForgeError, MemoryError):
        return FirstShapes(choices[0], "ONNX Runtime cannot load the model: these are not tried")
    for choice in choices:
        if _runs(model, session, FirstShapes(choice)):
            return FirstShapes(choice)
    return FirstShapes(
        choices[-1], "no shapes were found with which ONNX Runtime runs the model: put yours in"
    )


def _tries(roles: Mapping[_Key, Role], seen: Mapping[_Key, Range]) -> Iterator[tuple[Range, int]]:
    """Yield batch and step: bigger batches first, then bigger shapes."""
    open_roles = {role for key, role in roles.items() if key not in seen}
    batches = [_BATCH, _ONE] if "batch" in open_roles else [_BATCH]
    for batch in batches:
        for step in range(_STEPS if open_roles - {"batch"} else 1):
            yield batch, step


def _seen(specs: Sequence[TensorSpec], data: DataSource | None) -> dict[_Key, Range]:
    """Return the range of each dimension over the samples, axis 0 of which is the batch."""
    found: dict[_Key, list[int]] = {}
    feeds = () if data is None else islice(data.batches(1), _SAMPLES_LOOKED_AT)
    for sample in feeds:
        for spec in specs:
            for axis, dim in list(enumerate(spec.dims))[1:]:
                if not isinstance(dim, int):
                    key = _key(spec, axis)
                    found.setdefault(key, []).append(sample[spec.name].shape[axis])
    return {
        key: (min(sizes), sorted(sizes)[len(sizes) // 2], max(sizes))
        for key, sizes in found.items()
    }


def _key(spec: TensorSpec, axis: int) -> _Key:
    dim = spec.dims[axis]
    return dim if isinstance(dim, str) else (spec.name, axis)


def _roles(specs: Sequence[TensorSpec]) -> dict[_Key, Role]:
    roles: dict[_Key, Role] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.dims):
            if not isinstance(dim, int):
                roles.setdefault(_key(spec, axis), _role(spec, axis))
    return roles


def _role(spec: TensorSpec, axis: int) -> Role:
    name = str(spec.dims[axis] or "")
    if "batch" in name.lower():
        return "batch"
    if _LENGTH_NAME.search(name):
        return "length"
    if _PIXELS_NAME.search(name):
        return "pixels"
    if axis == 0:
        return "batch"
    return "pixels" if axis in _image_axes(spec) else "length"


def _image_axes(spec: TensorSpec) -> tuple[int, ...]:
    """The axes of height and width in N x C x H x W, or N x H x W x C with few channels."""
    if len(spec.dims) != 4 or spec.dtype.startswith(("int", "bool")):
        return ()
    last = spec.dims[3]
    return (1, 2) if isinstance(last, int) and last <= _MOST_CHANNELS else (2, 3)


def _profile(
    specs: Sequence[TensorSpec],
    roles: Mapping[_Key, Role],
    seen: Mapping[_Key, Range],
    batch: Range,
    step: int,
) -> dict[str, tuple[Range, ...]]:
    sizes: dict[_Key, Range] = {}
    for key, role in roles.items():
        ladder = (*_LADDERS.get(role, ()), _ONE)
        chosen = batch if role == "batch" else ladder[min(step, len(ladder) - 1)]
        sizes[key] = seen.get(key, chosen)
    for key in roles:
        if isinstance(key, str) and key not in seen:
            sizes[key] = _summed(key, sizes) or sizes[key]
    return {
        spec.name: tuple(
            (dim, dim, dim) if isinstance(dim, int) else sizes[_key(spec, axis)]
            for axis, dim in enumerate(spec.dims)
        )
        for spec in specs
    }


def _summed(name: str, sizes: Mapping[_Key, Range]) -> Range | None:
    """Return the range of `past_length + 1`, None where a name is no sum of what is known."""
    terms = [term.strip() for term in name.split("+")]
    if len(terms) == 1 or not all(term.isdecimal() or term in sizes for term in terms):
        return None
    ranges = [(int(term),) * 3 if term.isdecimal() else sizes[term] for term in terms]
    low, mid, high = (sum(one[end] for one in ranges) for end in range(3))
    return low, mid, high


def _runs(model: Model, session: Session, shapes: FirstShapes) -> bool:
    """Whether ONNX Runtime computes the model at both ends and in the middle."""
    batches = {
        (name, axis)
        for name, axes in shapes.profile.items()
        for axis, one in enumerate(axes)
        if one == _BATCH
    }
    for end in range(3):
        at = {
            name: tuple(
                min(size, _TRIED_BATCH) if (name, axis) in batches else size
                for axis, size in enumerate(shape)
            )
            for name, shape in shapes.at(end).items()
        }
        try:
            session.run(random_feeds(model, at, seed=0))
        except (ForgeError, MemoryError):
            return False
    return True
