from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from greensv.errors import DataError
from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.corpora.data_check import Checking, DataCheck, check_data
from greensv.speaker.dataset import (
    Corpus,
    Dataset,
    Pairs,
    Progress,
    Protocol,
    Skipped,
    Utterances,
    ignore_progress,
)

RATE = 16_000


@dataclass(frozen=True)
class Options:
    pass


class Given(Dataset):
    """Gives what it was given."""

    name = "given"
    options_type = Options

    def __init__(self, corpus: Corpus | DataError, tests: tuple[Protocol, ...] | DataError) -> None:
        self.corpus, self.tests = corpus, tests

    def load(self, root: Path | None, options: Any, *, cache_dir: Path, progress: Progress) -> Corpus:
        if isinstance(self.corpus, DataError):
            raise self.corpus
        return self.corpus

    def load_tests(
        self, root: Path | None, options: Any, *, cache_dir: Path, progress: Progress
    ) -> tuple[Protocol, ...]:
        if isinstance(self.tests, DataError):
            raise self.tests
        return self.tests


def spoken(folder: Path, name: str, *, num_speakers: int = 2, rate: int = RATE, num_channels: int = 1) -> Utterances:
    """Two utterances a speaker, of 1, 2, 3, … seconds."""
    num = 2 * num_speakers
    paths = [folder / f"{name}{i}.wav" for i in range(num)]
    for i, path in enumerate(paths):
        samples = np.random.default_rng(i).uniform(-0.5, 0.5, ((i + 1) * rate, num_channels))
        soundfile.write(path, samples, rate)
    return build_utterances(
        ids=[path.stem for path in paths],
        paths=[str(path) for path in paths],
        speaker_of=[f"{name}-speaker{i // 2}" for i in range(num)],
        num_samples=RATE * np.arange(1, num + 1),
        is_resampled=rate != RATE,
    )


def protocol_of(name: str, utterances: Utterances, **more: Any) -> Protocol:
    pairs = Pairs(
        enrolment=np.array([0, 0, 1, 1], dtype=np.int32),
        test=np.array([1, 2, 2, 3], dtype=np.int32),
        is_target=np.array([True, False, False, False]),
    )
    return Protocol(name=name, utterances=utterances, **{"pairs": pairs, **more})


Check = Callable[..., DataCheck]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(train=spoken(tmp_path, "train", num_speakers=3), dev=protocol_of("dev", spoken(tmp_path, "dev")))


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def check(corpus: Any, tests: Any = (), **changes: Any) -> DataCheck:
        checking = Checking(cache_dir=tmp_path / "cache", progress=ignore_progress, crop_s=2.5)
        return check_data(Given(corpus, tests), None, Options(), checking=replace(checking, **changes))

    return check


def test_parts_and_pairs_are_counted(tmp_path: Path, corpus: Corpus, check: Check) -> None:
    found = check(corpus, (protocol_of("O", spoken(tmp_path, "test")),))
    assert found.is_usable
    assert found.train is not None
    train = found.train
    assert (train.num_speakers, train.num_utterances, train.duration_s) == (3, 6, 21.0)
    assert (train.shortest_s, train.longest_s, train.num_shorter_than_crop) == (1.0, 6.0, 2)
    assert (train.sample_rates_hz, train.num_multichannel, train.defects) == ({RATE: 6}, 0, ())
    assert found.dev is not None
    assert (found.dev.num_target, found.dev.num_nontarget) == (1, 3)
    (test,) = found.tests
    assert (test.name, test.part.num_utterances, test.num_target, test.num_models) == ("O", 4, 1, 0)
    assert found.skipped == ()


def test_repeated_and_contradictory_pairs_are_counted_and_nothing_is_dropped(
    tmp_path: Path, corpus: Corpus, check: Check
) -> None:
    pairs = Pairs(
        enrolment=np.array([0, 0, 1, 0, 2, 2], dtype=np.int32),
        test=np.array([1, 1, 0, 2, 3, 3], dtype=np.int32),
        is_target=np.array([True, True, True, False, True, False]),
    )
    (test,) = check(corpus, (protocol_of("O", spoken(tmp_path, "test"), pairs=pairs),)).tests
    assert (test.num_target, test.num_nontarget, test.num_duplicates, test.num_contradictory) == (4, 2, 2, 2)


def test_a_model_is_not_the_utterance_of_its_number(tmp_path: Path, corpus: Corpus, check: Check) -> None:
    pairs = Pairs(
        enrolment=np.array([0, 1, 0], dtype=np.int32),
        test=np.array([1, 0, 3], dtype=np.int32),
        is_target=np.array([True, False, False]),
        conditions=np.array([0, 1, 1], dtype=np.int16),
    )
    models = (np.array([0, 1], dtype=np.int32), np.array([2], dtype=np.int32))
    protocol = protocol_of(
        "E", spoken(tmp_path, "test"), pairs=pairs, models=models, condition_names=("song", "speech")
    )
    (test,) = check(corpus, (protocol,)).tests
    assert (test.num_models, test.num_duplicates, test.num_contradictory) == (2, 0, 0)
    assert test.conditions == {"song": 1, "speech": 2}


def test_a_corpus_that_cannot_be_loaded_is_a_problem(check: Check) -> None:
    found = check(DataError("no folder /data"))
    assert (found.is_usable, found.train, found.problems) == (False, None, ("no folder /data",))


def test_tests_that_cannot_be_loaded_are_a_problem_and_the_corpus_is_still_counted(
    corpus: Corpus, check: Check
) -> None:
    found = check(corpus, DataError("no list"))
    assert found.problems == ("the tests cannot be used: no list",)
    assert found.train is not None


def test_a_speaker_in_training_and_test_is_a_problem(corpus: Corpus, check: Check) -> None:
    found = check(corpus, (protocol_of("O", corpus.train),))
    assert not found.is_usable
    assert "the training data and test O share 3 speakers (train-speaker0, " in found.problems[0]


def test_skipped_files_are_counted_by_reason(corpus: Corpus, check: Check) -> None:
    skipped = [Skipped(path=f"/{i}.wav", reason="is missing") for i in range(5)]
    skipped.insert(0, Skipped(path="/a.wav", reason="is empty (0 bytes)"))
    found = check(replace(corpus, skipped=tuple(skipped)))
    assert [(defect.reason, defect.num_files, defect.examples) for defect in found.skipped] == [
        ("is missing", 5, ("/0.wav", "/1.wav", "/2.wav")),
        ("is empty (0 bytes)", 1, ("/a.wav",)),
    ]
    assert found.is_usable


def test_rates_and_channels_of_the_files_are_counted(tmp_path: Path, corpus: Corpus, check: Check) -> None:
    found = check(replace(corpus, train=spoken(tmp_path, "cd", rate=44_100, num_channels=2)))
    assert found.train is not None
    assert (found.train.sample_rates_hz, found.train.num_multichannel) == ({44_100: 4}, 4)


def test_another_rate_than_the_features_need_is_a_problem(corpus: Corpus, check: Check) -> None:
    assert check(corpus, sample_rate_hz=RATE).is_usable
    problems = check(corpus, sample_rate_hz=8_000).problems
    assert len(problems) == 2
    assert "the training data has a sample rate of 16000 Hz, the study's features are for 8000 Hz" in problems[0]


def damage(path: str) -> None:
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])


def test_decoding_finds_what_headers_do_not_tell(tmp_path: Path, corpus: Corpus, check: Check) -> None:
    soundfile.write(corpus.train.paths[0], np.zeros(RATE), RATE)
    assert check(corpus).train.defects == ()  # type: ignore[union-attr]
    found = check(corpus, is_decoded=True)
    assert found.is_usable
    assert [defect.num_files for defect in found.train.defects] == [1]  # type: ignore[union-attr]


def test_an_undecodable_file_of_a_pair_is_a_problem(corpus: Corpus, check: Check) -> None:
    damage(corpus.dev.utterances.paths[2])
    found = check(corpus, is_decoded=True)
    assert found.problems == (
        f"1 of 4 files of protocol dev cannot be decoded, such as {corpus.dev.utterances.paths[2]}, which is damaged: "
        "samples are missing at its end; replace them, or remove them, also from the lists",
    )


def test_as_many_undecodable_training_files_are_allowed_as_a_training_leaves_out(
    tmp_path: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = spoken(tmp_path, "many", num_speakers=6)
    corpus = Corpus(train=train, dev=protocol_of("dev", spoken(tmp_path, "dev")))
    for path in train.paths[:10]:
        damage(path)
    assert check(corpus, is_decoded=True).is_usable
    damage(train.paths[10])
    (problem,) = check(corpus, is_decoded=True).problems
    assert problem.startswith("11 of 12 files of the training data cannot be decoded")
    monkeypatch.setattr("greensv.speaker.corpora.data_check.SHARE_TOO_MANY", 11 / 12)
    assert check(corpus, is_decoded=True).is_usable
