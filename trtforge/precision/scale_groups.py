"""Tensors that share one scale, as disjoint sets: joined while their ranges are near each other."""

from collections.abc import Mapping, Sequence


class ScaleGroups:
    """Sets of tensor names; every tensor begins as a set of its own."""

    def __init__(self, amax: Mapping[str, float] | None, within: float) -> None:
        """Begin.

        Args:
            amax: magnitude of each tensor's range; None when they are not known yet, and then all
                sets may be joined.
            within: the largest factor between the ranges of one set.
        """
        self._amax = amax
        self._within = within
        self._parent: dict[str, str] = {}
        self._members: dict[str, list[str]] = {}
        self._span: dict[str, tuple[float, float]] = {}

    def knows(self, name: str) -> bool:
        """Whether the range of a tensor is known, or none is known yet."""
        return self._amax is None or name in self._amax

    def members(self, name: str) -> tuple[str, ...]:
        """Return all tensors of a set, in the order in which they came."""
        root = self._find(name)
        return tuple(self._members.get(root, (root,)))

    def are_one(self, names: Sequence[str]) -> bool:
        """Whether tensors are in one set already."""
        return len({self._find(name) for name in names}) == 1

    def unite(self, names: Sequence[str]) -> str | None:
        """Join the sets of tensors; None, or why they stay apart.

        A tensor of zeros has no range and goes with any other.
        """
        unknown = next((name for name in names if not self.knows(name)), None)
        if unknown is not None:
            return f"the cache has no range of '{unknown}'"
        roots = list(dict.fromkeys(self._find(name) for name in names))
        spans = [span for span in map(self._range, roots) if span is not None]
        if spans:
            low, high = min(s[0] for s in spans), max(s[1] for s in spans)
            if high > self._within * low:
                return f"ranges from {low:.3g} to {high:.3g} are too far apart for one scale"
        # The largest set takes in the others, so that each member moves a few times at most.
        largest = max(roots, key=lambda root: len(self._members.get(root, ())))
        if spans:
            self._span[largest] = (low, high)
        merged = self._members.setdefault(largest, [largest])
        for root in roots:
            if root != largest:
                self._parent[root] = largest
                merged.extend(self._members.pop(root, [root]))
        return None

    def _find(self, name: str) -> str:
        root = name
        while root in self._parent:
            root = self._parent[root]
        while name != root:
            self._parent[name], name = root, self._parent[name]
        return root

    def _range(self, root: str) -> tuple[float, float] | None:
        if root in self._span:
            return self._span[root]
        amax = 0.0 if self._amax is None else self._amax[root]
        return (amax, amax) if amax > 0 else None
