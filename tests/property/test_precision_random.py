"""Laws of casts on random graphs of all kinds of operators, with bodies: see `random_graphs`."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from precision_samples import check_typed
from random_graphs import MOVES, OPSETS, random_model

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision import cast as casting
from trtforge.precision.emulate import emulate
from trtforge.recipe.schema import Precision

FP16 = Precision(type="fp16")
moves = st.tuples(st.integers(0, len(MOVES) - 1), st.integers(0, 10**6))


@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(OPSETS), st.lists(moves, min_size=1, max_size=12), st.integers(0, 99))
def test_typed_graphs_load_stay_close_and_have_no_cast_too_many(
    monkeypatch: pytest.MonkeyPatch, opset: int, steps: list[tuple[int, int]], outputs: int
) -> None:
    proto, feeds = random_model(opset, steps, outputs)
    model = Model(proto)
    typed, report = casting.cast(model, FP16)
    check_typed(model, typed)
    Session(typed)
    expected, found = Session(model).run(feeds[0]), Session(emulate(typed)).run(feeds[0])
    for name, values in expected.items():
        if values.dtype.kind == "f" and values.size and np.isfinite(values).all():
            # Sums that cancel are no larger than the rounding of what was added.
            assert np.abs(found[name] - values).max() < 0.03 * max(1, np.abs(values).max())
    with monkeypatch.context() as patch:
        patch.setattr(casting, "relax", lambda *given: None)
        _, naive = casting.cast(model, FP16)
    assert report.casts_added <= naive.casts_added
