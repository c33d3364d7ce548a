import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine, create_engine, func, select

from greensv.energy.books.budget import Lease, Purpose, is_alive, this_process
from greensv.energy.books.charging import Charger
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.outages import StorageAway
from greensv.energy.books.tables import charges, leases
from greensv.energy.books.unwritten import book_unwritten
from greensv.energy.meter import Availability, Domain, MeterSession, PowerSample, Sample
from greensv.energy.monitoring import Monitor, OpenMeter, Reading
from greensv.errors import StudyError

STUDY = str(uuid.uuid4())
ACCOUNT = "search"
J = 1_000_000
WORKER = Path(__file__).parent / "charging_worker.py"


@dataclass
class ScriptedMonitor:
    """Totals as the test sets them; `tick` is a poll of the monitor's thread."""

    interval_s: float = 1.0
    resolution_s: float = 0.0
    now_s: float = 100.0
    power_w: float | None = None
    peak_power_w: float | None = None
    readings: dict[str, Reading] = field(default_factory=dict)
    since_process_start: tuple[str, ...] = ()
    observers: list[Callable[[tuple[Reading, ...]], None]] = field(default_factory=list)

    @property
    def meters(self) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                name=name,
                is_startup_counted=name in self.since_process_start,
                availability=SimpleNamespace(since_process_start=name in self.since_process_start),
            )
            for name in self.readings
        ]

    def clock(self) -> float:
        return self.now_s

    def add_observer(self, observer: Callable[[tuple[Reading, ...]], None]) -> None:
        self.observers.append(observer)

    def poll(self) -> tuple[Reading, ...]:
        return tuple(self.readings.values())

    def use(self, energy_j: float, *, meter: str = "nvml", quality: str = "measured") -> None:
        before_j = self.readings[meter].energy_j if meter in self.readings else 0.0
        self.readings[meter] = Reading(
            domain=Domain("cpu"),
            meter=meter,
            quality=quality,
            energy_j=before_j + energy_j,  # type: ignore[arg-type]
        )

    def tick(self, seconds: float = 1.0) -> None:
        self.now_s += seconds
        for observer in self.observers:
            observer(self.poll())


@pytest.fixture
def monitor() -> ScriptedMonitor:
    monitor = ScriptedMonitor()
    monitor.use(0.0)
    return monitor


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'study.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    ledger = Ledger(engine)
    ledger.open_account(STUDY, ACCOUNT, 1000 * J)
    return ledger


@pytest.fixture
def charger(monitor: ScriptedMonitor, ledger: Ledger) -> Charger:
    return make_charger(monitor, ledger)


def make_charger(monitor: ScriptedMonitor, ledger: Ledger, **changes: object) -> Charger:
    known = {"study_id": STUDY, "account": ACCOUNT, "clock": monitor.clock}
    return Charger(monitor, ledger, **{**known, **changes})  # type: ignore[arg-type]


def lease_of(ledger: Ledger, amount_j: int, *, trial_number: int | None = None, purpose: Purpose = "idle") -> Lease:
    lease = ledger.reserve(
        STUDY,
        ACCOUNT,
        amount_j * J,
        purpose=purpose,
        trial_number=trial_number,
        holder=this_process(),
        ttl_s=60.0,
    )
    assert lease is not None
    return lease


def booked(engine: Engine) -> list[tuple[str, int | None, float]]:
    """Purpose, trial and joules of every charge, in order of time."""
    columns = (charges.c.purpose, charges.c.trial_number, charges.c.energy_uj)
    with engine.begin() as connection:
        rows = connection.execute(select(*columns).order_by(charges.c.ended_at, charges.c.started_at)).all()
    return [(purpose, trial, energy_uj / J) for purpose, trial, energy_uj in rows]


@contextmanager
def broken(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, *, after_commit: bool = False) -> Iterator[None]:
    """The database fails; with `after_commit`, what was sent has arrived but is not confirmed."""
    charge = ledger.charge

    def fail(*args: object, **kwargs: object) -> None:
        if after_commit:
            charge(*args, **kwargs)  # type: ignore[arg-type]
        raise StudyError("the database has gone")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "charge", fail)
        yield


def test_each_joule_is_charged_once_to_the_purpose_in_force(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, engine: Engine
) -> None:
    session, trial = lease_of(ledger, 100), lease_of(ledger, 300, trial_number=3, purpose="training")
    with charger.hold(session):
        monitor.use(1.0)
        monitor.now_s += 1
        with charger.purpose("preparation"):
            monitor.use(2.0)
            monitor.now_s += 1
        monitor.use(4.0)
        monitor.now_s += 1
        with charger.hold(trial):
            monitor.use(8.0)
            monitor.now_s += 1
            with charger.purpose("evaluation"):
                monitor.use(16.0)
                monitor.now_s += 1
        monitor.use(32.0)
    assert booked(engine) == [
        ("idle", None, 1.0),
        ("preparation", None, 2.0),
        ("idle", None, 4.0),
        ("training", 3, 8.0),
        ("evaluation", 3, 16.0),
        ("idle", None, 32.0),
    ]
    assert ledger.settle(trial).given_back_uj == 276 * J
    assert ledger.settle(session).given_back_uj == 61 * J
    ledger.verify(STUDY)


def test_a_purpose_may_name_another_trial(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, engine: Engine
) -> None:
    with charger.hold(lease_of(ledger, 100)), charger.purpose("training", trial_number=0):
        monitor.use(1.0)
    assert booked(engine) == [("training", 0, 1.0)]


def test_pue_multiplies_every_charge(monitor: ScriptedMonitor, ledger: Ledger, engine: Engine) -> None:
    charger = make_charger(monitor, ledger, pue=1.5)
    with charger.hold(lease_of(ledger, 100)):
        monitor.use(10.0)
    assert booked(engine) == [("idle", None, 15.0)]
    with engine.begin() as connection:
        assert connection.execute(select(charges.c.pue)).scalar_one() == 1.5


def test_rows_say_when_and_by_which_meter_energy_was_used(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, engine: Engine
) -> None:
    before = time.time()
    with charger.hold(lease_of(ledger, 100)):
        monitor.use(1.0)
        monitor.use(2.0, meter="estimate", quality="estimated")
        monitor.now_s += 5.0
    with engine.begin() as connection:
        rows = {row.meter: row for row in connection.execute(select(charges))}
    assert (rows["nvml"].quality, rows["estimate"].quality) == ("measured", "estimated")
    assert rows["nvml"].domain == "cpu"
    assert rows["nvml"].ended_at - rows["nvml"].started_at == pytest.approx(5.0)
    assert rows["nvml"].started_at == pytest.approx(before, abs=60.0)


def test_the_monitors_thread_writes_every_flush_interval(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, engine: Engine
) -> None:
    with charger.hold(lease_of(ledger, 100)):
        monitor.use(1.0)
        monitor.tick()
        assert booked(engine) == []
        monitor.use(2.0)
        monitor.tick()
        assert booked(engine) == [("idle", None, 3.0)]


def test_totals_that_another_thread_has_overtaken_are_not_charged_again(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, engine: Engine
) -> None:
    with charger.hold(lease_of(ledger, 100)):
        monitor.use(1.0)
        late = monitor.poll()
        monitor.use(2.0)
        charger.flush()
        for observer in monitor.observers:
            observer(late)
        monitor.use(4.0)
    assert sum(energy_j for _, _, energy_j in booked(engine)) == 7.0


def test_left_counts_lease_account_and_what_is_not_yet_written(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger
) -> None:
    assert charger.left_uj == 0
    lease_of(ledger, 700)
    lease = lease_of(ledger, 100)
    assert charger.lease_left_uj(lease) == 0
    with charger.hold(lease):
        assert charger.left_uj == 300 * J  # 100 leased, 200 free
        monitor.use(40.0)
        monitor.tick(0.5)
        assert charger.left_uj == 260 * J
        assert charger.lease_left_uj(lease) == 60 * J
        charger.flush()
        assert charger.left_uj == 260 * J
        monitor.use(270.0)
        monitor.tick(0.5)
        assert charger.left_uj == -10 * J
    ledger.verify(STUDY)
    assert ledger.statement(STUDY, ACCOUNT).overrun_uj == 10 * J


def test_the_budget_is_exhausted_when_the_next_interval_would_use_it_up(
    monitor: ScriptedMonitor, ledger: Ledger
) -> None:
    charger = make_charger(monitor, ledger, pue=2.0)
    lease_of(ledger, 900)
    monitor.power_w = 10.0
    with charger.hold(lease_of(ledger, 100)):
        monitor.use(39.5)
        monitor.tick()
        assert not charger.is_exhausted  # 21 J left, 10 W x 1 s x 2 to come
        monitor.use(0.5)
        monitor.tick()
        assert charger.is_exhausted
        monitor.power_w = None
        assert not charger.is_exhausted


def test_the_budget_is_exhausted_when_a_slow_meter_would_show_it_too_late(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger
) -> None:
    lease_of(ledger, 900)
    monitor.power_w, monitor.resolution_s = 10.0, 5.0
    with charger.hold(lease_of(ledger, 100)):
        monitor.use(49.0)
        monitor.tick()
        assert not charger.is_exhausted  # 51 J left, 10 W x 5 s to come
        monitor.use(1.0)
        monitor.tick()
        assert charger.is_exhausted


def test_nothing_may_be_used_without_a_lease(charger: Charger) -> None:
    assert charger.is_exhausted
    assert not charger.is_fenced


def test_energy_before_the_first_lease_is_paid_by_it(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, engine: Engine
) -> None:
    monitor.use(5.0)
    lease = lease_of(ledger, 1000)
    with charger.hold(lease):
        pass
    assert booked(engine) == [("startup", None, 5.0)]
    assert ledger.statement(STUDY, ACCOUNT).overrun_uj == 0


def test_energy_without_a_lease_is_charged_to_the_account(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, engine: Engine
) -> None:
    monitor.use(5.0)
    charger.flush()
    lease = lease_of(ledger, 100)
    with charger.hold(lease):
        monitor.use(1.0)
    ledger.settle(lease)
    with charger.purpose("idle"):
        monitor.use(3.0)
    charger.close()
    assert sum(energy_j for _, _, energy_j in booked(engine)) == 9.0
    assert ledger.statement(STUDY, ACCOUNT).spent_uj == 9 * J


def test_nothing_is_charged_after_closing(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, engine: Engine
) -> None:
    monitor.use(5.0)
    charger.close()
    monitor.use(7.0)
    monitor.tick(5.0)
    assert booked(engine) == [("startup", None, 5.0)]


def test_a_reaped_lease_fences_its_holder(monitor: ScriptedMonitor, ledger: Ledger, charger: Charger) -> None:
    with charger.hold(lease_of(ledger, 100)):
        assert not charger.is_fenced
        assert len(ledger.reap(STUDY, is_alive=lambda _: False)) == 1
        monitor.use(1.0)
        monitor.tick(2.0)
        assert charger.is_fenced
    assert ledger.statement(STUDY, ACCOUNT).spent_uj == 1 * J
    ledger.verify(STUDY)


def test_a_holder_that_cannot_renew_its_lease_fences_itself(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with charger.hold(lease_of(ledger, 100)):
        with broken(ledger, monkeypatch):
            for _ in range(20):
                monitor.tick(3.0)
            assert not charger.is_fenced
            monitor.tick(1.0)
            assert charger.is_fenced
        monitor.tick(2.0)
        assert not charger.is_fenced  # nobody had reaped it


def test_leases_around_the_one_in_force_are_renewed_and_assume_no_power(
    monitor: ScriptedMonitor, ledger: Ledger, engine: Engine
) -> None:
    charger = make_charger(monitor, ledger, pue=1.5)
    monitor.peak_power_w = 8.0
    session, trial = lease_of(ledger, 100), lease_of(ledger, 100)
    with charger.hold(session), charger.hold(trial):
        with engine.begin() as connection:
            connection.execute(leases.update().values(last_beat_at=0.0))
        monitor.tick(2.0)
        with engine.begin() as connection:
            rows = {row.id: row for row in connection.execute(select(leases))}
    assert rows[session.id].last_beat_at > 0
    assert rows[trial.id].last_beat_at > 0
    assert (rows[session.id].peak_power_w, rows[trial.id].peak_power_w) == (0.0, 12.0)
    assert rows[trial.id].next_beat_s == 8.0  # 2 s to flush, 1 s to poll, 5 s for a busy database


def test_a_lease_knows_the_power_as_soon_as_it_is_known(
    monitor: ScriptedMonitor, ledger: Ledger, engine: Engine, charger: Charger
) -> None:
    lease = lease_of(ledger, 100)
    with charger.hold(lease):
        monitor.peak_power_w = 8.0
        monitor.tick(0.5)  # long before the next flush
        with engine.begin() as connection:
            row = connection.execute(select(leases).where(leases.c.id == lease.id)).one()
    assert row.peak_power_w == 8.0


def test_a_lease_that_expires_between_two_beats_is_refused(ledger: Ledger, charger: Charger) -> None:
    lease = ledger.reserve(STUDY, ACCOUNT, J, purpose="idle", trial_number=None, holder=this_process(), ttl_s=5.0)
    assert lease is not None
    with pytest.raises(AssertionError, match="expire between two beats"), charger.hold(lease):
        pass


@pytest.mark.parametrize("after_commit", [False, True])
def test_a_database_error_surfaces_and_loses_or_doubles_nothing(
    monitor: ScriptedMonitor,
    ledger: Ledger,
    charger: Charger,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    after_commit: bool,
) -> None:
    with charger.hold(lease_of(ledger, 100)):
        with broken(ledger, monkeypatch, after_commit=after_commit):
            monitor.use(1.0)
            monitor.tick(2.0)
            monitor.use(2.0)
            monitor.tick(2.0)
            with pytest.raises(StudyError, match="has gone"):
                charger.check()
            with pytest.raises(StudyError, match="has gone"):
                charger.flush()
            assert charger.left_uj == 997 * J
        monitor.use(4.0)
        monitor.tick(2.0)
        charger.check()
        assert charger.left_uj == 993 * J
    assert [energy_j for _, _, energy_j in booked(engine)] == [1.0, 2.0, 4.0]
    ledger.verify(STUDY)


def test_no_lease_is_held_that_cannot_be_written(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = lease_of(ledger, 100)
    with broken(ledger, monkeypatch), pytest.raises(StudyError, match="has gone"), charger.hold(lease):
        pytest.fail("the block must not run")
    charger.flush()
    with charger.hold(lease):
        charger.check()


def test_an_error_of_the_block_is_not_hidden_by_one_of_the_database(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train() -> None:
        with charger.hold(lease_of(ledger, 100)):
            monitor.use(1.0)
            with broken(ledger, monkeypatch), charger.purpose("training"):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert booked(engine) == [("idle", None, 1.0)]


def test_startup_is_charged_at_the_power_of_the_first_interval(
    monitor: ScriptedMonitor, ledger: Ledger, engine: Engine
) -> None:
    """10 J in the first second: 10 W; 3 s before it, 30 J. The other meter counted since the process started: 7 J."""
    monitor.since_process_start = ("estimate",)
    monitor.use(7.0, meter="estimate", quality="estimated")
    charger = make_charger(monitor, ledger)
    charger.charge_startup(3.0)
    with charger.hold(lease_of(ledger, 500)):
        started_at_s = monitor.now_s
        monitor.use(10.0)
        monitor.use(2.0, meter="estimate", quality="estimated")
        monitor.tick()
        monitor.use(50.0)
        monitor.tick()
    assert monitor.now_s == started_at_s + 2
    with engine.begin() as connection:
        rows = connection.execute(select(charges).order_by(charges.c.meter, charges.c.energy_uj)).all()
    found = [(row.meter, row.purpose, row.quality, row.energy_uj / J) for row in rows]
    assert found == [
        ("estimate", "idle", "estimated", 2.0),
        ("estimate", "startup", "estimated", 7.0),
        ("nvml", "startup", "attributed", 30.0),
        ("nvml", "idle", "measured", 60.0),
    ]
    assert rows[2].ended_at - rows[2].started_at == pytest.approx(3.0)
    assert rows[1].ended_at - rows[1].started_at == pytest.approx(3.0)  # its 7 J are of the time before, too


def test_the_startup_is_charged_at_the_power_over_two_changes_of_the_slowest_meter(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, engine: Engine
) -> None:
    """50 J every 5 s: 10 W, which after one second would have looked like 0 W or 50 W."""
    monitor.resolution_s = 5.0
    charger.charge_startup(3.0)
    with charger.hold(lease_of(ledger, 500)):
        for startups in ([], [("startup", None, 30.0)]):
            for energy_j in (0.0, 0.0, 0.0, 0.0, 50.0):
                monitor.use(energy_j)
                monitor.tick()
            charger.flush()
            assert [row for row in booked(engine) if row[0] == "startup"] == startups


def test_the_startup_of_a_short_process_is_charged_when_it_closes(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, engine: Engine
) -> None:
    charger.charge_startup(3.0)
    monitor.tick(0.0)
    monitor.use(1.0)
    monitor.tick(0.25)
    assert booked(engine) == []
    charger.close()
    assert sorted(booked(engine)) == [("startup", None, 1.0), ("startup", None, 12.0)]


def test_an_estimated_startup_stays_estimated(monitor: ScriptedMonitor, ledger: Ledger, engine: Engine) -> None:
    monitor.readings.clear()
    monitor.use(0.0, meter="watts", quality="estimated")
    charger = make_charger(monitor, ledger)
    charger.charge_startup(1.0)
    monitor.tick(0.0)
    monitor.use(2.0, meter="watts", quality="estimated")
    monitor.tick(1.0)
    charger.close()
    assert ledger.statement(STUDY, ACCOUNT).spent_by_quality == {"estimated": 4 * J}


class ConstantPower(MeterSession):
    """A meter session that reports 5 W."""

    def read(self) -> list[Sample]:
        return [PowerSample(domain=Domain("node"), taken_at_s=time.monotonic(), power_w=5.0)]

    def close(self) -> None:
        return None


def test_the_real_monitor_writes_from_its_thread(ledger: Ledger) -> None:
    meter = OpenMeter(
        name="plug",
        quality="measured",
        session=ConstantPower(),
        availability=Availability(domains=(Domain("node"),)),
    )
    with Monitor([meter], interval_s=0.01) as monitor:
        charger = Charger(monitor, ledger, study_id=STUDY, account=ACCOUNT, flush_interval_s=0.03)
        lease = lease_of(ledger, 100, trial_number=1, purpose="training")
        with charger.hold(lease), monitor.window("training") as window:
            deadline_s = time.monotonic() + 30
            while len(ledger.statement(STUDY, ACCOUNT).spent_by_purpose) == 0 or monitor.peak_power_w is None:
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
        ledger.settle(lease)
        charger.close()
    of_trial_uj, spent_uj = ledger.trial_energy_uj(STUDY, ACCOUNT, 1), ledger.statement(STUDY, ACCOUNT).spent_uj
    (total,) = monitor.known_totals()
    assert window.result.energy_j * J <= of_trial_uj <= spent_uj <= total.energy_j * J + 1000  # rows round up
    assert spent_uj > 0
    ledger.verify(STUDY)


def start_worker(engine: Engine, *, lease_j: int, folder: Path) -> subprocess.Popen[str]:
    url = str(engine.url.render_as_string(hide_password=False))
    arguments = [sys.executable, str(WORKER), url, STUDY, str(lease_j), str(folder)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def wait_until(is_reached: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not is_reached():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_killed_process_loses_no_more_than_is_assumed_for_it(ledger: Ledger, engine: Engine, tmp_path: Path) -> None:
    """The worker uses 1000 W; what it was charged and what is assumed after its death cover its whole life."""
    with start_worker(engine, lease_j=900, folder=tmp_path) as worker:
        assert worker.stdout is not None
        began_s = float(worker.stdout.readline())
        wait_until(lambda: ledger.statement(STUDY, ACCOUNT).spent_uj >= 100 * J)
        killed_at_least_s = time.monotonic()
        worker.send_signal(signal.SIGKILL)
    (reaped,) = ledger.reap(STUDY, is_alive=is_alive)
    assert reaped.lease.trial_number == 9
    used_j = 1000.0 * (killed_at_least_s - began_s)
    statement = ledger.statement(STUDY, ACCOUNT)
    assert statement.reserved_uj == 0
    assert statement.spent_by_purpose["reaped"] == reaped.charged_uj > 0
    assert statement.spent_uj >= used_j * J
    ledger.verify(STUDY)


@contextmanager
def moved_away(engine: Engine) -> Iterator[None]:
    """The database's file is somewhere else for a while."""
    path = Path(str(engine.url.database))
    path.rename(path.with_suffix(".away"))
    try:
        yield
    finally:
        path.with_suffix(".away").rename(path)


def test_what_a_process_used_while_the_database_was_away_is_booked_after_it_was_killed(
    ledger: Ledger, engine: Engine, tmp_path: Path
) -> None:
    ledger.open_account(STUDY, ACCOUNT, 100_000 * J)
    folder = tmp_path / "unwritten"

    def kept_uj() -> int:
        lines = [line for file in folder.glob("*") for line in file.read_text().split("\n")[:-1]]
        return sum(json.loads(line)["energy_uj"] for line in lines)

    with start_worker(engine, lease_j=90_000, folder=folder) as worker:
        assert worker.stdout is not None
        began_s = float(worker.stdout.readline())
        wait_until(lambda: ledger.statement(STUDY, ACCOUNT).spent_uj >= 50 * J)
        with moved_away(engine):
            wait_until(lambda: kept_uj() >= 200 * J)
            killed_at_least_s = time.monotonic()
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            killed_at_most_s = time.monotonic()
    before_uj = ledger.statement(STUDY, ACCOUNT).spent_uj
    assert book_unwritten(folder, ledger, study_id=STUDY) > 0
    assert list(folder.iterdir()) == []
    statement = ledger.statement(STUDY, ACCOUNT)
    assert statement.spent_uj - before_uj >= 199 * J
    assert statement.reserved_uj + statement.spent_uj <= 90_100 * J, "its lease has paid"
    assert statement.spent_uj <= 1000 * J * (killed_at_most_s - began_s + 0.001), "nothing is booked twice"
    with engine.connect() as connection:
        last_beat_at = connection.execute(select(leases.c.last_beat_at)).scalar_one()
        last_charge_at = connection.execute(select(func.max(charges.c.ended_at))).scalar_one()
    assert last_beat_at == pytest.approx(last_charge_at, abs=0.05)
    ledger.reap(STUDY, is_alive=is_alive)
    assert ledger.statement(STUDY, ACCOUNT).spent_uj >= 1000 * J * (killed_at_least_s - began_s)
    assert ledger.statement(STUDY, ACCOUNT).reserved_uj == 0
    ledger.verify(STUDY)


def test_charges_wait_in_a_file_only_while_the_database_is_away(
    monitor: ScriptedMonitor, ledger: Ledger, engine: Engine, tmp_path: Path
) -> None:
    folder = tmp_path / "unwritten"
    charger = make_charger(monitor, ledger)
    charger.keep_unwritten_in(folder)
    with charger.hold(lease_of(ledger, 100)):
        monitor.use(1.0)
        monitor.tick(2.0)
        assert not folder.exists()
        with moved_away(engine):
            for _ in range(3):
                monitor.use(2.0)
                monitor.tick(2.0)
            (file,) = folder.iterdir()
            assert [json.loads(line)["energy_uj"] for line in file.read_text().splitlines()] == [2 * J] * 3
        assert book_unwritten(folder, ledger, study_id=STUDY) == 0, "its process still runs"
        assert file.exists()
        monitor.tick(2.0)
        assert not file.exists()
    assert [row for row in booked(engine) if row[2]] == [("idle", None, 1.0)] + [("idle", None, 2.0)] * 3
    ledger.verify(STUDY)


def test_a_folder_that_cannot_be_written_stops_nothing_and_is_told_once(
    monitor: ScriptedMonitor, ledger: Ledger, engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "unwritten"
    folder.write_text("no folder")
    charger = make_charger(monitor, ledger)
    charger.keep_unwritten_in(folder)
    with charger.hold(lease_of(ledger, 100)):
        with moved_away(engine):
            for _ in range(3):
                monitor.use(2.0)
                monitor.tick(2.0)
        monitor.tick(2.0)
    assert [row for row in booked(engine) if row[2]] == [("idle", None, 2.0)] * 3
    (told,) = caplog.messages
    assert "energy is lost if this process is killed" in told


def come_back_after(num_sleeps: int, engine: Engine, monitor: ScriptedMonitor) -> Callable[[float], None]:
    """Sleeps by the monitor's clock; the file comes back with the last of them."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        monitor.now_s += seconds
        if len(slept) == num_sleeps:
            path = Path(str(engine.url.database))
            path.with_suffix(".away").rename(path)

    return sleep


def test_training_goes_on_while_the_database_is_away_and_its_charges_are_booked_later(
    monitor: ScriptedMonitor, ledger: Ledger, charger: Charger, engine: Engine
) -> None:
    with charger.hold(lease_of(ledger, 100, trial_number=3, purpose="training")):
        with moved_away(engine):
            for _ in range(10):
                monitor.use(1.0)
                monitor.tick(2.0)
                charger.check()
            assert charger.left_uj == 990 * J
        assert booked(engine) == []
        monitor.tick(2.0)
        charger.check()
        assert charger.left_uj == 990 * J
    assert [row for row in booked(engine) if row[2]] == [("training", 3, 1.0)] * 10
    ledger.verify(STUDY)


@pytest.mark.parametrize("why", ["its lease may have expired", "its lease is used up"])
def test_training_waits_for_a_database_that_is_away_once_nothing_promises_its_energy(
    monitor: ScriptedMonitor, ledger: Ledger, engine: Engine, why: str
) -> None:
    path = Path(str(engine.url.database))
    sleep = come_back_after(5, engine, monitor)
    charger = make_charger(monitor, ledger, sleep=sleep)
    monitor.power_w = 2.0
    with charger.hold(lease_of(ledger, 100)):
        path.rename(path.with_suffix(".away"))
        if why == "its lease is used up":
            monitor.use(97.0)
            monitor.tick(2.0)
            charger.check()
            monitor.use(2.0)
        else:
            monitor.tick(59.5)
        monitor.tick(2.0)
        began_s = monitor.now_s
        charger.check()
        assert path.exists()
        assert monitor.now_s == began_s + 5 * 0.5
        assert not charger.is_fenced
    ledger.verify(STUDY)


def test_a_database_that_stays_away_ends_the_training_and_is_told_later(
    monitor: ScriptedMonitor, engine: Engine
) -> None:
    ledger = Ledger(engine, patience_s=30.0)
    ledger.open_account(STUDY, ACCOUNT, 1000 * J)
    charger = make_charger(monitor, ledger, sleep=monitor.tick)
    path = Path(str(engine.url.database))

    def train() -> None:
        with charger.hold(lease_of(ledger, 100)):
            path.rename(path.with_suffix(".away"))
            monitor.use(5.0)
            monitor.tick(2.0)
            charger.check()
            monitor.tick(29.0)
            charger.check()
            monitor.tick(2.0)
            charger.check()
            pytest.fail("it has been away for longer than 30 s")

    with pytest.raises(StorageAway, match=r"study\.db is gone"):
        train()
    path.with_suffix(".away").rename(path)
    charger.flush()
    assert [row for row in booked(engine) if row[2]] == [("idle", None, 5.0)]


def test_flushing_and_leaving_a_lease_wait_until_all_is_written(
    monitor: ScriptedMonitor, ledger: Ledger, engine: Engine
) -> None:
    path = Path(str(engine.url.database))
    charger = make_charger(monitor, ledger, sleep=come_back_after(3, engine, monitor))
    lease = lease_of(ledger, 100)
    with charger.hold(lease):
        monitor.use(3.0)
        path.rename(path.with_suffix(".away"))
    assert [row for row in booked(engine) if row[2]] == [("idle", None, 3.0)]
    assert ledger.settle(lease).given_back_uj == 97 * J
    ledger.verify(STUDY)
