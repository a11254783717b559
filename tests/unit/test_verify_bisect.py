"""The search for a minimal set: exact, within its budget, honest about what it could not show."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtforge.verify.bisect import minimal_set


class Changes:
    """Passes when every culprit is changed; remembers what was asked."""

    def __init__(self, culprits):
        self.culprits = frozenset(culprits)
        self.asked = []

    def __call__(self, items):
        self.asked.append(items)
        return self.culprits <= items


@settings(max_examples=300, deadline=None)
@given(st.sets(st.integers(0, 499), min_size=1, max_size=3))
def test_up_to_three_of_500_are_found_in_under_40_tests_without_any_guidance(culprits):
    test = Changes(culprits)
    result = minimal_set(range(500), test)
    assert result.outcome == "found"
    assert set(result.items) == culprits
    assert result.tests == len(test.asked) < 40
    for one in culprits:
        assert frozenset(culprits - {one}) in test.asked, "shown to be needed"


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 499), min_size=1, max_size=3), st.randoms())
def test_guidance_that_hides_later_culprits_behind_the_first_takes_few_tests(culprits, random):
    test = Changes(culprits)

    def suspects(tried):
        left = sorted(culprits - tried)
        return left[:1] + random.sample(range(500), 1)  # and a false trail

    result = minimal_set(range(500), test, suspects=suspects)
    assert set(result.items) == culprits
    assert result.tests <= 4 + 3 * len(culprits) * 2


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_the_test_is_the_result_is_what_it_says(data):
    count = data.draw(st.integers(1, 6))
    subsets = [
        frozenset(chosen)
        for size in range(count + 1)
        for chosen in itertools.combinations(range(count), size)
    ]
    passing = data.draw(st.sets(st.sampled_from(subsets)))
    budget = data.draw(st.integers(1, 40))
    asked = []
    result = minimal_set(
        range(count), lambda items: asked.append(items) or items in passing, budget=budget
    )
    assert result.tests == len(asked) == len(set(asked)) <= budget
    found = frozenset(result.items)
    if result.outcome == "nothing_to_do":
        assert frozenset() in passing
    elif result.outcome == "not_found":
        assert frozenset(range(count)) not in passing
    elif result.outcome == "found":
        assert found in passing
        assert all(found - {one} not in passing for one in found)
    elif result.outcome == "not_minimal":
        assert found in passing
    else:
        assert result.items == ()


def test_not_found_is_said_after_two_tests():
    result = minimal_set(range(100), lambda items: False)
    assert (result.outcome, result.items, result.tests) == ("not_found", (), 2)


def test_nothing_to_do_is_said_after_one():
    result = minimal_set(range(100), lambda items: True)
    assert (result.outcome, result.items, result.tests) == ("nothing_to_do", (), 1)


def test_no_candidates():
    assert minimal_set([], lambda items: False).outcome == "not_found"


@pytest.mark.parametrize("budget", [2, 5, 9])
def test_a_budget_that_ends_early_is_not_called_minimal(budget):
    result = minimal_set(range(500), Changes({3, 250, 400}), budget=budget)
    assert result.outcome in ("gave_up", "not_minimal")
    assert result.tests == budget


def test_a_set_larger_than_needed_is_not_called_minimal():
    test = Changes({1, 2, 3})
    result = minimal_set(range(9), test, suspects=lambda tried: [1, 2, 3, 4], budget=3)
    assert result.outcome == "not_minimal"
    assert {1, 2, 3} <= set(result.items)
