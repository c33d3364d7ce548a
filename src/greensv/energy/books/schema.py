"""Opens the ledger's tables, has older ones brought up to date, and gives transactions on them."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Double, Engine, event, inspect, literal_column, select
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError

from greensv.energy.books.outages import PATIENCE_S, StorageAway, is_full, is_passing, is_stale, pauses
from greensv.energy.books.tables import VERSION_TABLE, revisions
from greensv.errors import StudyError

logger = logging.getLogger(__name__)

HEAD = "0004"
"""The newest revision in `migrations`."""

BUSY_TIMEOUT_S = 60.0
"""How long SQLite waits for another process's transaction."""

MAX_UJ = 2**62
"""The largest cap, about 1.28 GWh: sums of two amounts still fit in a signed 64-bit column."""

EPOCH_SECONDS = {
    "sqlite": literal_column("(julianday('now') - 2440587.5) * 86400.0", Double),
    "postgresql": literal_column("CAST(extract(epoch FROM clock_timestamp()) AS double precision)", Double),
}
"""The database's time in SQL: UTC epoch seconds."""

_READS_ONLY = "greensv_reads_only"
"""Execution option of a connection whose transaction need not begin with SQLite's write lock."""

Clock = Callable[[Connection], float]
Done = TypeVar("Done")


def database_time(connection: Connection) -> float:
    """Returns the database server's own clock in UTC epoch seconds: the one clock all workers share."""
    return float(connection.execute(select(EPOCH_SECONDS[connection.dialect.name])).scalar_one())


def create_tables(engine: Engine) -> None:
    """Creates what is missing, or brings it up to date. Safe to call again, and from several processes at once.

    Also calls `immediate_transactions` on the engine. From then on an SQLite file that is not there any more is an
    error: SQLite would make an empty one.

    Raises:
        StudyError: the database cannot be used for a ledger, cannot be reached, or was written by a newer greensv.
    """
    _refuse_unsuitable(engine)
    immediate_transactions(engine)
    with reading(engine) as connection:
        found = revision(connection)
    if found != HEAD:
        from greensv.energy.books.upgrade import bring_up_to_date

        with transaction(engine) as connection:
            bring_up_to_date(connection, head=HEAD)
    if engine.dialect.name == "sqlite" and not event.contains(engine, "do_connect", _require_file):
        event.listen(engine, "do_connect", _require_file)


def revision(connection: Connection) -> str | None:
    """Returns the revision of the books; None where alembic has none yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(select(revisions.c.version_num)).scalar_one_or_none()


def immediate_transactions(engine: Engine) -> None:
    """Makes every transaction of a SQLite engine take the write lock when it begins, but for those of `reading`.

    SQLite ignores SELECT ... FOR UPDATE and its driver begins transactions late, so two processes may both read, then
    both write: Optuna then runs one enqueued trial twice. Works on Optuna's own engine too (`RDBStorage.engine`), at
    any time while no transaction is open on it. See "Serializable isolation" in SQLAlchemy's page on SQLite. Other
    databases are left as they are.
    """
    if engine.dialect.name != "sqlite" or event.contains(engine, "begin", _begin_immediate):
        return
    event.listen(engine, "connect", _leave_transactions_to_us)
    event.listen(engine, "begin", _begin_immediate)
    event.listen(engine, "handle_error", _drop_stale_connections)
    if not _is_in_memory(engine):
        engine.dispose()  # pooled connections were opened without the first listener


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Yields a connection in one transaction, committed at the end and rolled back on an error.

    One attempt: for what can wait for the next time, or for nobody. What must be written uses `persist`.

    Raises:
        StorageAway: the database cannot be reached or stays locked, for now.
        StudyError: it refuses to be written.
    """
    with _failures(engine), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yields a connection in one transaction that only reads: no other process waits for it to begin writing.

    On SQLite all its statements see one state of the database, and a writer's commit waits until it ends. PostgreSQL
    sees, as in `transaction`, what each statement finds. What has to be written belongs into a `transaction`: SQLite
    may refuse it here, when another process has begun to write.

    Raises:
        StorageAway: the database cannot be reached or stays locked, for now.
        StudyError: it cannot be read.
    """
    with _failures(engine), engine.connect().execution_options(**{_READS_ONLY: True}) as connection, connection.begin():
        yield connection


def persist(
    engine: Engine,
    work: Callable[[Connection, bool], Done],
    *,
    patience_s: float = PATIENCE_S,
    found_again: Callable[[], None] | None = None,
) -> Done:
    """Calls `work` in a transaction, and again for `patience_s` seconds while the database is away.

    A transaction whose commit got no answer may have been carried out or not, so `work` is told that it is a repeat:
    it looks for what it would have written, or writes what does no harm twice.

    Args:
        engine: the database.
        work: gets the connection, and whether it was called before.
        patience_s: how long to go on trying; 0: one attempt.
        found_again: called when the database was away and is back.

    Raises:
        StorageAway: it stayed away for that long.
        StudyError: waiting would not help, as with a full disk.
    """
    waits = pauses(patience_s)
    is_repeat = False
    while True:
        try:
            with transaction(engine) as connection:
                done = work(connection, is_repeat)
        except StorageAway as error:
            pause_s = next(waits, None)
            if pause_s is None:
                raise
            if not is_repeat:
                logger.warning("%s; trying again for %.0f s", error, patience_s)
            is_repeat = True
            time.sleep(pause_s)
        else:
            if is_repeat:
                logger.warning("%s can be used again", describe(engine))
                if found_again is not None:
                    found_again()
            return done


@contextmanager
def _failures(engine: Engine) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise  # a broken invariant of ours: a bug, not a user's error
    except DBAPIError as error:
        cause = str(error.orig).splitlines()[0] if str(error.orig) else type(error.orig).__name__
        if is_full(error):
            raise StudyError(
                f"{describe(engine)} cannot be written: {cause}; make room on its disk, then run the same command again"
            ) from error
        kind = StorageAway if is_passing(error) else StudyError
        raise kind(
            f"{describe(engine)} cannot be used: {cause}; check that it exists, can be written and is not locked"
        ) from error


def describe(engine: Engine) -> str:
    """Returns the database's URL without its password."""
    return f"the database {engine.url.render_as_string(hide_password=True)}"


def _refuse_unsuitable(engine: Engine) -> None:
    if engine.dialect.name not in EPOCH_SECONDS:
        raise StudyError(f"{describe(engine)} is neither SQLite nor PostgreSQL; choose one of them with --storage")
    if _is_in_memory(engine):
        raise StudyError(f"{describe(engine)} is gone when the process ends; give --storage a file: sqlite:///study.db")


def _is_in_memory(engine: Engine) -> bool:
    database, mode = engine.url.database, engine.url.query.get("mode")
    return engine.dialect.name == "sqlite" and (not database or ":memory:" in database or mode == "memory")


def _leave_transactions_to_us(connection: Any, record: Any) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT_S * 1000)}")


def _begin_immediate(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get(_READS_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _drop_stale_connections(context: ExceptionContext) -> None:
    if not is_stale(context.original_exception):
        return
    if context.connection is not None and (raw := context.connection.connection.dbapi_connection) is not None:
        with suppress(sqlite3.Error):
            raw.rollback()  # a closed connection whose cursor somebody still has would keep its lock on the file
    context.is_disconnect = True  # SQLAlchemy then opens all pooled connections anew


def _require_file(dialect: Any, record: Any, arguments: Any, options: Any) -> None:
    file = str(arguments[0]) if arguments else ""
    if not file.startswith("file:") and not Path(file).exists():
        error = sqlite3.OperationalError(f"unable to open database file: {file} is gone")
        error.sqlite_errorname = "SQLITE_CANTOPEN"
        raise error
