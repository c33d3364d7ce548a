from pathlib import Path

import pytest

from greensv.errors import DataError
from greensv.speaker.corpora.manifest import find_audio, measure


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_files_with_the_suffixes_are_found_at_any_depth_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.wav", "b/1.FLAC", "a/x/y/z/3.wav", "top.wav", "notes.txt", "b/._1.wav", ".cache/4.wav")
    found = find_audio(tmp_path, (".wav", ".flac"))
    assert found == [str(tmp_path / name) for name in ("a/x/y/z/3.wav", "b/1.FLAC", "b/2.wav", "top.wav")]


def test_links_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "disk/anna/1.wav", "data/bert/2.wav", "data/folder.wav/3.wav")
    (tmp_path / "data/anna").symlink_to(tmp_path / "disk/anna")
    (tmp_path / "data/one.wav").symlink_to(tmp_path / "disk/anna/1.wav")
    (tmp_path / "data/gone.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "data/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/bert/round").symlink_to(tmp_path / "data/bert")
    (tmp_path / "disk/anna/back").symlink_to(tmp_path / "disk")
    (tmp_path / "data/gone.txt").symlink_to(tmp_path / "nowhere")
    expected = ["anna/1.wav", "anna/back/anna/1.wav", "bert/2.wav", "folder.wav/3.wav", "gone.wav", "one.wav"]
    found = find_audio(tmp_path / "data", (".wav",))
    assert [Path(path).relative_to(tmp_path / "data").as_posix() for path in found if "back" not in path] == [
        name for name in expected if "back" not in name
    ]
    assert sum("back" in path for path in found) <= 1


def test_a_link_that_leads_nowhere_is_counted_as_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/gone.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "data/itself.wav").symlink_to(tmp_path / "data/itself.wav")
    found = find_audio(tmp_path / "data", (".wav",))
    measured = measure(found, sample_rate_hz=16_000, cache_dir=tmp_path / "cache")
    assert [Path(skipped.path).name for skipped in measured.skipped] == ["gone.wav", "itself.wav"]
    assert measured.skipped[0].reason == "is missing"


def test_progress_counts_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.wav", "b/2.wav")
    calls: list[tuple[str, int, int]] = []
    find_audio(tmp_path, (".wav",), lambda *call: calls.append(call))
    assert calls == [("looking for audio files", 1, 3), ("looking for audio files", 3, 3)]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"folder .*gone cannot be read: No such file or directory"):
        find_audio(tmp_path / "gone", (".wav",))
