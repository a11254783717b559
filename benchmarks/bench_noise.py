"""Does `trtforge bench --against` cry wolf? A model beside itself, and beside one that is slower.

    python benchmarks/bench_noise.py [--runs 20]

Prints how many of so many comparisons of a model with itself were called a difference (at most one
of twenty should be), the largest ratio among them, and how many of a network beside one of a tenth
more work were.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trtforge.engine.measuring.scenarios import Load
from trtforge.engine.measuring.statistics import Comparison
from trtforge.pipeline.bench import BenchOptions, bench

DIGITS = Path(__file__).resolve().parent.parent / "recipes" / "digits" / "model.onnx"
WIDTH = 512


def main() -> int:
    """Print the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        layers = {count: chain(Path(folder), count) for count in (10, 11)}
        for name, first, second in (
            ("digits beside itself", DIGITS, DIGITS),
            ("10 layers beside themselves", layers[10], layers[10]),
            ("10 layers beside 11", layers[10], layers[11]),
        ):
            found = [compared(first, second) for _ in range(runs)]
            called = sum(one.is_above_noise for one in found)
            ratios = sorted(one.ratio for one in found)
            print(f"{name}: {called} of {runs} called; {ratios[0]:.3f} .. {ratios[-1]:.3f}")
    return 0


def compared(first: Path, second: Path) -> Comparison:
    """Two in turns for a second."""
    options = BenchOptions(Load(seconds=1.0), against=second, threads=1)
    comparison = bench(first, options).comparison
    assert comparison is not None
    return comparison


def chain(folder: Path, count: int) -> Path:
    """A network of `count` equal matrix products."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(
            (rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32), f"w{index}"
        )
        for index in range(count)
    ]
    nodes = [
        helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"x{index + 1}"])
        for index in range(count)
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH])
        for name in ("x0", f"x{count}")
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    path = folder / f"{count}.onnx"
    imports = [helper.make_opsetid("", 19)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


if __name__ == "__main__":
    sys.exit(main())
