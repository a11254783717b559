"""Profiles: from a recipe, what they cover, and every way in which they do not fit a network."""

import pytest

from trtforge.engine.backend import ValueTriple
from trtforge.engine.profiles import covering_profile, covers, profile_problems, profile_shapes
from trtforge.recipe.schema import ShapeRange

TRIPLE = ((1, 3), (4, 3), (8, 3))


def test_a_recipes_profiles_become_triples_in_order():
    shape = ShapeRange(min=(1, 3), opt=(4, 3), max=(8, 3))
    assert profile_shapes([{"b": shape, "a": shape}]) == ({"b": TRIPLE, "a": TRIPLE},)
    assert list(profile_shapes([{"b": shape, "a": shape}])[0]) == ["b", "a"]


def test_values_stay_values():
    shape = ShapeRange(min=(-1, 2), opt=(-1, 3), max=(-1, 9), values=True)
    ((found,),) = (profile.values() for profile in profile_shapes([{"k": shape}]))
    assert isinstance(found, ValueTriple)
    assert found == ((-1, 2), (-1, 3), (-1, 9))
    assert covering_profile(({"k": found},), {"k": (-1, 9)}) == 0
    assert covering_profile(({"k": found},), {"k": (0, 9)}) is None


@pytest.mark.parametrize(
    ("dims", "inside"),
    [
        ((1, 3), True),
        ((8, 3), True),
        ((9, 3), False),
        ((0, 3), False),
        ((4, 2), False),
        ((4,), False),
    ],
)
def test_covers_is_between_min_and_max_in_every_dimension(dims, inside):
    assert covers(TRIPLE, dims) is inside


def test_the_first_profile_that_covers_all_inputs_is_chosen():
    profiles = ({"x": TRIPLE}, {"x": ((8, 3), (16, 3), (32, 3))})
    assert covering_profile(profiles, {"x": (8, 3)}) == 0
    assert covering_profile(profiles, {"x": (9, 3), "static": (5, 5)}) == 1
    assert covering_profile(profiles, {"x": (33, 3)}) is None


INPUTS = {"x": (-1, 3), "y": (2, 2)}


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        (({"x": TRIPLE},), ()),
        (({"x": TRIPLE, "y": ((2, 2),) * 3},), ()),
        ((), ("input 'x' is dynamic, but there is no optimization profile",)),
        (({},), ("profile 0 lacks the dynamic input 'x'",)),
        (
            ({"x": TRIPLE, "z": TRIPLE},),
            ("profile 0 names 'z', but the inputs are 'x', 'y'",),
        ),
        (({"x": ((1,),) * 3},), ("profile 0, input 'x': the input has 2 dimensions: [-1, 3]",)),
        (
            ({"x": ((1, 3), (9, 3), (8, 3))},),
            ("profile 0, input 'x': not min <= opt <= max in dimension 0: 1, 9, 8",),
        ),
        (
            ({"x": TRIPLE}, {"x": ((1, 3), (1, 3), (1, 4))}),
            ("profile 1, input 'x': dimension 1 is 3 in the model, 3..4 in the profile",),
        ),
    ],
)
def test_problems_are_named_with_profile_input_and_numbers(profiles, expected):
    assert profile_problems(INPUTS, profiles) == expected


def test_static_networks_need_no_profile():
    assert profile_problems({"y": (2, 2)}, ()) == ()


DECIDING = {"x": (-1, 3), "k": (2,), "n": ()}
K, N = ValueTriple(((1, 1), (2, 2), (4, 4))), ValueTriple(((1,), (2,), (3,)))


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ({"k": K, "n": N}, ()),
        (
            {"k": K},
            ("profile 0 lacks the values of input 'n', which decides shapes by its values",),
        ),
        (
            {"k": ((2,),) * 3, "n": N},
            ("profile 0 gives the shape of input 'k', which decides shapes by its values",),
        ),
        ({"k": N, "n": N}, ("profile 0, input 'k': the input has 2 values",)),
        ({"k": K, "n": K}, ("profile 0, input 'n': the input has 1 value",)),
        (
            {"k": ValueTriple(((1, 1), (0, 2), (4, 4))), "n": N},
            ("profile 0, input 'k': not min <= opt <= max: [1, 1], [0, 2], [4, 4]",),
        ),
        (
            {"x": ValueTriple(((1,),) * 3), "k": K, "n": N},
            ("profile 0, input 'x': its values are given, but they decide no shapes",),
        ),
    ],
)
def test_values_are_held_against_the_inputs_that_decide_shapes(profile, expected):
    assert profile_problems(DECIDING, ({"x": TRIPLE} | profile,), ["k", "n"]) == expected


def test_values_need_a_profile():
    assert profile_problems({"k": (2,)}, (), ["k"]) == (
        "input 'k' decides shapes by its values, but there is no profile of them",
    )
