"""The simulated world on real databases: the real scheduler, ledger and samplers, with a small problem to search."""

import dataclasses
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from greensv.search.simulation.hypervolume import Scale
from greensv.search.simulation.methods import METHODS
from greensv.search.simulation.simulate import Setting, simulate
from greensv.search.simulation.trace import Trace
from postgresql import new_database
from search.simulation.bowls import Bowl, Short, Wasteful

BUDGET = Setting(budget_kwh=1.5)


def shown_keys(trace: Trace) -> list[tuple[int, int, int]]:
    return [(s.key.trial_number, s.key.rung, s.key.repetition) for s in trace.shown]


@pytest.fixture(scope="module")
def trace() -> Trace:
    return simulate(Bowl(), METHODS["greensv"], BUDGET, seed=1)


def test_a_search_uses_its_budget_and_never_more(trace: Trace):
    assert 0.8 * 1.5 < trace.spent_kwh <= 1.5
    assert trace.overrun_kwh == 0
    assert trace.used_kwh == pytest.approx(trace.spent_kwh, abs=1e-9)
    assert trace.num_runs == len(trace.shown)
    assert [s.spent_kwh for s in trace.shown] == sorted(s.spent_kwh for s in trace.shown)


def test_the_known_systems_go_first_and_nobody_is_trained_twice(trace: Trace):
    first = {s.key.trial_number: dict(s.params) for s in reversed(trace.shown)}
    assert [first[0], first[1]] == Bowl().seeds()
    assert len(set(shown_keys(trace))) == len(trace.shown)


def test_who_stands_on_a_rung_has_stood_on_the_one_below_it(trace: Trace):
    begun = {(s.key.trial_number, s.key.rung) for s in trace.shown if s.key.repetition == 0}
    first_rungs = {}
    for number, rung in sorted(begun):
        assert rung == first_rungs.setdefault(number, rung) or (number, rung - 1) in begun
    assert any(rung == 2 for _, rung in begun)


def test_the_same_seed_gives_the_same_search_and_another_seed_another(trace: Trace):
    again = simulate(Bowl(), METHODS["greensv"], BUDGET, seed=1)
    assert again == trace
    assert simulate(Bowl(), METHODS["greensv"], BUDGET, seed=2).shown != trace.shown


def test_trials_in_the_database_give_the_same_search_as_trials_in_memory(tmp_path: Path):
    small = Setting(budget_kwh=0.4)
    stored = simulate(
        Bowl(), METHODS["rungs+tpe"], dataclasses.replace(small, storage=f"sqlite:///{tmp_path / 'b.db'}"), seed=0
    )
    assert stored == simulate(Bowl(), METHODS["rungs+tpe"], small, seed=0)
    engine = create_engine(f"sqlite:///{tmp_path / 'b.db'}")
    with engine.connect() as connection:
        states = dict(connection.execute(text("SELECT state, count(*) FROM trials GROUP BY state")).all())
    engine.dispose()
    assert "RUNNING" not in states
    assert states["COMPLETE"] == sum(s.key.rung == 2 and s.key.repetition == 0 for s in stored.shown)


@pytest.mark.parametrize("method", ["random", "tpe-default"])
def test_whole_trainings_have_one_rung(method: str):
    trace = simulate(Bowl(), METHODS[method], Setting(budget_kwh=0.8), seed=0)
    assert {s.key.rung for s in trace.shown} == {0}
    assert len(trace.shown) == trace.num_trials >= 4


def test_several_workers_share_the_budget_and_are_sooner_done(trace: Trace):
    together = simulate(Bowl(), METHODS["greensv"], dataclasses.replace(BUDGET, num_workers=4), seed=1)
    assert together.spent_kwh <= 1.5
    assert together.overrun_kwh == 0
    assert len(set(shown_keys(together))) == len(together.shown)
    assert together.duration_s < 0.5 * trace.duration_s


def test_what_uses_more_than_predicted_stops_at_the_cap():
    trace = simulate(Wasteful(), METHODS["random"], Setting(budget_kwh=0.8, num_workers=2), seed=0)
    assert trace.spent_kwh <= 0.8
    assert trace.overrun_kwh == 0
    assert trace.used_kwh <= 0.8 + 1e-9


@pytest.mark.parametrize("seed", [0, 1])
def test_workers_die_and_nothing_is_lost(seed: int):
    mortal = Setting(budget_kwh=1.0, num_workers=3, death=0.3)
    trace = simulate(Bowl(), METHODS["greensv"], mortal, seed=seed)
    assert trace.num_deaths > 0
    assert trace.spent_kwh <= 1.0
    assert trace.overrun_kwh == 0
    assert trace.spent_kwh >= trace.used_kwh - 1e-9  # what the dead used is in the books, by estimate
    assert len(set(shown_keys(trace))) == len(trace.shown)
    assert any(s.key.rung == 2 for s in trace.shown)


def test_the_returned_set_is_that_of_the_highest_rung_so_far(trace: Trace):
    problem, scale = Bowl(), Scale(reference=(0.2, 40.0), best=0.2)
    assert trace.returned(0.0) == []
    assert trace.fraction(0.0, problem=problem, scale=scale) == 0.0
    early = trace.shown[0]
    assert trace.returned(early.spent_kwh) == [early.params]
    tops = [s for s in trace.shown if s.key.rung == 2 and s.key.repetition == 0]
    returned = trace.returned(1.5)
    assert all(params in [s.params for s in tops] for params in returned)
    assert not any(
        other.eer < s.eer and other.train_energy_kwh < s.train_energy_kwh
        for s in tops
        if s.params in returned
        for other in tops
    )


def test_a_network_with_several_seeds_counts_with_its_mean():
    key = simulate(Bowl(), METHODS["random"], Setting(budget_kwh=0.2), seed=0).shown[0]
    lucky = dataclasses.replace(key, eer=0.01, train_energy_kwh=10.0)
    unlucky = dataclasses.replace(lucky, key=dataclasses.replace(key.key, repetition=1), eer=0.09)
    other = dataclasses.replace(
        key,
        key=dataclasses.replace(key.key, trial_number=99),
        eer=0.04,
        train_energy_kwh=9.0,
        params={"x": 0.5, "y": 1},
    )
    trace = simulate(Bowl(), METHODS["random"], Setting(budget_kwh=0.2), seed=0)
    trace = dataclasses.replace(trace, shown=(lucky, other))
    assert trace.returned(9) == [lucky.params, other.params]
    assert dataclasses.replace(trace, shown=(lucky, other, unlucky)).returned(9) == [other.params]


def test_many_workers_on_postgresql_over_few_connections(postgresql_url: str):
    with new_database(postgresql_url) as url:
        setting = Setting(budget_kwh=0.05, num_workers=30, storage=url, num_threads=4, max_connections=8)
        trace = simulate(Short(), METHODS["random"], setting, seed=0)
    assert trace.spent_kwh <= 0.05
    assert trace.overrun_kwh == 0
    assert len(set(shown_keys(trace))) == len(trace.shown) > 25
    # Proposed at the same time, but never the same.
    assert len({shown.params["x"] for shown in trace.shown}) == len(trace.shown)
