import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine, StaticPool, create_engine, inspect, text

from greensv.energy.books.schema import (
    SCHEMA_VERSION,
    create_tables,
    database_time,
    immediate_transactions,
    transaction,
)
from greensv.errors import StudyError

Open = Callable[[str], Engine]


def test_tables_are_created_once_and_left_alone_afterwards(engine: Engine) -> None:
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO greensv_accounts VALUES ('s', 'search', 5, 0, 0, 0)"))
    create_tables(engine)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT cap_uj FROM greensv_accounts")).scalar_one() == 5
        assert connection.execute(text("SELECT version FROM greensv_schema")).scalars().all() == [SCHEMA_VERSION]
    assert all(name.startswith("greensv_") for name in inspect(engine).get_table_names())


def test_a_ledger_of_version_1_is_brought_up_to_date_and_keeps_its_rows(engine: Engine) -> None:
    create_tables(engine)
    with engine.begin() as connection:
        for statement in (
            "ALTER TABLE greensv_charges DROP COLUMN uncertainty_uj",
            "ALTER TABLE greensv_windows DROP COLUMN uncertainty_uj",
            "ALTER TABLE greensv_windows DROP COLUMN role",
            "DROP TABLE greensv_idle",
            "UPDATE greensv_schema SET version = 1",
            "INSERT INTO greensv_windows VALUES (1, 's', 'search', 0, 'training', 0, 1, 'rapl', 'cpu', 'measured', 7)",
        ):
            connection.execute(text(statement))
    create_tables(engine)
    with engine.begin() as connection:
        row = connection.execute(text("SELECT energy_uj, uncertainty_uj, role FROM greensv_windows")).one()
        assert tuple(row) == (7, None, None)
        assert connection.execute(text("SELECT version FROM greensv_schema")).scalars().all() == [SCHEMA_VERSION]
    assert "greensv_idle" in inspect(engine).get_table_names()


def test_a_database_of_a_newer_greensv_is_refused(engine: Engine) -> None:
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE greensv_schema SET version = 99"))
    with pytest.raises(StudyError, match="version 99; this greensv knows up to 2; upgrade greensv"):
        create_tables(engine)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(StudyError, match="is gone when the process ends"):
        create_tables(create_engine(url, poolclass=StaticPool))


def test_another_database_system_is_refused() -> None:
    url = create_engine("sqlite://").url
    mysql = SimpleNamespace(dialect=SimpleNamespace(name="mysql"), url=url.set(drivername="mysql", password="secret"))
    with pytest.raises(StudyError, match="neither SQLite nor PostgreSQL") as caught:
        create_tables(mysql)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


def test_a_database_that_cannot_be_reached_is_named(tmp_path: Path, open_engine: Open) -> None:
    with pytest.raises(StudyError, match=r"nowhere/study\.db cannot be used: unable to open database file"):
        create_tables(open_engine(f"sqlite:///{tmp_path}/nowhere/study.db"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_database_that_cannot_be_written_is_named(tmp_path: Path, open_engine: Open) -> None:
    path = tmp_path / "study.db"
    path.touch()
    path.chmod(stat.S_IRUSR)
    with pytest.raises(StudyError, match="readonly"):
        create_tables(open_engine(f"sqlite:///{path}"))


def test_a_file_that_is_no_database_is_named(tmp_path: Path, open_engine: Open) -> None:
    path = tmp_path / "study.db"
    path.write_text("these are notes, not tables" * 100)
    with pytest.raises(StudyError, match=r"study\.db cannot be used: file is not a database"):
        create_tables(open_engine(f"sqlite:///{path}"))


def test_the_database_clock_counts_epoch_seconds(engine: Engine) -> None:
    create_tables(engine)
    with transaction(engine) as connection:
        (theirs,) = connection.execute(
            text("SELECT unixepoch()" if engine.dialect.name == "sqlite" else "SELECT extract(epoch FROM now())")
        ).one()
        assert abs(database_time(connection) - float(theirs)) < 2


def test_an_sqlite_transaction_locks_out_other_writers_from_its_beginning(tmp_path: Path, open_engine: Open) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    first, second = open_engine(url), open_engine(url)
    first.connect().close()  # a pooled connection from before
    for engine in (first, second):
        immediate_transactions(engine)
        immediate_transactions(engine)
    with first.begin(), second.connect() as other:
        # The driver's connection: on SQLAlchemy's, any statement would begin a transaction and wait for the lock.
        raw = other.connection.dbapi_connection
        assert raw is not None
        raw.execute("PRAGMA busy_timeout = 1")
        with pytest.raises(Exception, match="database is locked"):
            raw.execute("BEGIN IMMEDIATE")


def test_a_failed_transaction_leaves_nothing_behind(engine: Engine) -> None:
    create_tables(engine)

    def fail() -> None:
        with transaction(engine) as connection:
            connection.execute(text("INSERT INTO greensv_accounts VALUES ('s', 'search', 5, 0, 0, 0)"))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with transaction(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM greensv_accounts")).scalar_one() == 0
