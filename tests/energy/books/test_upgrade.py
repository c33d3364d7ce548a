"""Older books are brought up to date, beside Optuna's tables, and newer ones refused."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from sqlalchemy import Engine, inspect, text

from greensv.energy.books.ledger import Ledger
from greensv.energy.books.schema import HEAD, create_tables, revision
from greensv.energy.books.tables import metadata
from greensv.errors import BudgetError, StudyError
from simulated.older_books import write_older_books

OPEN_TWICE = """
import sys
from sqlalchemy import create_engine
from greensv.energy.books.ledger import Ledger
for _ in range(2):
    engine = create_engine(sys.argv[1])
    Ledger(engine)
    engine.dispose()
print("alembic" in sys.modules)
"""


def form(engine: Engine) -> dict[str, object]:
    """Everything of our tables that a database can tell: columns, keys, indexes and checks."""
    found = inspect(engine)
    ours = sorted(name for name in found.get_table_names() if name.startswith("greensv_"))
    return {
        name: (
            [(c["name"], str(c["type"]).upper(), c["nullable"], c["default"]) for c in found.get_columns(name)],
            found.get_pk_constraint(name)["constrained_columns"],
            sorted((i["name"], tuple(i["column_names"])) for i in found.get_indexes(name)),
            sorted(u["name"] for u in found.get_unique_constraints(name)),
            sorted(c["name"] for c in found.get_check_constraints(name)),
        )
        for name in ours
    }


def as_sets(found: dict[str, object]) -> dict[str, object]:
    """The same, whatever the order of the columns: one that was added later comes last."""
    return {name: (sorted(map(str, parts[0])), *parts[1:]) for name, parts in found.items()}  # type: ignore[index]


@pytest.mark.parametrize("version", [1, 2])
def test_an_upgraded_database_is_like_a_new_one_and_keeps_its_rows(engine: Engine, version: int) -> None:
    write_older_books(engine, version)
    ledger = Ledger(engine)
    with engine.connect() as connection:
        assert revision(connection) == HEAD
        charge = connection.execute(text("SELECT energy_uj, pue, uncertainty_uj FROM greensv_charges")).one()
        window = connection.execute(text("SELECT energy_uj, uncertainty_uj, role FROM greensv_windows")).one()
        num_idle = connection.execute(text("SELECT count(*) FROM greensv_idle")).scalar_one()
    assert tuple(charge) == (300, 1.5, None if version == 1 else 3)
    assert tuple(window) == (200, None, None)
    assert num_idle == version - 1
    ledger.verify("s")
    assert ledger.statement("s", "search").left_uj == 650
    assert ledger.leased_trials("s") == {4}
    (reaped,) = ledger.reap("s", is_alive=lambda _: False)
    assert (reaped.lease.id, reaped.lease.trial_number) == ("l", 4)
    upgraded = as_sets(form(engine))
    with engine.begin() as connection:
        metadata.drop_all(connection)
    create_tables(engine)
    assert upgraded == as_sets(form(engine))


def test_alembic_sees_no_difference_between_the_tables_and_what_they_became(engine: Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from greensv.energy.books.tables import VERSION_TABLE

    write_older_books(engine, 1)
    create_tables(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "include_name": _is_ours}
        )
        assert compare_metadata(context, metadata) == []


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    return kind != "table" or str(name).startswith("greensv_")


def test_the_newest_step_is_the_head_that_books_are_opened_for() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "greensv.energy.books:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_optunas_tables_and_version_are_not_touched(tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    study = optuna.create_study(storage=storage, study_name="a")
    study.enqueue_trial({"x": 1})
    write_older_books(storage.engine, 2)
    with storage.engine.connect() as connection:
        before = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    create_tables(storage.engine)
    with storage.engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == before
        assert revision(connection) == HEAD
    storage.engine.dispose()
    again = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    assert again.get_current_version() == again.get_head_version()
    assert len(optuna.load_study(storage=again, study_name="a").trials) == 1
    again.engine.dispose()


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE greensv_alembic_version SET version_num = '0099'", "0099"),
        ("DROP TABLE greensv_alembic_version", "3"),  # our own mark, that alembic's table should be there
    ],
)
def test_a_database_of_a_newer_greensv_is_refused(engine: Engine, statement: str, found: str) -> None:
    create_tables(engine)
    before = form(engine)
    with engine.begin() as connection:
        connection.execute(text(statement))
    with pytest.raises(
        StudyError, match=f"books of revision {found}; this greensv knows up to {HEAD}; upgrade greensv"
    ):
        create_tables(engine)
    after = form(engine)
    assert {**before, "greensv_alembic_version": None} == {**after, "greensv_alembic_version": None}


def test_a_greensv_from_before_refuses_the_database(engine: Engine) -> None:
    """It looks at `greensv_schema` alone, and knows up to version 2."""
    write_older_books(engine, 2)
    create_tables(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version FROM greensv_schema")).scalars().all() == [3]


def test_an_upgrade_that_fails_leaves_all_as_it_was(engine: Engine) -> None:
    write_older_books(engine, 2)
    with engine.begin() as connection:
        connection.execute(text("CREATE INDEX greensv_rungs_by_state ON greensv_charges (purpose)"))  # in its way
    before = form(engine)
    with pytest.raises(StudyError, match="greensv_rungs_by_state"):
        create_tables(engine)
    assert form(engine) == before
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX greensv_rungs_by_state"))
    with pytest.raises(BudgetError, match="no retrain account"):
        Ledger(engine).statement("s", "retrain")


def test_several_processes_may_find_older_books_at_once(engine: Engine, database_url: str) -> None:
    write_older_books(engine, 1)
    command = [sys.executable, "-c", OPEN_TWICE, database_url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(output for output, _ in outputs)[-1] == b"True\n"
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM greensv_charges")).scalar_one() == 1


def test_opening_books_that_are_up_to_date_reads_one_row_and_imports_no_alembic(
    engine: Engine, database_url: str
) -> None:
    from sqlalchemy import event

    create_tables(engine)
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda c, cursor, statement, *rest: statements.append(statement))
    create_tables(engine)
    found = subprocess.run(
        [sys.executable, "-c", OPEN_TWICE, database_url], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout == "False\n"
    assert [s for s in statements if "INSERT" in s or "CREATE" in s or "IMMEDIATE" in s] == []
    assert len(statements) <= 4
