from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from greensv.errors import DataError
from greensv.speaker.corpora import text_lines
from greensv.speaker.corpora.trial_list import TrialList, count_repetitions, read_trial_list, resolve

VOXCELEB = "1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n"
KALDI = "a/1.wav a/2.wav target\na/1.wav b/1.wav nontarget\n"
CN_CELEB = "a/1.wav a/2.wav 1\na/1.wav b/1.wav 0\n"


def trials_of(tmp_path: Path, text: str) -> TrialList:
    path = tmp_path / "trials.txt"
    path.write_text(text)
    return read_trial_list(path)


@pytest.fixture
def root(tmp_path: Path, write_kaldi_tree) -> Path:
    return write_kaldi_tree(tmp_path / "data", {"train": {"anna": 2}, "eval": {"bert": 3, "carl": 2}})


@pytest.mark.parametrize("text", [VOXCELEB, KALDI, CN_CELEB])
def test_the_three_forms_say_the_same(tmp_path: Path, text: str) -> None:
    trials = trials_of(tmp_path, text)
    assert trials.enrolments == ("a/1.wav", "a/1.wav")
    assert trials.tests == ("a/2.wav", "b/1.wav")
    assert trials.is_target.tolist() == [True, False]
    assert trials.line_numbers.tolist() == [1, 2]


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    assert trials_of(tmp_path, "\n" + VOXCELEB.replace("\n", "\n\n")).line_numbers.tolist() == [2, 4]


def test_a_pair_listed_twice_counts_twice(tmp_path: Path) -> None:
    trials = trials_of(tmp_path, VOXCELEB + VOXCELEB)
    assert len(trials) == 4
    assert trials.is_target.sum() == 2


def test_names_come_once_and_pairs_count_them(tmp_path: Path) -> None:
    trials = trials_of(tmp_path, "1 b a\n0 b c\n0 a c\n")
    assert trials.names == ("b", "a", "c")
    assert (trials.enrolment.tolist(), trials.test.tolist()) == ([0, 0, 1], [1, 2, 2])
    assert trials.where(2) == f"{tmp_path / 'trials.txt'}:2"


def test_labels_that_are_names_too_are_told_apart(tmp_path: Path) -> None:
    trials = trials_of(tmp_path, "target 1 target\nnontarget 1 nontarget\n")
    assert trials.names == ("target", "1", "nontarget")
    assert trials.is_target.tolist() == [True, False]


def test_what_is_repeated_or_contradicts_is_counted_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "1 a b\n0 a c\n1 b a\n0 a c\n0 a b\n0 d e\n"
    trials = trials_of(tmp_path, text)
    # a-b comes three times, twice as target; a-c twice.
    assert (len(trials), trials.num_duplicates, trials.num_contradictory) == (6, 2, 3)
    assert "2 of 6 pairs are listed again, 3 are listed with both labels; all are kept" in caplog.text


def test_a_list_that_repeats_nothing_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trials = trials_of(tmp_path, VOXCELEB)
    assert (trials.num_duplicates, trials.num_contradictory) == (0, 0)
    assert caplog.text == ""


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=30))
def test_repetitions_are_those_that_counting_by_hand_gives(rows: list[tuple[int, int, bool]]) -> None:
    pairs = [(frozenset((first, second)), label) for first, second, label in rows]
    both = [pair for pair, label in pairs if (pair, not label) in pairs]
    columns = [np.array([row[i] for row in rows], dtype=kind) for i, kind in enumerate((np.int32, np.int32, np.bool_))]
    counted = count_repetitions(*columns)
    assert (counted.num_duplicates, counted.num_contradictory) == (len(pairs) - len(set(pairs)), len(both))


def test_a_list_longer_than_a_block_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "_BLOCK_CHARACTERS", 64)
    lines = [f"{number % 2} utterance{number} utterance{number // 3}" for number in range(200)]
    trials = trials_of(tmp_path, "\n".join(lines))
    assert [
        f"{int(t)} {a} {b}" for t, a, b in zip(trials.is_target, trials.enrolments, trials.tests, strict=True)
    ] == lines
    assert trials.line_numbers.tolist() == list(range(1, 201))
    with pytest.raises(DataError, match=r"trials\.txt:202: found '1 a', expected three words"):
        trials_of(tmp_path, "\n".join([*lines, "", "1 a"]))


def test_lists_of_windows_are_read(tmp_path: Path) -> None:
    (tmp_path / "trials.txt").write_bytes(b"\xef\xbb\xbf1 a b\r\n0 a c\r\n")
    assert read_trial_list(tmp_path / "trials.txt").names == ("a", "b", "c")


def test_a_list_that_says_wav_of_flac_files_is_resolved(tmp_path: Path, root: Path) -> None:
    text = "1 audio/bert/0.wav audio/bert/1.wav\n0 audio/bert/0.wav audio/carl/0.wav\n"
    utterances = resolve(trials_of(tmp_path, text), root).utterances
    assert utterances.paths[0] == str(root / "audio/bert/0.flac")
    assert utterances.speaker_names == ("bert", "carl")
    assert utterances.ids[0] == "audio/bert/0.wav"


def test_the_form_may_not_change_within_a_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trials\.txt:3: found 'c d target', the lines before .* `1 enrolment test`"):
        trials_of(tmp_path, VOXCELEB + "c d target\n")


def test_a_line_of_no_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trials\.txt:1: found 'same a b', expected a line of one of the forms"):
        trials_of(tmp_path, "same a b\n")


def test_a_line_without_three_words_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trials\.txt:2: found '1 a', expected three words"):
        trials_of(tmp_path, "1 a b\n1 a\n")


def test_a_list_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can be read both as `1 enrolment test` and as `enrolment test 1`"):
        trials_of(tmp_path, "1 a 0\n0 b 1\n")


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_list_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"trials\.txt is empty"):
        trials_of(tmp_path, text)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*gone\.txt"):
        read_trial_list(tmp_path / "gone.txt")


def test_a_list_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "trials.txt").write_bytes(b"1 a \xff\n")
    with pytest.raises(DataError, match=r"trials\.txt is not UTF-8 text"):
        read_trial_list(tmp_path / "trials.txt")


@pytest.mark.parametrize(("label", "missing"), [("1", "different"), ("0", "same")])
def test_a_list_of_one_kind_of_pairs_is_refused(tmp_path: Path, label: str, missing: str) -> None:
    with pytest.raises(DataError, match=f"needs {missing}-speaker pairs too"):
        trials_of(tmp_path, f"{label} a b\n{label} a c\n")


def test_names_are_found_as_utterances_of_data_directories(tmp_path: Path, root: Path) -> None:
    text = "1 bert-0 bert-2\n0 carl-1 bert-0\n1 bert-0 bert-2\n"
    protocol = resolve(trials_of(tmp_path, text), root)
    assert protocol.name == "trials"
    assert protocol.utterances.ids == ("bert-0", "bert-2", "carl-1")
    assert protocol.utterances.speaker_names == ("bert", "carl")
    assert protocol.utterances.paths[0] == str(root / "audio/bert/0.flac")
    assert protocol.pairs.enrolment.tolist() == [0, 2, 0]
    assert protocol.pairs.test.tolist() == [1, 0, 1]
    assert protocol.pairs.is_target.tolist() == [True, False, True]
    lengths = [soundfile.info(path).frames for path in protocol.utterances.paths]
    assert protocol.utterances.num_samples.tolist() == lengths


def test_names_are_found_as_paths_of_wav_scp_with_their_speakers(tmp_path: Path, root: Path) -> None:
    protocol = resolve(
        trials_of(tmp_path, "1 audio/bert/0.flac audio/bert/1.flac\n0 audio/bert/0.flac audio/carl/0.flac\n"), root
    )
    assert protocol.utterances.speaker_names == ("bert", "carl")


def test_names_are_found_in_the_list_s_own_folder(tmp_path: Path, write_kaldi_tree) -> None:
    root = write_kaldi_tree(tmp_path / "data", {"deep/eval": {"bert": 2, "carl": 1}})
    trials = root / "deep/eval/trials"
    trials.write_text("bert-0 bert-1 target\nbert-0 carl-0 nontarget\n")
    assert resolve(read_trial_list(trials), root).utterances.speaker_names == ("bert", "carl")


def test_files_without_a_data_directory_get_speakers_from_the_pairs(tmp_path: Path, root: Path) -> None:
    for part in ("train", "eval"):
        (root / part / "wav.scp").unlink()
    b, c = "audio/bert", "audio/carl"
    text = f"1 {b}/1.flac {b}/0.flac\n1 {b}/2.flac {b}/1.flac\n0 {b}/0.flac {c}/0.flac\n0 {c}/1.flac {b}/2.flac\n"
    utterances = resolve(trials_of(tmp_path, text), root).utterances
    speaker_of = dict(zip(utterances.ids, (utterances.speaker_names[s] for s in utterances.speakers), strict=True))
    assert {speaker_of[f"{b}/{i}.flac"] for i in range(3)} == {f"unknown:{b}/1.flac"}
    assert speaker_of[f"{c}/0.flac"] != speaker_of[f"{c}/1.flac"]


def test_an_unknown_utterance_is_named_with_list_line_and_places(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DataError) as caught:
        resolve(trials_of(tmp_path, "1 bert-0 bert-1\n0 bert-0 dora-0\n"), root)
    message = str(caught.value)
    assert f"{tmp_path / 'trials.txt'}:2: unknown utterance 'dora-0'" in message
    for place in (root / "eval", root / "train", root / "dora-0"):
        assert str(place) in message


def test_a_name_with_two_meanings_is_refused(tmp_path: Path, root: Path) -> None:
    (root / "train" / "wav.scp").write_text("bert-0 audio/anna/0.flac\n")
    with pytest.raises(DataError, match=r"trials\.txt:1: utterance 'bert-0' is .* in one data directory and"):
        resolve(trials_of(tmp_path, "1 bert-0 bert-1\n0 bert-0 carl-0\n"), root)


def test_damaged_audio_is_named_with_list_and_line(tmp_path: Path, root: Path) -> None:
    (root / "audio/carl/0.flac").write_bytes(b"")
    with pytest.raises(DataError, match=r"trials\.txt:2: audio file .*carl/0\.flac is empty"):
        resolve(trials_of(tmp_path, "1 bert-0 bert-1\n0 bert-0 carl-0\n"), root)


def test_a_missing_data_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data directory .*nowhere"):
        resolve(trials_of(tmp_path, VOXCELEB), tmp_path / "nowhere")


def test_the_lists_of_speechocean762_have_the_published_counts(speechocean762: Path) -> None:
    trials = read_trial_list(speechocean762 / "eval/trials_o.txt")
    assert (len(trials), int(trials.is_target.sum())) == (38_000, 7_600)
    protocol = resolve(trials, speechocean762)
    assert (len(protocol.utterances), protocol.utterances.num_speakers) == (800, 40)
    speakers = protocol.utterances.speakers
    same = speakers[protocol.pairs.enrolment] == speakers[protocol.pairs.test]
    assert (same == trials.is_target).all()
