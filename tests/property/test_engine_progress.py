"""Whatever phases a builder announces, in whatever order, the share of work never falls."""

from hypothesis import given, settings
from hypothesis import strategies as st

from trtforge.engine.progress import PhaseTree

NAMES = st.sampled_from("abcd")
EVENTS = st.one_of(
    st.tuples(st.just("start"), NAMES, st.none() | NAMES, st.integers(-1, 5)),
    st.tuples(st.just("step"), NAMES, st.integers(0, 9)),
    st.tuples(st.just("finish"), NAMES),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=60))
def test_the_share_is_between_0_and_1_and_never_falls(events):
    tree = PhaseTree()
    last = 0.0
    for kind, *arguments in events:
        share = getattr(tree, kind)(*arguments)
        assert last <= share <= 1.0
        last = share
