"""`trtforge debug` on planted faults: exactly the planted nodes, in few evaluations."""

from dataclasses import replace

import numpy as np
import pytest
from debug_faults import FAULTS, chain, planted, subject_of_model
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_faults import BUILDERS

from trtforge.graph.model import Model
from trtforge.pipeline.debug import examine
from trtforge.pipeline.debug_subject import DebugOptions
from trtforge.pipeline.trial import Trials


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_exactly_the_planted_nodes_are_named(fault, tmp_path, record_property):
    model, culprits = planted(fault)
    result = examine(subject_of_model(model, tmp_path), DebugOptions())
    record_property("evaluations", result.evaluations)
    assert result.before.verdict == "fail"
    assert (result.outcome, {one.node for one in result.culprits}) == ("found", culprits)
    assert result.after.verdict == "pass"
    assert result.evaluations <= 12
    assert result.exit_status == 0


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_models_with_faults_are_mended(build, tmp_path):
    """Whatever the fault: few evaluations, and no rule too many."""
    made = build()
    np.savez(tmp_path / "d.npz", **made.data)
    subject = subject_of_model(Model(made.proto), tmp_path, data=tmp_path / "d.npz")
    result = examine(subject, DebugOptions())
    assert (result.before.verdict, result.outcome) == ("fail", "found")
    assert result.evaluations <= 20
    keep = (*result.rules, *subject.precision.keep)
    mended = subject.precision.model_copy(update={"keep": keep})
    with Trials(replace(subject, precision=mended)) as trials:
        assert trials.report(frozenset()).verdict == "pass"


@settings(max_examples=4, deadline=None)
@given(st.dictionaries(st.integers(0, 499), st.sampled_from([0, 1]), min_size=1, max_size=3))
def test_among_500_nodes_up_to_three_are_found(tmp_path_factory, places):
    model, culprits = chain(500, places)
    result = examine(subject_of_model(model, tmp_path_factory.mktemp("chain")), DebugOptions())
    assert {one.node for one in result.culprits} == culprits
    assert result.evaluations < 40
    assert result.candidates >= 500
