from pathlib import Path

import pytest

from greensv.speaker.audio.suffixes import AUDIO_SUFFIXES, find_audio_file, one_file_each, without_suffix


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_a_file_is_found_whatever_its_suffix(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.b{suffix}").touch()
    assert find_audio_file(str(tmp_path / "a.b.wav")) == str(tmp_path / f"a.b{suffix}")


def test_the_file_as_it_is_named_comes_first_then_the_cheapest(tmp_path: Path) -> None:
    for suffix in (".m4a", ".flac", ".sph"):
        (tmp_path / f"a{suffix}").touch()
    assert find_audio_file(str(tmp_path / "a.m4a")) == str(tmp_path / "a.m4a")
    assert find_audio_file(str(tmp_path / "a.sph")) == str(tmp_path / "a.sph")
    assert find_audio_file(str(tmp_path / "a.wav")) == str(tmp_path / "a.flac")
    assert find_audio_file(str(tmp_path / "b.wav")) is None


def test_a_folder_is_no_audio_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").mkdir()
    assert find_audio_file(str(tmp_path / "a.wav")) is None


def test_only_audio_suffixes_are_taken_off() -> None:
    assert [without_suffix(name) for name in ("a/b.WAV", "a/b.c", "a.wav/b", "v1.2")] == [
        "a/b",
        "a/b.c",
        "a.wav/b",
        "v1.2",
    ]


def test_of_one_recording_in_several_forms_the_cheapest_is_taken_in_place() -> None:
    paths = ["a/1.m4a", "a/1.wav", "a/2.m4a", "b/1.flac", "b/1.m4a"]
    assert one_file_each(paths) == ["a/1.wav", "a/2.m4a", "b/1.flac"]
    assert one_file_each(["a/1.m4a", "b/1.wav"]) == ["a/1.m4a", "b/1.wav"]
