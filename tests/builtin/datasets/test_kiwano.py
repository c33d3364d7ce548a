from pathlib import Path
from typing import Any

import pytest

from greensv.builtin.datasets.kiwano import KiwanoDataset, KiwanoOptions, greensv_datasets
from greensv.errors import DataError
from greensv.speaker.dataset import Corpus, Protocol, ignore_progress
from greensv.testing.dataset_contract import DatasetContract

TRAIN = ("id00012", "id00015", "id00016", "id00017")
TEST = ("id10270", "id10309")
VIDEOS = ("21Uxsk56VDQ", "-_AbCd0EfGh")
TRIALS = (
    "id10270_21Uxsk56VDQ_00001 id10270_-_AbCd0EfGh_00001 target\n"
    "id10270_21Uxsk56VDQ_00001 id10309_21Uxsk56VDQ_00001 nontarget\n"
)
MOVED = {"old_prefix": "/scratch/me/db", "new_prefix": "db"}


def write_tree(root: Path, write_speech: Any) -> Path:
    """As Kiwano's prepare_voxceleb1.py and prepare_voxceleb2.py write it, then moved from /scratch/me to here."""
    for part, speakers in (("voxceleb2", TRAIN), ("voxceleb1", TEST)):
        lines = []
        for speaker in speakers:
            for video in VIDEOS:
                path = f"db/{part}/wav/{speaker}/{video}/00001.wav"
                write_speech(root / path)
                # A duration that is wrong: it is not to be trusted.
                lines.append(f"{speaker}_{video}_00001 {speaker} 99.99 /scratch/me/{path}\n")
        (root / f"data/{part}").mkdir(parents=True)
        (root / f"data/{part}/liste").write_text("".join(lines))
    (root / "data/voxceleb1/voxceleb1-o-cleaned.trials").write_text(TRIALS)
    return root


@pytest.fixture
def root(tmp_path: Path, write_speech: Any) -> Path:
    return write_tree(tmp_path / "kiwano", write_speech)


def options(**given: Any) -> KiwanoOptions:
    usual = {"train": "data/voxceleb2", "test": ("data/voxceleb1",), "num_dev_speakers": 2, **MOVED}
    return KiwanoOptions(**{"tests": ("data/voxceleb1/voxceleb1-o-cleaned.trials",), **usual, **given})


def load(root: Path, **given: Any) -> Corpus:
    return KiwanoDataset().load(root, options(**given), cache_dir=root.parent / "cache", progress=ignore_progress)


def load_tests(root: Path, **given: Any) -> tuple[Protocol, ...]:
    return KiwanoDataset().load_tests(root, options(**given), cache_dir=root.parent / "cache", progress=ignore_progress)


class TestKiwano(DatasetContract):
    dataset = KiwanoDataset()
    options = options()

    @pytest.fixture(scope="class")
    @classmethod
    def root(cls, tmp_path_factory: pytest.TempPathFactory, write_speech: Any) -> Path:
        return write_tree(tmp_path_factory.mktemp("kiwano"), write_speech)


def test_the_hook_returns_the_dataset() -> None:
    assert [dataset.name for dataset in greensv_datasets()] == ["kiwano"]


def test_ids_and_speakers_are_the_list_s_and_durations_the_files_own(root: Path) -> None:
    corpus = load(root)
    assert sorted(corpus.train.speaker_names + corpus.dev.utterances.speaker_names) == list(TRAIN)
    assert set(corpus.train.ids) < {f"{speaker}_{video}_00001" for speaker in TRAIN for video in VIDEOS}
    assert corpus.train.num_samples.max() < 16_000
    assert corpus.dev_rejoins_training


def test_trials_name_utterances_of_the_test_list(root: Path) -> None:
    (protocol,) = load_tests(root)
    assert protocol.name == "voxceleb1-o-cleaned"
    assert protocol.utterances.speaker_names == TEST
    assert protocol.utterances.paths[0] == str(root / "db/voxceleb1/wav/id10270/21Uxsk56VDQ/00001.wav")
    assert protocol.pairs.is_target.tolist() == [True, False]


def test_a_list_may_be_given_by_its_file_and_hold_relative_paths_with_spaces(root: Path) -> None:
    (root / "db/voxceleb2/wav/id00012/-_AbCd0EfGh").rename(root / "db/voxceleb2/wav/id00012/a b")
    liste = root / "data/voxceleb2/liste"
    text = liste.read_text().replace("/scratch/me/", "").replace("id00012/-_AbCd0EfGh", "id00012/a b")
    (root / "mine.txt").write_text(text)
    corpus = load(root, train="mine.txt")
    assert len(corpus.train) + len(corpus.dev.utterances) == 8
    assert corpus.skipped == ()


def test_audio_that_has_moved_is_a_clear_error(root: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        load(root, old_prefix="")


def test_given_development_data_is_read(root: Path) -> None:
    lines = (root / "data/voxceleb2/liste").read_text().splitlines(keepends=True)
    (root / "dev.txt").write_text("".join(lines[4:]))
    with pytest.raises(DataError, match=r"share 2 speakers \(id00016, id00017\)"):
        load(root, dev="dev.txt")
    (root / "data/voxceleb2/liste").write_text("".join(lines[:4]))
    corpus = load(root, dev="dev.txt")
    assert (corpus.train.num_speakers, corpus.dev.utterances.num_speakers) == (2, 2)
    assert not corpus.dev_rejoins_training


def test_a_tested_speaker_in_training_is_refused_before_any_training(root: Path) -> None:
    with (root / "data/voxceleb2/liste").open("a") as file:
        file.write("id10309_x_00001 id10309 1.0 /scratch/me/db/voxceleb1/wav/id10309/21Uxsk56VDQ/00001.wav\n")
    for call in (load, load_tests):
        with pytest.raises(DataError, match=r"trials .*cleaned\.trials and .*liste share 1 speakers \(id10309\)"):
            call(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"liste is empty; Kiwano's recipes"),
        ("a b 1.0\n", r"liste:1: found 'a b 1\.0', expected `<utterance> <speaker> <seconds> <audio file>`"),
        ("a s 1.0 x.wav\n\na  b 1.0 x.wav\n", r"liste:3: found 'a  b 1\.0 x\.wav', expected .*single spaces"),
        ("a s 1.0 x.wav\n\na s 1.0 y.wav\n", r"liste:3: utterance 'a' is listed twice, first in line 1"),
    ],
)
def test_a_bad_list_is_named_with_its_line(root: Path, text: str, message: str) -> None:
    (root / "data/voxceleb2/liste").write_text(text)
    with pytest.raises(DataError, match=message):
        load(root)


def test_an_unknown_utterance_of_the_trials_is_named(root: Path) -> None:
    with (root / "data/voxceleb1/voxceleb1-o-cleaned.trials").open("a") as file:
        file.write("id10270_21Uxsk56VDQ_00001 id10271_x_00001 nontarget\n")
    with pytest.raises(DataError, match=r"cleaned\.trials:3: utterance 'id10271_x_00001' is in none of the lists"):
        load_tests(root)


def test_a_missing_list_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"no list .*data/voxceleb3; Kiwano's recipes"):
        load(root, train="data/voxceleb3")
    with pytest.raises(DataError, match=r"no trial list .*gone\.trials"):
        load(root, tests=("gone.trials",))


def test_one_name_for_two_recordings_in_the_test_lists_is_refused(root: Path) -> None:
    liste = root / "data/voxceleb1/liste"
    (root / "more.txt").write_text(liste.read_text())
    assert len(load_tests(root, test=("data/voxceleb1", "more.txt"))) == 1
    (root / "more.txt").write_text(liste.read_text().replace("/00001.wav", "/00002.wav"))
    for call in (load, load_tests):
        with pytest.raises(
            DataError, match=r"more\.txt:1: utterance 'id10270_.*00002\.wav of id10270, but another list"
        ):
            call(root, test=("data/voxceleb1", "more.txt"))
