"""Inputs and outputs of a model that are narrower than those of the model it was made from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from trtforge.graph.contract import IoContract

_NARROW = ("float16", "bfloat16")


class Ends(Protocol):
    """Inputs and outputs: an `IoContract`, or what a manifest says of a model."""

    @property
    def inputs(self) -> Sequence[Any]:
        """Each with a name and the name of its type."""
        ...

    @property
    def outputs(self) -> Sequence[Any]:
        """Alike."""
        ...


def narrow_ends(model: Ends) -> Mapping[str, str]:
    """Return the inputs and outputs that are FP16 or BF16, with their types."""
    return {
        spec.name: spec.dtype for spec in (*model.inputs, *model.outputs) if spec.dtype in _NARROW
    }


def with_wide_ends(contract: IoContract) -> IoContract:
    """Return a contract with FP32 in place of FP16 and BF16."""
    sides = (
        tuple(replace(spec, dtype="float32") if spec.dtype in _NARROW else spec for spec in side)
        for side in (contract.inputs, contract.outputs)
    )
    return IoContract(*sides)


def narrowed(original: Ends, typed: Ends) -> Mapping[str, str]:
    """Return the inputs and outputs that were FP32 and are FP16 or BF16, with their types now."""
    before = {spec.name: spec.dtype for spec in (*original.inputs, *original.outputs)}
    return {
        spec.name: spec.dtype
        for spec in (*typed.inputs, *typed.outputs)
        if before.get(spec.name) == "float32" and spec.dtype in _NARROW
    }
