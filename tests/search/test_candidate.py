from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest

from greensv.errors import ConfigError, PluginError
from greensv.plugins import plugins_from
from greensv.search.candidate import Candidate, SearchSpace, build_space, format_params, space_problems
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import Choice, FloatRange, IntRange
from tiny.study import Lab

SPACE = {
    "depth": IntRange(low=1, high=100, default=2, log=True),
    "width": IntRange(low=2, high=5, default=2),
    "rate": FloatRange(low=0.25, high=1.0, default=0.5, step=0.25),
    "scale": FloatRange(low=1e-3, high=1.0, default=0.1, log=True),
    "share": FloatRange(low=0.0, high=1.0, default=0.5),
    "pooling": Choice(options=("mean", "attentive"), default="mean"),
}


class Everything(Backbone):
    """A space with a parameter of each kind."""

    name = "everything"

    def space(self):
        return SPACE

    def build(self, params, *, features):
        raise AssertionError("a space is looked at without building a network")

    def summary(self, params):
        return {"blocks": [params["depth"]]}


class Plugin:
    from greensv.hookspecs import hookimpl

    @hookimpl
    def greensv_backbones(self):
        return [Everything()]


@pytest.fixture
def of_one() -> SearchSpace:
    return build_space({"everything": {}}, plugins_from({"everything": Plugin()}))


@pytest.fixture
def of_two(lab: Lab) -> SearchSpace:
    return build_space({"tiny": {"width": [2, 4]}, "tiny-too": {"depth": 1}}, lab.plugins)


def fixed_trial(params: Mapping[str, Any]) -> optuna.Trial:
    return optuna.trial.FixedTrial(dict(params))  # type: ignore[return-value]


def test_with_one_backbone_its_parameters_are_the_trials_own(of_one: SearchSpace):
    params = {"depth": 3, "width": 4, "rate": 0.75, "scale": 0.5, "share": 0.125, "pooling": "attentive"}
    candidate = of_one.suggest(fixed_trial(params))
    assert candidate == Candidate(backbone="everything", params=params)
    assert of_one.trial_params(candidate) == params
    assert of_one.candidate(params) == candidate


def test_with_several_backbones_the_trial_chooses_one_and_names_whose_parameters_they_are(of_two: SearchSpace):
    params = {"backbone": "tiny-too", "tiny-too.width": 7, "tiny-too.depth": 1}
    candidate = of_two.suggest(fixed_trial(params))
    assert candidate == Candidate(backbone="tiny-too", params={"width": 7, "depth": 1})
    assert of_two.trial_params(candidate) == params
    assert of_two.candidate(params) == candidate


def test_optuna_samples_every_kind_of_parameter_within_its_range(of_one: SearchSpace):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        candidate = of_one.suggest(study.ask())
        assert [SPACE[name].problem(value) for name, value in candidate.params.items()] == [None] * len(SPACE)


def test_draws_are_within_range_reach_both_ends_and_repeat_with_their_seed(of_one: SearchSpace):
    drawn = [of_one.draw(random) for random in [np.random.default_rng(3)] for _ in range(400)]
    for candidate in drawn:
        assert [SPACE[name].problem(value) for name, value in candidate.params.items()] == [None] * len(SPACE)
    for name in ("depth", "width", "rate", "pooling"):
        parameter = SPACE[name]
        ends = set(parameter.options) if isinstance(parameter, Choice) else {parameter.low, parameter.high}
        assert ends <= {candidate.params[name] for candidate in drawn}
    # Half of the logarithms of 0.5 to 100.5 lie below 7.1.
    assert 0.4 < np.mean([candidate.params["depth"] <= 7 for candidate in drawn]) < 0.6
    random = np.random.default_rng(3)
    assert [of_one.draw(random) for _ in range(400)] == drawn


def test_draws_take_each_backbone(of_two: SearchSpace):
    random = np.random.default_rng(0)
    drawn = [of_two.draw(random) for _ in range(40)]
    assert {candidate.backbone for candidate in drawn} == {"tiny", "tiny-too"}
    assert max(c.params["width"] for c in drawn if c.backbone == "tiny") <= 4


def test_the_ends_are_those_of_every_narrowed_space(of_two: SearchSpace):
    assert [(c.backbone, dict(c.params)) for c in of_two.ends()] == [
        ("tiny", {"width": 2, "depth": 1}),
        ("tiny", {"width": 4, "depth": 3}),
        ("tiny-too", {"width": 2, "depth": 1}),
        ("tiny-too", {"width": 16, "depth": 1}),
    ]


def test_a_space_of_one_point_has_one_end(lab: Lab):
    space = build_space({"tiny": {"width": 3, "depth": 2}}, lab.plugins)
    assert space.ends() == [Candidate(backbone="tiny", params={"width": 3, "depth": 2})]


def test_a_narrowing_that_reaches_outside_names_every_mistake_with_its_path(lab: Lab):
    narrowings = {"tiny": {"width": [1, 8], "dept": 2, "depth": [3, 2]}, "tiny-too": {"width": "wide"}}
    expected = [
        "backbones.tiny.width: 1 is outside 2 to 16",
        "backbones.tiny.dept: unknown parameter (known: width, depth)",
        "backbones.tiny.depth: [3, 2] is empty: the first is larger than the second",
        "backbones.tiny-too.width: 'wide' is not a whole number",
    ]
    with pytest.raises(ConfigError) as caught:
        build_space(narrowings, lab.plugins)
    assert str(caught.value).splitlines() == expected
    assert [str(problem) for problem in space_problems(narrowings, lab.plugins)] == expected


def test_an_unknown_backbone_is_an_error_that_suggests(lab: Lab):
    with pytest.raises(PluginError, match="did you mean 'tiny'"):
        build_space({"tinny": {}}, lab.plugins)
    (problem,) = space_problems({"tinny": {}, "tiny": "not a table"}, lab.plugins)
    assert str(problem).startswith("backbones.tinny: no backbone named 'tinny'; did you mean 'tiny'?")


def test_a_candidate_is_shown_with_its_stages_where_they_are_known():
    stages = {"blocks": [1, 2], "channels": [16, 32]}
    assert format_params({"block": "basic-2"}, stages) == "[1,2] × [16,32] basic-2"
    assert format_params({}, stages) == "[1,2] × [16,32]"
    assert format_params({"width": 4, "rate": 0.12345}, {}) == "width=4 rate=0.123"


def test_the_summary_is_the_backbones_own(of_one: SearchSpace):
    assert of_one.summary(Candidate(backbone="everything", params={"depth": 9})) == {"blocks": [9]}
