"""Several real processes read one powercap tree through the real meter and share it through a real database."""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from greensv.energy.books.schema import create_tables, transaction
from greensv.energy.books.tables import shared, sharers
from simulated.powercap_tree import PACKAGE_RANGE_UJ, PowercapTree, set_counter

WORKER = Path(__file__).with_name("sharing_worker.py")
START_UJ = PACKAGE_RANGE_UJ - 50_000
"""Counters wrap in the middle of a test."""
STEP_UJ = 20_000
"""So little that no time has to pass for it to be possible."""


class Zone:
    """A zone's counter and what it has counted in all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.total_uj = folder, 0
        self.add(0)

    def add(self, energy_uj: int) -> None:
        self.total_uj += energy_uj
        set_counter(self.folder, (START_UJ + self.total_uj) % PACKAGE_RANGE_UJ)


class Worker:
    """A process that does one thing for each line."""

    def __init__(self, url: str, root: Path) -> None:
        command = [sys.executable, str(WORKER), url, str(root)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.read_uj: dict[str, int] = {}
        self.qualities: set[str] = set()
        self._hear()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        self._hear()

    def end(self) -> None:
        self.tell("leave")
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0

    def _hear(self) -> None:
        assert self.process.stdout is not None
        words = [word.split("=") for word in self.process.stdout.readline().split()]
        assert words, "the worker died"
        self.read_uj = {domain: int(uj) for domain, uj, _ in words}
        self.qualities = {quality for _, _, quality in words}


@pytest.fixture
def zones(tmp_path: Path) -> dict[str, Zone]:
    tree = PowercapTree(tmp_path / "powercap")
    package = tree.add_package(0)
    return {"cpu:0": Zone(package), "dram:0": Zone(tree.add_part(package, 0, range_uj=PACKAGE_RANGE_UJ))}


@pytest.fixture
def start(database_url: str, zones: dict[str, Zone], tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def begin() -> Worker:
        workers.append(Worker(database_url, tmp_path / "powercap"))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.process.kill()
        worker.process.communicate(timeout=30)


def books(engine: Engine) -> dict[str, tuple[int, int]]:
    """Returns the total and what nobody was allotted, by domain, and checks that they agree with the allotments."""
    found = {}
    create_tables(engine)
    with transaction(engine) as connection:
        for row in connection.execute(select(shared)).mappings():
            allotted = select(func.sum(sharers.c.allotted_uj)).where(sharers.c.domain == row["domain"])
            nobody_uj = row["unallotted_uj"] + row["residual_uj"]
            assert row["total_uj"] == connection.execute(allotted).scalar_one() + nobody_uj
            found[row["domain"]] = (row["total_uj"], nobody_uj)
    return found


def test_the_readings_of_three_processes_add_up_to_the_tree_s(
    start: Callable[[], Worker], zones: dict[str, Zone], engine: Engine
) -> None:
    generator = random.Random(5)
    workers = [start()]
    cpu_s = [0.0, 0.0, 0.0]
    for step in range(14):
        if step in (3, 6):
            workers.append(start())
        for zone in zones.values():
            zone.add(generator.randrange(STEP_UJ))
        for worker in generator.sample(range(len(workers)), k=len(workers)):
            cpu_s[worker] += generator.random()
            workers[worker].tell(f"cpu {cpu_s[worker]}")
            workers[worker].tell("poll")
            if generator.random() < 0.7:
                workers[worker].tell("exchange")
    # At rest readings catch up with what was counted on too much, so that the sums are exact.
    for _ in range(3):
        for zone in zones.values():
            zone.add(15_000)
        for worker in workers:
            cpu_s[workers.index(worker)] += 1.0
            worker.tell(f"cpu {cpu_s[workers.index(worker)]}")
            worker.tell("poll")
            worker.tell("exchange")
    for worker in workers:
        worker.tell("poll")
        worker.end()
        assert worker.qualities == {"attributed"}
    for domain, zone in zones.items():
        assert sum(worker.read_uj[domain] for worker in workers) == zone.total_uj
    assert books(engine) == {domain: (zone.total_uj, 0) for domain, zone in zones.items()}


def test_an_owner_that_is_killed_is_replaced_and_nothing_is_lost(
    start: Callable[[], Worker], zones: dict[str, Zone], engine: Engine
) -> None:
    owner, heir = start(), start()
    for worker in (owner, heir, owner):
        worker.tell("exchange")
    for worker in (owner, heir):
        worker.tell("cpu 1.0")
    zones["cpu:0"].add(10_000)
    for worker in (heir, owner, heir):
        worker.tell("poll")
        worker.tell("exchange")
    heir.tell("poll")
    assert heir.read_uj["cpu:0"] == 5_000
    zones["cpu:0"].add(10_000)
    owner.process.kill()
    owner.process.wait(timeout=30)
    zones["cpu:0"].add(10_000)
    heir.tell("cpu 2.0")
    heir.tell("poll")
    heir.tell("exchange")
    heir.end()
    assert heir.read_uj["cpu:0"] == 25_000  # all since the dead one settled last
    assert books(engine)["cpu:0"] == (30_000, 0)
    third = start()  # nobody is left but the dead
    zones["cpu:0"].add(7_000)
    third.tell("poll")
    assert third.qualities == {"measured"}
    third.end()
    assert third.read_uj["cpu:0"] == 7_000
