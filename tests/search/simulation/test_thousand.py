"""A thousand workers at once on a real PostgreSQL: what a cluster would do to the ledger and to the book of rungs.

It takes a minute or more; GREENSV_TEST_THOUSAND=1 runs it.
"""

import os

import pytest
from sqlalchemy import create_engine, text

from greensv.search.simulation.methods import METHODS
from greensv.search.simulation.simulate import Setting, simulate
from postgresql import new_database
from search.simulation.bowls import Short

WANTED = "GREENSV_TEST_THOUSAND"
NUM_WORKERS = 1_000
NUM_CONNECTIONS = 32


@pytest.mark.skipif(WANTED not in os.environ, reason=f"takes a minute or more; {WANTED}=1 runs it")
def test_a_thousand_workers_over_few_connections_keep_within_the_cap(postgresql_url: str):
    budget_kwh = 2.0  # for 1,000 trainings of 1 to 2 Wh, and some more
    with new_database(postgresql_url) as url:
        setting = Setting(
            budget_kwh=budget_kwh,
            num_workers=NUM_WORKERS,
            storage=url,
            are_trials_stored=False,
            num_threads=NUM_CONNECTIONS,
            max_connections=NUM_CONNECTIONS,
        )
        trace = simulate(Short(), METHODS["random"], setting, seed=0)
        engine = create_engine(url)
        with engine.connect() as connection:
            # Workers of one moment hold their leases together: all begin at time 0, and none ends before all have.
            first = connection.execute(
                text("SELECT count(DISTINCT pid) FROM greensv_leases WHERE opened_at = 0")
            ).scalar()
            still_open = connection.execute(text("SELECT count(*) FROM greensv_leases WHERE state = 'open'")).scalar()
        engine.dispose()
    assert first == NUM_WORKERS
    assert still_open == 0
    assert trace.num_runs == len(trace.shown) > NUM_WORKERS
    assert len({shown.key for shown in trace.shown}) == len(trace.shown)
    assert trace.overrun_kwh == 0
    assert trace.used_kwh == pytest.approx(trace.spent_kwh, abs=1e-9)
    assert 0.9 * budget_kwh < trace.spent_kwh <= budget_kwh
