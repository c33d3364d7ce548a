"""What a worker must have in common with its study: the place of the trainings, and this machine's own folders."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from greensv.errors import StudyError
from greensv.search.artifacts import ArtifactStore
from greensv.search.joining import PLACE_ATTRIBUTE, here, known_place, shared_store
from greensv.search.runner import open_study
from greensv.search.storage import open_storage
from greensv.search.study import OpenStudy
from tiny.study import Lab


@pytest.fixture
def study(lab: Lab) -> OpenStudy:
    """A study that has been created, and nothing more."""
    storage, ledger = open_storage(lab.url, create=True)
    lab.engines.append(storage.engine)
    return open_study(lab.config(), storage=storage, ledger=ledger, plugins=lab.plugins, budget_kwh=1.0)


def test_the_studys_part_of_a_store_is_its_own_and_says_so(study: OpenStudy, tmp_path: Path):
    assert known_place(study) is None
    own = shared_store(study, ArtifactStore(str(tmp_path / "shared")))
    assert own.url == str(tmp_path / "shared" / study.study_id)
    with own.local("study.json") as path:
        assert json.loads(path.read_text()) == {"study": "tiny", "study_id": study.study_id}
    assert known_place(study) == str(tmp_path / "shared")
    assert shared_store(study, ArtifactStore(str(tmp_path / "shared"))).url == own.url


def test_another_place_is_refused_and_a_moved_one_is_not(study: OpenStudy, tmp_path: Path):
    shared_store(study, ArtifactStore(str(tmp_path / "shared")))
    with pytest.raises(StudyError, match=r"the trainings of study 'tiny' are in .*/shared on .*/other on"):
        shared_store(study, ArtifactStore(str(tmp_path / "other")))
    assert not (tmp_path / "other").exists()
    shutil.move(tmp_path / "shared", tmp_path / "other")
    shared_store(study, ArtifactStore(str(tmp_path / "other")))
    assert known_place(study) == str(tmp_path / "other")


def test_a_folder_of_that_name_on_another_machine_is_refused(study: OpenStudy, tmp_path: Path):
    place = {"url": str(tmp_path / "shared"), "host": "the-other-machine"}
    study.optuna.set_user_attr(PLACE_ATTRIBUTE, place)
    with pytest.raises(StudyError, match=r"are in .*/shared on the-other-machine, and .*/shared on"):
        shared_store(study, ArtifactStore(str(tmp_path / "shared")))


def test_an_emptied_place_is_told_and_used_again(study: OpenStudy, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    shared_store(study, ArtifactStore(str(tmp_path / "shared")))
    shutil.rmtree(tmp_path / "shared")
    with caplog.at_level(logging.WARNING):
        shared_store(study, ArtifactStore(str(tmp_path / "shared")))
    assert "has been emptied" in caplog.text
    assert (tmp_path / "shared" / study.study_id / "study.json").exists()


def test_a_place_that_cannot_be_written_is_told_before_anything_runs(study: OpenStudy, tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StudyError, match=r"study\.json in .*file.* cannot be"):
        shared_store(study, ArtifactStore(str(tmp_path / "file")))
    assert known_place(study) is None


def test_an_object_store_has_no_machine_of_its_own(study: OpenStudy):
    shared_store(study, ArtifactStore("memory://greensv-joining/x"))
    assert study.optuna.user_attrs[PLACE_ATTRIBUTE] == {"url": "memory://greensv-joining/x", "host": None}


def test_a_machine_has_its_own_folders_and_device_and_nothing_else(lab: Lab):
    config = lab.config()
    assert here(config) == config
    moved = here(config, device="cuda", data_root="/corpus", noise_root="/noise", rir_root="/rooms")
    assert (moved.device, moved.dataset.root) == ("cuda", "/corpus")
    assert moved.recipe.augmentation.noise_root == "/noise"
    assert moved.recipe.augmentation.rir_root == "/rooms"
    back = here(moved, device="cpu")
    assert back.dataset.root == "/corpus"
    assert (back.search, back.energy, back.features) == (config.search, config.energy, config.features)
