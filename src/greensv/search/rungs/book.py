"""Keeps the history of a study in its database: who trains what, how far it has come, and what it showed there.

Who trains what changes only inside the transaction that changes the money with it: claiming reserves, reaching a rung
settles, a dead worker's row becomes free when its lease is reaped. All else that changes a row locks the account's row
first, as those do. So two workers never train the same, and a row that says `running` has an open lease behind it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Select, or_, select, update

from greensv.energy.books.budget import SEARCH_ACCOUNT, Lease
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.outages import StorageAway
from greensv.energy.books.postings import lock_account
from greensv.energy.books.schema import database_time, persist, reading, transaction
from greensv.energy.books.tables import leases, rungs
from greensv.search.candidate import Candidate
from greensv.search.rungs.history import History, Run, RunKey

MAX_ATTEMPTS = 2
"""A candidate whose worker died so often (out of memory, perhaps) is not tried again."""


class RungBook:
    """The runs of one study. Each worker has its own; reading fetches only what may have changed."""

    def __init__(
        self, ledger: Ledger, study_id: str, *, num_rungs: int, worker: str = "", account: str = SEARCH_ACCOUNT
    ) -> None:
        """Opens the book.

        Args:
            ledger: of the same database.
            study_id: the study's own id.
            num_rungs: of the study's trainings.
            worker: who writes, for people.
            account: that pays; its row is what claims and all that may meet them lock first.
        """
        self._engine = ledger.engine
        self._study_id = study_id
        self._worker = worker[:255]
        self._account = account
        self._history = History(num_rungs=num_rungs)
        self._last_id = 0
        self._open_ids: set[int] = set()
        self._keys: dict[int, RunKey] = {}

    def history(self) -> History:
        """Returns all runs as the database has them now. The same object each time, brought up to date.

        What is reached changes but seldom (it is retired, or its trial is taken up under a new number), and claiming it
        fails then; so of the rows known only those are read again that were open, or could not be claimed.
        """
        wanted = select(rungs).where(
            rungs.c.study_id == self._study_id,
            or_(rungs.c.id > self._last_id, rungs.c.id.in_(sorted(self._open_ids))),
        )
        rows = self._read(wanted.order_by(rungs.c.id))
        for row in rows:
            run = _run(row)
            if (known_as := self._keys.get(row.id, run.key)) != run.key:
                self._history.remove(known_as)
            self._keys[row.id] = run.key
            self._history.put(run)
            self._last_id = max(self._last_id, row.id)
            if row.state in ("running", "waiting"):
                self._open_ids.add(row.id)
            else:
                self._open_ids.discard(row.id)
        return self._history

    def _read(self, wanted: Select[Any]) -> Sequence[Row[Any]]:
        """Reads without the lock of writers; a database that is away is waited for."""
        try:
            with reading(self._engine) as connection:
                return connection.execute(wanted).all()
        except StorageAway:
            return persist(self._engine, lambda connection, _: connection.execute(wanted).all())

    def claiming(
        self, run: Run, *, after: Run | None = None, is_left: bool = False
    ) -> Callable[[Connection, Lease], bool]:
        """Returns what `Ledger.reserve` calls to take a run: False where another worker was faster.

        Args:
            run: as it will stand, `running`.
            after: the run to the rung below that it goes on from; it must still be there to be promoted.
            is_left: it waits in the book, left behind by its worker, and is to be gone on with.
        """

        def claim(connection: Connection, lease: Lease) -> bool:
            now = database_time(connection)
            state = _state(connection, self._study_id, run.key)
            if state != ("waiting" if is_left else None):
                self._doubt(run.key)
                return False
            if not is_left and after is not None and _state(connection, self._study_id, after.key) != "done":
                self._doubt(after.key)
                return False
            values = {"state": "running", "lease_id": lease.id, "worker": self._worker, "updated_at": now}
            if is_left:
                connection.execute(_at(update(rungs), self._study_id, run.key).values(**values, attempts=run.attempts))
                return True
            connection.execute(
                rungs.insert(),
                {
                    **values,
                    "study_id": self._study_id,
                    "trial_number": run.key.trial_number,
                    "repetition": run.key.repetition,
                    "rung": run.key.rung,
                    "attempts": run.attempts,
                    "start_step": run.step,
                    "step": run.step,
                    "data": _data(run),
                },
            )
            return True

        return claim

    def reaching(self, run: Run) -> Callable[[Connection], None]:
        """Returns what `Ledger.settle` calls to write down a run that has reached its rung, or has failed."""

        def reach(connection: Connection) -> None:
            values = {"state": run.state, "lease_id": None, "step": run.step, "data": _data(run)}
            connection.execute(
                _at(update(rungs), self._study_id, run.key).values(**values, updated_at=database_time(connection))
            )

        return reach

    def leaving(self, run: Run, *, is_death: bool = False) -> Callable[[Connection], None]:
        """Returns what `Ledger.settle` calls to leave a run to others: interrupted at its last saved step.

        A run that was left in good order has lost no attempt by it.
        """

        def leave(connection: Connection) -> None:
            row = connection.execute(_at(select(rungs), self._study_id, run.key)).one()
            attempts = row.attempts if is_death else row.attempts - 1
            _set_free(connection, row, attempts=attempts)

        return leave

    def free_orphans(self) -> None:
        """Sets free what is `running` without an open lease: something else than `set_free` closed it."""
        is_open = select(leases.c.id).where(leases.c.state == "open")
        wanted = select(rungs).where(
            rungs.c.study_id == self._study_id, rungs.c.state == "running", rungs.c.lease_id.not_in(is_open)
        )
        with transaction(self._engine) as connection:
            lock_account(connection, self._study_id, self._account)
            for row in connection.execute(wanted).all():
                _set_free(connection, row, attempts=row.attempts)

    def saved(self, run: Run, lease: Lease, *, step: int) -> None:
        """Says that the training has been saved after so many steps: who goes on with it begins there."""

        def write(connection: Connection, is_repeat: bool) -> None:
            connection.execute(
                _at(update(rungs), self._study_id, run.key)
                .where(rungs.c.lease_id == lease.id)
                .values(step=step, updated_at=database_time(connection))
            )

        persist(self._engine, write)

    def retire(self, run: Run) -> bool:
        """Takes a run that has reached its rung out of the race; False when somebody has promoted or retired it."""
        above = RunKey(trial_number=run.key.trial_number, rung=run.key.rung + 1, repetition=run.key.repetition)
        with transaction(self._engine) as connection:
            lock_account(connection, self._study_id, self._account)  # claims hold it, too
            if _state(connection, self._study_id, above) is not None:
                self._doubt(run.key)
                return False
            retired = connection.execute(
                _at(update(rungs), self._study_id, run.key)
                .where(rungs.c.state == "done")
                .values(state="retired", updated_at=database_time(connection))
            )
            is_retired: bool = retired.rowcount == 1
            if not is_retired:
                self._doubt(run.key)
        if is_retired and (known := self._history.get(run.key)) is not None:
            self._history.put(replace(known, state="retired"))
        return is_retired

    def _doubt(self, key: RunKey) -> None:
        self._open_ids.update(row_id for row_id, known in self._keys.items() if known == key)

    def rename(self, trial_number: int, new_number: int) -> bool:
        """Gives the runs of a trial to another one: Optuna cannot take up again a trial that it has ended.

        Returns:
            Whether there were any.
        """
        with transaction(self._engine) as connection:
            lock_account(connection, self._study_id, self._account)
            renamed = connection.execute(
                update(rungs)
                .where(rungs.c.study_id == self._study_id, rungs.c.trial_number == trial_number)
                .values(trial_number=new_number, updated_at=database_time(connection))
            )
            num_renamed: int = renamed.rowcount
        self._open_ids.update(row_id for row_id, known in self._keys.items() if known.trial_number == trial_number)
        self.history()
        return num_renamed > 0


def set_free(connection: Connection, lease: Lease) -> None:
    """Sets a dead worker's run free, in the transaction that reaps its lease; `Ledger.reap` calls it."""
    wanted = select(rungs).where(rungs.c.study_id == lease.study_id, rungs.c.lease_id == lease.id)
    for row in connection.execute(wanted).all():
        _set_free(connection, row, attempts=row.attempts)


def _at(statement: Any, study_id: str, key: RunKey) -> Any:
    return statement.where(
        rungs.c.study_id == study_id,
        rungs.c.trial_number == key.trial_number,
        rungs.c.repetition == key.repetition,
        rungs.c.rung == key.rung,
    )


def _state(connection: Connection, study_id: str, key: RunKey) -> str | None:
    found: str | None = connection.execute(_at(select(rungs.c.state), study_id, key)).scalar_one_or_none()
    return found


def _set_free(connection: Connection, row: Row[Any], *, attempts: int) -> None:
    state = "failed" if attempts >= MAX_ATTEMPTS else "waiting"
    connection.execute(
        update(rungs)
        .where(rungs.c.id == row.id)
        .values(state=state, lease_id=None, attempts=attempts, updated_at=database_time(connection))
    )


def _data(run: Run) -> str:
    return json.dumps(
        {
            "backbone": run.candidate.backbone,
            "params": dict(run.candidate.params),
            "objectives": run.objectives,
            "must_finish": run.must_finish,
            "measured": dict(run.data),
        },
        allow_nan=False,
    )


def _run(row: Row[Any]) -> Run:
    data: Mapping[str, Any] = json.loads(row.data)
    return Run(
        key=RunKey(trial_number=row.trial_number, rung=row.rung, repetition=row.repetition),
        state=row.state,
        candidate=Candidate(backbone=data["backbone"], params=data["params"]),
        step=row.step,
        attempts=row.attempts,
        objectives=None if data["objectives"] is None else tuple(data["objectives"]),
        must_finish=data["must_finish"],
        data=data["measured"],
    )
