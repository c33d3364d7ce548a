"""A whole search whose database goes away: for a second, and for good."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from greensv.energy.books import schema
from greensv.energy.books.ledger import Ledger
from greensv.errors import StudyError
from greensv.search import metering, storage
from greensv.search.events import Event, Stepped, TrialStarted
from greensv.search.storage import storage_failures
from tiny.study import CHEAPEST, DEAREST, STEPS, Lab
from tiny.work import WORK

pytestmark = pytest.mark.slow

RUNGS = {"search": {"scheduler": "rungs", "num_rungs": 2, "min_rung_steps": 2}}
ALONE = {**RUNGS, "energy": {"is_shared": False}}
"""Not waiting for a process that shares the meters: in these tests, the search before in this same process."""
FIRST = 4
"""Steps of the first of two rungs: a third of ten, rounded up."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (Ledger.__init__, schema.persist, storage.patiently):
        monkeypatch.setitem(function.__kwdefaults__, "patience_s", 0.2)


@pytest.fixture
def timers() -> Iterator[list[threading.Timer]]:
    started: list[threading.Timer] = []
    yield started
    for timer in started:
        timer.join()


def test_a_search_outlasts_a_database_that_is_away(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, timers: list[threading.Timer]
):
    path, elsewhere = database(lab)

    def away() -> None:
        path.rename(elsewhere)
        timers.append(threading.Timer(0.7, elsewhere.rename, [path]))
        timers[-1].start()

    # In the second trial's training: it is saved, scored, told and booked, and the search ended, after that.
    at_step(lab, monkeypatch, trial=1, step=2, action=away)
    lab.search(max_trials=2, **RUNGS)
    assert timers, "it was away"
    records = [record for record in lab.records() if record.state != "waiting"]
    assert [record.state for record in records] == ["complete", "complete"]
    assert [record.params for record in records] == [CHEAPEST, DEAREST]
    assert lab.audited().overrun_uj == 0


@pytest.mark.usefixtures("impatient")
def test_a_search_whose_database_is_gone_keeps_its_training_for_the_next(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    path, elsewhere = database(lab)
    at_step(lab, monkeypatch, trial=0, step=2, action=lambda: path.rename(elsewhere))
    with (
        pytest.raises(StudyError, match=r"what was written before is safe|check that it exists"),
        storage_failures(lab.url),
    ):
        lab.search(max_trials=1, **ALONE)
    assert not path.exists(), "an empty file would look like a database without studies"
    (saved,) = (lab.folder / "runs" / "tiny" / "trainings").rglob("*.pt")
    assert saved.stat().st_size > 0
    lines = [line for file in (lab.folder / "data").rglob("*.charges.jsonl") for line in file.read_text().splitlines()]
    used_uj = {charge["id"]: charge["energy_uj"] for charge in map(json.loads, lines)}
    assert sum(used_uj.values()) > 0, "what was used while it was gone"

    elsewhere.rename(path)
    with monkeypatch.context() as patch:
        patch.setattr(metering, "is_alive", lambda holder: False)  # its process has ended by now
        study, ledger = lab.open()
        metering.reap_dead(ledger, study.study_id)
    lab.on_event = None
    lab.events.clear()
    lab.search(max_trials=1, **ALONE)
    assert used_uj.items() <= booked(lab).items()
    steps = [said.step for said in lab.events if isinstance(said, Stepped) and said.what == "trial 0"]
    assert all(FIRST < step <= STEPS for step in steps), "what was saved is not trained again"
    (record,) = [one for one in lab.records() if one.state != "waiting"]
    assert (record.state, record.params) == ("complete", CHEAPEST)
    lab.audited()
    lab.search(max_trials=1, name="unbroken", **ALONE)
    assert record.eer == lab.finished[-1].study.record(0).eer


def database(lab: Lab) -> tuple[Path, Path]:
    """Returns where the database is, and where it may be moved."""
    path = lab.folder / "runs" / "greensv.db"
    return path, path.with_suffix(".away")


def booked(lab: Lab) -> dict[str, int]:
    """Returns the energy of each charge in the books, in microjoules."""
    with sqlite3.connect(database(lab)[0]) as connection:
        found = dict(connection.execute("SELECT id, energy_uj FROM greensv_charges").fetchall())
    connection.close()
    return found


def at_step(lab: Lab, monkeypatch: pytest.MonkeyPatch, *, trial: int, step: int, action: Callable[[], object]) -> None:
    """Acts once, in a step of a trial's first rung."""
    num_left = step

    def count() -> None:
        nonlocal num_left
        num_left -= 1
        if num_left == 0:
            action()

    def begin(said: Event) -> None:
        if isinstance(said, TrialStarted) and said.number == trial and num_left > 0:
            monkeypatch.setattr(WORK, "on_step", count)

    lab.on_event = begin
