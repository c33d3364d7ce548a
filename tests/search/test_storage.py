import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from greensv.errors import StudyError
from greensv.search.storage import open_storage, sqlite_path, study_folder

OPEN_AS_NOBODY = """
import os, sys
from greensv.errors import StudyError
from greensv.search.storage import open_storage
import optuna, sqlalchemy.dialects.sqlite  # before the permissions to read them may be gone
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    open_storage(sys.argv[1], create=sys.argv[2] == "create")
except StudyError as error:
    print("StudyError:", error)
"""


def test_a_new_database_holds_optunas_tables_and_the_ledgers(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "study.db"
    storage, _ = open_storage(f"sqlite:///{path}", create=True)
    storage.engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    tables = {row[0] for row in rows}
    assert {"studies", "trials", "accounts", "leases", "charges"} <= {t.removeprefix("greensv_") for t in tables}


def test_transactions_begin_with_the_write_lock(tmp_path: Path):
    storage, _ = open_storage(f"sqlite:///{tmp_path / 'study.db'}", create=True)
    other = sqlite3.connect(tmp_path / "study.db", timeout=0)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("CREATE TABLE late (x)")
    other.close()
    storage.engine.dispose()


def test_a_file_to_be_read_must_be_there(tmp_path: Path):
    with pytest.raises(StudyError, match=r"no study database at .*typo.db; start one with `greensv search`"):
        open_storage(f"sqlite:///{tmp_path / 'typo.db'}", create=False)
    assert list(tmp_path.iterdir()) == [], "looking must leave nothing behind"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("runs/greensv.db", "is no database URL; for a file write sqlite:///runs/greensv.db"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("nosuchdatabase://host/name", "cannot be opened: "),
        ("postgresql+psycopg://nobody@127.0.0.1:1/none", "the storage postgresql"),
        ("postgresql+nosuchdriver://host/name", "cannot be opened: "),
    ],
)
def test_a_url_that_leads_nowhere_is_an_error_that_says_what_to_do(url: str, message: str):
    with pytest.raises(StudyError) as caught:
        open_storage(url, create=True)
    assert message in str(caught.value)
    assert ";" in str(caught.value)


def test_a_folder_is_no_database(tmp_path: Path):
    with pytest.raises(StudyError, match=r"is a folder; --storage needs a file, such as sqlite:///.*greensv\.db"):
        open_storage(f"sqlite:///{tmp_path}", create=True)


def test_another_file_is_no_database_and_is_left_as_it_is(tmp_path: Path):
    notes = tmp_path / "notes.txt"
    notes.write_text("buy milk")
    with pytest.raises(StudyError, match=r"notes\.txt is no SQLite database"):
        open_storage(f"sqlite:///{notes}", create=True)
    assert notes.read_text() == "buy milk"


def test_a_damaged_database_is_an_error(tmp_path: Path):
    path = tmp_path / "study.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4000)
    with pytest.raises(StudyError, match="cannot be opened"):
        open_storage(f"sqlite:///{path}", create=False)


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(StudyError, match=r"the folder .*runs cannot be used"):
        open_storage(f"sqlite:///{tmp_path / 'runs' / 'study.db'}", create=True)


def test_tables_of_a_version_that_optuna_cannot_use_are_an_error(tmp_path: Path):
    path = tmp_path / "study.db"
    storage, _ = open_storage(f"sqlite:///{path}", create=True)
    storage.engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    connection.close()
    with pytest.raises(StudyError, match=r"cannot be opened: .*version"):
        open_storage(f"sqlite:///{path}", create=False)


@pytest.mark.parametrize(("mode", "create"), [(0o555, "create"), (0o555, "read"), (0o000, "create"), (0o000, "read")])
def test_a_folder_without_permission_is_an_error_and_no_traceback(mode: int, create: str):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    # Not in tmp_path: others may not look into that.
    outer = tempfile.TemporaryDirectory()
    folder = Path(outer.name) / "runs"
    Path(outer.name).chmod(0o755)
    storage, _ = open_storage(f"sqlite:///{folder / 'study.db'}", create=True)
    storage.engine.dispose()
    folder.chmod(mode)
    command = [sys.executable, "-c", OPEN_AS_NOBODY, f"sqlite:///{folder / 'study.db'}", create]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert found.stderr == ""
    assert found.stdout.startswith("StudyError: ")
    assert str(folder) in found.stdout
    outer.cleanup()


def test_a_studys_files_lie_beside_its_database(tmp_path: Path):
    assert study_folder(f"sqlite:///{tmp_path}/a.db", "tiny") == tmp_path / "tiny"
    assert study_folder("sqlite:///runs/greensv.db", "tiny") == Path("runs/tiny")
    assert study_folder("postgresql+psycopg://host/name", "tiny") == Path("runs/tiny")
    assert sqlite_path("sqlite:////abs/a.db") == Path("/abs/a.db")
    assert sqlite_path("sqlite:///:memory:") is None


def test_optunas_own_loader_reads_the_file(tmp_path: Path):
    import optuna

    url = f"sqlite:///{tmp_path / 'study.db'}"
    storage, _ = open_storage(url, create=True)
    optuna.create_study(storage=storage, study_name="mine").set_user_attr("x", json.dumps([1]))
    storage.engine.dispose()
    plain = optuna.storages.RDBStorage(url)
    assert optuna.load_study(study_name="mine", storage=plain).user_attrs == {"x": "[1]"}
    plain.engine.dispose()
