from pathlib import Path
from typing import Any

import pytest

from greensv.builtin.datasets.folder import FolderDataset, FolderOptions, greensv_datasets
from greensv.errors import DataError
from greensv.speaker.dataset import Corpus, Protocol, ignore_progress
from greensv.testing.dataset_contract import DatasetContract

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
PAIRS = "1 test/ben/b1.wav test/ben/b2.flac\n0 test/ben/b1.wav test/eva/2024/e1.ogg\n"


def write_tree(root: Path, write_speech: Any, *, sample_rate_hz: int = 16_000) -> Path:
    for speaker in ("anna", "carl", "dora", "emil"):
        for number, suffix in enumerate(SUFFIXES):
            deeper = "a/b/" if number == 2 else ""
            path = root / f"train/{speaker}/{deeper}{speaker}{number}{suffix}"
            write_speech(path, sample_rate_hz=sample_rate_hz)
    for speaker in ("fred", "gina"):
        for number in range(3):
            write_speech(root / f"dev/{speaker}/{number}.wav")
    for name in ("ben/b1.wav", "ben/b2.flac", "eva/2024/e1.ogg"):
        write_speech(root / "test" / name)
    (root / "train/anna/notes.txt").write_text("not audio")
    (root / "pairs.txt").write_text(PAIRS)
    return root


@pytest.fixture
def root(tmp_path: Path, write_speech: Any) -> Path:
    return write_tree(tmp_path / "data", write_speech)


def load(root: Path, **given: Any) -> Corpus:
    options = FolderOptions(**{"num_dev_speakers": 2, **given})
    return FolderDataset().load(root, options, cache_dir=root.parent / "cache", progress=ignore_progress)


def load_tests(root: Path, **given: Any) -> tuple[Protocol, ...]:
    options = FolderOptions(**{"tests": ("pairs.txt",), **given})
    return FolderDataset().load_tests(root, options, cache_dir=root.parent / "cache", progress=ignore_progress)


class TestFolder(DatasetContract):
    dataset = FolderDataset()
    options = FolderOptions(num_dev_speakers=2, tests=("pairs.txt",))

    @pytest.fixture(scope="class")
    @classmethod
    def root(cls, tmp_path_factory: pytest.TempPathFactory, write_speech: Any) -> Path:
        return write_tree(tmp_path_factory.mktemp("folder"), write_speech)


class TestFolderWithDevelopmentData(TestFolder):
    options = FolderOptions(dev="dev", tests=("pairs.txt",))


class TestFolderResampled(TestFolder):
    options = FolderOptions(num_dev_speakers=2, tests=("pairs.txt",), resample=True)

    @pytest.fixture(scope="class")
    @classmethod
    def root(cls, tmp_path_factory: pytest.TempPathFactory, write_speech: Any) -> Path:
        return write_tree(tmp_path_factory.mktemp("folder"), write_speech, sample_rate_hz=48_000)


def test_the_hook_returns_the_dataset() -> None:
    assert [dataset.name for dataset in greensv_datasets()] == ["folder"]


def test_the_first_folder_is_the_speaker_and_all_formats_are_read(root: Path) -> None:
    corpus = load(root, dev="dev")
    assert corpus.train.speaker_names == ("anna", "carl", "dora", "emil")
    assert corpus.train.ids[:5] == (
        "train/anna/a/b/anna2",
        "train/anna/anna0",
        "train/anna/anna1",
        "train/anna/anna3",
        "train/anna/anna4",
    )
    assert not corpus.dev_rejoins_training
    assert corpus.dev.utterances.speaker_names == ("fred", "gina")


def test_tested_speakers_are_told_by_their_folder(root: Path) -> None:
    (protocol,) = load_tests(root)
    assert protocol.name == "pairs"
    assert protocol.utterances.speaker_names == ("ben", "eva")
    assert protocol.utterances.ids == ("test/ben/b1.wav", "test/ben/b2.flac", "test/eva/2024/e1.ogg")


def test_a_list_may_name_another_suffix_than_the_file_has(root: Path) -> None:
    (root / "pairs.txt").write_text(PAIRS.replace(".flac", ".wav"))
    (protocol,) = load_tests(root)
    assert protocol.utterances.ids[1] == "test/ben/b2.wav"
    assert protocol.utterances.paths[1] == str(root / "test/ben/b2.flac")


def test_a_speaker_trained_and_tested_is_refused_before_any_training(root: Path, write_speech: Any) -> None:
    write_speech(root / "train/ben/b9.wav")
    for call in (load, load_tests):
        with pytest.raises(DataError, match=r"the test lists and .*train share 1 speakers \(ben\)"):
            call(root, tests=("pairs.txt",))


def test_one_folder_may_hold_all_where_tested_speakers_are_left_out(root: Path) -> None:
    (root / "train").rename(root / "speakers")
    (root / "test/ben").rename(root / "speakers/ben")
    (root / "test/eva").rename(root / "speakers/eva")
    (root / "pairs.txt").write_text(PAIRS.replace("test/", "speakers/"))
    given = {"train": "speakers", "test": "speakers", "tests": ("pairs.txt",)}
    with pytest.raises(DataError, match=r"share 2 speakers \(ben, eva\)"):
        load(root, **given)
    corpus = load(root, **given, leave_out_test_speakers=True)
    assert sorted(corpus.train.speaker_names + corpus.dev.utterances.speaker_names) == ["anna", "carl", "dora", "emil"]
    assert load_tests(root, **given, leave_out_test_speakers=True)[0].utterances.speaker_names == ("ben", "eva")


def test_the_root_itself_may_hold_the_training_speakers(root: Path) -> None:
    for speaker in (root / "train").iterdir():
        speaker.rename(root / speaker.name)
    (root / "train").rmdir()
    corpus = load(root, train=".", dev="dev", tests=("pairs.txt",))
    assert corpus.train.speaker_names == ("anna", "carl", "dora", "emil")
    assert load_tests(root, train=".", dev="dev")[0].utterances.speaker_names == ("ben", "eva")


def test_other_sample_rates_are_refused_unless_resampled(tmp_path: Path, write_speech: Any) -> None:
    root = write_tree(tmp_path / "data", write_speech, sample_rate_hz=48_000)
    with pytest.raises(DataError, match="48000 Hz"):
        load(root)
    corpus = load(root, resample=True)
    assert corpus.train.is_resampled
    assert 0.3 * 16_000 < corpus.train.num_samples.min() < 0.7 * 16_000


def test_a_missing_folder_a_missing_list_and_a_missing_file_are_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*trian of speakers \(folders there: dev, test, train\)"):
        load(root, train="trian")
    with pytest.raises(DataError, match=r"no trial list .*typo\.txt; correct `tests`"):
        load(root, tests=("typo.txt",))
    (root / "test/ben/b2.flac").unlink()
    with pytest.raises(DataError, match=r"pairs\.txt:1: no audio file .*test/ben/b2\.flac"):
        load_tests(root)


def test_a_path_outside_of_every_speaker_is_named(root: Path) -> None:
    (root / "pairs.txt").write_text("1 test/b1.wav test/ben/b2.flac\n0 test/ben/b1.wav test/eva/2024/e1.ogg\n")
    with pytest.raises(DataError, match=r"pairs\.txt:1: 'test/b1\.wav' lies in no speaker's folder of"):
        load_tests(root)


def test_a_folder_without_audio_is_named(root: Path) -> None:
    (root / "empty/anna").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no audio file in .*empty/SPEAKER/ \(\.wav, "):
        load(root, train="empty")
