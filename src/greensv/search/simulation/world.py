"""A simulated world: logical workers drive the real scheduler and the real ledger; training alone is replaced.

Time passes at once, from event to event. What a worker does at one moment is what a real one does
(`greensv.search.worker`): it asks for a job, which is reserved and claimed; charges what it uses; writes down what the
job showed, and settles. It may die on the way: then its lease expires and is reaped, and another goes on from the step
that was saved last.
"""

import heapq
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np

from greensv.energy.books.budget import SEARCH_ACCOUNT, Charge
from greensv.energy.books.ledger import Ledger
from greensv.search.jobs import Ended, Job
from greensv.search.rungs.book import set_free
from greensv.search.simulation.desk import Clock, Desk
from greensv.search.simulation.problem import Outcome, Problem
from greensv.search.simulation.trace import Shown, Trace
from greensv.units import j_from_kwh, j_from_uj, kwh_from_j, kwh_from_uj, uj_from_j

BEAT_S = 1_800.0
"""Of a worker in a world in which workers die: it charges and saves so often. Real ones do every few seconds; here
seconds would make most of the events."""
TTL_S = 2 * BEAT_S
RESTART_S = BEAT_S
"""After so long, the cluster has put another worker in the place of a dead one."""
FOR_EVER_S = 1e12
MAX_REVIVALS = 100


@dataclass(slots=True, kw_only=True)
class _Work:
    """A training on its way."""

    job: Job
    outcome: Outcome
    began_s: float
    dies_s: float | None
    charged_j: float = 0.0
    charged_at_s: float = 0.0
    lease_left_uj: int = 0

    @property
    def ends_s(self) -> float:
        return self.began_s + self.outcome.duration_s

    @property
    def energy_j(self) -> float:
        return j_from_kwh(self.outcome.energy_kwh)

    @property
    def power_w(self) -> float:
        return self.energy_j / self.outcome.duration_s

    def used_j(self, now_s: float) -> float:
        return self.energy_j if now_s >= self.ends_s else self.power_w * (now_s - self.began_s)


@dataclass(slots=True)
class _Tally:
    """What all workers together have done; for one thread at a time."""

    shown: list[Shown] = field(default_factory=list)
    charged_uj: int = 0
    used_j: float = 0.0
    num_deaths: int = 0
    num_working: int = 0
    ended_because: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class World:
    """A search by logical workers; see `search`."""

    def __init__(
        self, problem: Problem, desks: Sequence[Desk], ledger: Ledger, clock: Clock, *, num_workers: int, death: float
    ) -> None:
        """Prepares a world at time 0.

        Args:
            problem: what is searched.
            desks: where workers are served; with several, events of one moment run on as many threads.
            ledger: of the study, on the simulated clock.
            clock: of the ledger.
            num_workers: logical ones.
            death: the probability that a worker dies in a job.
        """
        self._problem, self._ledger, self._clock, self._death = problem, ledger, clock, death
        self._study_id = desks[0].study_id
        self._num_workers = num_workers
        self._desks: SimpleQueue[Desk] = SimpleQueue()
        for desk in desks:
            self._desks.put(desk)
        self._num_desks = len(desks)
        self._any_desk = desks[0]
        self._work: dict[int, _Work] = {}
        self._events: list[tuple[float, int]] = []
        self._tally = _Tally()
        self._is_warm = False
        seed = desks[0].scheduler.study.config.seed
        self._random = np.random.default_rng([seed, 7])

    def search(self) -> Trace:
        """Searches until no worker finds anything to do; returns what happened."""
        self._events = [(0.0, worker) for worker in range(self._num_workers)]
        pool = ThreadPoolExecutor(self._num_desks) if self._num_desks > 1 else None
        try:
            self._run(pool)
            for _ in range(MAX_REVIVALS):
                # Somebody starts the command again when all workers are gone, and the last leases have expired.
                self._clock.now_s += TTL_S + BEAT_S
                if not self._reap():
                    break
                self._events = [(self._clock.now_s, self._num_workers)]
                self._run(pool)
        finally:
            if pool is not None:
                pool.shutdown()
        return self._end()

    def _run(self, pool: ThreadPoolExecutor | None) -> None:
        while self._events:
            now_s, worker = heapq.heappop(self._events)
            moment = [worker]
            while self._events and self._events[0][0] == now_s:
                moment.append(heapq.heappop(self._events)[1])
            self._clock.now_s = now_s
            deaths = [self._dies() for _ in moment]  # drawn here, so that threads change nothing in it
            # The first event alone: SQLAlchemy makes some classes when first used, which several threads disturb.
            num_alone = len(moment) if pool is None else int(not self._is_warm)
            found = [self._advance(*each) for each in zip(moment[:num_alone], deaths[:num_alone], strict=True)]
            self._is_warm = True
            if pool is not None:
                found += pool.map(self._advance, moment[num_alone:], deaths[num_alone:])
            for worker, next_s in zip(moment, found, strict=True):
                if next_s is not None:
                    heapq.heappush(self._events, (next_s, worker))

    def _dies(self) -> float | None:
        """Returns at which fraction of its next job a worker dies; None: it lives."""
        is_death, when = self._random.random(2) if self._death else (1.0, 0.0)
        return float(when) if is_death < self._death else None

    def _advance(self, worker: int, dies_at: float | None) -> float | None:
        """Does what a worker does at this moment; returns when it is to be asked again, None: never."""
        desk = self._desks.get()
        try:
            work = self._work.get(worker)
            if work is None:
                return self._begin(worker, desk, dies_at)
            if work.dies_s is not None and self._clock.now_s >= work.dies_s:
                return self._die(worker, work)
            if not self._charge(work):
                # A real worker stops where its lease ends and no more is to be had.
                self._stop(worker)
                desk.scheduler.left(work.job)
                self._leave("the budget is used up")
                return None
            if self._clock.now_s < work.ends_s:
                self._save(desk, work)
                return self._next_s(work)
            self._stop(worker)
            self._finish(desk, work)
            return self._begin(worker, desk, dies_at)
        finally:
            self._desks.put(desk)

    def _begin(self, worker: int, desk: Desk, dies_at: float | None) -> float | None:
        desk.money.worker = worker
        if self._death:
            self._reap()
        job = desk.scheduler.begin()
        if isinstance(job, Ended):
            self._leave(job.because)
            return None
        outcome = self._problem.train(job.candidate.params, seed=job.seed, from_step=job.from_step, to_step=job.to_step)
        now_s = self._clock.now_s
        work = _Work(
            job=job,
            outcome=outcome,
            began_s=now_s,
            dies_s=None if dies_at is None else now_s + dies_at * outcome.duration_s,
            charged_at_s=now_s,
            lease_left_uj=job.lease.granted_uj,
        )
        with self._tally.lock:
            self._work[worker] = work
        if self._death:
            self._beat(work, [])  # what is assumed of it if it falls silent at once
        return self._next_s(work)

    def _next_s(self, work: _Work) -> float:
        moments = [work.ends_s]
        if work.dies_s is not None:
            moments.append(work.dies_s)
        if self._death:
            moments.append(self._clock.now_s + BEAT_S)
        return min(moments)

    def _charge(self, work: _Work) -> bool:
        """Charges what a worker has used since it last did; False when its lease ends before and cannot be topped up.

        Then what the lease still covers is charged: the worker stopped there.
        """
        used_uj = uj_from_j(work.used_j(self._clock.now_s) - work.charged_j)
        missing_uj = used_uj - work.lease_left_uj
        is_covered = missing_uj <= 0 or self._ledger.top_up(work.job.lease, missing_uj)
        if not is_covered:
            used_uj = work.lease_left_uj
        charge = Charge(
            purpose="training",
            trial_number=work.job.trial_number,
            started_at=work.charged_at_s,
            ended_at=self._clock.now_s,
            meter="simulated",
            domain="node",
            quality="estimated",
            energy_uj=used_uj,
            pue=1.0,
        )
        with self._tally.lock:
            self._tally.charged_uj += used_uj
            self._tally.used_j += j_from_uj(used_uj)
        self._beat(work, [charge] if used_uj else [])
        work.charged_j += j_from_uj(used_uj)
        work.charged_at_s = self._clock.now_s
        return is_covered

    def _beat(self, work: _Work, charges: Sequence[Charge]) -> None:
        outcome = self._ledger.charge(work.job.lease, charges, peak_power_w=work.power_w, next_beat_s=BEAT_S)
        work.lease_left_uj = outcome.lease_left_uj

    def _save(self, desk: Desk, work: _Work) -> None:
        """Saves the training, as a real one is every few minutes, at the step that it has come to."""
        job = work.job
        share = (self._clock.now_s - work.began_s) / work.outcome.duration_s
        step = job.from_step + int(share * (job.to_step - job.from_step))
        if step > job.from_step:
            desk.scheduler.book.saved(job.run, job.lease, step=step)

    def _finish(self, desk: Desk, work: _Work) -> None:
        outcome, job = work.outcome, work.job
        objectives = (outcome.eer, outcome.train_energy_kwh)
        run, is_ours = desk.scheduler.reached(job, objectives, {})
        if not is_ours:
            return
        desk.complete(job, run)
        with self._tally.lock:
            shown = Shown(
                spent_kwh=kwh_from_uj(self._tally.charged_uj),
                key=run.key,
                params=job.candidate.params,
                eer=outcome.eer,
                train_energy_kwh=outcome.train_energy_kwh,
            )
            self._tally.shown.append(shown)

    def _die(self, worker: int, work: _Work) -> float:
        """A worker disappears: what it used since its last charge is in nobody's books until its lease is reaped."""
        self._stop(worker)
        with self._tally.lock:
            self._tally.num_deaths += 1
            self._tally.used_j += work.used_j(self._clock.now_s) - work.charged_j
        return self._clock.now_s + RESTART_S

    def _stop(self, worker: int) -> None:
        with self._tally.lock:
            del self._work[worker]

    def _leave(self, because: str) -> None:
        with self._tally.lock:
            self._tally.ended_because = because

    def _reap(self) -> int:
        """Closes the leases of the dead, by their silence alone: logical workers have no process to look for."""
        reaped = self._ledger.reap(self._study_id, is_alive=lambda _: None, within=set_free)
        with self._tally.lock:
            self._tally.charged_uj += sum(lease.charged_uj for lease in reaped)
        return len(reaped)

    def _end(self) -> Trace:
        scheduler = self._any_desk.scheduler
        scheduler.retire_all(reason=self._tally.ended_because)
        self._ledger.verify(self._study_id)
        statement = self._ledger.statement(self._study_id, SEARCH_ACCOUNT)
        history = scheduler.book.history()
        return Trace(
            shown=tuple(self._tally.shown),
            spent_kwh=kwh_from_uj(statement.spent_uj),
            overrun_kwh=kwh_from_uj(statement.overrun_uj),
            used_kwh=kwh_from_j(self._tally.used_j),
            num_trials=history.num_trials,
            num_runs=history.num_runs,
            num_deaths=self._tally.num_deaths,
            duration_s=self._clock.now_s,
            ended_because=self._tally.ended_because,
        )
