from pathlib import Path

import numpy as np
import pytest
import soundfile

from greensv.errors import DataError
from greensv.speaker.corpora import protocol as protocol_module
from greensv.speaker.corpora.protocol import Measuring, conditions_of, make_protocol, measured_utterances, name_speakers
from greensv.speaker.corpora.trial_list import TrialList, read_trial_list
from greensv.speaker.dataset import Pairs


@pytest.fixture
def trials(tmp_path: Path) -> TrialList:
    for number, name in enumerate("abc"):
        soundfile.write(tmp_path / f"{name}.wav", np.full(4_000 + number, 0.1), 16_000)
    (tmp_path / "pairs.txt").write_text("1 a b\n0 a c\n1 a b\n")
    return read_trial_list(tmp_path / "pairs.txt")


def paths_of(trials: TrialList) -> list[str]:
    return [str(trials.path.parent / f"{name}.wav") for name in trials.names]


def test_all_pairs_are_kept_with_the_lengths_of_the_files(trials: TrialList) -> None:
    protocol = make_protocol(trials, paths=paths_of(trials), speakers=["x", "x", "y"], measuring=Measuring())
    assert protocol.name == "pairs"
    assert protocol.utterances.num_samples.tolist() == [4_000, 4_001, 4_002]
    assert protocol.utterances.speaker_names == ("x", "y")
    assert protocol.pairs.test.tolist() == [1, 2, 1]
    assert protocol.pairs.conditions is None
    assert protocol.models == protocol.condition_names == ()


def test_lengths_are_kept_where_a_cache_is_given(trials: TrialList, tmp_path: Path) -> None:
    make_protocol(trials, paths=paths_of(trials), speakers=["x", "x", "y"], measuring=Measuring())
    assert not (tmp_path / "cache").exists()
    kept = Measuring(cache_dir=tmp_path / "cache")
    make_protocol(trials, paths=paths_of(trials), speakers=["x", "x", "y"], measuring=kept)
    assert (tmp_path / "cache/manifests").is_dir()


def test_conditions_are_told_by_the_test_utterance(trials: TrialList) -> None:
    codes, names = conditions_of(trials, {"b": "noisy", "c": "clean"}.__getitem__)
    assert names == ("clean", "noisy")
    assert codes.tolist() == [1, 0, 1]


def test_a_file_that_cannot_be_used_is_refused_with_its_line_and_the_others_counted(trials: TrialList) -> None:
    for name in "bc":
        (trials.path.parent / f"{name}.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"pairs\.txt:1: audio file .*/b\.wav is empty .*; 1 more of the list's files"):
        make_protocol(trials, paths=paths_of(trials), speakers=["x", "x", "y"], measuring=Measuring())


def test_too_short_a_file_and_another_rate_are_refused_and_the_rate_allowed_where_resampled(trials: TrialList) -> None:
    soundfile.write(trials.path.parent / "a.wav", np.full(8_000, 0.1), 8_000)
    with pytest.raises(DataError, match=r"pairs\.txt:1: audio file .*/a\.wav has a sample rate of 8000 Hz"):
        make_protocol(trials, paths=paths_of(trials), speakers=["x", "x", "y"], measuring=Measuring())
    resampled = Measuring(is_resampled=True)
    utterances = make_protocol(trials, paths=paths_of(trials), speakers=["x", "x", "y"], measuring=resampled).utterances
    assert utterances.is_resampled
    assert utterances.num_samples[0] == 16_000
    soundfile.write(trials.path.parent / "c.wav", np.full(1_000, 0.1), 16_000)
    with pytest.raises(DataError, match=r"pairs\.txt:2: audio file .*/c\.wav lasts less than 0\.1 s"):
        make_protocol(trials, paths=paths_of(trials), speakers=["x", "x", "y"], measuring=resampled)


def test_two_names_of_one_file_are_two_utterances(trials: TrialList) -> None:
    utterances = measured_utterances(
        ids=["one", "two"],
        paths=[paths_of(trials)[0]] * 2,
        speaker_of=["x", "x"],
        where=lambda index: f"line {index}",
        measuring=Measuring(),
    )
    assert utterances.num_samples.tolist() == [4_000, 4_000]


def test_unknown_speakers_are_told_from_the_same_speaker_pairs() -> None:
    pairs = Pairs(
        enrolment=np.array([1, 2, 0], dtype=np.int32),
        test=np.array([2, 3, 4], dtype=np.int32),
        is_target=np.array([True, True, False]),
    )
    named = name_speakers("abcde", [None, None, None, None, "eva"], pairs)
    assert named == ["unknown:a", "unknown:b", "unknown:b", "unknown:b", "eva"]
    assert protocol_module.UNKNOWN_SPEAKER == "unknown:"
