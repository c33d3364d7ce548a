from pathlib import Path

import numpy as np
import pytest
import soundfile

from greensv.errors import DataError
from greensv.speaker.corpora.audio_list import AudioList, measure_audio_list, read_audio_list


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_are_called_as_they_are_typed(here: Path) -> None:
    listed = read_audio_list([Path("b.wav"), Path("x y/a.flac"), Path("/z/c.wav"), Path("b.wav")])
    assert listed.ids == ("b.wav", "x y/a.flac", "/z/c.wav")
    assert listed.paths == (f"{here}/b.wav", f"{here}/x y/a.flac", "/z/c.wav")
    assert listed.num_repeated == 1


def test_lists_name_files_relative_to_the_root(here: Path) -> None:
    (here / "wav.scp").write_text("anna audio/a 1.wav\n\nben /abs/b.wav\n")
    (here / "files.txt").write_text("audio/a 1.wav\n\n /abs/b.wav \n")
    scp = read_audio_list([], [Path("wav.scp")], root=Path("root"))
    assert (scp.ids, scp.paths) == (("anna", "ben"), (f"{here}/root/audio/a 1.wav", "/abs/b.wav"))
    paths = read_audio_list([], [Path("files.txt")], root=Path("/data"))
    assert (paths.ids, paths.paths) == (("audio/a 1.wav", "/abs/b.wav"), ("/data/audio/a 1.wav", "/abs/b.wav"))


def test_kaldi_directories_are_files_and_lists(here: Path) -> None:
    (here / "eval").mkdir()
    (here / "eval" / "wav.scp").write_text("anna a.wav\n")
    assert read_audio_list([Path("eval")]) == read_audio_list([], [Path("eval")])
    assert read_audio_list([Path("eval"), Path("c.wav")]).ids == ("anna", "c.wav")


def test_two_names_of_one_file_are_two_utterances_and_two_files_of_one_name_an_error(here: Path) -> None:
    (here / "two.scp").write_text("a 1.wav\nb 1.wav\n")
    assert read_audio_list([], [Path("two.scp")]).paths == (f"{here}/1.wav",) * 2
    (here / "clash.scp").write_text("a 1.wav\na 2.wav\n")
    with pytest.raises(DataError, match=r"clash\.scp:2: 'a' is the name of .*2\.wav and of .*1\.wav"):
        read_audio_list([], [Path("clash.scp")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1.wav\nb\n", r"l\.scp:2: found 'b', expected a name and an audio file"),
        ("a sox 1.wav |\n", r"l\.scp:1: pipes a command"),
        ("\n", r"l\.scp names no audio file"),
    ],
)
def test_malformed_list_names_file_and_line(text: str, message: str, here: Path) -> None:
    (here / "l.scp").write_text(text)
    with pytest.raises(DataError, match=message):
        read_audio_list([], [Path("l.scp")])


def test_what_is_not_there_is_an_error(here: Path) -> None:
    with pytest.raises(DataError, match="no audio file is given"):
        read_audio_list([])
    with pytest.raises(DataError, match=r"no file .*gone\.txt"):
        read_audio_list([], [Path("gone.txt")])
    (here / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder is a folder, and no Kaldi data directory.*folder/\*\.wav"):
        read_audio_list([Path("folder")])
    (here / "folder" / "wav.scp").write_text("a b.wav\n")
    (here / "folder" / "segments").write_text("")
    with pytest.raises(DataError, match="cuts utterances out of longer recordings"):
        read_audio_list([Path("folder")])


def test_what_can_be_used_is_measured_and_the_rest_told(here: Path) -> None:
    for name, rate in (("a", 16_000), ("b", 8_000), ("c", 16_000)):
        soundfile.write(f"{name}.wav", np.ones(4_000) / 2, rate)
    (here / "c.wav").write_bytes(b"")
    listed = AudioList(ids=("A", "B", "C"), paths=tuple(f"{here}/{name}.wav" for name in "abc"))
    utterances, skipped = measure_audio_list(listed, sample_rate_hz=16_000, cache_dir=here / "cache")
    assert (utterances.ids, utterances.num_samples.tolist()) == (("A",), [4_000])
    assert [file.path for file in skipped] == [f"{here}/b.wav", f"{here}/c.wav"]
    assert "8000 Hz" in skipped[0].reason
    utterances, skipped = measure_audio_list(listed, sample_rate_hz=16_000, cache_dir=here / "cache", is_resampled=True)
    assert (utterances.ids, utterances.num_samples.tolist()) == (("A", "B"), [4_000, 8_000])
    assert utterances.is_resampled
    assert len(skipped) == 1
