"""`greensv worker`: joins a study that has been begun, or says what keeps it from it."""

import json
import shutil
import signal
import uuid
from pathlib import Path

import pytest

from greensv import __version__
from greensv.search.joining import DATA_ATTRIBUTE, PLACE_ATTRIBUTE
from greensv.search.storage import open_storage
from greensv.search.study import ID_ATTRIBUTE, VERSION_ATTRIBUTE, load
from tiny.study import STUDY_TOML
from tiny.work import QUICK_VARIABLE, SLEEP_VARIABLE


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what `begun` has made once."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def begun(greensv, study_file: Path, tmp_path: Path, kept: Path) -> Path:
    """A folder in which a search has run one trial."""
    if not (kept / "runs").exists():
        assert greensv("search", study_file, "--budget-kwh", 0.01, "--max-trials", 1).code == 0
        shutil.copytree(tmp_path / "runs", kept / "runs")
    else:
        shutil.copytree(kept / "runs", tmp_path / "runs")
    return tmp_path


def attributes(folder: Path, /, **changes: object) -> dict[str, object]:
    """Returns the study's user attributes, after changing some."""
    storage, _ = open_storage(f"sqlite:///{folder}/runs/greensv.db", create=False)
    try:
        study = load("tiny", storage).optuna
        for key, value in changes.items():
            study.set_user_attr(key, value)
        return dict(study.user_attrs)
    finally:
        storage.engine.dispose()


def states(greensv) -> list[str]:
    return [json.loads(line)["state"] for line in greensv("trials", "--json").out.splitlines()]


def test_a_worker_goes_on_with_a_study_and_needs_no_study_file(greensv, begun: Path):
    (begun / "study.toml").unlink()
    found = greensv("worker", "--max-trials", 2, "--json")
    assert found.code == 0, found.err
    (line,) = found.out.splitlines()
    result = json.loads(line)
    assert result["study"] == "tiny"
    assert result["ended_because"] == "2 trials were run"
    assert result["was_interrupted"] is False
    assert result["head_room_j"] > 0
    assert "trial 1: tiny width=16 depth=3" in found.err
    assert states(greensv) == ["complete", "complete"]
    again = greensv("worker", "--max-trials", 2)
    assert again.code == 0
    assert again.out.splitlines()[-1] == "This worker ended: all 2 trials had been run."
    assert "all 2 trials had been run" in (begun / "runs" / "tiny" / "report.html").read_text()


def test_the_database_may_be_named_in_the_environment(greensv, begun: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GREENSV_STORAGE", f"sqlite:///{begun}/runs/greensv.db")
    monkeypatch.chdir("/")
    found = greensv("worker", "--max-trials", 1)
    assert found.code == 0, found.err


def test_other_versions_are_refused_and_both_are_named(greensv, begun: Path):
    stored = attributes(begun)[VERSION_ATTRIBUTE]
    assert isinstance(stored, dict)
    attributes(begun, **{VERSION_ATTRIBUTE: {**stored, "greensv": "0.0.9", "backbone tiny": "greensv-tiny 7.1"}})
    found = greensv("worker", "--max-trials", 2)
    assert found.code == 1
    assert f"  greensv: 0.0.9 in the study, {__version__} here\n" in found.err
    assert "  backbone tiny: greensv-tiny 7.1 in the study, greensv-tiny 0.1 here\n" in found.err
    assert states(greensv).count("complete") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--no-plugins", "worker"), "no dataset named 'tiny'"),
        (("worker", "--study-name", "tinny"), "no study named 'tinny'; did you mean 'tiny'?"),
        (("worker", "--storage", "sqlite:///nowhere.db"), "no study database at nowhere.db"),
        (("worker", "--data-root", "~nobody-of-that-name/x"), "--data-root ~nobody-of-that-name/x cannot be used"),
        (("worker", "--artifacts", "nonsense://x"), "nonsense://x cannot be used"),
        (("worker", "--max-trials", "0"), "Invalid value for '--max-trials'"),
    ],
)
def test_what_cannot_be_joined_is_told(greensv, begun: Path, arguments: tuple[str, ...], message: str):
    found = greensv(*arguments)
    assert found.code in (1, 2)
    assert message in found.err


def test_a_study_without_a_budget_is_told(greensv, begun: Path):
    # A creation that was cut short: the study is there, and its account not yet.
    attributes(begun, **{ID_ATTRIBUTE: uuid.uuid4().hex})
    found = greensv("worker")
    assert found.code == 1
    assert "no search account yet" in found.err


@pytest.mark.slow
def test_the_data_may_lie_elsewhere_but_must_be_the_same(greensv, study_file, write_kaldi_tree, tmp_path):
    here, copy, other = tmp_path / "here", tmp_path / "copy", tmp_path / "other"
    write_kaldi_tree(here, {"train": {f"t{i}": 8 for i in range(6)}, "test": {"x": 4, "y": 4}})
    shutil.copytree(here, copy)
    write_kaldi_tree(other, {"train": {f"t{i}": 7 for i in range(6)}, "test": {"x": 4, "y": 4}})
    for file in copy.rglob("wav.scp"):
        file.write_text(file.read_text().replace(str(here), str(copy)))
    of_kaldi = f'name = "kaldi"\nroot = "{here}"\n[dataset.options]\nnum_dev_speakers = 2\n'
    study_file.write_text(STUDY_TOML.replace('name = "tiny"\n\n[backbones', of_kaldi + "\n[backbones"))
    begun = greensv("search", study_file, "--budget-kwh", 0.01, "--max-trials", 1)
    assert begun.code == 0, begun.err
    shutil.rmtree(here)
    found = greensv("worker", "--max-trials", 2, "--data-root", copy)
    assert found.code == 0, found.err
    refused = greensv("worker", "--max-trials", 3, "--data-root", other)
    assert refused.code == 1
    assert "the data here are not those that study 'tiny' was begun on:\n" in refused.err
    assert "  training utterances: " in refused.err
    assert "--data-root" in refused.err
    assert DATA_ATTRIBUTE in attributes(tmp_path)


def test_trainings_are_kept_where_the_studys_other_workers_keep_them(greensv, study_file: Path, tmp_path: Path):
    assert greensv("search", study_file, "--budget-kwh", 0.01, "--max-trials", 1).code == 0
    place = attributes(tmp_path)[PLACE_ATTRIBUTE]
    assert isinstance(place, dict)
    assert place["url"] == str(tmp_path / "runs" / "tiny" / "trainings")
    refused = greensv("worker", "--max-trials", 2, "--artifacts", "elsewhere")
    assert refused.code == 1
    assert f"the trainings of study 'tiny' are in {place['url']} on " in refused.err
    assert "give --artifacts a place that all its workers reach" in refused.err
    shutil.move(tmp_path / "runs" / "tiny" / "trainings", tmp_path / "elsewhere")
    assert greensv("worker", "--max-trials", 1, "--artifacts", "elsewhere").code == 0
    assert attributes(tmp_path)[PLACE_ATTRIBUTE] == {**place, "url": str(tmp_path / "elsewhere")}


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_saves_and_another_goes_on(start, greensv, begun: Path):
    process = start("worker", "--max-trials", "2", **{SLEEP_VARIABLE: "0.15", QUICK_VARIABLE: "24"})
    for line in process.stdout:
        if line.startswith("trial 1: tiny"):
            process.send_signal(signal.SIGTERM)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out.splitlines()[-1] == "This worker ended: interrupted; the same command continues."
    assert json.loads(greensv("budget", "--json").out)["reserved_kwh"] == 0
    found = greensv("worker", "--max-trials", 2)
    assert found.code == 0, found.err
    assert states(greensv).count("complete") == 2
