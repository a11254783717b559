"""Optimization profiles, gathered from flags that give one bound each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from trtforge.recipe.migration.result import Draft, KnownTensor, malformed

_BOUNDS = ("min", "opt", "max")

Shape = tuple[str, list[int]]
"""An input and its shape."""


@dataclass
class Profiles:
    """Shapes by profile, input and bound.

    Attributes:
        draft: what they go into.
        found: index of a profile -> input -> bound -> shape.
        runs: what is run with which shapes: flag, and its shapes.
    """

    draft: Draft
    found: dict[int, dict[str, dict[str, list[int]]]] = field(default_factory=dict)
    runs: list[tuple[str, Mapping[str, list[int]]]] = field(default_factory=list)

    def put(self, index: int, name: str, bound: str, dims: list[int]) -> None:
        """Take one shape: `bound` is min, opt or max."""
        self.found.setdefault(index, {}).setdefault(name, {})[bound] = dims

    def bound(self, flag: str, index: int, bound: str, shapes: Sequence[Shape]) -> None:
        """Take the shapes of a flag.

        Raises:
            UsageError: TF0120, another flag gave this bound of this profile, or an input stands
                there twice.
        """
        if any(bound in self.found.get(index, {}).get(name, {}) for name, _ in shapes):
            raise malformed(flag, f"{bound} shapes once, or once behind each --profile=N")
        for name, dims in _once(flag, shapes).items():
            self.put(index, name, bound, dims)
        self.draft.note(flag, "shapes")

    def run(self, flag: str, shapes: Sequence[Shape]) -> None:
        """Take shapes that the tool runs; it also builds for them where no others are given.

        Raises:
            UsageError: TF0120, an input stands there twice.
        """
        self.runs.append((flag, _once(flag, shapes)))

    def close(self) -> None:
        """Put the profiles into the draft; a missing bound is taken from its neighbours.

        That is what trtexec does (processShapes in samples/common/sampleOptions.cpp, TensorRT OSS
        11.1): min and max are taken from opt, opt from max, else from the one that is given.

        Raises:
            UsageError: TF0120, a profile is left out.
        """
        for flag, shapes in self.runs:
            missing = [name for name in shapes if name not in self.found.get(0, {})]
            for name in missing:
                for bound in _BOUNDS:
                    self.put(0, name, bound, shapes[name])
            if missing:
                self.draft.note(flag, "shapes")
            else:
                why = "min, opt and max are given, so it says which shape is run, not what is built"
                self.draft.send(flag, "trtforge bench --shape", why)
        if sorted(self.found) != list(range(len(self.found))):
            raise malformed(f"--profile={max(self.found)}", "profiles 0, 1, 2, ..., none left out")
        profiles = [
            {name: _filled(ranges) for name, ranges in self._named(self.found[index]).items()}
            for index in range(len(self.found))
        ]
        for name, tensor in (model.inputs if (model := self.draft.model) else {}).items():
            self._values(name, tensor, [one[name] for one in profiles if name in one])
        if self.draft.model is None and profiles and all(set(one) == {"*"} for one in profiles):
            self.draft.note("*", "shapes", "the model is not here: taken for its first input")
            self.draft.values["shapes"] = [[one["*"]] for one in profiles]
        elif profiles:
            self.draft.values["shapes"] = profiles[0] if len(profiles) == 1 else profiles

    def _named(
        self, profile: Mapping[str, dict[str, list[int]]]
    ) -> dict[str, dict[str, list[int]]]:
        """Wildcards are those of the model's inputs, as in Polygraphy (util.match_keys, 0.53)."""
        known = self.draft.model.inputs if self.draft.model is not None else {}
        found: dict[str, dict[str, list[int]]] = {}
        for name, ranges in profile.items():
            dynamic = [one for one, tensor in known.items() if None in (tensor.dims or ())]
            matched = [one for one in dynamic if fnmatch(one, name)] if name not in known else []
            for one in matched or [name]:
                found.setdefault(one, {}).update(ranges)
        return found

    def _values(self, name: str, tensor: KnownTensor, given: Sequence[dict[str, Any]]) -> None:
        """For an input that decides shapes, tools take values where others have a shape."""
        dims = tensor.dims
        if dims is None or len(dims) > 1 or None in dims or "int" not in tensor.dtype:
            return
        shapes = [one[bound] for one in given for bound in _BOUNDS]
        if any(shape != list(dims) for shape in shapes):
            for one in given:
                one["values"] = True
            self.draft.note(name, "shapes", "no shape but values: it decides shapes of others")


def _once(flag: str, shapes: Sequence[Shape]) -> dict[str, list[int]]:
    found = dict(shapes)
    if len(found) != len(shapes):
        raise malformed(flag, "each input once")
    return found


def _filled(ranges: dict[str, list[int]]) -> dict[str, Any]:
    known = [ranges[bound] for bound in ("opt", "max", "min") if bound in ranges]
    low = ranges.get("min", known[0])
    high = ranges.get("max", known[0])
    return {"min": low, "opt": ranges.get("opt", high), "max": high}
