import threading
from pathlib import Path

import optuna

from greensv.search.patient_storage import PATIENT, PatientStorage
from greensv.search.storage import open_storage


def test_every_call_of_a_study_waits_for_a_database_that_is_away(tmp_path: Path):
    path = tmp_path / "study.db"
    storage, _ = open_storage(f"sqlite:///{path}", create=True)
    study = optuna.create_study(storage=storage, study_name="a", directions=["minimize", "minimize"])
    path.rename(path.with_suffix(".away"))
    timer = threading.Timer(0.3, path.with_suffix(".away").rename, [path])
    timer.start()
    trial = study.ask()  # not wrapped in anything: the storage itself is patient
    timer.join()
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr("a", 1)
    study.tell(trial, [1.0, 2.0])
    assert study.trials[0].values == [1.0, 2.0]
    storage.engine.dispose()


def test_all_that_a_study_asks_for_is_patient():
    """A new method of Optuna's storage must be looked at, not forgotten."""
    abstract = set(optuna.storages.BaseStorage.__abstractmethods__)
    assert abstract <= set(PATIENT) | {"create_new_study", "delete_study", "set_trial_intermediate_value"}
    assert all(getattr(PatientStorage, name) is not getattr(optuna.storages.RDBStorage, name) for name in PATIENT)
