"""The book of rungs, on a real database: two workers never train the same, and nothing is lost when one dies."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from greensv.energy.books.budget import Holder, Lease
from greensv.energy.books.ledger import Ledger
from greensv.search.candidate import Candidate
from greensv.search.rungs.book import MAX_ATTEMPTS, RungBook, set_free
from greensv.search.rungs.history import Run, RunKey

HOLDER = Holder(host="here", pid=7, process_started_at=5.0)
CANDIDATE = Candidate(backbone="tiny", params={"width": 4, "kind": "plain"})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    engine = create_engine(f"sqlite:///{tmp_path / 'study.db'}")
    ledger = Ledger(engine)
    ledger.open_account("one", "search", 1_000)
    yield ledger
    engine.dispose()


def book(ledger: Ledger) -> RungBook:
    return RungBook(ledger, "one", num_rungs=3, worker="w")


def run_to(rung: int, *, trial: int = 0, step: int = 0, **changes: object) -> Run:
    run = Run(key=RunKey(trial_number=trial, rung=rung), state="running", candidate=CANDIDATE, step=step)
    return dataclasses.replace(run, **changes)  # type: ignore[arg-type]


def reserve(
    ledger: Ledger, book: RungBook, run: Run, *, after: Run | None = None, is_left: bool = False
) -> Lease | None:
    return ledger.reserve(
        "one",
        "search",
        100,
        purpose="training",
        trial_number=run.key.trial_number,
        holder=HOLDER,
        ttl_s=60.0,
        within=book.claiming(run, after=after, is_left=is_left),
    )


def reach(ledger: Ledger, book: RungBook, run: Run, lease: Lease, *, eer: float, step: int) -> Run:
    done = dataclasses.replace(run, state="done", step=step, objectives=(eer, 2.0), data={"steady_j": 3.0})
    ledger.settle(lease, within=book.reaching(done))
    return done


def test_a_run_is_claimed_by_one_worker_only_and_the_other_gets_no_money(ledger: Ledger):
    first, second = book(ledger), book(ledger)
    assert reserve(ledger, first, run_to(0)) is not None
    assert reserve(ledger, second, run_to(0)) is None
    assert ledger.statement("one", "search").reserved_uj == 100


def test_every_book_reads_what_the_others_wrote(ledger: Ledger):
    writer, reader = book(ledger), book(ledger)
    run = run_to(0, must_finish=True)
    lease = reserve(ledger, writer, run)
    assert lease is not None
    (seen,) = reader.history().all()
    assert (seen.key, seen.state, seen.candidate, seen.must_finish) == (run.key, "running", CANDIDATE, True)
    reach(ledger, writer, run, lease, eer=0.1, step=9)
    (seen,) = reader.history().all()
    assert (seen.state, seen.step, seen.objectives) == ("done", 9, (0.1, 2.0))
    assert seen.data == {"steady_j": 3.0}
    assert ledger.statement("one", "search").reserved_uj == 0


def test_a_promotion_needs_its_run_to_be_still_there(ledger: Ledger):
    mine, other = book(ledger), book(ledger)
    run = run_to(0)
    lease = reserve(ledger, mine, run)
    assert lease is not None
    assert reserve(ledger, mine, run_to(1, step=3), after=run) is None, "it is still running"
    done = reach(ledger, mine, run, lease, eer=0.1, step=3)
    other.history()
    assert mine.retire(done)
    assert not mine.retire(done)
    assert reserve(ledger, other, run_to(1, step=3), after=done) is None
    (seen,) = other.history().all()
    assert seen.state == "retired", "a claim that failed has it read again"


def test_what_has_been_promoted_is_not_retired(ledger: Ledger):
    mine = book(ledger)
    lease = reserve(ledger, mine, run_to(0))
    assert lease is not None
    done = reach(ledger, mine, run_to(0), lease, eer=0.1, step=3)
    assert reserve(ledger, mine, run_to(1, step=3), after=done) is not None
    assert not mine.retire(done)


def test_a_dead_workers_run_waits_from_its_last_saved_step_and_is_given_up_after_some_deaths(ledger: Ledger):
    mine = book(ledger)
    lease = reserve(ledger, mine, run_to(1, step=3))
    for death in range(1, MAX_ATTEMPTS + 1):
        assert lease is not None
        mine.saved(run_to(1), lease, step=3 + death)
        ledger.reap("one", is_alive=lambda holder: False, within=set_free)
        (seen,) = mine.history().all()
        assert seen.step == 3 + death
        assert seen.state == ("waiting" if death < MAX_ATTEMPTS else "failed")
        again = dataclasses.replace(seen, state="running", attempts=seen.attempts + 1)
        lease = reserve(ledger, mine, again, is_left=True)
    assert lease is None


def test_leaving_in_good_order_costs_no_attempt(ledger: Ledger):
    mine = book(ledger)
    run = run_to(0)
    for number in range(MAX_ATTEMPTS + 1):
        lease = reserve(ledger, mine, run, is_left=number > 0)
        assert lease is not None
        ledger.settle(lease, within=mine.leaving(run))
        (seen,) = mine.history().all()
        assert seen.state == "waiting"
        run = dataclasses.replace(seen, state="running", attempts=seen.attempts + 1)


def test_a_step_saved_under_a_closed_lease_is_not_believed(ledger: Ledger):
    mine = book(ledger)
    lease = reserve(ledger, mine, run_to(0))
    assert lease is not None
    ledger.reap("one", is_alive=lambda holder: False, within=set_free)
    mine.saved(run_to(0), lease, step=7)
    (seen,) = mine.history().all()
    assert seen.step == 0


def test_what_is_reached_under_a_closed_lease_is_not_written(ledger: Ledger):
    mine = book(ledger)
    lease = reserve(ledger, mine, run_to(0))
    assert lease is not None
    ledger.reap("one", is_alive=lambda holder: False, within=set_free)
    settled = ledger.settle(lease, within=mine.reaching(run_to(0, state="done", objectives=(0.1, 1.0))))
    assert settled.is_reaped
    (seen,) = mine.history().all()
    assert (seen.state, seen.objectives) == ("waiting", None)


def test_a_trial_under_a_new_number_is_known_by_it_in_every_book(ledger: Ledger):
    mine, other = book(ledger), book(ledger)
    lease = reserve(ledger, mine, run_to(0))
    assert lease is not None
    done = reach(ledger, mine, run_to(0), lease, eer=0.1, step=3)
    other.history()
    assert mine.rename(0, 5)
    assert not mine.rename(0, 5)
    assert [run.key.trial_number for run in mine.history().all()] == [5]
    assert reserve(ledger, other, run_to(1, step=3), after=done) is None
    assert [run.key.trial_number for run in other.history().all()] == [5]
    assert mine.history().num_trials == other.history().num_trials == 1


def test_a_run_that_somebody_else_has_retired_or_promoted_is_read_again(ledger: Ledger):
    mine, other = book(ledger), book(ledger)
    lease = reserve(ledger, mine, run_to(0))
    assert lease is not None
    done = reach(ledger, mine, run_to(0), lease, eer=0.1, step=3)
    other.history()
    assert mine.retire(done)
    assert not other.retire(done)
    (seen,) = other.history().all()
    assert seen.state == "retired", "else its worker would retire it for ever"


def test_what_nobody_has_left_is_not_gone_on_with(ledger: Ledger):
    mine = book(ledger)
    assert reserve(ledger, mine, run_to(0, attempts=2), is_left=True) is None
    assert not list(mine.history().all())
