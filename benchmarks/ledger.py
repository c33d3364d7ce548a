"""Does the ledger hold its promises with many workers that are killed, and what does it cost beside Optuna?

    uv run python benchmarks/ledger.py kills --repetitions 50
    uv run python benchmarks/ledger.py rates

`kills`: 16 processes on PostgreSQL, or 8 on an SQLite file, share one Optuna study with enqueued candidates and one
account. Each takes a candidate, reserves, uses energy (watts that change from tick to tick, times the time that
passes), charges every few ticks, settles, tells. Each joule is written to the process's own file before the ledger
hears of it. In every trial a SIGKILL comes with p = 0.15 at a random moment, be it in the middle of a transaction; the
process is replaced, and whoever is alive reaps. Checked after each repetition: never over the cap, never below what was
used in truth, no candidate taken twice, no reservation left. A repetition ends when nothing fits any more.

`rates`: blocks of Optuna's `ask` and `tell` alone and with a reservation and a settlement in between, alternating, in
one process and in several. Prints Markdown.
"""

import argparse
import math
import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from watched import machine

from greensv.energy.books.budget import Charge, is_alive, this_process
from greensv.energy.books.ledger import Ledger
from greensv.search.storage import open_storage
from greensv.units import format_energy, j_from_uj, uj_from_j

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import postgresql

WORKERS = {"postgresql": 16, "sqlite": 8}
ACCOUNT = "search"
KILL_PROBABILITY = 0.15
HIGH_W = 1.0
TICK_S = 0.004
TICKS_PER_CHARGE = 3
TRIAL_S = 0.12
LEASE_J = 0.2
TTL_S = 3600.0
CAP_S = 0.5
"""The cap is what all workers use in so many seconds of training."""
CANDIDATES_PER_WORKER = 3
PARAMETERS = (1, 6)
"""Optuna writes each in a transaction of its own; a search of greensv has about six."""

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

fork = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """What one repetition ended with, in microjoules."""

    num_killed: int
    num_taken: int
    num_twice: int
    cap_uj: int
    booked_uj: int
    true_uj: int
    overrun_uj: int
    left_reserved_uj: int
    duration_s: float


@contextmanager
def database(kind: str) -> Iterator[str]:
    """Yields the URL of an empty database whose commits wait for the disk."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/study.db"
        return
    with (
        postgresql.running_server("fsync=on", "max_connections=200") as server,
        postgresql.new_database(server.url) as url,
    ):
        yield url


def reopen(url: str) -> tuple[RDBStorage, Ledger]:
    """Opens, in a forked process, the storage that its parent has checked."""
    storage, ledger = open_storage(url, create=False)
    return storage, ledger


def work(url: str, name: str, folder: Path, seed: int) -> None:
    """A worker: until nothing fits, or it is killed."""
    random.seed(seed)
    storage, ledger = reopen(url)
    study = optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler())
    log = os.open(folder / f"{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    holder = this_process()
    began_s = time.monotonic() - 2 * TRIAL_S
    while True:
        took_s, began_s = time.monotonic() - began_s, time.monotonic()
        if random.random() < KILL_PROBABILITY:
            delay_s = random.uniform(0, took_s)  # as the last trial took, so that it comes in any part of one
            killer = threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL))
            killer.daemon = True
            killer.start()
        ledger.reap(name, is_alive=is_alive)
        trial = study.ask()
        candidate = trial.suggest_int("candidate", 0, 10**9)
        os.write(log, f"took {candidate}\n".encode())
        lease = ledger.reserve(
            name,
            ACCOUNT,
            uj_from_j(LEASE_J),
            purpose="training",
            trial_number=trial.number,
            holder=holder,
            ttl_s=TTL_S,
        )
        if lease is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            break
        use(ledger, lease, log)
        ledger.settle(lease)
        study.tell(trial, [0.1, 1.0])
    storage.engine.dispose()
    os._exit(0)


def use(ledger: Ledger, lease: Any, log: int) -> None:
    """Uses energy for a while; never more than the lease has left, as a training whose next step is not covered."""
    left_uj, pending_uj = lease.granted_uj, 0
    # Nothing has been used yet; from now on a dead holder may have used its power for as long as it was silent.
    ledger.charge(lease, [], peak_power_w=HIGH_W, next_beat_s=TTL_S)
    began_s = before_s = time.monotonic()
    tick = 0
    while left_uj > pending_uj and before_s < began_s + TRIAL_S:
        time.sleep(TICK_S)
        now_s = time.monotonic()
        power_w = random.uniform(0.2, 1.0) * HIGH_W
        used_uj = min(math.floor(power_w * (now_s - before_s) * 1e6), left_uj - pending_uj)
        before_s = now_s
        os.write(log, f"used {used_uj}\n".encode())
        pending_uj += used_uj
        tick += 1
        if tick % TICKS_PER_CHARGE == 0:
            left_uj, pending_uj = charge(ledger, lease, pending_uj), 0
    charge(ledger, lease, pending_uj)


def charge(ledger: Ledger, lease: Any, energy_uj: int) -> int:
    """Books what was used; returns what the lease has left."""
    now = time.time()
    booked = Charge(
        purpose="training",
        trial_number=lease.trial_number,
        started_at=now,
        ended_at=now,
        meter="scripted",
        domain="cpu",
        quality="measured",
        energy_uj=energy_uj,
        pue=1.0,
    )
    return ledger.charge(lease, [booked], peak_power_w=HIGH_W, next_beat_s=TTL_S).lease_left_uj


def repeat(url: str, num_workers: int, seed: int) -> Repetition:
    """Runs one repetition and checks the books."""
    storage, ledger = open_storage(url, create=True)
    name = uuid.uuid4().hex
    study = optuna.create_study(storage=storage, study_name=name, directions=["minimize", "minimize"])
    cap_uj = uj_from_j(num_workers * 0.6 * HIGH_W * CAP_S)
    ledger.open_account(name, ACCOUNT, cap_uj)
    for candidate in range(num_workers * CANDIDATES_PER_WORKER):
        study.enqueue_trial({"candidate": candidate})
    storage.engine.dispose()
    began_s = time.monotonic()
    num_killed = num_started = 0
    with tempfile.TemporaryDirectory() as folder:
        running: list[Any] = []
        for _ in range(num_workers):
            num_started += 1
            running.append(fork.Process(target=work, args=(url, name, Path(folder), seed + num_started)))
            running[-1].start()
        while running:
            time.sleep(0.005)
            for process in [process for process in running if process.exitcode is not None]:
                running.remove(process)
                assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
                if process.exitcode:
                    num_killed += 1
                    num_started += 1
                    running.append(fork.Process(target=work, args=(url, name, Path(folder), seed + num_started)))
                    running[-1].start()
        duration_s = time.monotonic() - began_s
        lines = [line.split() for path in Path(folder).glob("*.log") for line in path.read_text().splitlines()]
    ledger.reap(name, is_alive=is_alive)
    ledger.verify(name)
    statement = ledger.statement(name, ACCOUNT)
    storage.engine.dispose()
    taken = [int(value) for what, value in lines if what == "took"]
    enqueued = [candidate for candidate in taken if candidate < num_workers * CANDIDATES_PER_WORKER]
    return Repetition(
        num_killed=num_killed,
        num_taken=len(enqueued),
        num_twice=len(enqueued) - len(set(enqueued)),
        cap_uj=cap_uj,
        booked_uj=statement.spent_uj + statement.overrun_uj,
        true_uj=sum(int(value) for what, value in lines if what == "used"),
        overrun_uj=statement.overrun_uj,
        left_reserved_uj=statement.reserved_uj,
        duration_s=duration_s,
    )


def kills(kind: str, repetitions: int, seed: int) -> None:
    """Repeats, and prints a column of the table."""
    num_workers = WORKERS[kind]
    with database(kind) as url:
        found = []
        for number in range(repetitions):
            found.append(repeat(url, num_workers, seed + 10_000 * number))
            print(f"{kind} {number + 1}/{repetitions}: {found[-1]}", file=sys.stderr, flush=True)
    print(
        f"\n{kind}, {num_workers} processes, {repetitions} repetitions, {sum(one.num_killed for one in found)} kills\n"
    )
    rows = {
        "over the cap": sum(one.booked_uj > one.cap_uj or one.overrun_uj > 0 for one in found),
        "books below what was used": sum(one.booked_uj < one.true_uj for one in found),
        "candidates taken twice": sum(one.num_twice for one in found),
        "reservations left": sum(one.left_reserved_uj > 0 for one in found),
    }
    for what, number in rows.items():
        print(f"| {what} | {number} |")
    spread = {
        "kills": [one.num_killed for one in found],
        "enqueued candidates taken": [one.num_taken for one in found],
        "used in truth, of the cap": [one.true_uj / one.cap_uj for one in found],
        "booked, of the cap": [one.booked_uj / one.cap_uj for one in found],
        "booked beyond the truth, of the cap": [(one.booked_uj - one.true_uj) / one.cap_uj for one in found],
        "seconds": [one.duration_s for one in found],
    }
    print(f"\ncap {format_energy(j_from_uj(found[0].cap_uj))}\n")
    print("| | median | least | most |\n| --- | ---: | ---: | ---: |")
    for what, values in spread.items():
        print(f"| {what} | {statistics.median(values):.3g} | {min(values):.3g} | {max(values):.3g} |")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What a block does and how it is timed."""

    num_trials: int
    num_parameters: int
    clock: str
    with_ledger: bool = False


def rate_block(url: str, name: str, block: Block, results: Any) -> None:
    """Asks and tells so many trials and puts the seconds of each into `results`."""
    clock = CLOCKS[block.clock]
    storage, ledger = reopen(url)
    study = optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler())
    holder, seconds = this_process(), []
    study.tell(study.ask(), [0.0, 0.0])  # the connection is open, and everything imported
    for _ in range(block.num_trials):
        began_s = clock()
        trial = study.ask()
        for number in range(block.num_parameters):
            trial.suggest_float(f"x{number}", 0, 1)
        if block.with_ledger:
            lease = ledger.reserve(
                name, ACCOUNT, 1000, purpose="training", trial_number=trial.number, holder=holder, ttl_s=60.0
            )
            assert lease is not None
            ledger.settle(lease)
        study.tell(trial, [0.1, 1.0])
        seconds.append(clock() - began_s)
    storage.engine.dispose()
    results.put(seconds)


def rates(kind: str, num_processes: int, block: Block, num_blocks: int) -> None:
    """Times blocks with and without the ledger, in turn, and prints a row."""
    medians: dict[bool, list[float]] = {False: [], True: []}
    rate: dict[bool, list[float]] = {False: [], True: []}
    with database(kind) as url:
        for number in range(2 * num_blocks):
            with_ledger = number % 2 == (number // 2) % 2  # ABBA
            storage, ledger = open_storage(url, create=True)
            name = uuid.uuid4().hex
            optuna.create_study(storage=storage, study_name=name, directions=["minimize", "minimize"])
            ledger.open_account(name, ACCOUNT, 10**9)
            storage.engine.dispose()
            results = fork.Queue()
            arguments = (url, name, replace(block, with_ledger=with_ledger), results)
            processes = [fork.Process(target=rate_block, args=arguments) for _ in range(num_processes)]
            for process in processes:
                process.start()
            seconds = [value for _ in processes for value in results.get(timeout=600)]
            for process in processes:
                process.join()
            medians[with_ledger].append(statistics.median(seconds))
            rate[with_ledger].append(num_processes / statistics.fmean(seconds))
    alone_s, both_s = statistics.median(medians[False]), statistics.median(medians[True])
    overheads = sorted(b / a - 1 for a, b in zip(medians[False], medians[True], strict=True))
    print(
        f"| {kind} | {num_processes} | {block.num_parameters} | {1e3 * alone_s:.1f} | {1e3 * both_s:.1f} "
        f"| {both_s / alone_s - 1:+.0%} ({overheads[0]:+.0%} to {overheads[-1]:+.0%}) "
        f"| {statistics.median(rate[False]):.0f} | {statistics.median(rate[True]):.0f} |",
        flush=True,
    )


def main() -> None:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["kills", "rates"])
    parser.add_argument("--storage", choices=list(WORKERS), action="append")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="of `rates`: or processor time of the client"
    )
    parser.add_argument("--processes", type=int, action="append", help="of `rates`; default: 1, and as many as `kills`")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(machine())
    for kind in options.storage or list(WORKERS):
        if options.what == "kills":
            kills(kind, options.repetitions, options.seed)
            continue
        print(
            "| storage | processes | parameters | alone, ms | with the ledger, ms | overhead | alone, 1/s | with, 1/s |"
        )
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for num_processes in options.processes or (1, WORKERS[kind]):
            for num_parameters in PARAMETERS:
                block = Block(num_trials=options.trials, num_parameters=num_parameters, clock=options.clock)
                rates(kind, num_processes, block, options.blocks)


if __name__ == "__main__":
    main()
