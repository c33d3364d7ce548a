import dataclasses
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from greensv.search.candidate import SearchSpace
from greensv.search.sampling import green
from greensv.search.sampling.encoding import candidate_key
from greensv.search.sampling.named import make_sampler
from greensv.search.sampling.optuna_sampler import GreenSampler, Situation, distributions
from tiny.study import Lab

KINDS = {
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
    "tpe-default": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "greensv": GreenSampler,
}


def situation(race) -> Situation:
    return Situation(history=race.history, outlook=race.outlook, space=race.space, objectives=race.objectives, rung=0)


def new_study(num_objectives: int = 2) -> optuna.Study:
    return optuna.create_study(directions=["minimize"] * num_objectives)


@pytest.fixture
def made(lab: Lab, race) -> Callable[..., optuna.samplers.BaseSampler]:
    config = lab.config()

    def make(name: str, trial_number: int, **more) -> optuna.samplers.BaseSampler:
        search = dataclasses.replace(config.search, sampler=name, num_startup_trials=6)
        more = {"num_backbones": 1, "situation": situation(race), **more}
        return make_sampler(dataclasses.replace(config, search=search), trial_number=trial_number, **more)

    return make


@pytest.mark.parametrize("name", KINDS)
def test_a_sampler_proposes_the_same_for_the_same_trial(made, race, name: str):
    def proposed(trial_number: int, num_backbones: int = 1):
        sampler = made(name, trial_number, num_backbones=num_backbones)
        assert isinstance(sampler, KINDS[name])
        study = new_study()
        study.sampler = sampler
        return race.space.suggest(study.ask())

    assert proposed(5) == proposed(5)
    assert proposed(5) != proposed(6)
    assert proposed(5, num_backbones=2) == proposed(5, num_backbones=2)


def test_where_short_trainings_mislead_greensv_leaves_it_to_tpe(made):
    assert isinstance(made("greensv", 0, is_full_fidelity=True), optuna.samplers.TPESampler)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_trial_gets_the_whole_candidate(race, monkeypatch: pytest.MonkeyPatch, share: float):
    monkeypatch.setattr(green, "RANDOM_SHARE", share)
    race.train_some(6)
    sampler = GreenSampler(situation(race), seed=4)
    study = new_study()
    study.sampler = sampler
    assert race.space.suggest(study.ask()) == sampler.proposal()


def test_with_several_backbones_only_the_chosen_ones_parameters_are_suggested(race):
    formula, spaces = race.space.backbones["formula"], race.space.spaces["formula"]
    race.space = SearchSpace(
        backbones={"formula": formula, "other": formula},
        spaces={"formula": spaces, "other": {k: spaces[k] for k in ("blocks1", "width_log2")}},
    )
    # Ask the space, not the formula: `other` has too few parameters for it.
    race.costs.rung_costs = lambda cs, *, from_step, to_step: [_costs_one() for _ in cs]
    race.costs.known_objectives = lambda cs: np.full((len(cs), 2), np.nan)
    study, chosen = new_study(), set()
    for seed in range(8):
        sampler = GreenSampler(situation(race), seed=seed)
        study.sampler = sampler
        trial = study.ask()
        candidate = race.space.suggest(trial)
        assert candidate == sampler.proposal()
        assert trial.params == race.space.trial_params(candidate)
        assert trial.distributions == distributions(race.space, candidate)
        chosen.add(candidate.backbone)
    assert chosen == {"formula", "other"}


def _costs_one():
    from greensv.search.cost import Prediction

    return Prediction(energy_j=1.0, upper_j=1.15, duration_s=1.0)


def test_a_queued_trial_asks_for_no_proposal(race):
    study = new_study()
    (system, *_) = race.systems()
    study.enqueue_trial(race.space.trial_params(system))
    sampler = GreenSampler(situation(race), seed=0)
    study.sampler = sampler
    assert race.space.suggest(study.ask()) == system
    assert sampler._proposed is None


def test_without_a_proposal_the_trial_is_random(race):
    race.left_kwh = 0.0
    sampler = GreenSampler(situation(race), seed=0)
    study = new_study()
    study.sampler = sampler
    candidate = race.space.suggest(study.ask())
    assert sampler.proposal() is None
    assert candidate_key(candidate) is not None
    assert all(p.problem(candidate.params[k]) is None for k, p in race.space.spaces["formula"].items())


def search(make: Callable[[int], optuna.samplers.BaseSampler], num: int) -> np.ndarray:
    """Runs a study whose trials end in every way they do in a search; returns each trial's parameters.

    Both objectives are indifferent to the first parameter, but a constraint wants it below 0.3.
    """
    study, found = new_study(), []
    for number in range(num):
        study.sampler = make(number)
        trial = study.ask()
        x = [trial.suggest_float(f"x{i}", 0, 1) for i in range(4)]
        found.append(x)
        if number % 9 == 7:
            continue  # still running
        trial.set_constraint("params < 5M", x[0] / 0.3 - 1)
        if number % 5 == 4:
            trial.set_user_attr("curve", [0.3, 0.2])
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [x[1] + x[2] + x[3], (1 - x[1]) ** 2 + x[2] + x[3]])
    return np.array(found)


@pytest.mark.parametrize(("name", "num"), [("tpe", 80), ("tpe-default", 80), ("nsga2", 200)])
def test_optunas_samplers_heed_constraints_beside_running_and_pruned_trials(made, name: str, num: int):
    found = search(lambda n: made(name, n), num)
    assert np.mean(found[num // 2 :, 0] <= 0.3) > 0.45  # by chance 0.3
    assert np.mean(found[num // 2 :, 2:]) < 0.4  # towards the front; by chance 0.5


def test_optunas_gaussian_process_heeds_constraints(made):
    study, found = new_study(), []
    for number in range(8):
        study.sampler = made("gp", number)
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraint("params < 5M", x / 0.3 - 1)
        study.tell(trial, [x, (1 - x) ** 2])
        found.append(x)
    assert max(found[:6]) > 0.5  # by chance
    assert max(found[6:]) < 0.35


def test_nsga2_keeps_its_population_though_it_is_made_anew_for_each_trial(made):
    study = new_study()
    for number in range(120):
        study.sampler = made("nsga2", number)
        trial = study.ask()
        x = [trial.suggest_float(f"x{i}", 0, 1) for i in range(4)]
        study.tell(trial, [x[0] + sum(x[1:]), (1 - x[0]) ** 2 + sum(x[1:])])
    generations = [value for t in study.trials for key, value in t.system_attrs.items() if key.endswith(":generation")]
    assert [generations.count(g) for g in range(3)] == [50, 50, 20]
    params = np.array([[t.params[f"x{i}"] for i in range(1, 4)] for t in study.trials])
    assert params[:50].mean() > params[50:100].mean() + 0.05
