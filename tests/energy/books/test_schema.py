import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine, StaticPool, create_engine, inspect, text

from greensv.energy.books.schema import (
    HEAD,
    create_tables,
    database_time,
    immediate_transactions,
    reading,
    revision,
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
        assert revision(connection) == HEAD
    assert all(name.startswith("greensv_") for name in inspect(engine).get_table_names())


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


def test_reading_neither_waits_for_a_writer_nor_keeps_one_from_beginning(engine: Engine) -> None:
    create_tables(engine)
    count = text("SELECT count(*) FROM greensv_accounts")
    with transaction(engine) as writer:
        writer.execute(text("INSERT INTO greensv_accounts VALUES ('s', 'search', 5, 0, 0, 0)"))
        with reading(engine) as reader:
            assert reader.execute(count).scalar_one() == 0, "what is not committed is not there yet"
    with reading(engine) as reader:
        assert reader.execute(count).scalar_one() == 1
        with engine.connect() as writer, writer.begin():
            writer.execute(text("UPDATE greensv_accounts SET spent_uj = 1"))
            writer.rollback()


def test_after_reading_a_transaction_takes_the_write_lock_again(tmp_path: Path, open_engine: Open) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/study.db")
    create_tables(engine)
    with reading(engine):
        pass
    other = sqlite3.connect(tmp_path / "study.db", timeout=0)
    with transaction(engine), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()


def test_a_database_that_cannot_be_read_is_named(tmp_path: Path, open_engine: Open) -> None:
    with (
        pytest.raises(StudyError, match=r"nowhere/study\.db cannot be used"),
        reading(open_engine(f"sqlite:///{tmp_path}/nowhere/study.db")),
    ):
        pass
