"""The budget's promise, under any order of operations and with processes that are killed."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, select

from greensv.energy.books.budget import Charge, Holder, Lease, head_room_j, is_alive, split_at_cap, this_process
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.tables import charges

WORKER = Path(__file__).parent / "ledger_worker.py"
ACCOUNT = "search"
TTL_S = 60.0
amounts = st.integers(1, 400)


def test_head_room_is_power_times_the_time_it_takes_to_stop() -> None:
    assert head_room_j(100.0, interval_s=1.0) == 100.0
    assert head_room_j(100.0, interval_s=1.0, flush_interval_s=2.0, step_s=0.5) == 350.0


def test_energy_is_split_at_the_cap_in_order() -> None:
    assert split_at_cap([5, 4, 3], 7) == [(5, 0), (2, 2), (0, 3)]
    assert split_at_cap([5], 0) == [(0, 5)]
    assert split_at_cap([], 7) == []


def test_this_process_is_alive() -> None:
    holder = this_process()
    assert holder.pid == os.getpid()
    assert abs(holder.process_started_at - time.time()) < 24 * 3600
    assert is_alive(holder) is True


def test_a_later_process_with_the_same_pid_is_not_the_holder() -> None:
    holder = this_process()
    assert (
        is_alive(Holder(host=holder.host, pid=holder.pid, process_started_at=holder.process_started_at - 60)) is False
    )


def test_a_process_that_ended_is_dead_even_before_it_is_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        stat = Path(f"/proc/{process.pid}/stat")
        holder = _holder_of(process.pid)
        assert is_alive(holder) is True
        process.kill()
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        assert is_alive(holder) is False
    assert is_alive(holder) is False


def test_whether_a_process_of_another_host_lives_is_not_known() -> None:
    assert is_alive(Holder(host="elsewhere", pid=os.getpid(), process_started_at=0.0)) is None


class Books(RuleBasedStateMachine):
    """Compares the ledger with a model of a few lines, after each of any sequence of operations."""

    engine: Engine

    @initialize(cap=st.integers(1, 2000))
    def open(self, cap: int) -> None:
        self.now = 1000.0
        self.ledger = Ledger(self.engine, clock=lambda _: self.now, monotonic=lambda: 0.0)
        self.study = str(uuid.uuid4())
        self.ledger.open_account(self.study, ACCOUNT, cap)
        self.cap, self.used, self.overrun = cap, 0, 0
        self.left: dict[str, int] = {}
        self.expires_at: dict[str, float] = {}
        self.leases: list[Lease] = []
        self.sent: list[tuple[Lease | None, Charge]] = []

    @property
    def free(self) -> int:
        return self.cap - (self.used - self.overrun) - sum(self.left.values())

    @rule(more=st.integers(0, 500))
    def raise_cap(self, more: int) -> None:
        self.ledger.open_account(self.study, ACCOUNT, self.cap + more)
        self.cap += more
        self._absorb()

    @rule(amount=amounts, trial=st.integers(0, 3))
    def reserve(self, amount: int, trial: int) -> None:
        lease = self.ledger.reserve(
            self.study, ACCOUNT, amount, purpose="training", trial_number=trial, holder=_nobody(trial), ttl_s=TTL_S
        )
        assert (lease is not None) == (amount <= self.free)
        if lease is not None:
            self.leases.append(lease)
            self.left[lease.id] = amount
            self.expires_at[lease.id] = self.now + TTL_S

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), energies=st.lists(amounts, max_size=3))
    def charge(self, data: st.DataObject, energies: list[int]) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        new = [_charge(energy, trial_number=lease.trial_number) for energy in energies]
        outcome = self.ledger.charge(lease, new, peak_power_w=3e-6)
        left, overrun = self._pay(sum(energies), self.left.get(lease.id, 0))
        is_open = lease.id in self.left
        if is_open:
            self.left[lease.id] = left
            self.expires_at[lease.id] = self.now + TTL_S
        self.sent += [(lease, charge) for charge in new]
        found = (outcome.lease_left_uj, outcome.account_left_uj, outcome.overrun_uj, outcome.is_fenced)
        assert found == (left, self.free, overrun, not is_open)

    @rule(energy=amounts)
    def charge_unreserved(self, energy: int) -> None:
        charge = _charge(energy)
        outcome = self.ledger.charge_unreserved(self.study, ACCOUNT, [charge])
        _, overrun = self._pay(energy, 0)
        self.sent.append((None, charge))
        assert (outcome.account_left_uj, outcome.overrun_uj) == (self.free, overrun)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        lease, charge = data.draw(st.sampled_from(self.sent))
        if lease is None:
            self.ledger.charge_unreserved(self.study, ACCOUNT, [charge])
        else:
            self.ledger.charge(lease, [charge], peak_power_w=3e-6)
            if lease.id in self.left:
                self.expires_at[lease.id] = self.now + TTL_S

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), amount=amounts)
    def top_up(self, data: st.DataObject, amount: int) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        fits = lease.id in self.left and amount <= self.free
        assert self.ledger.top_up(lease, amount) is fits
        if fits:
            self.left[lease.id] += amount

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        assert self.ledger.settle(lease).given_back_uj == self.left.pop(lease.id, 0)
        self._absorb()

    @rule(dead=st.sets(st.integers(0, 3)), pass_s=st.sampled_from([0.0, 1.0, 59.0, 61.0]))
    def reap(self, dead: set[int], pass_s: float) -> None:
        self.now += pass_s
        reaped = self.ledger.reap(self.study, is_alive=lambda holder: None if holder.pid not in dead else False)
        gone = {
            lease.id
            for lease in self.leases
            if lease.id in self.left and (lease.holder.pid in dead or self.now > self.expires_at[lease.id])
        }
        assert {one.lease.id for one in reaped} == gone
        for one in reaped:
            assert one.charged_uj <= self.left.pop(one.lease.id)
            self.used += one.charged_uj
        self._absorb()

    @invariant()
    def books_agree(self) -> None:
        self.ledger.verify(self.study)
        statement = self.ledger.statement(self.study, ACCOUNT)
        assert statement.spent_uj + statement.reserved_uj <= statement.cap_uj == self.cap
        assert (statement.spent_uj, statement.overrun_uj) == (self.used - self.overrun, self.overrun)
        assert statement.reserved_uj == sum(self.left.values())
        assert statement.left_uj == self.free
        assert statement.overrun_uj == 0 or statement.left_uj == 0
        assert sum(statement.spent_by_purpose.values()) == statement.spent_uj
        assert min(statement.left_uj, statement.spent_uj, statement.reserved_uj, statement.overrun_uj) >= 0

    def _absorb(self) -> None:
        self.overrun -= min(self.overrun, self.free)

    def _pay(self, energy: int, lease_left: int) -> tuple[int, int]:
        """Returns what the lease has left and the overrun."""
        from_lease = min(energy, lease_left)
        overrun = energy - from_lease - min(energy - from_lease, self.free)
        self.used += energy
        self.overrun += overrun
        return lease_left - from_lease, overrun


def test_no_order_of_operations_breaks_the_cap_or_loses_a_joule(engine: Engine) -> None:
    machine = type("BooksOfThisEngine", (Books,), {"engine": engine})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine, settings=settings(max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=checks)
    )


def test_processes_that_are_killed_neither_break_the_cap_nor_lose_a_confirmed_charge(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    cap = 600_000
    ledger = Ledger(engine)
    study = str(uuid.uuid4())
    ledger.open_account(study, ACCOUNT, cap)
    logs = [tmp_path / f"{number}.log" for number in range(4)]
    long = 2000  # beats: a victim is killed within its first lease
    workers = [_start_worker(database_url, study, log, first_beats=long) for log in logs[:2]]
    killed_leases = 0
    try:
        _wait_until(lambda: min(map(_num_lines, logs[:2])) >= 5)
        workers += [_start_worker(database_url, study, log) for log in logs[2:]]
        _wait_until(lambda: max(map(_num_lines, logs[2:])) >= 5)
        for victim in workers[:2]:
            victim.send_signal(signal.SIGKILL)
            assert victim.wait() == -signal.SIGKILL
            killed_leases += len(ledger.reap(study, is_alive=is_alive))
            ledger.verify(study)
        assert [worker.wait(timeout=60) for worker in workers[2:]] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    ledger.verify(study)
    statement = ledger.statement(study, ACCOUNT)
    assert killed_leases == 2
    assert statement.reserved_uj == 0
    assert statement.spent_uj <= cap
    assert (
        statement.left_uj < 150_000
    )  # the others stopped when not even 50 000 fitted, maybe before the two were reaped
    confirmed = [line.split() for log in logs for line in log.read_text().splitlines()]
    with engine.connect() as connection:
        columns = (charges.c.id, charges.c.energy_uj + charges.c.overrun_uj, charges.c.purpose)
        booked = {row.id: row[1] for row in connection.execute(select(*columns)) if row.purpose != "reaped"}
    assert len(confirmed) > 40
    for charge_id, energy_uj in confirmed:
        assert booked[charge_id] == int(energy_uj)
    assert len(booked) - len(confirmed) in range(3)  # a killed worker may have booked one it could not write down


def test_processes_that_start_together_create_the_tables_once(
    database_url: str, tmp_path: Path, open_engine: Callable[[str], Engine]
) -> None:
    study = str(uuid.uuid4())
    workers = [_start_worker(database_url, study, tmp_path / f"{n}.log", cap_uj=200_000) for n in range(3)]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0, 0]
    ledger = Ledger(open_engine(database_url))
    ledger.verify(study)
    assert ledger.statement(study, ACCOUNT).cap_uj == 200_000


def _start_worker(url: str, study: str, log: Path, *, first_beats: int = 3, cap_uj: int = 0) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(WORKER), url, study, str(log), str(first_beats), str(cap_uj)])


def _num_lines(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def _holder_of(pid: int) -> Holder:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    me = this_process()
    my_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    started_at = me.process_started_at + (int(fields[19]) - my_ticks) / os.sysconf("SC_CLK_TCK")
    return Holder(host=me.host, pid=pid, process_started_at=started_at)


def _nobody(pid: int) -> Holder:
    return Holder(host="model", pid=pid, process_started_at=0.0)


def _charge(energy_uj: int, *, trial_number: int | None = None) -> Charge:
    return Charge(
        purpose="training",
        trial_number=trial_number,
        started_at=0.0,
        ended_at=1.0,
        meter="scripted",
        domain="cpu",
        quality="measured",
        energy_uj=energy_uj,
        pue=1.0,
    )
