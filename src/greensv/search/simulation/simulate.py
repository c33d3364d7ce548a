"""One simulated search, from an empty database to its trace."""

import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from greensv.energy.books.ledger import Ledger
from greensv.search.simulation.desk import Clock, begin_study, in_one_database, open_desk, trials_in_memory
from greensv.search.simulation.methods import Method
from greensv.search.simulation.problem import Problem
from greensv.search.simulation.trace import Trace
from greensv.search.simulation.world import FOR_EVER_S, TTL_S, World

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all methods are given alike."""

    budget_kwh: float
    num_workers: int = 1
    death: float = 0.0
    """The probability that a worker dies in a job."""
    storage: str | None = None
    """A database's URL, for trials and ledger; None: a temporary SQLite file for the ledger, the trials in memory."""
    are_trials_stored: bool = True
    """Whether Optuna's trials are in `storage` too; it reads all unfinished ones for each new one."""
    num_threads: int = 1
    """Events of the same moment run on so many threads, each with a connection to the database or two."""
    max_connections: int = 32


def simulate(problem: Problem, method: Method, setting: Setting, *, seed: int) -> Trace:
    """Runs a method on a problem until the budget is used up.

    The same arguments give the same trace, but for more than one thread.

    Raises:
        StudyError: the database cannot be used.
    """
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="greensv-bench-") as folder:
        url = setting.storage or f"sqlite:///{Path(folder) / 'bench.db'}"
        is_stored = setting.storage is not None and setting.are_trials_stored
        opened = in_one_database if is_stored else trials_in_memory
        with opened(url, clock, num_connections=setting.max_connections) as (storage, ledger):
            return _simulate(problem, method, setting, seed=seed, clock=clock, storage=storage, ledger=ledger)


def _simulate(
    problem: Problem,
    method: Method,
    setting: Setting,
    *,
    seed: int,
    clock: Clock,
    storage: "BaseStorage",
    ledger: Ledger,
) -> Trace:
    cap_kwh = setting.budget_kwh
    name = f"bench-{method.name.replace('+', '-')}-{seed}-{uuid.uuid4().hex[:8]}"
    study = begin_study(problem, method, storage=storage, ledger=ledger, name=name, seed=seed, cap_kwh=cap_kwh)
    ttl_s = TTL_S if setting.death else FOR_EVER_S
    desks = [
        open_desk(problem, method, study, ledger, ttl_s=ttl_s, cap_kwh=cap_kwh) for _ in range(setting.num_threads)
    ]
    return World(problem, desks, ledger, clock, num_workers=setting.num_workers, death=setting.death).search()
