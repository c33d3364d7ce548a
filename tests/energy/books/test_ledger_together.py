"""What changes in one transaction with the money: a rung's row, as the search writes it."""

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, select

from greensv.energy.books.budget import Charge, Holder, Lease
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.tables import rungs

ACCOUNT = "search"
HOLDER = Holder(host="here", pid=7, process_started_at=5.0)


@pytest.fixture
def study() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def ledger(engine: Engine, study: str) -> Ledger:
    ledger = Ledger(engine, clock=lambda _: 1000.0)
    ledger.open_account(study, ACCOUNT, 1000)
    return ledger


def begin_rung(connection: Connection, lease: Lease) -> bool:
    row = {"study_id": lease.study_id, "trial_number": lease.trial_number, "rung": 0, "repetition": 0}
    progress = {"state": "running", "lease_id": lease.id, "attempts": 1, "start_step": 0, "step": 0}
    connection.execute(rungs.insert(), {**row, **progress, "updated_at": 1000.0})
    return True


def write_state(state: str) -> Callable[..., None]:
    def write(connection: Connection, *_: Lease) -> None:
        connection.execute(rungs.update().values(state=state))

    return write


def reserve(ledger: Ledger, study: str, *, within: Callable[[Connection, Lease], bool] | None) -> Lease | None:
    return ledger.reserve(
        study, ACCOUNT, 600, purpose="training", trial_number=3, holder=HOLDER, ttl_s=60.0, within=within
    )


def states(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(select(rungs.c.state)).scalars())


def test_a_rung_begins_with_the_reservation_that_pays_for_it(ledger: Ledger, study: str, engine: Engine) -> None:
    lease = reserve(ledger, study, within=begin_rung)
    assert lease is not None
    with engine.connect() as connection:
        row = connection.execute(select(rungs)).mappings().one()
    assert (row["lease_id"], row["state"], row["data"]) == (lease.id, "running", None)
    assert ledger.statement(study, ACCOUNT).reserved_uj == 600


def test_what_refuses_a_reservation_leaves_neither_money_nor_rows(ledger: Ledger, study: str, engine: Engine) -> None:
    def taken_by_another(connection: Connection, lease: Lease) -> bool:
        begin_rung(connection, lease)
        return False

    assert reserve(ledger, study, within=taken_by_another) is None
    assert states(engine) == []
    assert ledger.statement(study, ACCOUNT).reserved_uj == 0
    assert ledger.leased_trials(study) == frozenset()
    ledger.verify(study)
    assert reserve(ledger, study, within=begin_rung) is not None, "the connection can be used again"


def test_a_reservation_that_does_not_fit_asks_nobody(ledger: Ledger, study: str, engine: Engine) -> None:
    reserve(ledger, study, within=None)
    assert reserve(ledger, study, within=begin_rung) is None
    assert states(engine) == []


def test_an_error_on_the_way_takes_the_reservation_back(ledger: Ledger, study: str, engine: Engine) -> None:
    def fail(connection: Connection, lease: Lease) -> bool:
        begin_rung(connection, lease)
        raise KeyError

    with pytest.raises(KeyError):
        reserve(ledger, study, within=fail)
    assert states(engine) == []
    ledger.verify(study)
    assert ledger.statement(study, ACCOUNT).reserved_uj == 0


def test_settling_writes_the_result_once(ledger: Ledger, study: str, engine: Engine) -> None:
    lease = reserve(ledger, study, within=begin_rung)
    assert lease is not None
    settlement = ledger.settle(lease, within=write_state("done"))
    assert (settlement.given_back_uj, settlement.is_reaped) == (600, False)
    assert states(engine) == ["done"]
    settlement = ledger.settle(lease, within=write_state("failed"))
    assert (settlement.given_back_uj, settlement.is_reaped) == (0, False)
    assert states(engine) == ["done"]


def test_who_was_taken_for_dead_cannot_write_its_result(ledger: Ledger, study: str, engine: Engine) -> None:
    lease = reserve(ledger, study, within=begin_rung)
    assert lease is not None
    (reaped,) = ledger.reap(study, is_alive=lambda _: False, within=write_state("stopped"))
    assert reaped.lease == lease
    assert states(engine) == ["stopped"]
    settlement = ledger.settle(lease, within=write_state("done"))
    assert (settlement.given_back_uj, settlement.is_reaped) == (0, True)
    assert states(engine) == ["stopped"]
    ledger.charge(lease, [_charge(7)], peak_power_w=1.0)  # the joules are booked all the same
    assert ledger.trial_energy_uj(study, ACCOUNT, 3) == 7


def test_an_error_while_reaping_leaves_the_lease_open(ledger: Ledger, study: str, engine: Engine) -> None:
    lease = reserve(ledger, study, within=begin_rung)
    assert lease is not None

    def fail(connection: Connection, _: Lease) -> None:
        connection.execute(rungs.update().values(state="stopped"))
        raise KeyError

    with pytest.raises(KeyError):
        ledger.reap(study, is_alive=lambda _: False, within=fail)
    assert states(engine) == ["running"]
    assert not ledger.charge(lease, [], peak_power_w=1.0).is_fenced


def test_the_ledger_tells_the_time_of_the_database(ledger: Ledger) -> None:
    assert ledger.now() == 1000.0


def _charge(energy_uj: int) -> Charge:
    return Charge(
        purpose="training",
        trial_number=3,
        started_at=10.0,
        ended_at=12.0,
        meter="nvml",
        domain="gpu:GPU-1",
        quality="measured",
        energy_uj=energy_uj,
        pue=1.0,
    )
