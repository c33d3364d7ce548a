from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from greensv.builtin.datasets.kaldi import KaldiDataset, KaldiOptions, greensv_datasets
from greensv.config.load import validate
from greensv.errors import DataError
from greensv.speaker.corpora import manifest
from greensv.speaker.dataset import Corpus, Protocol, ignore_progress
from greensv.testing.dataset_contract import DatasetContract

TRAIN = {f"train{i}": 4 for i in range(6)}
TRIALS = "1 carl-0 carl-1\n0 carl-0 dora-0\n0 dora-1 carl-1\n1 dora-0 dora-1\n"


@pytest.fixture(scope="session")
def write_root(write_kaldi_tree):
    def write(root: Path) -> Path:
        write_kaldi_tree(root, {"train": TRAIN, "dev": {"anna": 3, "bert": 3}, "eval": {"carl": 2, "dora": 2}})
        (root / "eval/trials.txt").write_text(TRIALS)
        return root

    return write


@pytest.fixture
def root(tmp_path: Path, write_root) -> Path:
    return write_root(tmp_path / "data")


def load(root: Path | None, **options: Any) -> Corpus:
    cache = (root or Path("/")).parent / "cache"
    return KaldiDataset().load(root, KaldiOptions(**options), cache_dir=cache, progress=ignore_progress)


def load_tests(root: Path, **options: Any) -> tuple[Protocol, ...]:
    cache = root.parent / "cache"
    return KaldiDataset().load_tests(root, KaldiOptions(**options), cache_dir=cache, progress=ignore_progress)


class TestKaldiWithHeldOutSpeakers(DatasetContract):
    dataset = KaldiDataset()
    options = KaldiOptions(num_dev_speakers=2, tests=("eval/trials.txt",))

    @pytest.fixture(scope="class")
    @classmethod
    def root(cls, tmp_path_factory: pytest.TempPathFactory, write_root) -> Path:
        return write_root(tmp_path_factory.mktemp("held-out"))


class TestKaldiWithDevelopmentData(TestKaldiWithHeldOutSpeakers):
    options = KaldiOptions(dev="dev", tests=("eval/trials.txt",))


def test_the_hook_returns_the_dataset() -> None:
    assert [dataset.name for dataset in greensv_datasets()] == ["kaldi"]


def test_options_come_from_toml_and_mistakes_are_reported() -> None:
    options, problems = validate(KaldiOptions, {"dev": "dev", "tests": ["a.txt", "b.txt"]})
    assert problems == []
    assert options == KaldiOptions(dev="dev", tests=("a.txt", "b.txt"))
    _, problems = validate(KaldiOptions, {"num_dev_speakers": 1, "trian": "x"})
    assert sorted(problem.where for problem in problems) == ["num_dev_speakers", "trian"]


def test_held_out_speakers_return_for_the_full_recipe(root: Path) -> None:
    corpus = load(root, num_dev_speakers=2, num_dev_target_pairs=5, num_dev_nontarget_pairs=7)
    assert corpus.dev_rejoins_training
    assert (corpus.train.num_speakers, corpus.dev.utterances.num_speakers) == (4, 2)
    assert (len(corpus.dev.pairs), int(corpus.dev.pairs.is_target.sum())) == (12, 5)


def test_given_development_data_never_returns(root: Path) -> None:
    corpus = load(root, dev="dev")
    assert not corpus.dev_rejoins_training
    assert corpus.train.num_speakers == 6
    assert corpus.dev.utterances.speaker_names == ("anna", "bert")
    assert (len(corpus.dev.pairs), int(corpus.dev.pairs.is_target.sum())) == (15, 6)


def test_given_development_pairs_are_kept_as_they_are(root: Path) -> None:
    (root / "dev/pairs.txt").write_text("1 anna-0 anna-1\n0 anna-0 bert-0\n0 anna-0 bert-0\n")
    corpus = load(root, dev="dev", dev_pairs="dev/pairs.txt")
    assert corpus.dev.utterances.ids == ("anna-0", "anna-1", "bert-0")
    assert corpus.dev.pairs.test.tolist() == [1, 2, 2]


def test_development_pairs_need_their_directory(root: Path) -> None:
    with pytest.raises(DataError, match=r"dev_pairs = 'dev/pairs\.txt' needs the data directory"):
        load(root, dev_pairs="dev/pairs.txt")


def test_no_root_an_absent_root_and_an_empty_root_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs the folder of its data; give it as `--data-root`"):
        load(None)
    with pytest.raises(DataError, match="it does not exist"):
        load(tmp_path / "gone")
    with pytest.raises(DataError, match=f"{tmp_path} is empty"):
        load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="it is a file"):
        load(tmp_path / "file")


def test_a_speaker_of_training_and_development_is_refused(root: Path) -> None:
    (root / "dev/utt2spk").write_text(
        "".join(f"{name}-{i} {name}\n" for name in ("anna", "bert") for i in range(3)).replace(" anna", " train3")
    )
    with pytest.raises(DataError, match=r"share 1 speakers \(train3\)"):
        load(root, dev="dev")


def test_a_tested_speaker_of_the_training_data_is_refused(root: Path) -> None:
    (root / "eval/trials.txt").write_text("1 carl-0 carl-1\n0 carl-0 train0-0\n")
    for call in (load, load_tests):  # before anything is trained, too
        with pytest.raises(DataError, match=r"test list .*trials\.txt and .*train share 1 speakers \(train0\)"):
            call(root, tests=("eval/trials.txt",))


def test_a_tested_file_of_the_training_data_is_refused_where_speakers_are_unknown(root: Path) -> None:
    (root / "eval/utt2spk").unlink()
    (root / "eval/wav.scp").write_text("carl-0 audio/carl/0.flac\ncarl-1 audio/carl/1.flac\nx audio/train0/0.flac\n")
    (root / "train/utt2spk").write_text((root / "train/utt2spk").read_text().replace("train0-0 train0\n", ""))
    (root / "eval/trials.txt").write_text("1 carl-0 carl-1\n0 carl-0 x\n")
    with pytest.raises(DataError, match=r"share 1 audio files \(.*audio/train0/0\.flac\)"):
        load_tests(root, tests=("eval/trials.txt",))


def test_a_test_list_naming_unknown_utterances_is_refused_with_its_line(root: Path) -> None:
    (root / "eval/trials.txt").write_text(TRIALS + "0 carl-0 nobody-7\n")
    with pytest.raises(DataError, match=r"eval/trials\.txt:5: unknown utterance 'nobody-7'"):
        load_tests(root, tests=("eval/trials.txt",))


SPOILT = pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
        (lambda path: path.write_bytes(b"RIFF or so"), "is damaged or no audio file that libsndfile reads"),
        (lambda path: soundfile.write(path, np.zeros(0), 16_000, format="WAV"), "holds no samples"),
        (
            lambda path: soundfile.write(path, np.zeros(4_000), 8_000),
            "has a sample rate of 8000 Hz, 16000 Hz is needed",
        ),
        (lambda path: soundfile.write(path, np.zeros(400), 16_000), "lasts less than 0.1 s"),
        (lambda path: path.unlink(), "is missing"),
    ],
)


@SPOILT
def test_training_audio_that_cannot_be_used_is_left_out_and_reported(root: Path, spoil: Any, reason: str) -> None:
    spoil(root / "audio/train1/2.flac")
    corpus = load(root, num_dev_speakers=2)
    (skipped,) = corpus.skipped
    assert (skipped.path, skipped.reason) == (str(root / "audio/train1/2.flac"), reason)
    assert "train1-2" not in corpus.train.ids + corpus.dev.utterances.ids
    assert len(corpus.train) + len(corpus.dev.utterances) == 23


@SPOILT
def test_audio_of_given_pairs_that_cannot_be_used_is_refused_with_its_line(root: Path, spoil: Any, reason: str) -> None:
    (root / "dev/pairs.txt").write_text("1 anna-0 anna-1\n0 anna-0 bert-0\n")
    spoil(root / "audio/bert/0.flac")
    with pytest.raises(DataError) as caught:
        load(root, dev="dev", dev_pairs="dev/pairs.txt")
    where = f"{root}/dev/pairs.txt:2: "
    assert str(caught.value).startswith((f"{where}audio file {root}/audio/bert/0.flac {reason}", f"{where}no audio"))
    spoil(root / "audio/carl/0.flac")
    with pytest.raises(DataError, match=r"trials\.txt:1: .*audio/carl/0\.flac"):
        load_tests(root, tests=("eval/trials.txt",))


def test_a_corpus_of_which_hardly_anything_can_be_used_is_refused(root: Path) -> None:
    for speaker in ("train0", "train1", "train2"):
        (root / f"audio/{speaker}/0.flac").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        load(root)


def test_another_sample_rate_can_be_asked_for(root: Path) -> None:
    with pytest.raises(DataError, match="16000 Hz, 8000 Hz is needed"):
        load(root, num_dev_speakers=2, sample_rate_hz=8_000)


def test_a_second_load_reads_lengths_from_the_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(root, dev="dev")

    def refuse(path: str) -> None:
        raise AssertionError(f"{path} was opened again")

    monkeypatch.setattr(manifest, "probe_audio", refuse)
    assert load(root, dev="dev").train.num_samples.tolist() == first.train.num_samples.tolist()


def test_speechocean762_loads_with_its_published_counts(speechocean762: Path) -> None:
    corpus = load(speechocean762)
    assert (len(corpus.train), corpus.train.num_speakers) == (2_800, 140)
    assert (len(corpus.dev.utterances), corpus.dev.utterances.num_speakers) == (400, 20)
    assert int(corpus.dev.pairs.is_target.sum()) == 3_800


def test_a_test_list_that_is_missing_is_found_before_any_training(root: Path):
    with pytest.raises(DataError, match=r"no trial list .*eval/typo\.txt; correct `tests`"):
        load(root, num_dev_speakers=2, tests=("eval/typo.txt",))
