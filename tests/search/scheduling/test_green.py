import dataclasses

import numpy as np
import pytest

from greensv.config.study import SearchConfig
from greensv.search.candidate import Candidate
from greensv.search.front import non_dominated
from greensv.search.rungs.history import RunKey
from greensv.search.scheduling.green import GreenPolicy
from greensv.search.scheduling.policy import Continue, Finish, Promote, Propose, Retire
from greensv.search.scheduling.retiring import MAX_WAITING
from greensv.search.simulation.surrogate import Table1Surrogate
from search.scheduling.memory_search import MemorySearch, seeds_of


class OneRung(Table1Surrogate):
    """Trainings are compared at their end alone."""

    rung_steps = (27,)


class Unrelated(Table1Surrogate):
    """What a training shows on its way has nothing to do with its end."""

    def train(self, params, *, seed, from_step, to_step):
        outcome = super().train(params, seed=seed, from_step=from_step, to_step=to_step)
        if to_step == self.rung_steps[-1]:
            return outcome
        drawn = np.random.default_rng([*map(abs, params.values()), to_step]).uniform(0.1, 0.4)
        return dataclasses.replace(outcome, eer=float(drawn))


def search(problem, *, budget_kwh=30.0, queue=None, **others):
    config = others.pop("config", SearchConfig())
    queue = seeds_of(problem) if queue is None else queue
    return MemorySearch(problem=problem, policy=GreenPolicy(config), budget_kwh=budget_kwh, queue=queue, **others).run()


def trials_at(found, rung):
    return {run.key.trial_number for run in found.history.reached(rung)}


@pytest.fixture(scope="module")
def usual():
    return search(Table1Surrogate(0.1))


def test_the_published_systems_go_through_all_rungs_first(usual):
    assert {0, 1, 2, 3, 4, 5} <= trials_at(usual, 3)
    assert all(usual.history.get(RunKey(trial_number=n, rung=0)).must_finish for n in range(6))
    others = [run for run in usual.history.at_rung(0) if run.key.trial_number > 5]
    assert not any(run.must_finish for run in others)


def test_fewer_candidates_reach_each_higher_rung(usual):
    nums = [len(trials_at(usual, rung) - set(range(6))) for rung in range(4)]
    assert nums[0] > 1.3 * nums[1] > 1.3 * nums[2]
    assert nums[2] >= nums[3] > 5


def test_the_budget_is_used_and_never_exceeded(usual):
    assert 0.93 * 30 < usual.spent_j / 3.6e6 <= 30


def test_with_the_budget_s_last_tenth_the_knee_and_its_neighbours_are_repeated(usual):
    repeated = {}
    for run in usual.history.at_rung(3):
        if run.key.repetition:
            repeated.setdefault(run.key.trial_number, []).append(run)
    assert any(len(runs) == 2 for runs in repeated.values())
    runs = usual.history.reached(3)
    front = non_dominated(np.array([run.objectives for run in runs]))
    on_front = {run.key.trial_number for run, is_member in zip(runs, front, strict=True) if is_member}
    assert len(on_front & set(repeated)) >= 1
    steps = {"from_step": 0, "to_step": 27}
    problem = usual.problem
    again_kwh = sum(problem.predict_kwh(run.candidate.params, **steps) for runs in repeated.values() for run in runs)
    assert 0.05 * 30 < again_kwh < 0.2 * 30


def test_without_a_share_for_it_nothing_is_repeated():
    found = search(Table1Surrogate(0.1), budget_kwh=10.0, config=SearchConfig(repeat_share=0.0))
    assert found.count()["Repeat"] == 0
    assert found.spent_j > 0.9 * 36e6


def test_the_same_history_gives_the_same_move(usual):
    policy, outlook = GreenPolicy(SearchConfig()), usual.outlook()
    moves = [policy.next_move(usual.history, outlook, random=np.random.default_rng(n)) for n in range(2)]
    assert moves[0] == moves[1]
    assert isinstance(moves[0], Finish)
    richer = dataclasses.replace(outlook, cap_j=2 * outlook.cap_j, left_j=outlook.left_j + outlook.cap_j)
    assert isinstance(policy.next_move(usual.history, richer, random=np.random.default_rng(0)), Propose | Promote)


def test_where_rungs_mislead_every_candidate_goes_to_the_top():
    found = search(Unrelated(0.1), budget_kwh=40.0)
    assert GreenPolicy(SearchConfig()).is_full_fidelity(found.history)
    whole, begun = len(trials_at(found, 3)), len({run.key.trial_number for run in found.history.all()})
    assert whole > 0.8 * begun


def test_rungs_that_predict_are_no_reason_for_full_trainings(usual):
    assert not GreenPolicy(SearchConfig()).is_full_fidelity(usual.history)


def test_with_one_rung_every_candidate_is_trained_to_its_end():
    found = search(OneRung(0.1), budget_kwh=10.0, config=SearchConfig(scheduler="none", repeat_share=0.0))
    assert found.count()["Promote"] == 0
    assert len(trials_at(found, 0)) >= 6
    assert not GreenPolicy(SearchConfig()).is_full_fidelity(found.history)


@pytest.mark.parametrize("num_workers", [4, 50])
def test_many_workers_share_a_search(num_workers):
    found = search(Table1Surrogate(0.1), budget_kwh=20.0, num_workers=num_workers)
    assert len(trials_at(found, 3)) >= 8
    assert found.spent_j <= 20 * 3.6e6


def test_what_a_dead_worker_left_is_continued_before_all_else():
    found = search(Table1Surrogate(0.1), budget_kwh=12.0, dies=lambda run: run.key.trial_number % 3 == 0)
    assert found.count()["Continue"] > 3
    assert not found.history.in_state("waiting")
    first = next(n for n, move in enumerate(found.moves) if isinstance(move, Continue))
    assert found.moves[first].run.key == RunKey(trial_number=0, rung=0)
    assert isinstance(found.moves[first - 1], Propose)


def test_failed_candidates_hold_nothing_up():
    found = search(Table1Surrogate(0.1), budget_kwh=12.0, fails=lambda run: run.key.trial_number % 2 == 1)
    assert not {n for n in trials_at(found, 3) if n % 2 == 1}
    assert len(trials_at(found, 3)) >= 5
    everyone = search(Table1Surrogate(0.1), budget_kwh=3.0, fails=lambda run: True)
    assert not everyone.history.reached(0)


def test_a_search_told_to_propose_no_more_finishes_what_is_begun():
    found = search(Table1Surrogate(0.1), budget_kwh=40.0, max_trials=12, config=SearchConfig(repeat_share=0.0))
    assert len({run.key.trial_number for run in found.history.all()}) == 12
    assert len(trials_at(found, 3)) >= 7
    assert found.spent_j < 0.7 * 40 * 3.6e6


@pytest.mark.parametrize("budget_kwh", [0.001, 0.5, 1.0, 2.0, 4.0])
def test_a_budget_of_a_few_trainings_is_spent_on_whole_ones(budget_kwh):
    found = search(Table1Surrogate(0.1), budget_kwh=budget_kwh)
    assert found.spent_j <= budget_kwh * 3.6e6
    assert isinstance(found.moves[-1], Finish) or found.num_refused
    if budget_kwh >= 2:
        assert len(trials_at(found, 3)) >= 1


def test_the_dearest_network_is_not_trained_to_prove_the_rungs():
    problem = Table1Surrogate(0.1)
    low, high = ({name: getattr(p, end) for name, p in problem.space().items()} for end in ("low", "high"))
    ends = [Candidate(backbone="surrogate", params=params) for params in (low, high)]
    found = search(problem, budget_kwh=50.0, queue=[*ends, *seeds_of(problem)], max_trials=60)
    assert max((run.key.rung for run in found.history.all() if run.candidate == ends[1]), default=0) == 0
    assert 0 in trials_at(found, 3)


def test_alike_results_everywhere_are_no_trouble():
    found = search(Table1Surrogate(0.1), budget_kwh=8.0, objectives_of=lambda candidate, outcome: (0.1, 50.0))
    assert len(trials_at(found, 3)) >= 5


def test_three_objectives():
    config = SearchConfig(objectives=("eer", "train_energy", "params"))

    def three(candidate, outcome):
        return (outcome.eer, outcome.train_energy_kwh, 1e6 * sum(map(abs, candidate.params.values())))

    found = search(Table1Surrogate(0.1), budget_kwh=15.0, objectives_of=three, config=config)
    assert len(trials_at(found, 3)) >= 8
    assert found.count()["Repeat"] >= 1


def test_few_candidates_wait_since_the_worst_are_given_up(usual):
    num_waiting = most = 0
    for move in usual.moves:
        num_waiting += isinstance(move, Propose) - isinstance(move, Promote)
        num_waiting -= len(move.runs) if isinstance(move, Retire) else 0
        most = max(most, num_waiting)
    assert usual.count()["Retire"] >= 1
    assert most <= MAX_WAITING + len(trials_at(usual, 3))
    given_up = [run for run in usual.history.all() if run.state == "retired"]
    assert not any(run.must_finish or run.key.rung == 3 for run in given_up)
