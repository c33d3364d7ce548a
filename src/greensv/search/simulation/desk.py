"""Where simulated workers get their jobs: the real scheduler, ledger, book of rungs and Optuna study on a database."""

import logging
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, Engine, create_engine, event, select

from greensv.energy.books.budget import SEARCH_ACCOUNT, Holder, Lease
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.schema import immediate_transactions, reading
from greensv.energy.books.tables import accounts
from greensv.search.candidate import Candidate
from greensv.search.jobs import Job
from greensv.search.objectives import objectives_of
from greensv.search.queue import enqueue
from greensv.search.rungs.book import RungBook
from greensv.search.rungs.history import History, Run
from greensv.search.sampling.named import make_sampler
from greensv.search.sampling.optuna_sampler import Situation
from greensv.search.sampling.seeding import first_candidates
from greensv.search.scheduler import Scheduler
from greensv.search.scheduling.policy import Outlook, Propose
from greensv.search.simulation.methods import Method
from greensv.search.simulation.problem import Problem
from greensv.search.simulation.space import ProblemCosts, search_space
from greensv.search.study import OpenStudy, create_or_continue
from greensv.units import MICROJOULES_PER_JOULE, j_from_uj, uj_from_kwh

if TYPE_CHECKING:
    from collections.abc import Iterator

    import optuna
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage, RDBStorage

HOST = "simulated"
_SQLITE: dict[str, Any] = {"connect_args": {"timeout": 60, "isolation_level": None}}


@dataclass(slots=True)
class Clock:
    """Simulated time, in seconds since the simulation began."""

    now_s: float = 0.0

    def database_time(self, _: Connection) -> float:
        """Returns the time, as `Ledger` asks for it."""
        return self.now_s


@contextmanager
def in_one_database(url: str, clock: Clock, *, num_connections: int) -> "Iterator[tuple[BaseStorage, Ledger]]":
    """Yields Optuna's storage and our ledger in one database, as in a real search, but for the simulated clock."""
    import optuna

    options = _SQLITE if url.startswith("sqlite") else _pool(num_connections)
    storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
    immediate_transactions(storage.engine)
    try:
        yield storage, _ledger(storage.engine, clock)
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def trials_in_memory(url: str, clock: Clock, *, num_connections: int) -> "Iterator[tuple[BaseStorage, Ledger]]":
    """Yields Optuna's storage in memory and our ledger in a database; an SQLite file waits for no disk.

    Reading unfinished trials takes Optuna more time than all else together; no other process looks at these.
    """
    import optuna

    is_sqlite = url.startswith("sqlite")
    engine = create_engine(url, **(_SQLITE if is_sqlite else _pool(num_connections)))
    if is_sqlite:
        event.listen(engine, "connect", _wait_for_no_disk)
    try:
        yield optuna.storages.InMemoryStorage(), _ledger(engine, clock)
    finally:
        engine.dispose()


def _pool(num_connections: int) -> dict[str, Any]:
    return {"pool_size": num_connections, "max_overflow": 0, "pool_timeout": 300}


def _ledger(engine: Engine, clock: Clock) -> Ledger:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return Ledger(engine, clock=clock.database_time, monotonic=lambda: clock.now_s)


def _wait_for_no_disk(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")


@dataclass(slots=True, kw_only=True)
class SimulatedMoney:
    """The search's account, for the scheduler of one desk."""

    ledger: Ledger
    study_id: str
    cap_j: float
    ttl_s: float
    worker: int = 0
    """For which worker the desk is reserving now: it holds the lease."""

    @property
    def left_j(self) -> float:
        """What nobody has spent or reserved, by the database."""
        return j_from_uj(_left_uj(self.ledger.engine, self.study_id))

    def reserve(
        self, energy_j: float, *, trial_number: int, within: Callable[[Connection, Lease], bool]
    ) -> Lease | None:
        """Takes joules out of what is left; None when they do not fit, or `within` says no."""
        return self.ledger.reserve(
            self.study_id,
            SEARCH_ACCOUNT,
            max(1, round(energy_j * MICROJOULES_PER_JOULE)),
            purpose="training",
            trial_number=trial_number,
            holder=Holder(host=HOST, pid=self.worker, process_started_at=0.0),
            ttl_s=self.ttl_s,
            within=within,
        )


def _left_uj(engine: Engine, study_id: str) -> int:
    column = accounts.c.cap_uj - accounts.c.spent_uj - accounts.c.reserved_uj
    wanted = select(column).where(accounts.c.study_id == study_id, accounts.c.account == SEARCH_ACCOUNT)
    with reading(engine) as connection:
        left_uj: int = connection.execute(wanted).scalar_one()
    return left_uj


@dataclass(frozen=True, slots=True, kw_only=True)
class OptunaTrials:
    """Ends trials in Optuna as `TrialBook` does, without records, meters and events."""

    study: OpenStudy

    def refused(self, trial: "optuna.Trial", candidate: Candidate, reason: str) -> None:
        """A new trial is not trained."""
        self._end(trial.number, "PRUNED")

    def retired(self, run: Run, reason: str) -> None:
        """A trial is promoted no more."""
        self._end(run.key.trial_number, "PRUNED")

    def failed(self, number: int) -> None:
        """A trial cannot be finished."""
        self._end(number, "FAIL")

    def completed(self, run: Run) -> None:
        """A trial has reached the top rung."""
        assert run.objectives is not None
        self.study.optuna.tell(run.key.trial_number, list(run.objectives), skip_if_finished=True)

    def _end(self, number: int, state: str) -> None:
        from optuna.trial import TrialState

        self.study.optuna.tell(number, state=TrialState[state], skip_if_finished=True)


@dataclass(slots=True, kw_only=True)
class Desk:
    """One scheduler, for whichever worker is at it: all state lies in the database, so any desk serves any worker."""

    scheduler: Scheduler
    money: SimulatedMoney
    trials: OptunaTrials

    @property
    def study_id(self) -> str:
        """The study's own id."""
        return self.scheduler.study.study_id

    def complete(self, job: Job, run: Run) -> None:
        """Tells Optuna of a run that was this worker's and has reached its rung."""
        if job.is_top and run.key.repetition == 0:
            self.trials.completed(run)


def begin_study(
    problem: Problem, method: Method, *, storage: "BaseStorage", ledger: Ledger, name: str, seed: int, cap_kwh: float
) -> OpenStudy:
    """Returns a new study of a method on a problem, its account open and the problem's seeds queued."""
    config = method.config(study_name=name, seed=seed)
    study = create_or_continue(config, cast("RDBStorage", storage), versions={})
    ledger.open_account(study.study_id, SEARCH_ACCOUNT, uj_from_kwh(cap_kwh))
    space = search_space(problem)
    start = first_candidates(
        replace(config.search, start_with_ends=False),  # every method gets the problem's seeds, and nothing else
        space,
        ProblemCosts(problem),
        num_steps=problem.rung_steps[-1],
        study_name=name,
    )
    for first in start.first:
        enqueue(study.optuna, space, [first.candidate], reason=first.reason)
    return study


def open_desk(
    problem: Problem, method: Method, study: OpenStudy, ledger: Ledger, *, ttl_s: float, cap_kwh: float
) -> Desk:
    """Returns a desk for a study, with an Optuna study object and a book of its own."""
    import optuna

    own = OpenStudy(
        optuna=optuna.load_study(study_name=study.optuna.study_name, storage=study.optuna._storage),
        study_id=study.study_id,
        config=study.config,
    )
    search = study.config.search
    steps = tuple(problem.rung_steps) if search.scheduler == "rungs" else (problem.rung_steps[-1],)
    space, policy, objectives = search_space(problem), method.make_policy(search), objectives_of(search.objectives)
    num_backbones = len(space.backbones)

    def sampler(number: int, history: History, outlook: Outlook, move: Propose) -> "BaseSampler":
        granted = replace(outlook, left_j=min(outlook.left_j, move.within_j))
        return make_sampler(
            study.config,
            trial_number=number,
            num_backbones=num_backbones,
            situation=Situation(history=history, outlook=granted, space=space, objectives=objectives, rung=move.rung),
            is_full_fidelity=policy.is_full_fidelity(history),
        )

    money = SimulatedMoney(ledger=ledger, study_id=study.study_id, cap_j=j_from_uj(uj_from_kwh(cap_kwh)), ttl_s=ttl_s)
    trials = OptunaTrials(study=own)
    scheduler = Scheduler(
        study=own,
        space=space,
        book=RungBook(ledger, study.study_id, num_rungs=len(steps), worker=HOST),
        ledger=ledger,
        money=money,
        policy=policy,
        costs=ProblemCosts(problem),
        rung_steps=steps,
        make_sampler=sampler,
        trials=trials,
    )
    return Desk(scheduler=scheduler, money=money, trials=trials)
