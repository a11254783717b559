"""Runners made of plain functions, and cases of plain arrays, for laws of the comparison itself."""

from collections.abc import Callable

import numpy as np

from trtforge.verify.cases import Case
from trtforge.verify.types import Bounds, Tolerances


class FunctionRunner:
    """Computes outputs by a function of the feed `x`; counts how often it is entered and left."""

    def __init__(self, function: Callable[..., dict[str, np.ndarray]], name: str = "function"):
        self.name = name
        self.function = function
        self.open = 0
        self.calls = 0

    def __enter__(self):
        self.open += 1
        return self

    def __exit__(self, *_):
        self.open -= 1

    def infer(self, feeds):
        assert self.open == 1, "used outside its context"
        self.calls += 1
        return self.function(feeds["x"])


def identity(x):
    return {"y": x}


def plus(error):
    return lambda x: {"y": (x + error).astype(x.dtype)}


def case(values, group="data", name=None, labels=None, rows=None, dtype=np.float32):
    array = np.asarray(values, dtype=dtype)
    return Case(name or group, group, {"x": array}, labels, rows)


def tolerances(fallback=None, **default):
    return Tolerances(
        default=Bounds(**default),
        fallback=fallback or Bounds(sqnr_db=40.0, exact_agreement=0.99),
        fallback_reason="fp16: for a test",
    )
