"""The parts of `benchmarks/casting.py`."""
