"""Two thousand random graphs of all kinds: optimized, they are valid and compute the same."""

from collections import Counter

import graph_judging as judge
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto
from random_graphs import MOVES, OPSETS, random_model

from trtforge.graph.execute import Session
from trtforge.graph.model import Model

BATCHES, EXAMPLES = 8, 250

_ROUNDING = 5e-5
"""Of the largest value on the way to an output: some hundred roundings of float32 in a row."""

_SENSITIVITY = 30
"""How many times the effect of a relative change of the inputs by 1e-6 is taken for rounding."""

MODELS = st.tuples(
    st.sampled_from(OPSETS),
    st.lists(
        st.tuples(st.integers(0, len(MOVES) - 1), st.integers(0, 65535)), min_size=1, max_size=14
    ),
    st.integers(0, 99),
)
"""What `random_model` takes; a failure shrinks to few moves."""


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_graphs(batch: int) -> None:
    counts: Counter[str] = Counter()

    @seed(batch)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(described=MODELS)
    def check(described: tuple[int, list[tuple[int, int]], int]) -> None:
        proto, feeds = random_model(*described)
        note(onnx.printer.to_text(proto))
        result = judge.judged(Model(proto))
        counts.update(["graphs"] + ["rewritten"] * bool(result.rewrites))
        agree(result, feeds)

    check()
    print(dict(counts))
    assert counts["graphs"] >= EXAMPLES
    assert counts["rewritten"] > EXAMPLES // 2  # otherwise nothing would be proven


def agree(case: judge.Judged, feeds: list[judge.Arrays]) -> None:
    """Compare the outputs, each by what rounding can do to it."""
    proto = case.before.proto
    outputs = [info.name for info in proto.graph.output]
    inner = [name for node in proto.graph.node for name in node.output if name]
    before = Session(case.before, outputs=inner, threads=1)
    after = Session(case.after, threads=1)
    for run, given_ in enumerate(feeds):
        everything = before.run(given_)
        moved = before.run(disturbed(given_, run), outputs)
        found = after.run(given_)
        peaks = largest_on_the_way(proto, everything | given_)
        for name in outputs:
            expected = everything[name]
            assert np.isfinite(expected).all(), f"{name} is not finite, so it proves nothing"
            assert found[name].shape == expected.shape, name
            assert found[name].dtype == expected.dtype, name
            if expected.dtype.kind != "f":
                assert np.array_equal(found[name], expected), name
                continue
            sensitivity = np.abs(expected - moved[name]).max(initial=0)
            allowed = _ROUNDING * peaks[name] + _SENSITIVITY * sensitivity
            error = np.abs(expected - found[name]).max(initial=0)
            assert error <= allowed, f"{name}: {error} instead of at most {allowed}"


def disturbed(feeds: judge.Arrays, run: int) -> judge.Arrays:
    """The same inputs, floats a little off."""
    generator = np.random.default_rng(run)
    result = {}
    for name, array in feeds.items():
        off = 1 + 1e-6 * generator.uniform(-1, 1, array.shape)
        result[name] = (array * off).astype(np.float32) if array.dtype.kind == "f" else array
    return result


def largest_on_the_way(proto: ModelProto, values: judge.Arrays) -> dict[str, float]:
    """For each tensor the largest value among it and all that it is computed from."""
    peaks = {tensor.name: 1.0 for tensor in proto.graph.initializer}
    peaks |= {info.name: peak(values[info.name]) for info in proto.graph.input}
    for node in proto.graph.node:
        behind = [peaks[name] for name in (*node.input, *captured(node)) if name in peaks]
        for name in node.output:
            peaks[name] = max([peak(values[name]), *behind]) if name else 0.0
    return peaks


def captured(node: onnx.NodeProto) -> list[str]:
    """Names that the bodies of a node read, their own among them."""
    return [name for a in node.attribute if a.HasField("g") for name in read_in(a.g)]


def read_in(graph: GraphProto) -> list[str]:
    names = [info.name for info in graph.output]
    for node in graph.node:
        names.extend((*node.input, *captured(node)))
    return names


def peak(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0)) if array.dtype.kind in "fi" else 1.0
