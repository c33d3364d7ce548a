"""Optuna's own calls, while the database that they share with the ledger is away."""

import threading
from pathlib import Path

import optuna
import pytest
from sqlalchemy import Engine, make_url

import postgresql
from greensv.errors import StudyError
from greensv.search.storage import open_storage, patiently, storage_failures


def study_in(storage: optuna.storages.RDBStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="a", directions=["minimize", "minimize"])


def limit_pages(engine: Engine, num_more: int) -> None:
    """What SQLite itself calls a full disk."""
    with engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        pages = raw.execute("PRAGMA page_count").fetchone()[0] + num_more
        raw.execute(f"PRAGMA max_page_count = {pages}")


def test_asking_and_telling_wait_for_a_file_that_is_away(tmp_path: Path):
    path = tmp_path / "study.db"
    storage, ledger = open_storage(f"sqlite:///{path}", create=True)
    study = study_in(storage)
    elsewhere = path.with_suffix(".away")

    def away() -> threading.Timer:
        path.rename(elsewhere)
        timer = threading.Timer(0.2, elsewhere.rename, [path])
        timer.start()
        return timer

    timer = away()
    trial = patiently(study.ask)
    timer.join()
    timer = away()
    patiently(lambda: trial.suggest_float("x", 0, 1))
    timer.join()
    timer = away()
    patiently(lambda: study.tell(trial, [1.0, 2.0], skip_if_finished=True))
    timer.join()
    assert [one.values for one in study.get_trials() if one.state == optuna.trial.TrialState.COMPLETE] == [[1.0, 2.0]]
    assert ledger.now() > 0
    storage.engine.dispose()


def test_asking_and_telling_wait_for_a_server_that_restarts(postgresql_server: postgresql.Server):
    with postgresql.new_database(postgresql_server.url) as url:
        storage, _ = open_storage(url, create=True)
        study = study_in(storage)
        trial = study.ask()
        postgresql_server.stop()
        restart = threading.Timer(0.2, postgresql_server.start)
        restart.start()
        patiently(lambda: study.tell(trial, [1.0, 2.0], skip_if_finished=True))
        restart.join()
        assert study.get_trials()[0].values == [1.0, 2.0]
        postgresql_server.stop()
        postgresql_server.start()
        assert patiently(study.ask).number == 1, "connections of before are opened anew"
        storage.engine.dispose()


def test_what_stays_away_is_an_error_for_the_user(tmp_path: Path):
    path = tmp_path / "study.db"
    url = f"sqlite:///{path}"
    storage, _ = open_storage(url, create=True)
    study = study_in(storage)
    path.unlink()
    with (
        pytest.raises(StudyError, match=r"the storage sqlite:.*study\.db failed: .*what was written before is safe"),
        storage_failures(url),
    ):
        patiently(study.ask, patience_s=0.2)
    assert not path.exists(), "an empty file would look like a database without studies"
    storage.engine.dispose()


def test_a_full_disk_is_an_error_at_once(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    storage, _ = open_storage(url, create=True)
    study = study_in(storage)
    limit_pages(storage.engine, 0)
    with pytest.raises(StudyError, match=r"disk is full.*has room"), storage_failures(url):
        patiently(lambda: study.set_user_attr("large", "x" * 100_000))
    limit_pages(storage.engine, 1000)
    study.set_user_attr("after", 1)
    assert study.user_attrs["after"] == 1
    storage.engine.dispose()


def test_another_mistake_is_not_waited_for(tmp_path: Path):
    storage, _ = open_storage(f"sqlite:///{tmp_path / 'study.db'}", create=True)
    study = study_in(storage)
    with pytest.raises(ValueError, match="Cannot tell"):
        patiently(lambda: study.tell(0, [1.0, 2.0]))
    storage.engine.dispose()


def test_a_server_that_does_not_answer_is_noticed_in_seconds(postgresql_url: str):
    with postgresql.new_database(postgresql_url) as plain:
        url = make_url(plain).update_query_dict({"connect_timeout": "7"}).render_as_string(hide_password=False)
        storage, _ = open_storage(url, create=True)
        with storage.engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert raw is not None
            options = raw.info.get_parameters()
        storage.engine.dispose()
    assert options["connect_timeout"] == "7", "the URL's own values come first"
    assert options["tcp_user_timeout"] == "30000"
    assert options["keepalives_idle"] == "30"
