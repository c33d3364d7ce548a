"""Ranges and choices, and how a study narrows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greensv.errors import ConfigError
from greensv.speaker.space import (
    Choice,
    FloatRange,
    IntRange,
    Parameter,
    check_point,
    defaults,
    highest,
    lowest,
    narrow,
)

DEPTH = IntRange(low=4, high=100, default=16)
WIDTH = FloatRange(low=-4.0, high=1.0, default=0.0, step=0.5)
BLOCK = Choice(options=("basic-2", "basic-3", "bottleneck"), default="basic-3")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [(DEPTH, 4), (DEPTH, 100), (WIDTH, -4), (WIDTH, -3.5), (WIDTH, 1.0), (BLOCK, "bottleneck")],
)
def test_values_of_the_space_have_no_problem(parameter: Parameter, value: object):
    assert parameter.problem(value) is None


@pytest.mark.parametrize(
    ("parameter", "value", "problem"),
    [
        (DEPTH, 3, "3 is outside 4 to 100"),
        (DEPTH, 101, "101 is outside 4 to 100"),
        (DEPTH, 8.0, "8.0 is not a whole number"),
        (DEPTH, True, "True is not a whole number"),
        (DEPTH, "8", "'8' is not a whole number"),
        (WIDTH, 1.5, "1.5 is outside -4.0 to 1.0"),
        (WIDTH, 0.25, "0.25 is not -4.0 plus a multiple of 0.5"),
        (WIDTH, float("nan"), "nan is not a number"),
        (WIDTH, float("inf"), "inf is not a number"),
        (WIDTH, False, "False is not a number"),
        (BLOCK, "basic", "'basic' is not one of basic-2, basic-3, bottleneck"),
        (BLOCK, 2, "2 is not one of basic-2, basic-3, bottleneck"),
    ],
)
def test_a_value_outside_the_space_is_told_why(parameter: Parameter, value: object, problem: str):
    assert parameter.problem(value) == problem


@pytest.mark.parametrize(
    ("parameter", "spec", "narrowed"),
    [
        (DEPTH, [8, 12], IntRange(low=8, high=12, default=12)),
        (DEPTH, (20, 30), IntRange(low=20, high=30, default=20)),
        (DEPTH, 8, IntRange(low=8, high=8, default=8)),
        (WIDTH, [-3.0, -1], FloatRange(low=-3.0, high=-1, default=-1, step=0.5)),
        (BLOCK, "basic-2", Choice(options=("basic-2",), default="basic-2")),
        (BLOCK, ["bottleneck", "basic-3"], Choice(options=("bottleneck", "basic-3"), default="basic-3")),
        (BLOCK, ["bottleneck"], Choice(options=("bottleneck",), default="bottleneck")),
    ],
)
def test_a_study_fixes_a_value_or_gives_a_range_or_a_list_of_options(
    parameter: Parameter, spec: object, narrowed: Parameter
):
    assert narrow(parameter, spec) == narrowed


@pytest.mark.parametrize(
    ("parameter", "spec", "problem"),
    [
        (DEPTH, [1, 12], "1 is outside 4 to 100"),
        (DEPTH, [12, 8], r"\[12, 8\] is empty: the first is larger than the second"),
        (DEPTH, [4, 8, 12], r"\[4, 8, 12\] is neither a value nor \[low, high\]"),
        (DEPTH, [], r"\[\] is neither a value nor \[low, high\]"),
        (DEPTH, {"low": 4}, "is not a whole number"),
        (DEPTH, [[4], 8], "is not a whole number"),
        (WIDTH, [0.1, 1.0], "0.1 is not -4.0 plus a multiple of 0.5"),
        (BLOCK, [], "an empty list leaves nothing to choose from"),
        (BLOCK, ["basic-2", "none"], "'none' is not one of"),
        (BLOCK, {"basic-2": 1}, "is not one of"),
        (BLOCK, [["basic-2"]], "is not one of"),
        (BLOCK, None, "None is not one of"),
    ],
)
def test_a_narrowing_that_reaches_outside_is_refused(parameter: Parameter, spec: object, problem: str):
    with pytest.raises(ValueError, match=problem):
        narrow(parameter, spec)


def test_narrowing_keeps_the_scale():
    width = IntRange(low=8, high=512, default=64, log=True)
    assert narrow(width, [16, 32]) == IntRange(low=16, high=32, default=32, log=True)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.sampled_from([DEPTH, WIDTH, BLOCK]), json_like)
def test_any_narrowing_gives_a_part_of_the_space_or_a_value_error(parameter: Parameter, spec: object):
    try:
        narrowed = narrow(parameter, spec)
    except ValueError:
        return
    assert narrowed.problem(narrowed.default) is None
    for end in (*lowest({"p": narrowed}).values(), *highest({"p": narrowed}).values()):
        assert parameter.problem(end) is None


def test_defaults_and_ends_of_a_space():
    space = {"depth": DEPTH, "width": WIDTH, "block": BLOCK}
    assert defaults(space) == {"depth": 16, "width": 0.0, "block": "basic-3"}
    assert lowest(space) == {"depth": 4, "width": -4.0, "block": "basic-2"}
    assert highest(space) == {"depth": 100, "width": 1.0, "block": "bottleneck"}


def test_all_mistakes_of_a_point_are_named_together():
    space = {"depth": DEPTH, "block": BLOCK}
    check_point(defaults(space), space, name="net")
    with pytest.raises(ConfigError) as caught:
        check_point({"dept": 5, "block": "basic"}, space, name="net")
    assert str(caught.value) == (
        "these parameters make no net: unknown parameter 'dept'; did you mean 'depth'?; depth: missing; "
        "block: 'basic' is not one of basic-2, basic-3, bottleneck (parameters: depth, block)"
    )
