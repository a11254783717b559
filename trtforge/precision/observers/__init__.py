"""Observers: one per calibration method, streaming and mergeable; one line here adds another."""

OBSERVERS: dict[str, str] = {
    "minmax": "trtforge.precision.observers.minmax:MinMaxObserver",
    "entropy": "trtforge.precision.observers.entropy:EntropyObserver",
}
