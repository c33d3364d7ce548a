import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage

import tiny
from greensv.config.load import to_json
from greensv.errors import StudyError
from greensv.search.storage import open_storage
from greensv.search.study import (
    CONFIG_ATTRIBUTE,
    ID_ATTRIBUTE,
    RETRAIN_SUFFIX,
    create_or_continue,
    derive_seed,
    load,
)
from tiny.study import Lab, recipe_with

VERSIONS = {"backbone tiny": "tiny 0"}


@pytest.fixture
def storage(lab: Lab) -> Iterator[RDBStorage]:
    storage, _ = open_storage(lab.url, create=True)
    yield storage
    storage.engine.dispose()


def test_a_new_study_stores_its_configuration_and_versions_before_anything_runs(lab: Lab, storage: RDBStorage):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = create_or_continue(lab.config(), storage, versions=VERSIONS)
    plain = optuna.load_study(study_name="tiny", storage=storage)
    assert json.loads(plain.user_attrs[CONFIG_ATTRIBUTE]) == json.loads(to_json(lab.config()))
    assert plain.user_attrs["greensv:version"] == {"greensv": "0.1.0", **VERSIONS}
    assert plain.metric_names == ["eer", "train_energy_kwh"]
    assert [direction.name for direction in plain.directions] == ["MINIMIZE", "MINIMIZE"]
    assert made.study_id == plain.user_attrs[ID_ATTRIBUTE]
    assert made.records() == []


def test_two_processes_that_make_a_study_at_once_share_it(lab: Lab):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from greensv.search.storage import open_storage\n"
        "from greensv.search.study import create_or_continue\n"
        "from tiny.study import Lab\n"
        "lab = Lab(folder=Path(sys.argv[1]))\n"
        "config = lab.config()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "storage, ledger = open_storage(lab.url, create=True)\n"
        "study = create_or_continue(config, storage, versions={})\n"
        "ledger.open_account(study.study_id, 'search', 1_000_000)\n"
        "print(study.study_id)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(tiny.__file__).parents[1])}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(lab.folder)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    study, _ = lab.open()
    assert [out.strip() for out, _ in said] == [study.study_id] * 2


def test_a_study_that_another_process_is_about_to_finish_making_keeps_its_id(lab: Lab, storage: RDBStorage):
    theirs = optuna.create_study(storage=storage, study_name="tiny", directions=["minimize", "minimize"])
    theirs.set_user_attr(CONFIG_ATTRIBUTE, to_json(lab.config()))
    timer = threading.Timer(0.3, theirs.set_user_attr, (ID_ATTRIBUTE, "theirs"))
    timer.start()
    assert create_or_continue(lab.config(), storage, versions=VERSIONS).study_id == "theirs"
    timer.join()


def test_an_equal_configuration_continues_the_study(lab: Lab, storage: RDBStorage):
    first = create_or_continue(lab.config(), storage, versions=VERSIONS)
    first.optuna.ask()
    again = create_or_continue(lab.config(), storage, versions=VERSIONS)
    assert again.study_id == first.study_id
    assert again.config == lab.config()


def test_each_difference_from_the_stored_configuration_is_named(lab: Lab, storage: RDBStorage):
    create_or_continue(lab.config(), storage, versions=VERSIONS).optuna.ask()
    other = lab.config(
        seed=2, backbones={"tiny": {"width": [2, 8]}}, recipe=recipe_with(crop_s=0.4), search={"sampler": "random"}
    )
    with pytest.raises(StudyError) as caught:
        create_or_continue(other, storage, versions=VERSIONS)
    first, *lines, last = str(caught.value).splitlines()
    assert first == "study 'tiny' was started with another configuration:"
    assert [line.strip() for line in lines] == [
        "backbones.tiny.width: not set → [2, 8]",
        "recipe.phases[0].crop_s: 0.3 → 0.4",
        'search.sampler: "tpe" → "random"',
        "seed: 1 → 2",
    ]
    assert "--study-name" in last


def test_a_study_in_which_nothing_ran_takes_the_mended_configuration(lab: Lab, storage: RDBStorage):
    first = create_or_continue(lab.config(dataset={"root": "/typo"}), storage, versions=VERSIONS)
    mended = create_or_continue(lab.config(dataset={"root": "/data"}), storage, versions=VERSIONS)
    assert mended.study_id == first.study_id, "what the first start used is charged to it"
    assert load("tiny", storage).config.dataset.root == "/data"


def test_a_study_of_somebody_else_is_refused_and_left_alone(lab: Lab, storage: RDBStorage):
    foreign = optuna.create_study(storage=storage, study_name="tiny", directions=["minimize", "minimize"])
    foreign.ask()
    with pytest.raises(StudyError, match="'tiny' was not made by greensv; choose another --study-name"):
        create_or_continue(lab.config(), storage, versions=VERSIONS)
    with pytest.raises(StudyError, match="was not made by greensv"):
        load("tiny", storage)
    assert optuna.load_study(study_name="tiny", storage=storage).user_attrs == {}


def test_an_empty_study_with_another_number_of_objectives_is_refused(lab: Lab, storage: RDBStorage):
    optuna.create_study(storage=storage, study_name="tiny")
    with pytest.raises(StudyError, match="was not made by greensv"):
        create_or_continue(lab.config(), storage, versions=VERSIONS)


@pytest.mark.parametrize("num_done", [0, 1, 2, 3])
def test_a_creation_that_was_cut_short_is_finished(lab: Lab, storage: RDBStorage, num_done: int, monkeypatch):
    monkeypatch.setattr("greensv.search.study.CREATION_S", 0.0)
    calls = 0
    real = storage.set_study_user_attr

    def dying(*args: object) -> None:
        nonlocal calls
        if calls == num_done:
            raise KeyboardInterrupt
        calls += 1
        real(*args)

    if num_done < 3:
        monkeypatch.setattr(storage, "set_study_user_attr", dying)
        with pytest.raises(KeyboardInterrupt):
            create_or_continue(lab.config(), storage, versions=VERSIONS)
        monkeypatch.undo()
    found = create_or_continue(lab.config(), storage, versions=VERSIONS)
    assert load("tiny", storage).study_id == found.study_id
    assert load("tiny", storage).config == lab.config()
    assert found.optuna.metric_names == ["eer", "train_energy_kwh"]


def test_the_only_study_needs_no_name_and_several_ask_for_one(lab: Lab, storage: RDBStorage):
    with pytest.raises(StudyError, match=r"holds 0 studies.*start one with `greensv search`"):
        load(None, storage)
    create_or_continue(lab.config(), storage, versions=VERSIONS)
    optuna.create_study(storage=storage, study_name="tiny" + RETRAIN_SUFFIX)
    assert load(None, storage).config.name == "tiny"
    create_or_continue(lab.config(name="other"), storage, versions=VERSIONS)
    with pytest.raises(StudyError, match=r"holds 2 studies; choose one with --study-name \(there: other, tiny\)"):
        load(None, storage)
    with pytest.raises(StudyError, match=r"no study named 'tinny'; did you mean 'tiny'\? \(there: other, tiny\)"):
        load("tinny", storage)


def test_seeds_differ_by_study_and_trial_and_repeat():
    seeds = {derive_seed(study, trial) for study in range(20) for trial in range(20)}
    assert len(seeds) == 400
    assert derive_seed(3, 4) == derive_seed(3, 4)
    assert all(0 <= seed < 2**32 for seed in seeds)
