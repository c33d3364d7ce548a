"""A database that goes away while it is used, and comes back or does not: what was promised holds, nothing is lost."""

import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, func, select, text

import postgresql
from greensv.energy.books.budget import Charge, Lease, this_process
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.outages import StorageAway, pauses
from greensv.energy.books.schema import create_tables, database_time, persist, transaction
from greensv.energy.books.tables import accounts, charges, leases, windows
from greensv.energy.meter import Domain
from greensv.energy.monitoring import EnergyWindow, Reading
from greensv.errors import StudyError

ACCOUNT = "search"


@pytest.fixture
def study() -> str:
    return str(uuid.uuid4())


def reserve(ledger: Ledger, study: str, amount_uj: int = 100, **changes: object) -> Lease | None:
    known = {"purpose": "training", "trial_number": 3, "holder": this_process(), "ttl_s": 60.0}
    return ledger.reserve(study, ACCOUNT, amount_uj, **{**known, **changes})  # type: ignore[arg-type]


def charge(energy_uj: int) -> Charge:
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


@contextmanager
def answers_lost(engine: Engine, *, arrives: bool, of: int = 1) -> Iterator[None]:
    """A commit's answer is lost, as when the server dies; with `arrives`, the commit itself is carried out."""
    commit, seen = engine.dialect.do_commit, []

    def lose_one(connection: object) -> None:
        seen.append(1)
        if len(seen) != of:
            commit(connection)  # type: ignore[arg-type]
            return
        if arrives:
            commit(connection)  # type: ignore[arg-type]
        error = engine.dialect.loaded_dbapi.OperationalError("server closed the connection unexpectedly")
        if engine.dialect.name == "sqlite":
            error.sqlite_errorname = "SQLITE_IOERR"
        raise error

    engine.dialect.do_commit = lose_one  # type: ignore[method-assign]
    try:
        yield
    finally:
        engine.dialect.do_commit = commit  # type: ignore[method-assign]
    assert len(seen) >= of, "nothing was committed"


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_whose_answer_is_lost_is_carried_out_once(engine: Engine, study: str, arrives: bool) -> None:
    ledger, ran = Ledger(engine, patience_s=20.0), []
    with answers_lost(engine, arrives=arrives):
        ledger.open_account(study, ACCOUNT, 1000)
    with answers_lost(engine, arrives=arrives):
        lease = reserve(ledger, study, 100)
    assert lease is not None
    with answers_lost(engine, arrives=arrives):
        assert ledger.charge(lease, [charge(70), charge(10)], peak_power_w=1.0).lease_left_uj == 20
    with answers_lost(engine, arrives=arrives):
        assert ledger.top_up(lease, 30)
    with answers_lost(engine, arrives=arrives):
        assert ledger.charge(lease, [charge(2000)], peak_power_w=1.0).overrun_uj == 1080
    with answers_lost(engine, arrives=arrives):
        ledger.open_account(study, ACCOUNT, 5000)
    other = reserve(ledger, study, 200)
    assert other is not None
    with answers_lost(engine, arrives=arrives):
        settlement = ledger.settle(other, within=lambda connection: ran.append("settled"))
    assert (settlement.given_back_uj, settlement.is_reaped) == (200, False)
    with answers_lost(engine, arrives=arrives):
        assert ledger.charge_unreserved(study, ACCOUNT, [charge(5)]).overrun_uj == 0
    assert ledger.top_up(lease, 40)
    with answers_lost(engine, arrives=arrives, of=2):  # after that of looking which leases are open
        (reaped,) = ledger.reap(study, is_alive=lambda _: False, within=lambda *_: ran.append("reaped"))
    assert reaped.lease.id == lease.id
    window = EnergyWindow(
        name="training",
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
        duration_s=3.0,
        readings=(Reading(domain=Domain("cpu"), meter="rapl", quality="measured", energy_j=1.5),),
    )
    with answers_lost(engine, arrives=arrives):
        ledger.record_window(study, ACCOUNT, window)
    ledger.verify(study)
    statement = ledger.statement(study, ACCOUNT)
    assert (statement.spent_uj, statement.reserved_uj, statement.overrun_uj) == (2085 + reaped.charged_uj, 0, 0)
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(windows)).scalar_one() == 1
        assert connection.execute(select(func.count()).select_from(leases)).scalar_one() == 2
    assert len(ran) == (2 if arrives else 4), "what did not arrive is written again"


def test_a_reservation_that_arrived_is_found_again_and_not_asked_about_twice(engine: Engine, study: str) -> None:
    ledger, asked = Ledger(engine, patience_s=20.0), []
    ledger.open_account(study, ACCOUNT, 1000)

    def within(connection: Connection, lease: Lease) -> bool:
        asked.append(lease.id)
        return True

    with answers_lost(engine, arrives=True):
        lease = reserve(ledger, study, 600, within=within)
    assert lease is not None
    assert asked == [lease.id]
    assert ledger.statement(study, ACCOUNT).reserved_uj == 600


def test_a_server_that_restarts_is_waited_for(
    postgresql_server: postgresql.Server, open_engine: Callable[[str], Engine], study: str
) -> None:
    with postgresql.new_database(postgresql_server.url) as url:
        engine = open_engine(url)
        ledger = Ledger(engine, patience_s=20.0)
        ledger.open_account(study, ACCOUNT, 10**9)
        sent: list[Charge] = []
        stopping = threading.Event()
        restarted = threading.Event()

        def work() -> None:
            after_s = None
            while after_s is None or time.monotonic() < after_s:
                lease = reserve(ledger, study, 50)
                assert lease is not None
                sent.append(charge(len(sent)))
                ledger.charge(lease, sent[-1:], peak_power_w=1e-6)
                ledger.settle(lease)
                stopping.set()
                if restarted.is_set() and after_s is None:
                    after_s = time.monotonic() + 0.1

        worker = threading.Thread(target=work)
        worker.start()
        assert stopping.wait(60)
        postgresql_server.stop()
        try:
            time.sleep(0.3)
        finally:
            postgresql_server.start()
        restarted.set()
        worker.join(60)
        assert not worker.is_alive()
        ledger.verify(study)
        statement = ledger.statement(study, ACCOUNT)
        assert statement.reserved_uj == 0
        assert statement.spent_uj == sum(one.energy_uj for one in sent)
        assert len(sent) > 1


def test_a_server_that_stays_away_is_an_error_that_says_so(
    postgresql_server: postgresql.Server, open_engine: Callable[[str], Engine], study: str
) -> None:
    with postgresql.new_database(postgresql_server.url) as url:
        ledger = Ledger(open_engine(url), patience_s=0.2)
        ledger.open_account(study, ACCOUNT, 1000)
        postgresql_server.stop()
        try:
            with pytest.raises(StorageAway, match=r"the database postgresql\+psycopg:.* cannot be used: "):
                reserve(ledger, study)
            with pytest.raises(StudyError, match="check that it exists"):
                ledger.statement(study, ACCOUNT)
        finally:
            postgresql_server.start()
        assert reserve(ledger, study) is not None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs" / "study.db"


@pytest.mark.parametrize("how", ["moved back", "copied back", "folder"])
def test_a_file_that_is_moved_away_is_waited_for(
    file: Path, open_engine: Callable[[str], Engine], study: str, how: str
) -> None:
    ledger = Ledger(open_engine(f"sqlite:///{file}"), patience_s=20.0)
    ledger.open_account(study, ACCOUNT, 1000)
    away = file.parent if how == "folder" else file
    elsewhere = away.with_name("elsewhere")
    away.rename(elsewhere)

    def bring_back() -> None:
        if how == "copied back":
            shutil.copy(elsewhere, away)
        else:
            elsewhere.rename(away)

    timer = threading.Timer(0.3, bring_back)
    timer.start()
    lease = reserve(ledger, study, 600)
    timer.join()
    assert lease is not None
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT reserved_uj FROM greensv_accounts").fetchall() == [(600,)]
    ledger.verify(study)


def test_a_file_that_is_gone_is_not_made_anew(file: Path, open_engine: Callable[[str], Engine], study: str) -> None:
    engine = open_engine(f"sqlite:///{file}")
    ledger = Ledger(engine, patience_s=0.2)
    ledger.open_account(study, ACCOUNT, 1000)
    file.rename(file.with_name("elsewhere"))
    with pytest.raises(StorageAway, match=r"study\.db is gone"):
        reserve(ledger, study)
    with pytest.raises(StorageAway, match=r"study\.db is gone"):
        ledger.statement(study, ACCOUNT)
    assert not file.exists()


def test_a_locked_file_is_waited_for_longer_than_sqlite_does(
    file: Path, open_engine: Callable[[str], Engine], study: str
) -> None:
    engine = open_engine(f"sqlite:///{file}")
    ledger = Ledger(engine, patience_s=20.0)
    ledger.open_account(study, ACCOUNT, 1000)
    with engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        raw.execute("PRAGMA busy_timeout = 10")
    with closing(sqlite3.connect(file, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, other.rollback)
        timer.start()
        assert reserve(ledger, study, 600) is not None
        timer.join()


def test_a_full_disk_is_not_waited_for(engine: Engine, study: str) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL cannot be given a small disk here; its error code is tested below")
    ledger = Ledger(engine, patience_s=20.0)
    ledger.open_account(study, ACCOUNT, 10**9)
    lease = reserve(ledger, study, 10**6)
    assert lease is not None
    with engine.connect() as connection:  # a limit on the file's pages is what SQLite itself calls a full disk
        raw = connection.connection.dbapi_connection
        assert raw is not None
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        raw.execute(f"PRAGMA max_page_count = {pages}")
    began_s = time.monotonic()
    with pytest.raises(StudyError, match="is full; make room on its disk, then run the same command again") as caught:
        ledger.charge(lease, [charge(1) for _ in range(1000)], peak_power_w=1.0)
    assert not isinstance(caught.value, StorageAway)
    assert time.monotonic() - began_s < 60
    ledger.verify(study)
    assert ledger.statement(study, ACCOUNT).spent_uj == 0


@pytest.mark.parametrize(
    ("code", "is_waited_for"),
    [("53100", False), ("53300", True), ("57P03", True), ("57P01", True), ("40P01", True), ("42P01", False)],
)
def test_postgresqls_own_codes_tell_what_is_waited_for(
    postgresql_url: str, open_engine: Callable[[str], Engine], code: str, is_waited_for: bool
) -> None:
    engine = open_engine(postgresql_url)
    raised = text(f"DO $$ BEGIN RAISE EXCEPTION 'told to' USING ERRCODE = '{code}'; END $$")
    with pytest.raises(StudyError) as caught, transaction(engine) as connection:
        connection.execute(raised)
    assert isinstance(caught.value, StorageAway) is is_waited_for
    assert ("make room on its disk" in str(caught.value)) is (code == "53100")


def test_only_the_first_attempt_is_none_of_a_repeat(engine: Engine) -> None:
    create_tables(engine)
    repeats: list[bool] = []
    with answers_lost(engine, arrives=False):
        assert persist(engine, lambda connection, is_repeat: repeats.append(is_repeat) or "done") == "done"
    assert repeats == [False, True]


def test_waiting_grows_and_ends() -> None:
    now = [0.0]
    found = []
    for pause_s in pauses(60.0, clock=lambda: now[0]):
        found.append(pause_s)
        now[0] += pause_s
    assert sum(found) == pytest.approx(60.0)
    assert found[0] < 0.2
    assert max(found) <= 6.25
    assert len(found) < 40
    assert list(pauses(0.0)) == []


def test_silence_while_nobody_could_reach_the_database_is_no_death(engine: Engine, study: str) -> None:
    """Others may have come back from the same outage a moment later than the one that reaps."""
    now, own_s = [1000.0], [0.0]
    ledger = Ledger(engine, clock=lambda _: now[0], monotonic=lambda: own_s[0])
    ledger.open_account(study, ACCOUNT, 1000)
    lease = reserve(ledger, study, 600, ttl_s=60.0)
    assert lease is not None
    now[0] += 90
    own_s[0] += 90
    with answers_lost(engine, arrives=False):
        ledger.open_account(study, ACCOUNT, 1000)
    now[0] += 30
    own_s[0] += 30
    assert ledger.reap(study, is_alive=lambda _: None) == ()
    now[0] += 31
    own_s[0] += 31
    assert [reaped.lease.id for reaped in ledger.reap(study, is_alive=lambda _: None)] == [lease.id]


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_worker_whose_clock_jumps_changes_nothing(
    engine: Engine, study: str, jump_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(engine, patience_s=20.0)
    ledger.open_account(study, ACCOUNT, 1000)
    lease = reserve(ledger, study, 600)
    assert lease is not None
    own = time.time
    monkeypatch.setattr(time, "time", lambda: own() + jump_s)
    other = reserve(ledger, study, 100)
    assert other is not None
    assert not ledger.charge(lease, [charge(5)], peak_power_w=1.0).is_fenced
    assert ledger.reap(study, is_alive=lambda _: None) == ()
    with engine.connect() as connection:
        beats = connection.execute(select(leases.c.last_beat_at)).scalars().all()
        assert all(abs(beat - database_time(connection)) < 600 for beat in beats)


def test_a_database_whose_clock_jumps_ends_leases_and_overspends_nothing(engine: Engine, study: str) -> None:
    jump_s = [0.0]
    ledger = Ledger(engine, clock=lambda connection: database_time(connection) + jump_s[0])
    ledger.open_account(study, ACCOUNT, 1000)
    lease = reserve(ledger, study, 600)
    assert lease is not None
    ledger.charge(lease, [charge(5)], peak_power_w=2e-6, next_beat_s=8.0)
    jump_s[0] = 3600.0
    (reaped,) = ledger.reap(study, is_alive=lambda _: None)
    assert reaped.charged_uj == 136  # 2 uW for its ttl of 60 s and the 8 s it may have been late by
    outcome = ledger.charge(lease, [charge(7)], peak_power_w=2e-6)
    assert outcome.is_fenced, "its holder, which lives, must stop"
    assert ledger.settle(lease).is_reaped
    statement = ledger.statement(study, ACCOUNT)
    assert (statement.spent_uj, statement.reserved_uj, statement.overrun_uj) == (148, 0, 0)
    jump_s[0] = 0.0  # and back
    again = reserve(ledger, study, 852)
    assert again is not None
    assert ledger.reap(study, is_alive=lambda _: None) == ()
    ledger.verify(study)


def test_a_thousand_reservations_of_eight_threads_never_break_the_cap(engine: Engine, study: str) -> None:
    if engine.dialect.name == "sqlite":  # its locks are the same when it does not wait for the disk
        event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous = OFF"))
    ledger = Ledger(engine, patience_s=20.0)
    cap = 4000
    ledger.open_account(study, ACCOUNT, cap)
    refused = []

    def work(number: int) -> None:
        for turn in range(125):
            lease = reserve(ledger, study, 700 + number)
            if lease is None:
                refused.append(number)
                continue
            if turn % 5 == 0:
                ledger.charge(lease, [charge(9)], peak_power_w=1e-6)
            ledger.settle(lease)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.verify(study)
    with engine.connect() as connection:
        row = connection.execute(select(accounts)).one()
        num_leases = connection.execute(select(func.count()).select_from(leases)).scalar_one()
        booked = connection.execute(select(func.sum(charges.c.energy_uj + charges.c.overrun_uj))).scalar_one()
    assert (row.reserved_uj, row.spent_uj + row.overrun_uj) == (0, booked)
    assert row.spent_uj <= cap
    assert num_leases + len(refused) == 1000
