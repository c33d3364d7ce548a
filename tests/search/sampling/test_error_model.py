import numpy as np
import pytest
from scipy.stats import spearmanr

from greensv.search.candidate import Candidate
from greensv.search.sampling import error_model
from greensv.search.sampling.encoding import candidate_key
from greensv.search.sampling.error_model import ErrorModel, seen_candidates
from greensv.search.simulation.surrogate import Table1Surrogate

STEPS = (1, 3, 9, 27)


def model_of(race) -> ErrorModel:
    return ErrorModel(race.history, race.space, rung_steps=STEPS, eer_index=0)


def test_it_ranks_unseen_candidates_mostly_by_what_short_trainings_showed(race):
    race.train_some(60)
    unseen = [race.space.draw(np.random.default_rng(1000 + n)) for n in range(80)]
    mean, deviation = model_of(race).predict(unseen)
    problem = Table1Surrogate(kappa=0.1)
    shown = np.log([1.35 * problem.truth(c.params)[0] for c in unseen])  # what the top rung shows, without noise
    assert spearmanr(mean, shown).statistic > 0.8
    assert np.mean(np.abs(mean - shown) < 2 * deviation) > 0.8


def test_it_needs_a_few_candidates(race):
    for system in race.systems()[:3]:
        race.train(system, to_rung=3)
    with pytest.raises(ValueError, match="too few"):
        model_of(race)


def test_it_learns_from_so_many_runs_at_the_most_those_to_the_top_before_others(race, monkeypatch: pytest.MonkeyPatch):
    race.train_some(30)
    monkeypatch.setattr(error_model, "MAX_ROWS", 10)
    kept = error_model._most_telling(race.history)
    assert [run.key.rung for run in kept[:6]] == [3] * 6
    assert [run.key.trial_number for run in kept[6:]] == [35, 34, 33, 32]  # the latest, each at its highest rung
    assert [run.key.rung for run in kept[6:]] == [0, 0, 1, 0]


def test_a_candidate_counts_with_the_highest_rung_it_has_shown(race):
    system, other, third = race.systems()[:3]
    race.train(system, to_rung=2)
    race.begin(other)
    race.begin(third, state="failed")
    seen = seen_candidates(race.history)
    problem = Table1Surrogate(kappa=0.1)
    outcome = problem.train(system.params, seed=0, from_step=0, to_step=9)
    assert seen[candidate_key(system)].objectives == (outcome.eer, outcome.train_energy_kwh)
    assert seen[candidate_key(other)].objectives is None
    assert [s.is_failed for s in seen.values()] == [False, False, True]


def test_a_candidate_that_failed_after_it_had_shown_something_is_not_lost(race):
    (system, *_) = race.systems()
    race.train(system, to_rung=0)
    race.num_trials = 0
    race.put(system, rung=1, state="failed", objectives=None)
    (seen,) = seen_candidates(race.history).values()
    assert seen.objectives is not None
    assert not seen.is_failed


def test_what_is_being_trained_is_taken_for_done(race):
    race.train_some(8)
    model = model_of(race)
    running = Candidate(
        backbone="formula", params={"blocks1": 8, "blocks2": 20, "blocks3": 30, "blocks4": 8, "width_log2": 1}
    )
    before = model.predict([running])
    model.believe([running])
    after = model.predict([running])
    assert after[0] == pytest.approx(before[0], abs=1e-3)
    assert after[1] < before[1]
