"""A study continued where it cannot run, or under other conditions; candidates that cannot be trained there."""

from pathlib import Path

import pytest
import sqlalchemy.exc

from greensv.errors import StudyError, TrainingError
from greensv.search import runner
from greensv.search.events import Event, FrontKnown, TrialStarted
from greensv.search.queue import MAX_DEATHS, mark_held, reconcile
from greensv.search.rungs.book import RungBook
from greensv.search.storage import hide_password, prepare_folder, storage_failures
from greensv.search.worker import Worker
from tiny.study import CHEAPEST, DEAREST, Lab
from tiny.work import WORK

OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"


def test_a_study_measured_under_other_conditions_is_refused_naming_them(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    lab.search(max_trials=1)
    monkeypatch.setattr(
        runner, "environment", lambda *_: {"device": "GPU X", "precision": "fp64", "meter of gpu": "nvml (measured)"}
    )
    with pytest.raises(StudyError, match="measured under other conditions") as caught:
        lab.search(max_trials=2)
    for line in (
        'device: "CPU',
        '→ "GPU X"',
        'precision: "',
        'meter of gpu: not set → "nvml (measured)"',
        "--study-name",
    ):
        assert line in str(caught.value)
    assert [record.state for record in lab.records() if record.state != "waiting"] == ["complete"]


def test_conditions_may_change_before_the_first_trial_is_complete(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(runner, "environment", lambda *_: {"device": "GPU X"})
        patch.setattr(Worker, "run", lambda worker: "nothing was tried")
        lab.search(max_trials=1)
    lab.search(max_trials=1)
    assert lab.records()[0].state == "complete"


def test_a_continued_study_begins_with_its_front(lab: Lab):
    lab.search(max_trials=2)
    lab.events.clear()
    lab.search(max_trials=2)
    known = next(event for event in lab.events if isinstance(event, FrontKnown))
    assert {record.number for record in known.front} <= {0, 1}
    assert known.front


def test_a_candidate_that_runs_out_of_memory_fails_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    def listen(event: Event) -> None:
        if isinstance(event, TrialStarted):
            monkeypatch.setattr(WORK, "on_step", fail if event.number == 0 else None)

    lab.on_event = listen
    lab.search(max_trials=2)
    failed, complete = lab.records()
    assert (failed.state, failed.params) == ("failed", CHEAPEST)
    assert failed.reason == f"could not be trained: {OUT_OF_MEMORY}"
    assert (complete.state, complete.params) == ("complete", DEAREST)
    lab.audited()


def test_a_space_whose_cheapest_network_runs_out_of_memory_is_refused_with_advice(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(WORK, "on_step", fail)
    with pytest.raises(TrainingError, match=r"can't allocate memory; lower recipe\.batch_size or narrow the space"):
        lab.search(max_trials=1)


def test_a_candidate_whose_process_died_twice_is_not_tried_again(lab: Lab):
    lab.search(max_trials=1)
    study, ledger = lab.open()
    for death in range(1, MAX_DEATHS + 1):
        trial = study.optuna.ask()
        trial.suggest_int("width", 2, 16)
        trial.suggest_int("depth", 1, 3)
        mark_held(trial)
        holder = {"host": "elsewhere", "pid": 1, "process_started_at": 0.0}
        trial.set_user_attr("greensv:holder", {**trial.user_attrs["greensv:holder"], **holder, "host": here()})
        reconcile(study, RungBook(ledger, study.study_id, num_rungs=1), lab.listen)
        waiting = [record for record in study.records() if record.state == "waiting"]
        assert len(waiting) == (1 if death < MAX_DEATHS else 0)


def test_retraining_leaves_out_a_network_that_diverges(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    lab.search(max_trials=2)
    first, second = lab.records()
    monkeypatch.setattr(WORK, "explodes", True)
    result = lab.retrain(first, second)
    assert not result.is_complete
    assert not result.results
    assert "trial 0 is left out: the loss of step" in lab.notes()
    assert "trial 1 is left out: the loss of step" in lab.notes()


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_used(tmp_path: Path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StudyError, match="cannot be written"):
        prepare_folder(tmp_path / "runs" / "tiny")
    assert prepare_folder(tmp_path / "new" / "tiny").is_dir()


def test_a_password_is_never_shown():
    url = "postgresql+psycopg://me:secret@host/db"
    assert hide_password(url) == "postgresql+psycopg://me:***@host/db"
    assert hide_password("no url") == "no url"
    with pytest.raises(StudyError, match="failed") as caught, storage_failures(url):
        raise sqlalchemy.exc.OperationalError("SELECT 1", {}, OSError("server closed the connection"))
    assert "secret" not in str(caught.value)
    assert "server closed the connection" in str(caught.value)


def fail() -> None:
    raise RuntimeError(f"{OUT_OF_MEMORY}\n(details)")


def here() -> str:
    from greensv.energy.books.budget import this_process

    return this_process().host
