import os
from pathlib import Path
from typing import Any

import pytest

from greensv.errors import DataError
from greensv.speaker.corpora.kaldi_directory import find_kaldi_directories, load_utterances, read_kaldi_directory


@pytest.fixture
def root(tmp_path: Path, write_kaldi_tree) -> Path:
    return write_kaldi_tree(tmp_path, {"train": {"anna": 2, "bert": 1}})


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_utterances(read_kaldi_directory(root / "train", root=root), sample_rate_hz=16_000)
    return str(caught.value)


def test_a_directory_is_read_in_the_order_of_wav_scp(root: Path) -> None:
    utterances = load_utterances(read_kaldi_directory(root / "train", root=root), sample_rate_hz=16_000)
    assert utterances.ids == ("anna-0", "anna-1", "bert-0")
    assert utterances.speaker_names == ("anna", "bert")
    assert utterances.paths[2] == str(root / "audio/bert/0.flac")


def test_absolute_paths_and_paths_with_spaces_are_kept(root: Path) -> None:
    (root / "audio/anna/0.flac").rename(root / "audio/anna/first take.flac")
    (root / "train/wav.scp").write_text(f"anna-0 audio/anna/first take.flac\nanna-1 {root}/audio/anna/1.flac\n")
    utterances = load_utterances(read_kaldi_directory(root / "train", root=root), sample_rate_hz=16_000)
    assert utterances.paths == (str(root / "audio/anna/first take.flac"), str(root / "audio/anna/1.flac"))


def test_the_root_and_its_direct_sub_folders_are_found(root: Path) -> None:
    (root / "empty").mkdir()
    assert find_kaldi_directories(root) == [root / "train"]
    (root / "wav.scp").write_text("a b\n")
    assert find_kaldi_directories(root) == [root, root / "train"]


def test_a_folder_that_may_not_be_entered_is_no_data_directory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "lost+found").mkdir()
    stat = os.stat

    def forbidden(path: Any, **more: Any) -> os.stat_result:  # the tests may run as root, whom nobody stops
        if "lost+found/" in os.fspath(path):
            raise PermissionError(13, "Permission denied")
        return stat(path, **more)

    monkeypatch.setattr(os, "stat", forbidden)
    assert find_kaldi_directories(root) == [root / "train"]


def test_a_missing_directory_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"no data directory .*gone; give the folder"):
        read_kaldi_directory(root / "gone", root=root)


def test_an_empty_directory_is_named(root: Path) -> None:
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty is no Kaldi data directory: it has no wav\.scp \(found: nothing\)"):
        read_kaldi_directory(root / "empty", root=root)


def test_a_folder_of_something_else_is_shown(root: Path) -> None:
    with pytest.raises(DataError, match=r"\(found: anna, bert\)"):
        read_kaldi_directory(root / "audio", root=root)


def test_a_file_in_place_of_a_directory_is_named(root: Path) -> None:
    with pytest.raises(DataError, match="is a file, not a data directory"):
        read_kaldi_directory(root / "train/utt2spk", root=root)


def test_an_empty_wav_scp_is_named(root: Path) -> None:
    (root / "train/wav.scp").write_text("\n")
    assert "wav.scp is empty" in refused(root)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "wav.scp",
            "anna-0 audio/anna/0.flac\nanna-1\n",
            "wav.scp:2: found 'anna-1', expected an utterance and an audio",
        ),
        ("wav.scp", "anna-0 sph2pipe -f wav a.sph |\n", "wav.scp:1: pipes a command ('sph2pipe -f wav a.sph |')"),
        (
            "wav.scp",
            "anna-0 a.flac\n\nanna-0 b.flac\n",
            "wav.scp:3: utterance 'anna-0' is listed twice, first in line 1",
        ),
        ("utt2spk", "anna-0 anna\nanna-1\n", "utt2spk:2: found 'anna-1', expected an utterance and a speaker"),
        ("utt2spk", "anna-0 anna smith\n", "utt2spk:1: 'anna smith' is no speaker"),
        ("utt2spk", "anna-0 anna\nanna-0 bert\n", "utt2spk:2: utterance 'anna-0' is listed twice, first in line 1"),
        ("utt2spk", "anna-0 anna\nbert-0 bert\n", "wav.scp:2: utterance 'anna-1' has no speaker"),
        ("segments", "a b 0 1\n", "segments cuts utterances out of longer recordings"),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(root: Path, file: str, text: str, message: str) -> None:
    (root / "train" / file).write_text(text)
    assert message in refused(root)


def test_a_missing_utt2spk_is_named(root: Path) -> None:
    (root / "train/utt2spk").unlink()
    assert "utt2spk is missing" in refused(root)


def test_a_missing_audio_file_is_named_with_its_line(root: Path) -> None:
    (root / "audio/anna/1.flac").unlink()
    assert f"{root}/train/wav.scp:2: no audio file {root}/audio/anna/1.flac" in refused(root)
