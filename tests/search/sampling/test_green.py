import dataclasses

import numpy as np
import pytest

from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.front import non_dominated
from greensv.search.objectives import constraints_of
from greensv.search.rungs.history import History
from greensv.search.sampling import green
from greensv.search.sampling.encoding import candidate_key
from greensv.search.sampling.green import propose
from greensv.speaker.space import IntRange

ALWAYS, NEVER = 1.0, 0.0


@pytest.fixture(params=[ALWAYS, NEVER], ids=["by chance", "by the model"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(green, "RANDOM_SHARE", request.param)


def proposed(race, *, seed: int = 0, rung: int = 0, constraints=()) -> Candidate | None:
    return propose(
        race.history,
        race.outlook,
        race.space,
        race.objectives,
        rung=rung,
        random=np.random.default_rng(seed),
        constraints=constraints,
    )


def test_the_same_seed_proposes_the_same(race, either_way):
    race.train_some(10)
    assert proposed(race, seed=3) == proposed(race, seed=3)
    assert len({candidate_key(proposed(race, seed=seed)) for seed in range(6)}) > 1


def test_it_proposes_before_anything_has_run(race, either_way):
    candidate = proposed(race)
    assert candidate is not None
    assert all(p.problem(candidate.params[k]) is None for k, p in race.space.spaces["formula"].items())


def test_by_chance_a_cheap_candidate_is_as_much_likelier_as_it_is_cheaper(race, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(green, "RANDOM_SHARE", ALWAYS)
    narrow = {key: IntRange(low=2, high=2, default=2) for key in ("blocks1", "blocks2", "blocks3", "blocks4")}
    space = {**narrow, "width_log2": IntRange(low=-2, high=1, default=0)}
    race.space = dataclasses.replace(race.space, spaces={"formula": space})
    drawn = [proposed(race, seed=seed) for seed in range(400)]
    widths = np.array([c.params["width_log2"] for c in drawn if c is not None])
    costs = [
        p.energy_j
        for p in race.costs.rung_costs(
            [Candidate(backbone="formula", params={**dict.fromkeys(narrow, 2), "width_log2": w}) for w in range(-2, 2)],
            from_step=0,
            to_step=1,
        )
    ]
    weights = 1 / np.array(costs)
    shares = np.array([np.mean(widths == w) for w in range(-2, 2)])
    assert shares == pytest.approx(weights / weights.sum(), abs=0.07)


def test_the_model_finds_better_than_chance_does(race, monkeypatch: pytest.MonkeyPatch):
    """How many of the proposals would join the front of what has run, by their true error rates."""
    race.train_some(30)

    def joining(share: float) -> int:
        monkeypatch.setattr(green, "RANDOM_SHARE", share)
        num = 0
        for seed in range(20):
            candidate = proposed(race, seed=seed)
            points = np.array([truth(run.candidate) for run in race.history.at_rung(0)] + [truth(candidate)])
            num += bool(non_dominated(points)[-1])
        return num

    by_chance, by_model = joining(ALWAYS), joining(NEVER)
    assert by_model > by_chance + 5


def truth(candidate) -> tuple[float, float]:
    from greensv.search.simulation.surrogate import Table1Surrogate

    return Table1Surrogate(kappa=0.1).truth(candidate.params)


def test_what_has_run_or_is_running_or_has_failed_is_not_proposed_again(race, either_way):
    space = {"blocks1": IntRange(low=1, high=2, default=1), "blocks2": IntRange(low=1, high=3, default=1)}
    fixed = {"blocks3": 2, "blocks4": 2, "width_log2": 0}
    fixed_space = {k: IntRange(low=v, high=v, default=v) for k, v in fixed.items()}
    race.space = dataclasses.replace(race.space, spaces={"formula": {**space, **fixed_space}})
    points = [
        Candidate(backbone="formula", params={"blocks1": a, "blocks2": b, **fixed}) for a in (1, 2) for b in (1, 2, 3)
    ]
    for candidate in points[:4]:
        race.train(candidate, to_rung=1)
    race.begin(points[4])
    assert {candidate_key(proposed(race, seed=seed)) for seed in range(5)} == {candidate_key(points[5])}
    race.begin(points[5], state="failed")
    assert proposed(race) is None


def test_what_cannot_be_paid_to_the_top_is_not_proposed(race, either_way):
    race.train_some(6)
    race.left_kwh = 1.0
    for seed in range(5):
        (expected,) = race.costs.rung_costs([proposed(race, seed=seed)], from_step=0, to_step=27)
        assert 1.15 * expected.energy_j <= race.outlook.left_j
    race.left_kwh = 0.001
    assert proposed(race) is None
    race.left_kwh = 0.0
    assert proposed(race) is None


def test_what_breaks_a_constraint_or_is_refused_is_not_proposed(race_of_three, either_way):
    race = race_of_three
    race.train_some(6)
    race.costs.forbidden = {1, 2}
    kept = constraints_of(["params < 1M"])
    for seed in range(5):
        candidate = proposed(race, seed=seed, constraints=kept)
        assert candidate.params["blocks1"] not in {1, 2}
        assert race.costs.known_objectives([candidate])[0, 2] < 1e6
    race.costs.forbidden = set(range(1, 9))
    assert proposed(race) is None


def test_many_workers_do_not_propose_the_same(race, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(green, "RANDOM_SHARE", NEVER)
    race.train_some(10)
    for seed in range(12):
        race.begin(proposed(race, seed=seed))
    begun = [run.candidate for run in race.history.in_state("running")]
    assert len({candidate_key(c) for c in begun}) == 12
    energies = np.log([truth(c)[1] for c in begun])
    assert np.ptp(energies) > 1.0  # over the front, not around one of its points


def test_an_objective_that_nobody_knows_yet_is_left_out(race_of_three, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(green, "RANDOM_SHARE", NEVER)
    race = race_of_three
    race.train_some(6)
    known = race.costs.known_objectives
    monkeypatch.setattr(
        race.costs, "known_objectives", lambda candidates: known(candidates) * np.array([1.0, 1.0, np.nan])
    )
    race.begin(race.space.draw(np.random.default_rng(5)))
    assert proposed(race) is not None


def test_a_study_without_rungs_is_proposed_for_too(race, either_way):
    race.history = History(num_rungs=1)
    one = dataclasses.replace(race.outlook, rung_steps=(27,))
    for number, system in enumerate(race.systems()):
        race.num_trials = number
        race.put(system, rung=0, state="done", objectives=truth(system))
    found = propose(race.history, one, race.space, race.objectives, rung=0, random=np.random.default_rng(0))
    assert found is not None
    assert found not in race.systems()


def test_several_backbones_are_searched_together(race, monkeypatch: pytest.MonkeyPatch):
    two = {"formula": race.space.spaces["formula"], "other": {**race.space.spaces["formula"]}}
    race.space = SearchSpace(backbones={**race.space.backbones, "other": race.space.backbones["formula"]}, spaces=two)
    race.train_some(10)
    monkeypatch.setattr(green, "RANDOM_SHARE", ALWAYS)
    assert {proposed(race, seed=seed).backbone for seed in range(12)} == {"formula", "other"}
    # Where one of them has shown high error rates all along, the model prefers the other.
    monkeypatch.setattr(green, "RANDOM_SHARE", NEVER)
    race.history = History(num_rungs=4)
    for system in race.systems():
        race.train(system, to_rung=3)
        for rung in range(4):
            worse = Candidate(backbone="other", params=system.params)
            race.put(worse, rung=rung, state="done", objectives=(0.3, truth(system)[1]))
        race.num_trials += 1
    assert {proposed(race, seed=seed).backbone for seed in range(4)} == {"formula"}


def test_an_error_rate_of_zero_does_no_harm(race, either_way):
    for system in race.systems():
        race.put(system, rung=3, state="done", objectives=(0.0, truth(system)[1]))
        race.num_trials += 1
    assert proposed(race) is not None
