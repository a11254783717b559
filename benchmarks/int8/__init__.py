"""Parts of `benchmarks/quantization.py`."""
