import dataclasses
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import optuna
import pytest
from sqlalchemy import Engine, inspect, select, text
from sqlalchemy.exc import IntegrityError

from greensv.energy.books.budget import Charge, Holder, Lease
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.schema import immediate_transactions
from greensv.energy.books.tables import charges, leases, windows
from greensv.energy.meter import Domain
from greensv.energy.monitoring import EnergyWindow, Reading
from greensv.errors import BudgetError

ACCOUNT = "search"
HOLDER = Holder(host="here", pid=7, process_started_at=5.0)


@dataclasses.dataclass
class Clock:
    """The database's clock, and how far this process's own gets while it waits for the database."""

    now: float = 1000.0
    waited_s: float = 0.0
    wait_s: float = 0.0

    def __call__(self, _: object) -> float:
        self.waited_s += self.wait_s
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def study() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def ledger(engine: Engine, clock: Clock, study: str) -> Ledger:
    ledger = Ledger(engine, clock=clock, monotonic=lambda: clock.waited_s)
    ledger.open_account(study, ACCOUNT, 1000)
    return ledger


def reserve(ledger: Ledger, study: str, amount_uj: int, *, trial_number: int | None = 3, ttl_s: float = 60.0) -> Lease:
    lease = ledger.reserve(
        study, ACCOUNT, amount_uj, purpose="training", trial_number=trial_number, holder=HOLDER, ttl_s=ttl_s
    )
    assert lease is not None
    return lease


def charge(energy_uj: int, **changes: object) -> Charge:
    fields = {
        "purpose": "training",
        "trial_number": 3,
        "started_at": 10.0,
        "ended_at": 12.0,
        "meter": "nvml",
        "domain": "gpu:GPU-1",
        "quality": "measured",
        "energy_uj": energy_uj,
        "pue": 1.25,
    }
    return Charge(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_reservation_that_does_not_fit_is_refused_and_takes_nothing(ledger: Ledger, study: str) -> None:
    reserve(ledger, study, 600)
    refused = ledger.reserve(study, ACCOUNT, 401, purpose="probe", trial_number=None, holder=HOLDER, ttl_s=1.0)
    assert refused is None
    assert ledger.statement(study, ACCOUNT).reserved_uj == 600
    assert reserve(ledger, study, 400).granted_uj == 400
    assert ledger.statement(study, ACCOUNT).left_uj == 0


def test_a_charge_moves_energy_from_reserved_to_spent(ledger: Ledger, study: str) -> None:
    lease = reserve(ledger, study, 600)
    outcome = ledger.charge(lease, [charge(100), charge(50, purpose="evaluation")], peak_power_w=1.0)
    assert (outcome.lease_left_uj, outcome.account_left_uj) == (450, 400)
    assert (outcome.overrun_uj, outcome.is_fenced) == (0, False)
    statement = ledger.statement(study, ACCOUNT)
    assert (statement.spent_uj, statement.reserved_uj, statement.left_uj) == (150, 450, 400)
    assert statement.spent_by_purpose == {"evaluation": 50, "training": 100}
    assert statement.spent_by_quality == {"measured": 150}
    assert statement.spent_by_meter == {"nvml": 150}


def test_a_charge_beyond_the_lease_is_topped_up_from_the_account(ledger: Ledger, study: str) -> None:
    lease = reserve(ledger, study, 100)
    outcome = ledger.charge(lease, [charge(250)], peak_power_w=1.0)
    assert (outcome.lease_left_uj, outcome.account_left_uj, outcome.overrun_uj) == (0, 750, 0)


def test_a_charge_beyond_the_cap_is_booked_as_overrun(ledger: Ledger, study: str) -> None:
    lease, other = reserve(ledger, study, 100), reserve(ledger, study, 700)
    outcome = ledger.charge(lease, [charge(250), charge(80)], peak_power_w=1.0)
    assert (outcome.lease_left_uj, outcome.account_left_uj, outcome.overrun_uj) == (0, 0, 30)
    statement = ledger.statement(study, ACCOUNT)
    assert (statement.spent_uj, statement.reserved_uj, statement.overrun_uj) == (300, 700, 30)
    assert ledger.settle(other).given_back_uj == 700  # what others have reserved is not touched
    statement = ledger.statement(study, ACCOUNT)  # and what they give back makes room for the overrun
    assert (statement.spent_uj, statement.overrun_uj, statement.left_uj) == (330, 0, 670)
    assert ledger.trial_energy_uj(study, ACCOUNT, 3) == 330
    ledger.verify(study)


def test_a_charge_sent_again_is_booked_once(ledger: Ledger, study: str) -> None:
    lease, row = reserve(ledger, study, 600), charge(100)
    ledger.charge(lease, [row], peak_power_w=1.0)
    outcome = ledger.charge(lease, [row, charge(1)], peak_power_w=1.0)
    assert outcome.lease_left_uj == 499
    assert ledger.statement(study, ACCOUNT).spent_uj == 101


def test_many_charges_at_once_are_booked_once_too(ledger: Ledger, study: str) -> None:
    lease, rows = reserve(ledger, study, 1000), [charge(1, trial_number=None) for _ in range(900)]
    ledger.charge(lease, rows, peak_power_w=1.0)
    assert ledger.charge(lease, rows, peak_power_w=1.0).lease_left_uj == 100


def test_energy_without_a_lease_is_paid_by_the_account(ledger: Ledger, study: str) -> None:
    reserve(ledger, study, 900)
    outcome = ledger.charge_unreserved(study, ACCOUNT, [charge(130, purpose="startup", trial_number=None)])
    assert (outcome.account_left_uj, outcome.overrun_uj, outcome.is_fenced) == (0, 30, False)
    assert ledger.statement(study, ACCOUNT).spent_by_purpose == {"startup": 100}


def test_a_row_says_what_was_charged_and_why(ledger: Ledger, study: str, engine: Engine) -> None:
    lease, sent = reserve(ledger, study, 600), charge(100)
    ledger.charge(lease, [sent], peak_power_w=1.0)
    with engine.begin() as connection:
        row = connection.execute(select(charges)).mappings().one()
    booked = {"study_id": study, "account": ACCOUNT, "lease_id": lease.id, "overrun_uj": 0}
    assert dict(row) == {**dataclasses.asdict(sent), **booked}


def test_nothing_in_the_ledger_changes_or_deletes_a_charge(ledger: Ledger, study: str, engine: Engine) -> None:
    from sqlalchemy import event

    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda c, cursor, statement, *rest: statements.append(statement))
    lease = reserve(ledger, study, 10)
    ledger.charge(lease, [charge(1200)], peak_power_w=1.0)
    ledger.open_account(study, ACCOUNT, 2000)
    ledger.top_up(lease, 5)
    ledger.settle(lease)
    ledger.reap(study, is_alive=lambda _: False)
    ledger.charge(lease, [charge(1)], peak_power_w=1.0)
    ledger.charge_unreserved(study, ACCOUNT, [charge(1)])
    touching = [s for s in statements if "greensv_charges" in s]
    assert any(s.startswith("INSERT") for s in touching)
    assert {s.split()[0] for s in touching} == {"INSERT", "SELECT"}


def test_topping_up_takes_from_the_account_or_is_refused(ledger: Ledger, study: str) -> None:
    lease = reserve(ledger, study, 600)
    assert not ledger.top_up(lease, 401)
    assert ledger.top_up(lease, 400)
    assert ledger.charge(lease, [], peak_power_w=1.0).lease_left_uj == 1000
    assert ledger.settle(lease).given_back_uj == 1000
    assert not ledger.top_up(lease, 1)


def test_settling_twice_gives_back_once(ledger: Ledger, study: str) -> None:
    lease = reserve(ledger, study, 600)
    ledger.charge(lease, [charge(100)], peak_power_w=1.0)
    assert ledger.settle(lease).given_back_uj == 500
    assert ledger.settle(lease).given_back_uj == 0
    statement = ledger.statement(study, ACCOUNT)
    assert (statement.spent_uj, statement.reserved_uj, statement.left_uj) == (100, 0, 900)


def test_a_late_charge_to_a_closed_lease_is_booked_and_fenced(ledger: Ledger, study: str, clock: Clock) -> None:
    lease = reserve(ledger, study, 600)
    clock.now += 61
    assert len(ledger.reap(study, is_alive=lambda _: None)) == 1
    outcome = ledger.charge(lease, [charge(100)], peak_power_w=1.0)
    assert (outcome.lease_left_uj, outcome.account_left_uj, outcome.is_fenced) == (0, 900, True)
    assert ledger.statement(study, ACCOUNT).spent_uj == 100
    assert ledger.reap(study, is_alive=lambda _: False) == ()


def test_beats_keep_a_lease_alive(ledger: Ledger, study: str, clock: Clock) -> None:
    lease = reserve(ledger, study, 600)
    for _ in range(3):
        clock.now += 59
        assert ledger.reap(study, is_alive=lambda _: True) == ()
        ledger.charge(lease, [], peak_power_w=1.0)
    clock.now += 61
    assert [reaped.lease for reaped in ledger.reap(study, is_alive=lambda _: True)] == [lease]


def test_a_dead_holder_is_charged_until_its_next_beat_was_due(
    ledger: Ledger, study: str, clock: Clock, engine: Engine
) -> None:
    lease = reserve(ledger, study, 600)
    ledger.charge(lease, [charge(100)], peak_power_w=20e-6, next_beat_s=4.0)
    clock.now += 50
    (reaped,) = ledger.reap(study, is_alive=lambda holder: holder != HOLDER)
    assert reaped.lease == lease
    assert reaped.charged_uj == 80  # 20 uW for 4 s
    statement = ledger.statement(study, ACCOUNT)
    assert (statement.spent_uj, statement.reserved_uj) == (180, 0)
    assert statement.spent_by_purpose == {"reaped": 80, "training": 100}
    assert statement.spent_by_quality == {"estimated": 80, "measured": 100}
    with engine.begin() as connection:
        row = connection.execute(select(charges).where(charges.c.purpose == "reaped")).one()
    assert (row.trial_number, row.lease_id, row.pue) == (3, lease.id, 1.25)
    assert (row.started_at, row.ended_at) == (1000.0, 1004.0)


def test_a_dead_holder_found_at_once_is_charged_for_the_time_since_its_beat(
    ledger: Ledger, study: str, clock: Clock
) -> None:
    ledger.charge(reserve(ledger, study, 600), [], peak_power_w=15e-6, next_beat_s=4.0)
    clock.now += 1.5
    (reaped,) = ledger.reap(study, is_alive=lambda _: False)
    assert reaped.charged_uj == 23  # 22.5, rounded up


def test_what_is_used_while_the_database_is_busy_is_charged_to_a_dead_holder(
    ledger: Ledger, study: str, clock: Clock
) -> None:
    """The charge ended 1 s before it was sent, and waited 2 s: at its arrival, 3 s are in no charge."""
    lease = reserve(ledger, study, 600)
    clock.wait_s = 2.0
    ledger.charge(lease, [], peak_power_w=7.5e-6, next_beat_s=8.0, age_s=1.0)
    clock.wait_s = 0.0
    (reaped,) = ledger.reap(study, is_alive=lambda _: False)
    assert reaped.charged_uj == 23  # 22.5, rounded up


def test_a_silent_holder_is_charged_until_it_stops_itself(ledger: Ledger, study: str, clock: Clock) -> None:
    ledger.charge(reserve(ledger, study, 900, ttl_s=30.0), [], peak_power_w=20e-6, next_beat_s=4.0)
    clock.now += 3600
    (reaped,) = ledger.reap(study, is_alive=lambda _: None)
    assert reaped.charged_uj == 680  # 20 uW for 30 + 4 s


def test_a_reaped_lease_is_never_charged_more_than_it_has_left(ledger: Ledger, study: str, clock: Clock) -> None:
    ledger.charge(reserve(ledger, study, 50), [charge(20)], peak_power_w=1.0)
    clock.now += 61
    (reaped,) = ledger.reap(study, is_alive=lambda _: None)
    assert reaped.charged_uj == 30
    ledger.verify(study)


def test_a_lease_renewed_while_its_holder_is_looked_for_is_left_alone(ledger: Ledger, study: str, clock: Clock) -> None:
    lease = reserve(ledger, study, 600)
    clock.now += 61

    def renew(_: Holder) -> None:
        ledger.charge(lease, [], peak_power_w=1.0)

    assert ledger.reap(study, is_alive=renew) == ()
    assert not ledger.charge(lease, [], peak_power_w=1.0).is_fenced


def test_the_trials_under_an_open_lease_are_known(ledger: Ledger, study: str) -> None:
    lease = reserve(ledger, study, 10, trial_number=3)
    reserve(ledger, study, 10, trial_number=4)
    reserve(ledger, study, 10, trial_number=None)
    assert ledger.leased_trials(study) == {3, 4}
    ledger.settle(lease)
    assert ledger.leased_trials(study) == {4}


def test_reaping_leaves_other_studies_alone(ledger: Ledger, study: str) -> None:
    other = str(uuid.uuid4())
    ledger.open_account(other, ACCOUNT, 10)
    reserve(ledger, other, 10)
    assert ledger.reap(study, is_alive=lambda _: False) == ()
    assert ledger.statement(other, ACCOUNT).reserved_uj == 10


def test_a_cap_is_raised_but_not_lowered(ledger: Ledger, study: str) -> None:
    ledger.open_account(study, ACCOUNT, 1000)
    ledger.open_account(study, ACCOUNT, 7_200_000_000)
    assert ledger.statement(study, ACCOUNT).cap_uj == 7_200_000_000
    with pytest.raises(BudgetError, match=r"budget of 2 Wh; it can be raised but not lowered to 1 Wh"):
        ledger.open_account(study, ACCOUNT, 3_600_000_000)
    assert ledger.statement(study, ACCOUNT).cap_uj == 7_200_000_000


def test_a_raised_cap_covers_what_was_overrun_before(ledger: Ledger, study: str) -> None:
    lease = reserve(ledger, study, 10)
    ledger.charge(lease, [charge(1100), charge(40, purpose="evaluation")], peak_power_w=1.0)
    ledger.open_account(study, ACCOUNT, 1120)
    statement = ledger.statement(study, ACCOUNT)
    assert (statement.spent_uj, statement.overrun_uj) == (1120, 20)
    ledger.open_account(study, ACCOUNT, 2000)
    statement = ledger.statement(study, ACCOUNT)
    assert (statement.spent_uj, statement.overrun_uj) == (1140, 0)
    assert statement.spent_by_purpose == {"evaluation": 40, "training": 1100}
    assert ledger.trial_energy_uj(study, ACCOUNT, 3) == 1140
    ledger.verify(study)


@pytest.mark.parametrize("cap_uj", [0, -5, 2**62 + 1])
def test_a_cap_must_be_positive_and_fit_the_database(ledger: Ledger, study: str, cap_uj: int) -> None:
    with pytest.raises(BudgetError, match="must be above 0 and at most"):
        ledger.open_account(study, "retrain", cap_uj)


def test_the_largest_cap_can_be_spent(ledger: Ledger, study: str) -> None:
    ledger.open_account(study, ACCOUNT, 2**62)
    lease = reserve(ledger, study, 2**62)
    assert ledger.charge(lease, [charge(2**62), charge(9)], peak_power_w=1.0).overrun_uj == 9
    ledger.verify(study)


def test_accounts_of_one_study_are_separate(ledger: Ledger, study: str) -> None:
    ledger.open_account(study, "retrain", 50)
    reserve(ledger, study, 1000)
    assert ledger.statement(study, "retrain").left_uj == 50
    lease = ledger.reserve(study, "retrain", 50, purpose="training", trial_number=3, holder=HOLDER, ttl_s=60.0)
    assert lease is not None
    ledger.charge(lease, [charge(20)], peak_power_w=1.0)
    assert ledger.trial_energy_uj(study, "retrain", 3) == 20
    assert ledger.trial_energy_uj(study, ACCOUNT, 3) == 0


def test_an_account_that_is_not_open_is_an_error(ledger: Ledger, study: str) -> None:
    with pytest.raises(BudgetError, match="no retrain account yet"):
        ledger.statement(study, "retrain")
    with pytest.raises(BudgetError, match="no retrain account yet"):
        ledger.reserve(study, "retrain", 1, purpose="idle", trial_number=None, holder=HOLDER, ttl_s=1.0)


def test_the_energy_of_a_trial_is_that_of_its_charges(ledger: Ledger, study: str) -> None:
    lease = reserve(ledger, study, 600)
    rows = [charge(100), charge(30, trial_number=4), charge(7, trial_number=None), charge(1, purpose="evaluation")]
    ledger.charge(lease, rows, peak_power_w=1.0)
    assert ledger.trial_energy_uj(study, ACCOUNT, 3) == 101
    assert ledger.trial_energy_uj(study, ACCOUNT, 4) == 30
    assert ledger.trial_energy_uj(study, ACCOUNT, 5) == 0


def test_the_database_itself_refuses_to_break_the_cap(ledger: Ledger, study: str, engine: Engine) -> None:
    with pytest.raises(IntegrityError, match=r"greensv_accounts_within_cap|CHECK"), engine.begin() as connection:
        connection.execute(text("UPDATE greensv_accounts SET spent_uj = 600, reserved_uj = 401"))


def test_books_that_were_tampered_with_do_not_agree(ledger: Ledger, study: str, engine: Engine) -> None:
    ledger.charge(reserve(ledger, study, 600), [charge(100)], peak_power_w=1.0)
    ledger.verify(study)
    with engine.begin() as connection:
        connection.execute(text("UPDATE greensv_charges SET energy_uj = 99"))
    with pytest.raises(BudgetError, match=r"'spent_uj': 100.*'spent_uj': 99"):
        ledger.verify(study)


def test_windows_are_kept_by_reading_and_charge_nothing(ledger: Ledger, study: str, engine: Engine) -> None:
    started = datetime(2026, 1, 2, tzinfo=UTC)
    readings = (
        Reading(
            domain=Domain("gpu", "GPU-1"),
            meter="nvml",
            quality="measured",
            energy_j=1.5,
            uncertainty_j=0.1,
            resolution_s=0.1,
        ),
        Reading(domain=Domain("cpu"), meter="estimate", quality="estimated", energy_j=0.25, role="beside"),
    )
    window = EnergyWindow(name="training", started_at=started, duration_s=3.0, readings=readings)
    ledger.record_window(study, ACCOUNT, window, trial_number=3)
    ledger.record_window(study, ACCOUNT, dataclasses.replace(window, readings=()))
    with engine.begin() as connection:
        rows = connection.execute(select(windows).order_by(windows.c.energy_uj)).all()
    assert [row[1:] for row in rows] == [
        (
            study,
            ACCOUNT,
            3,
            "training",
            started.timestamp(),
            3.0,
            "estimate",
            "cpu",
            "estimated",
            250_000,
            0,
            "beside",
            0.0,
        ),
        (
            study,
            ACCOUNT,
            3,
            "training",
            started.timestamp(),
            3.0,
            "nvml",
            "gpu:GPU-1",
            "measured",
            1_500_000,
            100_000,
            "charged",
            0.1,
        ),
    ]
    assert ledger.statement(study, ACCOUNT).spent_uj == 0


def test_another_process_sees_the_same_books(
    ledger: Ledger, study: str, database_url: str, open_engine: Callable[[str], Engine]
) -> None:
    lease = reserve(ledger, study, 600)
    other = Ledger(open_engine(database_url))
    assert other.statement(study, ACCOUNT).reserved_uj == 600
    assert other.charge(lease, [charge(1)], peak_power_w=1.0).lease_left_uj == 599


def test_leases_expire_by_the_clock_of_the_database(
    engine: Engine, study: str, database_url: str, open_engine: Callable[[str], Engine]
) -> None:
    ledger = Ledger(engine)
    ledger.open_account(study, ACCOUNT, 1000)
    lease = reserve(ledger, study, 600, ttl_s=3600.0)
    assert ledger.reap(study, is_alive=lambda _: None) == ()
    with engine.begin() as connection:
        connection.execute(leases.update().values(last_beat_at=leases.c.last_beat_at - 3601))
    assert [reaped.lease for reaped in ledger.reap(study, is_alive=lambda _: None)] == [lease]


@pytest.mark.parametrize("reopen", [False, True])
def test_the_books_share_a_database_with_optuna(tmp_path: Path, study: str, reopen: bool) -> None:
    """Optuna deletes its study and gives the next one the same id: our rows stay, and the new study has no budget."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    immediate_transactions(storage.engine)
    first = optuna.create_study(storage=storage, study_name="a", directions=["minimize", "minimize"])
    ledger = Ledger(storage.engine)
    ledger.open_account(study, ACCOUNT, 1000)
    trial = first.ask()
    ledger.charge(reserve(ledger, study, 600, trial_number=trial.number), [charge(100)], peak_power_w=1.0)
    first.tell(trial, [0.1, 1.0])
    optuna.delete_study(study_name="a", storage=storage)
    assert optuna.get_all_study_names(storage) == []
    if reopen:
        storage.engine.dispose()
        storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
        ledger = Ledger(storage.engine)
    second = optuna.create_study(storage=storage, study_name="b", directions=["minimize", "minimize"])
    second.tell(second.ask(), [0.2, 2.0])
    assert second._study_id == first._study_id
    assert ledger.statement(study, ACCOUNT).spent_uj == 100
    with pytest.raises(BudgetError, match="no search account"):
        ledger.statement(str(uuid.uuid4()), ACCOUNT)
    names = inspect(storage.engine).get_table_names()
    assert {"studies", "trials", "greensv_charges"} <= set(names)
    storage.engine.dispose()
