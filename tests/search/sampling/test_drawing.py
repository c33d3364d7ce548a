import math

import numpy as np
import pytest

from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.sampling.drawing import draw_new
from greensv.search.sampling.encoding import Encoding, candidate_key
from greensv.speaker.space import Choice, FloatRange, IntRange, Space

EVERYTHING: Space = {
    "depth": IntRange(low=1, high=100, default=2, log=True),
    "width": IntRange(low=2, high=6, default=2),
    "rate": FloatRange(low=0.25, high=1.0, default=0.5, step=0.25),
    "scale": FloatRange(low=1e-3, high=1.0, default=0.1, log=True),
    "share": FloatRange(low=0.0, high=1.0, default=0.5),
    "fixed": FloatRange(low=0.5, high=0.5, default=0.5),
    "pooling": Choice(options=("mean", "attentive"), default="mean"),
    "block": Choice(options=("a", "b", "c"), default="a"),
    "only": Choice(options=("this",), default="this"),
}
POINT = {
    "depth": 10,
    "width": 3,
    "rate": 1.0,
    "scale": 1e-3,
    "share": 0.75,
    "fixed": 0.5,
    "pooling": "attentive",
    "block": "b",
    "only": "this",
}
SMALL: Space = {"width": IntRange(low=1, high=3, default=1), "pooling": EVERYTHING["pooling"]}


def space_of(**spaces: Space) -> SearchSpace:
    return SearchSpace(backbones={}, spaces=spaces)


def of(backbone: str, **params) -> Candidate:
    return Candidate(backbone=backbone, params=params)


def test_a_candidate_is_a_row_of_the_unit_cube():
    encoding = Encoding(space=space_of(net=EVERYTHING))
    (row,) = encoding.rows([of("net", **POINT)])
    # ln 10 of ln 1 to ln 100, 3 of 2 to 6, then the top, the bottom, a share; fixed ones take no column.
    assert row == pytest.approx([0.5, 0.25, 1.0, 0.0, 0.75, 1.0, 0.0, 1.0, 0.0])
    assert encoding.num_columns == len(row)


def test_each_of_several_backbones_has_columns_of_its_own():
    encoding = Encoding(space=space_of(net=SMALL, other={"width": IntRange(low=1, high=3, default=1)}))
    rows = encoding.rows([of("net", width=3, pooling="attentive"), of("other", width=1)])
    assert rows.tolist() == [[0.0, 1.0, 1.0, 0.5], [1.0, 0.5, 0.0, 0.0]]
    assert encoding.rows([]).shape == (0, encoding.num_columns)


def test_candidates_are_the_same_to_twelve_digits():
    assert candidate_key(of("net", a=0.1 + 0.2, b=1)) == candidate_key(of("net", b=1, a=0.3))
    assert candidate_key(of("net", a=0.3)) != candidate_key(of("net", a=0.31))
    assert candidate_key(of("net", a=1)) != candidate_key(of("other", a=1))


@pytest.mark.parametrize("near", [(), (of("net", **POINT),)], ids=["anywhere", "near"])
def test_what_is_drawn_is_new_and_in_the_space(near: tuple[Candidate, ...]):
    space, random = space_of(net=EVERYTHING), np.random.default_rng(0)
    drawn = draw_new(space, random, num=200, seen={candidate_key(c) for c in near}, near=near)
    assert len({candidate_key(c) for c in drawn}) == len(drawn) == 200
    assert of("net", **POINT) not in drawn
    for candidate in drawn:
        assert all(p.problem(candidate.params[name]) is None for name, p in EVERYTHING.items())


def test_neighbours_are_near():
    encoding, point = Encoding(space=space_of(net=EVERYTHING)), of("net", **POINT)
    random = np.random.default_rng(0)

    def distance(near: tuple[Candidate, ...]) -> float:
        rows = encoding.rows(draw_new(encoding.space, random, num=100, seen=set(), near=near))
        return float(np.median(np.linalg.norm(rows - encoding.rows([point]), axis=1)))

    assert distance((point,)) < 0.7 * distance(())


def test_a_small_space_is_drawn_from_until_it_is_used_up():
    space, random = space_of(net=SMALL), np.random.default_rng(0)
    everything = draw_new(space, random, num=100, seen=set())
    assert len(everything) == 6
    seen = {candidate_key(c) for c in everything[:5]}
    assert draw_new(space, random, num=100, seen=seen) == [everything[5]]
    assert draw_new(space, random, num=100, seen={candidate_key(c) for c in everything}) == []


def test_the_last_point_of_a_larger_space_is_found():
    numbers = {"a": IntRange(low=1, high=50, default=1), "b": IntRange(low=1, high=50, default=1)}
    space = space_of(net=numbers)
    everything = [of("net", a=a, b=b) for a in range(1, 51) for b in range(1, 51)]
    seen = {candidate_key(c) for c in everything[:-1]}
    assert draw_new(space, np.random.default_rng(0), num=8, seen=seen) == [everything[-1]]


def test_steps_stay_on_the_grid():
    space = space_of(net={"rate": FloatRange(low=-4.0, high=2.0, default=0.0, step=0.5)})
    point = of("net", rate=0.0)
    rates = {
        float(c.params["rate"]) for c in draw_new(space, np.random.default_rng(0), num=12, seen=set(), near=[point])
    }
    assert all(math.isclose(2 * rate, round(2 * rate)) for rate in rates)
    assert len(rates) > 3
