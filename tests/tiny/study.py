"""Runs tiny studies in this process, and installs the tiny plugin for commands in others."""

import os
import sqlite3
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, event

import tiny
from greensv.config import StudyConfig
from greensv.config.load import merge
from greensv.energy.books.budget import Statement
from greensv.energy.books.ledger import Ledger
from greensv.plugins import Plugins, plugins_from
from greensv.search import measuring, metering, worker
from greensv.search.artifacts import ArtifactStore
from greensv.search.configure import configure
from greensv.search.cost import priors
from greensv.search.cost.work import Prior
from greensv.search.events import Event, Noted
from greensv.search.retrain import RetrainResult, run_retrain
from greensv.search.runner import SearchResult, run_search
from greensv.search.storage import open_storage
from greensv.search.study import OpenStudy, load
from greensv.trial_record import TrialRecord
from greensv.units import kwh_from_j
from tiny.plugin import TinyPlugin

STUDY_TOML = """\
name = "tiny"
seed = 1
device = "cpu"
num_threads = 1

[dataset]
name = "tiny"

[backbones.tiny]

[recipe]
batch_size = 8
[recipe.spec_augment]
probability = 0.0
[[recipe.phases]]
num_epochs = 4
crop_s = 0.3
learning_rate = 0.1
final_learning_rate = 0.01

[search]
num_epochs = 2
num_startup_trials = 2
scheduler = "none"
start_with_published = false
sampler = "tpe"
repeat_share = 0.0

[energy]
meters = ["tiny"]
interval_s = 0.02
idle_s = 0.0
"""
CHEAPEST, DEAREST = {"width": 2, "depth": 1}, {"width": 16, "depth": 3}
"""The ends of the tiny space."""
STEPS = 10
"""Steps of a search's training: 2 epochs of 40 utterances in batches of 8."""
TINY_PRIOR = Prior(per_gmac=1.0, per_mega_activation=1e-9, per_layer=1e-9, per_second=1e-9, level_log_std=5.0)
"""The tiny meter's joules are in proportion to MACs alone."""
FULL_STEPS = 20
"""Steps of the full recipe: 4 epochs."""
CHEAPEST_J, DEAREST_J = 1.62, 18.08
"""Joules of a training step of the two ends of the tiny space: (81 × width + (depth - 1) × width²) / 100."""


def study_data(**changes: Any) -> dict[str, Any]:
    """Returns the tables of the tiny study with `changes` laid over them."""
    return merge(tomllib.loads(STUDY_TOML), changes)


def recipe_with(**changes: Any) -> dict[str, Any]:
    """Returns the `recipe` table with `changes` to its only phase."""
    phase = study_data()["recipe"]["phases"][0]
    return {"phases": [{**phase, **changes}]}


@dataclass
class Lab:
    """One database, one plugin, everything that was said; runs studies in this process."""

    folder: Path
    plugin: TinyPlugin = field(default_factory=TinyPlugin)
    events: list[Event] = field(default_factory=list)
    on_event: Callable[[Event], None] | None = None
    finished: list[SearchResult] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)

    @property
    def plugins(self) -> Plugins:
        plugins = plugins_from({"tiny": self.plugin})
        assert plugins.problems == ()
        return plugins

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'runs' / 'greensv.db'}"

    def config(self, **changes: Any) -> StudyConfig:
        return configure(study_data(**changes), source="the test's study", plugins=self.plugins)

    def listen(self, said: Event) -> None:
        self.events.append(said)
        if self.on_event is not None:
            self.on_event(said)

    def notes(self) -> str:
        return "\n".join(said.text for said in self.events if isinstance(said, Noted))

    def search(
        self, *, budget_j: float = 1e6, max_trials: int | None = 3, artifacts: Path | None = None, **changes: Any
    ) -> SearchResult:
        if artifacts is None:
            artifacts = self.folder / "runs" / self.config(**changes).name / "trainings"
        storage, ledger = open_storage(self.url, create=True)
        try:
            return run_search(
                self.config(**changes),
                storage=storage,
                ledger=ledger,
                plugins=self.plugins,
                budget_kwh=kwh_from_j(budget_j),
                max_trials=max_trials,
                artifacts=ArtifactStore(str(artifacts)),
                listen=self.listen,
                finish=self.finished.append,
            )
        finally:
            storage.engine.dispose()

    def retrain(self, *records: TrialRecord, budget_j: float = 1e6) -> RetrainResult:
        storage, ledger = open_storage(self.url, create=False)
        try:
            return run_retrain(
                load(None, storage),
                records,
                ledger=ledger,
                plugins=self.plugins,
                budget_kwh=kwh_from_j(budget_j),
                folder=self.folder / "runs" / "tiny",
                listen=self.listen,
            )
        finally:
            storage.engine.dispose()

    def open(self) -> tuple[OpenStudy, Ledger]:
        storage, ledger = open_storage(self.url, create=False)
        self.engines.append(storage.engine)
        return load("tiny", storage), ledger

    def audited(self) -> Statement:
        """Returns the search account, when the books agree, nothing is reserved any more and the cap holds."""
        study, ledger = self.open()
        ledger.verify(study.study_id)
        found = ledger.statement(study.study_id, "search")
        assert found.reserved_uj == 0
        assert found.spent_uj <= found.cap_uj
        assert sum(found.spent_by_purpose.values()) == found.spent_uj
        return found

    def close(self) -> None:
        for engine in self.engines:
            engine.dispose()

    def records(self) -> list[TrialRecord]:
        return self.open()[0].records()


def on(kind: type, number: int, action: Callable[[], object]) -> Callable[[Event], None]:
    """Returns a listener that acts on the n-th event of a kind (from 0)."""
    num_seen = 0

    def listen(said: Event) -> None:
        nonlocal num_seen
        if isinstance(said, kind):
            num_seen += 1
            if num_seen == number + 1:
                action()

    return listen


@contextmanager
def young_and_quick() -> Iterator[None]:
    """Fits what a search takes for granted to trials that take a blink.

    The process has just started, so that its start is not charged at the power of a burst of tiny steps; nothing is
    kept back for the search's end at that power; a held-up step costs what the others do, since the tiny meter's joules
    come from the work and not from the time; and SQLite leaves its commits to the system, which outlives a killed
    process: half of a tiny search is fsync.
    """

    def connected(connection: object, record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", connected)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metering, "_seconds_since_process_start", lambda: 1e-4)
            patch.setattr(measuring, "typical_step_s", np.mean)
            patch.setattr(worker, "CLOSING_S", 0.0)
            patch.setattr(priors, "CPU", TINY_PRIOR)
            patch.setattr(metering, "CLOSING_S", 0.0)
            yield
    finally:
        event.remove(Engine, "connect", connected)


def install(folder: Path) -> Mapping[str, str]:
    """Installs the tiny plugin as a distribution in `folder`; returns the environment in which it alone is loaded."""
    dist_info = folder / "greensv_tiny-0.1.dist-info"
    dist_info.mkdir()
    (dist_info / "entry_points.txt").write_text("[greensv]\ntiny = tiny.plugin:plugin\n")
    (dist_info / "METADATA").write_text("Metadata-Version: 2.1\nName: greensv-tiny\nVersion: 0.1\n")
    paths = [str(folder), str(Path(tiny.__file__).parents[1])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "GREENSV_LOAD_PLUGINS": "tiny",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
    }
