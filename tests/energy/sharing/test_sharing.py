import dataclasses
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select, update

from greensv.energy.baseline.idle import IdleBaseline, IdlePower
from greensv.energy.books import schema
from greensv.energy.books.budget import this_process
from greensv.energy.books.charging import Charger
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.schema import transaction
from greensv.energy.books.tables import charges, idle, shared, sharers
from greensv.energy.meter import Availability, Domain, MeterSession
from greensv.energy.metering.reading import OpenMeter, Reading
from greensv.energy.monitoring import Monitor
from greensv.energy.sharing import sharing as sharing_module
from greensv.energy.sharing.settlement import TTL_S, Standing, split_uj
from greensv.energy.sharing.sharing import DomainShare, Sharing, this_node
from greensv.errors import MeterError, StudyError
from simulated.scripted import CPU, Counter, Gauge, ScriptedClock, ScriptedSession

STUDY = "a-study"
NODE = "a-node"
GONE_AFTER_S = 90.0  # 60 s that a busy database may take, and 30 s of silence


@pytest.fixture
def ledger(open_engine: Callable[[str], Engine], tmp_path: Path) -> Ledger:
    ledger = Ledger(open_engine(f"sqlite:///{tmp_path / 'study.db'}"))
    ledger.open_account(STUDY, "search", 10**12)
    return ledger


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


class Worker:
    """A process that meters, as far as sharing goes: what it does, the test says."""

    def __init__(self, sharing: Sharing, monitor: Monitor, cpu: dict[str, float]) -> None:
        self.sharing, self.monitor, self._cpu = sharing, monitor, cpu

    def work(self, cpu_s: float) -> None:
        self._cpu["time_s"] += cpu_s

    def exchange(self) -> None:
        self.monitor.poll()
        self.sharing.exchange()
        self.monitor.poll()

    def leave(self) -> None:
        self.monitor.poll()
        self.sharing.leave()
        self.monitor.poll()

    @property
    def reading(self) -> Reading:
        (reading,) = self.monitor.poll()
        return reading

    @property
    def read_j(self) -> float:
        return self.reading.energy_j


Start = Callable[..., Worker]


@pytest.fixture
def start(ledger: Ledger, clock: ScriptedClock) -> Iterator[Start]:
    """Starts a worker on a meter whose samples the test makes; its thread neither polls nor exchanges."""
    with ExitStack() as stack:

        def begin(source: Counter | Gauge, *, domain: Domain = CPU, name: str = "rapl", **about: object) -> Worker:
            session = ScriptedSession(source.samples)
            meter = open_meter(session, domain=domain, name=name, **about)
            cpu = {"time_s": 0.0}
            sharing = Sharing(
                [meter],
                ledger.engine,
                cpu_time_s=lambda: cpu["time_s"],
                node=NODE,
                clock=lambda _: clock.now_s,
                interval_s=None,
            )
            stack.enter_context(sharing)
            monitor = stack.enter_context(Monitor(sharing.meters, interval_s=3600.0, clock=clock))
            return Worker(sharing, monitor, cpu)

        yield begin


def open_meter(session: MeterSession, *, domain: Domain = CPU, name: str = "rapl", **about: object) -> OpenMeter:
    availability = Availability(domains=(domain,), max_power_w=1000.0, **about)  # type: ignore[arg-type]
    return OpenMeter(name=name, quality="measured", session=session, availability=availability)


def pass_time(clock: ScriptedClock, counter: Counter, energy_j: float, *, seconds: float = 2.0) -> None:
    clock.advance(seconds)
    counter.add(energy_j)


def assert_books_agree(ledger: Ledger) -> int:
    """Returns the microjoules that no one was allotted."""
    with transaction(ledger.engine) as connection:
        (row,) = connection.execute(select(shared)).mappings().all()
        allotted_uj = int(connection.execute(select(func.sum(sharers.c.allotted_uj))).scalar_one())
    assert row["total_uj"] == allotted_uj + row["unallotted_uj"] + row["residual_uj"]
    return int(row["unallotted_uj"] + row["residual_uj"])


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**9), min_size=1, max_size=9))
def test_the_parts_of_a_split_add_up_and_are_off_by_less_than_one(amount_uj: int, weights: list[int]) -> None:
    parts = split_uj(amount_uj, weights)
    assert sum(parts) == amount_uj
    total = sum(weights) or len(weights)
    for part, weight in zip(parts, weights, strict=True):
        ideal = amount_uj * (weight if any(weights) else 1)
        assert abs(part * total - ideal) < total


def test_a_process_alone_reads_exactly_what_its_meter_does(start: Start, clock: ScriptedClock, ledger: Ledger) -> None:
    counter = Counter(clock)
    worker = start(counter)
    with Monitor([open_meter(ScriptedSession(counter.samples))], interval_s=3600.0, clock=clock) as unshared:
        for _ in range(5):
            pass_time(clock, counter, 0.1)
            assert (worker.reading,) == unshared.poll()
            worker.exchange()
        worker.leave()
        assert (worker.reading,) == unshared.poll()
    assert assert_books_agree(ledger) == 0


def test_two_processes_share_by_cpu_time_and_their_shares_add_up(
    start: Start, clock: ScriptedClock, ledger: Ledger
) -> None:
    counter = Counter(clock)
    one, two = start(counter), start(counter)
    one.exchange()  # lets the other in
    two.exchange()
    for _ in range(5):
        pass_time(clock, counter, 40.000_001)
        one.work(0.3)
        two.work(0.9)
        two.exchange()
        one.exchange()
        two.exchange()
    assert one.read_j == pytest.approx(50.0, abs=1e-5)
    assert two.read_j == pytest.approx(150.0, abs=1e-5)
    one.leave()
    two.leave()
    assert round(one.read_j * 1e6) + round(two.read_j * 1e6) == counter.count_uj == 200_000_005
    assert assert_books_agree(ledger) == 0


def test_what_is_shared_is_attributed_and_known_every_two_seconds(start: Start, clock: ScriptedClock) -> None:
    counter = Counter(clock)
    one = start(counter, resolution_s=0.001)
    pass_time(clock, counter, 1.0)
    assert one.reading.quality == "measured"
    two = start(counter, resolution_s=0.001)
    one.exchange()
    assert (one.reading.quality, two.reading.quality) == ("attributed", "attributed")
    assert one.reading.resolution_s == 2.0
    two.leave()
    one.exchange()
    assert one.reading.quality == "attributed"  # part of its total is


def test_an_estimate_that_is_shared_stays_an_estimate(start: Start, clock: ScriptedClock, ledger: Ledger) -> None:
    counter = Counter(clock)
    start(counter)
    meter = dataclasses.replace(open_meter(ScriptedSession(counter.samples)), quality="estimated")
    with (
        Sharing(
            [meter],
            ledger.engine,
            cpu_time_s=lambda: 0.0,
            node=NODE,
            clock=lambda _: clock.now_s,
            interval_s=None,
        ) as sharing,
        Monitor(sharing.meters, interval_s=3600.0) as monitor,
    ):
        assert sharing.is_shared
        assert monitor.poll()[0].quality == "estimated"


def test_one_that_joins_is_charged_from_when_the_others_know_of_it(
    start: Start, clock: ScriptedClock, ledger: Ledger
) -> None:
    counter = Counter(clock)
    one = start(counter)
    pass_time(clock, counter, 10.0)
    two = start(counter)
    pass_time(clock, counter, 10.0)
    two.work(1.0)
    two.exchange()
    assert two.read_j == 0.0
    one.exchange()
    assert one.read_j == 20.0
    two.exchange()
    pass_time(clock, counter, 10.0)
    one.work(1.0)
    two.work(1.0)
    two.exchange()
    one.exchange()
    two.exchange()
    assert (one.read_j, two.read_j) == (25.0, 5.0)
    assert assert_books_agree(ledger) == 0


def test_the_idle_power_is_shared_equally_and_the_rest_by_cpu_time(
    start: Start, clock: ScriptedClock, ledger: Ledger
) -> None:
    host = this_process().host.rpartition("/")[0]
    with transaction(ledger.engine) as connection:
        row = {"study_id": "another", "host": host, "meter": "rapl", "domain": str(CPU), "power_w": 10.0}
        connection.execute(idle.insert(), {**row, "uncertainty_w": 0.1, "duration_s": 30.0, "measured_at": 1.0})
    counter = Counter(clock)
    one, two = start(counter), start(counter)
    one.exchange()
    two.exchange()
    pass_time(clock, counter, 60.0)  # 20 J of it at rest
    one.work(3.0)
    two.work(1.0)
    two.exchange()
    one.exchange()
    two.exchange()
    assert (one.read_j, two.read_j) == (40.0, 20.0)


def test_less_than_the_idle_power_is_shared_equally(start: Start, clock: ScriptedClock, ledger: Ledger) -> None:
    host = this_process().host.rpartition("/")[0]
    with transaction(ledger.engine) as connection:
        row = {"study_id": "another", "host": host, "meter": "rapl", "domain": str(CPU), "power_w": 100.0}
        connection.execute(idle.insert(), {**row, "uncertainty_w": 0.1, "duration_s": 30.0, "measured_at": 1.0})
    counter = Counter(clock)
    one, two = start(counter), start(counter)
    one.exchange()
    pass_time(clock, counter, 60.0)
    one.work(3.0)
    one.exchange()
    two.exchange()
    assert (one.read_j, two.read_j) == (30.0, 30.0)
    assert assert_books_agree(ledger) == 0


def test_between_exchanges_a_process_counts_on_its_latest_fraction(start: Start, clock: ScriptedClock) -> None:
    counter = Counter(clock)
    one, two = start(counter), start(counter)
    one.exchange()
    pass_time(clock, counter, 40.0)
    one.work(3.0)
    two.work(1.0)
    two.exchange()
    one.exchange()
    two.exchange()
    assert (one.read_j, two.read_j) == (30.0, 10.0)
    pass_time(clock, counter, 8.0)
    assert (one.read_j, two.read_j) == (36.0, 12.0)
    one.work(0.0)  # in truth the other did it all
    two.work(1.0)
    two.exchange()
    one.exchange()
    two.exchange()
    assert (one.read_j, two.read_j) == (36.0, 18.0)  # readings never go back
    pass_time(clock, counter, 10.0)
    one.work(1.0)
    one.exchange()
    assert one.read_j == 40.0  # all of this interval, less what was counted on wrongly


def test_a_leaver_that_counted_on_too_much_leaves_the_others_less(
    start: Start, clock: ScriptedClock, ledger: Ledger
) -> None:
    counter = Counter(clock)
    one, two = start(counter), start(counter)
    one.exchange()
    two.exchange()
    for _ in range(2):
        pass_time(clock, counter, 10.0)
        for worker in (one, two):
            worker.work(1.0)
        for worker in (two, one, two):
            worker.exchange()
    pass_time(clock, counter, 10.0)
    assert two.read_j == 15.0  # as much as the other again, for all it knows
    one.work(1.0)
    one.exchange()
    two.leave()
    assert two.read_j == 15.0
    assert assert_books_agree(ledger) == -5_000_000  # to be taken from what comes
    one.exchange()
    pass_time(clock, counter, 20.0)
    assert one.read_j == 35.0
    one.leave()
    assert round(one.read_j * 1e6) + round(two.read_j * 1e6) == counter.count_uj
    assert assert_books_agree(ledger) == 0


def test_the_owner_that_leaves_is_replaced(start: Start, clock: ScriptedClock, ledger: Ledger) -> None:
    counter = Counter(clock)
    one, two, three = start(counter), start(counter), start(counter)
    for worker in (one, two, three):
        worker.exchange()
    pass_time(clock, counter, 3.0)
    one.leave()
    pass_time(clock, counter, 3.0)
    two.exchange()
    three.exchange()
    assert one.read_j == pytest.approx(1.0, abs=2e-6)
    assert two.read_j == pytest.approx(2.5, abs=2e-6)
    two.leave()
    three.leave()
    assert sum(round(worker.read_j * 1e6) for worker in (one, two, three)) == counter.count_uj
    assert assert_books_agree(ledger) == 0


def test_one_that_was_silent_for_long_is_lost_and_may_come_back(
    start: Start, clock: ScriptedClock, ledger: Ledger
) -> None:
    counter = Counter(clock)
    one, two = start(counter), start(counter)
    one.exchange()
    two.exchange()
    for _ in range(8):  # the owner is stopped, as by SIGSTOP
        pass_time(clock, counter, 5.0, seconds=5.0)
        two.work(1.0)
        two.exchange()
    assert two.read_j == pytest.approx(40.0)  # settled by itself since
    one.exchange()  # goes on
    two.exchange()
    one.exchange()
    assert one.read_j == 20.0  # it went on counting on a half while nobody told it: it waits until that is right
    for _ in range(7):
        pass_time(clock, counter, 6.0)
        for worker in (one, two):
            worker.work(1.0)
        for worker in (one, two, one):
            worker.exchange()
    assert one.read_j == pytest.approx(21.0)
    assert two.read_j == pytest.approx(61.0)
    assert assert_books_agree(ledger) == 0


def test_a_busy_database_makes_nobody_lost(start: Start, clock: ScriptedClock, ledger: Ledger) -> None:
    counter = Counter(clock)
    one, two = start(counter), start(counter)
    one.exchange()
    two.exchange()
    pass_time(clock, counter, 100.0, seconds=10 * TTL_S)
    one.work(1.0)
    two.work(1.0)
    two.exchange()
    one.exchange()
    two.exchange()
    assert (one.read_j, two.read_j) == (50.0, 50.0)


def test_a_locked_database_loses_nothing(
    start: Start, clock: ScriptedClock, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_TIMEOUT_S", 0.01)
    ledger.engine.dispose()  # the next connection waits no longer than that
    counter = Counter(clock)
    one, two = start(counter), start(counter)
    one.exchange()
    two.exchange()
    with closing(sqlite3.connect(ledger.engine.url.database or "", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StudyError, match="locked"):
            one.sharing.exchange()
    pass_time(clock, counter, 30.0)
    two.work(1.0)
    one.work(2.0)
    two.exchange()
    one.exchange()
    two.exchange()
    assert (one.read_j, two.read_j) == (20.0, 10.0)
    assert assert_books_agree(ledger) == 0


def test_power_is_shared_too_and_goes_on_from_where_the_last_owner_stopped(
    start: Start, clock: ScriptedClock, ledger: Ledger
) -> None:
    node, gauge = Domain("node"), Gauge(clock, domain=Domain("node"))
    gauge.power_w = 100.0
    one, two = (start(gauge, domain=node, name="ipmi") for _ in range(2))
    one.exchange()
    two.exchange()
    clock.advance(1.0)
    two.monitor.poll()
    gauge.power_w = 300.0
    clock.advance(1.0)  # 100 J, then a ramp of 200 J
    two.monitor.poll()
    one.sharing.leave()  # it has not read since the start
    clock.advance(1.0)
    two.exchange()
    two.leave()
    assert two.read_j == pytest.approx(100.0 + 200.0 + 300.0)
    assert assert_books_agree(ledger) == 0


def test_a_window_knows_a_process_s_part_of_the_power(start: Start, clock: ScriptedClock) -> None:
    node, gauge = Domain("node"), Gauge(clock, domain=Domain("node"))
    gauge.power_w = 100.0
    one, two = (start(gauge, domain=node, name="ipmi") for _ in range(2))
    one.exchange()
    clock.advance(1.0)
    for worker in (two, one, two):
        worker.exchange()
    with two.monitor.window("work") as window:
        clock.advance(30.0)
        two.monitor.poll()
    assert window.result.energy_j == pytest.approx(1500.0)
    idle_power = IdlePower(
        host="here",
        meter="ipmi",
        domain="node",
        power_w=10.0,
        uncertainty_w=0.1,
        duration_s=30.0,
        measured_at=datetime.now(UTC),
    )
    assert IdleBaseline(powers=(idle_power,)).net(window.result) is None  # who knows how much of it is its own
    # Both edges are as old as the knowledge of who used what: 50 W × 2 s / √12 each.
    assert window.result.uncertainty_j == pytest.approx(50.0 * 2.0 / 12**0.5 * 2**0.5, rel=0.01)


def test_meters_that_would_count_the_same_joules_are_refused(start: Start, clock: ScriptedClock) -> None:
    start(Counter(clock))
    node = Domain("node")
    with pytest.raises(MeterError, match=r"charges cpu:0 by meter 'rapl'.*would charge node by meter 'ipmi'"):
        start(Gauge(clock, domain=node), domain=node, name="ipmi")


def move_to_another_container(ledger: Ledger) -> None:
    """Makes all sharers processes that this one cannot look for."""
    with transaction(ledger.engine) as connection:
        connection.execute(update(sharers).values(host="this-machine/pid:[1]"))


def test_one_killed_in_another_container_is_shared_with_no_longer(
    start: Start, clock: ScriptedClock, ledger: Ledger
) -> None:
    counter = Counter(clock)
    start(counter)
    move_to_another_container(ledger)
    pass_time(clock, counter, 10.0, seconds=GONE_AFTER_S)
    assert start(counter).sharing.is_shared  # it may be kept out by a busy database
    move_to_another_container(ledger)
    pass_time(clock, counter, 10.0, seconds=GONE_AFTER_S + 1)
    later = start(counter)
    counter.add(5.0)
    assert (later.read_j, later.sharing.is_shared) == (5.0, False)


def test_one_killed_in_another_container_keeps_no_meter_from_its_successors(
    start: Start, clock: ScriptedClock, ledger: Ledger
) -> None:
    start(Counter(clock))
    move_to_another_container(ledger)
    node = Domain("node")
    clock.advance(GONE_AFTER_S)
    with pytest.raises(MeterError, match="the same energy twice"):
        start(Gauge(clock, domain=node), domain=node, name="ipmi")
    clock.advance(1.0)
    assert not start(Gauge(clock, domain=node), domain=node, name="ipmi").sharing.is_shared


def test_what_was_allotted_before_the_first_sample_is_in_the_totals(clock: ScriptedClock) -> None:
    counter = Counter(clock)
    meter = open_meter(ScriptedSession(counter.samples))
    share = DomainShare(meter, CPU)
    share.begin(is_alone=False)
    share.learn(Standing(allotted_uj=2_000_000, fraction=0.5, settled=None, owed_uj=0, num_sharers=2))
    monitor = Monitor([dataclasses.replace(meter, shares={CPU: share})], clock=clock)
    assert [reading.energy_j for reading in monitor.poll()] == [2.0]


def test_a_meter_is_closed_when_the_process_may_not_join(ledger: Ledger, clock: ScriptedClock, start: Start) -> None:
    start(Counter(clock))
    node = Domain("node")
    session = ScriptedSession(Gauge(clock, domain=node).samples)
    meters = [open_meter(session, domain=node, name="ipmi")]
    sharing = Sharing(meters, ledger.engine, cpu_time_s=lambda: 0.0, node=NODE, clock=lambda _: clock.now_s)
    with pytest.raises(MeterError), sharing:
        pass
    assert session.num_closed == 1


def test_processes_on_other_machines_share_nothing(ledger: Ledger, clock: ScriptedClock, start: Start) -> None:
    start(Counter(clock))
    meters = [open_meter(ScriptedSession(Counter(clock).samples))]
    with Sharing(meters, ledger.engine, cpu_time_s=lambda: 0.0, node="another-node", interval_s=None) as sharing:
        assert not sharing.is_shared


@pytest.mark.parametrize("own", ["counts_others", "role"])
def test_what_is_this_process_s_alone_or_not_charged_is_not_shared(
    own: str, ledger: Ledger, clock: ScriptedClock
) -> None:
    meter = open_meter(ScriptedSession(Counter(clock).samples), counts_others=own != "counts_others")
    if own == "role":
        meter = dataclasses.replace(meter, roles={CPU: "part"})
    with Sharing([meter], ledger.engine, cpu_time_s=lambda: 0.0, node=NODE) as sharing:
        assert not sharing.meters[0].shares
        assert "greensv-sharing" not in [thread.name for thread in threading.enumerate()]
    with transaction(ledger.engine) as connection:
        assert connection.execute(select(func.count()).select_from(shared)).scalar_one() == 0


def test_the_next_process_on_the_machine_starts_anew(start: Start, clock: ScriptedClock, ledger: Ledger) -> None:
    counter = Counter(clock)
    one = start(counter)
    pass_time(clock, counter, 10.0)
    one.leave()
    pass_time(clock, counter, 500.0, seconds=60.0)
    two = start(counter)
    pass_time(clock, counter, 10.0)
    two.exchange()
    assert (two.read_j, two.reading.quality) == (10.0, "measured")
    assert assert_books_agree(ledger) == 0


def test_the_startup_of_one_that_joins_is_not_charged_twice(start: Start, clock: ScriptedClock, ledger: Ledger) -> None:
    counter = Counter(clock)
    one, two = start(counter), start(counter)
    chargers = [Charger(worker.monitor, ledger, study_id=STUDY, account="search", clock=clock) for worker in (one, two)]
    for charger in chargers:
        charger.flush()
        charger.charge_startup(7.0)
    one.exchange()
    two.exchange()
    pass_time(clock, counter, 40.0, seconds=4.0)
    for worker in (one, two, one):
        worker.exchange()
    for charger in chargers:
        charger.close()
    with transaction(ledger.engine) as connection:
        rows = connection.execute(select(charges.c.energy_uj, charges.c.purpose, charges.c.quality)).all()
    # Both shared 40 J equally. The one that was there first also pays for its 7 s of startup, at its 5 W.
    assert sum(row.energy_uj for row in rows) == pytest.approx(40e6 + 7.0 * 5e6, abs=10)


def test_a_total_that_becomes_attributed_is_charged_once(start: Start, clock: ScriptedClock, ledger: Ledger) -> None:
    counter = Counter(clock)
    one = start(counter)
    charger = Charger(one.monitor, ledger, study_id=STUDY, account="search", clock=clock)
    pass_time(clock, counter, 10.0)
    charger.flush()
    start(counter)
    one.exchange()
    pass_time(clock, counter, 8.0)
    one.work(1.0)
    one.exchange()
    charger.close()
    assert ledger.statement(STUDY, "search").spent_by_quality == {"measured": 10_000_000, "attributed": 8_000_000}


def test_the_thread_exchanges_and_ends(ledger: Ledger, clock: ScriptedClock) -> None:
    asked = threading.Semaphore(0)

    def cpu_time_s() -> float:
        asked.release()
        return 0.0

    meters: Sequence[OpenMeter] = [open_meter(ScriptedSession(Counter(clock).samples))]
    with Sharing(meters, ledger.engine, cpu_time_s=cpu_time_s, node=NODE, interval_s=0.001) as sharing:
        for _ in range(4):  # once on entering, then by the thread
            assert asked.acquire(timeout=30)
    assert "greensv-sharing" not in [thread.name for thread in threading.enumerate()]
    sharing.leave()  # once more changes nothing


def test_a_node_is_known_by_its_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("3e6a\n")
    monkeypatch.setattr(sharing_module, "BOOT_ID", boot_id)
    assert this_node() == "3e6a"


def test_cpu_time_that_cannot_be_read_says_what_to_do(ledger: Ledger, clock: ScriptedClock) -> None:
    def fail() -> float:
        raise OSError("no /proc")

    session = ScriptedSession(Counter(clock).samples)
    with (
        pytest.raises(MeterError, match=r"is_shared = false"),
        Sharing([open_meter(session)], ledger.engine, cpu_time_s=fail),
    ):
        pass
    assert session.num_closed == 1


def test_a_newcomer_can_wait_until_the_owner_counts_what_it_uses(start: Start, clock: ScriptedClock) -> None:
    counter = Counter(clock)
    owner = start(counter)
    assert owner.sharing.wait_until_counted(timeout_s=0.0), "alone, it is counted at once"
    newcomer = start(counter)
    assert not newcomer.sharing.wait_until_counted(timeout_s=0.0)
    clock.advance(2.0)
    owner.exchange()
    newcomer.exchange()
    assert newcomer.sharing.wait_until_counted(timeout_s=0.0)
