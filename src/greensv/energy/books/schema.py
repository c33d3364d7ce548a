"""Opens the ledger's tables, brings older ones up to date, and gives transactions on them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from greensv.energy.books.tables import metadata, schema_version
from greensv.errors import StudyError

SCHEMA_VERSION = 2
BUSY_TIMEOUT_S = 60.0
"""How long SQLite waits for another process's transaction."""

MAX_UJ = 2**62
"""The largest cap, about 1.28 GWh: sums of two amounts still fit in a signed 64-bit column."""

_ADVISORY_LOCK = 0x67726565  # any number of our own: "gree"
_EPOCH_SECONDS = {
    "sqlite": text("SELECT (julianday('now') - 2440587.5) * 86400.0"),
    "postgresql": text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)"),
}

_ADDED_IN_VERSION_2 = (
    ("greensv_charges", "uncertainty_uj", "BIGINT"),
    ("greensv_windows", "uncertainty_uj", "BIGINT"),
    ("greensv_windows", "role", "VARCHAR(16)"),
)

Clock = Callable[[Connection], float]


def database_time(connection: Connection) -> float:
    """Returns the database server's own clock in UTC epoch seconds: the one clock all workers share."""
    return float(connection.execute(_EPOCH_SECONDS[connection.dialect.name]).scalar_one())


def create_tables(engine: Engine) -> None:
    """Creates what is missing and checks the version. Safe to call again, and from several processes at once.

    Also calls `immediate_transactions` on the engine.

    Raises:
        StudyError: the database cannot be used for a ledger, cannot be reached, or was written by a newer greensv.
    """
    _refuse_unsuitable(engine)
    immediate_transactions(engine)
    with transaction(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        metadata.create_all(connection)
        found = connection.execute(schema_version.select()).scalar_one_or_none()
        if found is None:
            connection.execute(schema_version.insert(), {"version": SCHEMA_VERSION})
        elif found < SCHEMA_VERSION:
            for table, column, kind in _ADDED_IN_VERSION_2:
                connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {column} {kind}"))
            connection.execute(schema_version.update(), {"version": SCHEMA_VERSION})
        elif found > SCHEMA_VERSION:
            raise StudyError(
                f"{describe(engine)} holds a ledger of version {found}; this greensv knows up to {SCHEMA_VERSION}; "
                "upgrade greensv, or choose another --storage"
            )


def immediate_transactions(engine: Engine) -> None:
    """Makes every transaction of a SQLite engine take the write lock when it begins; does nothing elsewhere.

    SQLite ignores SELECT ... FOR UPDATE and its driver begins transactions late, so two processes may both read, then
    both write: Optuna then runs one enqueued trial twice. Works on Optuna's own engine too (`RDBStorage.engine`), at
    any time while no transaction is open on it. See "Serializable isolation" in SQLAlchemy's page on SQLite.
    """
    if engine.dialect.name != "sqlite" or event.contains(engine, "begin", _begin_immediate):
        return
    event.listen(engine, "connect", _leave_transactions_to_us)
    event.listen(engine, "begin", _begin_immediate)
    if not _is_in_memory(engine):
        engine.dispose()  # pooled connections were opened without the first listener


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Yields a connection in one transaction, committed at the end and rolled back on an error.

    Raises:
        StudyError: the database cannot be reached, is locked or refuses to be written.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except IntegrityError:
        raise  # a broken invariant of ours: a bug, not a user's error
    except DBAPIError as error:
        raise StudyError(
            f"{describe(engine)} cannot be used: {error.orig}; check that it exists, can be written and is not locked"
        ) from error


def describe(engine: Engine) -> str:
    """Returns the database's URL without its password."""
    return f"the database {engine.url.render_as_string(hide_password=True)}"


def _refuse_unsuitable(engine: Engine) -> None:
    if engine.dialect.name not in _EPOCH_SECONDS:
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
    connection.exec_driver_sql("BEGIN IMMEDIATE")
