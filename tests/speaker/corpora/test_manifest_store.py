import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greensv.speaker.corpora import manifest_store
from greensv.speaker.corpora.manifest_store import FACTS, Facts, alone, compact, path_keys, recall, remember


def facts_of(**num_samples: int) -> Facts:
    facts = np.zeros(len(num_samples), dtype=FACTS)
    facts["key"] = path_keys(list(num_samples))
    facts["size"], facts["mtime_ns"], facts["sample_rate_hz"], facts["num_channels"] = 7, 8, 16_000, 1
    facts["num_samples"] = list(num_samples.values())
    return facts


def asked(*names: str) -> Facts:
    facts = facts_of(**dict.fromkeys(names, 0))
    facts["sample_rate_hz"] = facts["num_channels"] = 0
    return facts


def test_what_was_remembered_is_recalled(tmp_path: Path) -> None:
    remember(tmp_path / "store", facts_of(a=10, b=20))
    remember(tmp_path / "store", facts_of(c=30))
    facts = asked("c", "x", "a")
    assert recall(tmp_path / "store", facts).tolist() == [1]
    assert facts["num_samples"].tolist() == [30, 0, 10]
    assert facts["sample_rate_hz"].tolist() == [16_000, 0, 16_000]


def test_nothing_is_known_of_an_empty_store(tmp_path: Path) -> None:
    assert recall(tmp_path / "none", asked("a", "b")).tolist() == [0, 1]


@pytest.mark.parametrize("column", ["size", "mtime_ns"])
def test_a_changed_file_is_not_recalled(tmp_path: Path, column: str) -> None:
    remember(tmp_path, facts_of(a=10))
    facts = asked("a")
    facts[column] += 1
    assert recall(tmp_path, facts).tolist() == [0]


def test_the_later_segment_is_believed_also_after_merging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_store, "MAX_SEGMENTS", 3)
    for number in range(1, 6):
        remember(tmp_path, facts_of(a=number, **{f"b{number}": 100 + number}))
        compact(tmp_path)
        facts = asked("a", "b1")
        assert not len(recall(tmp_path, facts))
        assert facts["num_samples"].tolist() == [number, 101]
    assert len(list(tmp_path.glob("*.npy"))) < 5


def test_a_damaged_segment_is_said_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remember(tmp_path, facts_of(a=10))
    remember(tmp_path, facts_of(b=20))
    first = min(tmp_path.glob("*.npy"))
    first.write_bytes(first.read_bytes()[:-5])
    facts = asked("a", "b")
    assert recall(tmp_path, facts).tolist() == [0]
    assert f"{first} is damaged and not used" in caplog.text


def test_an_unfinished_segment_is_not_looked_at(tmp_path: Path) -> None:
    remember(tmp_path, facts_of(a=10))
    segment = next(tmp_path.glob("*.npy"))
    segment.rename(tmp_path / f"unfinished-{segment.stem}")
    assert recall(tmp_path, asked("a")).tolist() == [0]


def test_a_folder_that_cannot_be_written_is_said_and_nothing_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    remember(tmp_path / "file" / "store", facts_of(a=10))
    assert "the lengths of audio files cannot be kept" in caplog.text
    with alone(tmp_path / "file" / "store", lambda: None):
        pass


def test_segments_are_kept_where_the_merged_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(manifest_store, "MAX_SEGMENTS", 1)
    for name in "ab":
        remember(tmp_path, facts_of(**{name: 1}))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        compact(tmp_path)
    assert "No space left on device" in caplog.text
    assert not len(recall(tmp_path, asked("a", "b")))
    compact(tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 1
    assert not len(recall(tmp_path, asked("a", "b")))


def test_only_one_is_alone_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_store, "_POLL_S", 0.001)
    waited, entered = threading.Event(), threading.Event()

    def second() -> None:
        with alone(tmp_path, waited.set):
            entered.set()

    thread = threading.Thread(target=second)
    with alone(tmp_path, lambda: None):
        thread.start()
        assert waited.wait(10)
        assert not entered.is_set()
    thread.join(10)
    assert entered.is_set()


def test_leftovers_of_killed_processes_are_cleared_when_segments_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_store, "MAX_SEGMENTS", 1)
    old, new = tmp_path / "unfinished-old", tmp_path / "unfinished-new"
    for leftover in (old, new):
        leftover.write_bytes(b"")
    long_ago = time.time() - 100_000
    os.utime(old, (long_ago, long_ago))
    for name in "ab":
        remember(tmp_path, facts_of(**{name: 1}))
    compact(tmp_path)
    assert not old.exists()
    assert new.exists()


@given(st.lists(st.text(st.characters(blacklist_characters="\0", codec="utf-8")), unique=True))
def test_different_paths_have_different_keys(paths: list[str]) -> None:
    assert len(set(path_keys(paths).tolist())) == len(paths)
