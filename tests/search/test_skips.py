import json
from dataclasses import replace
from pathlib import Path

import pytest

from greensv.search.skips import told_skipped
from greensv.speaker.dataset import Skipped
from tiny.study import Lab


def spoil(folder: Path, name: str) -> Path:
    path = next(folder.rglob(name))
    path.write_bytes(b"not audio")
    return path


def test_the_commonest_reasons_are_told_with_an_example():
    files = [Skipped(path=f"{n}.wav", reason=f"{n}.wav is silent") for n in range(1_200)]
    files += [Skipped(path=f"{n}.wav", reason=f"reason {n}") for n in range(1_200, 1_204)]
    assert told_skipped(files, what="files left out") == (
        "files left out: 1,204 (such as 0.wav): the file is silent (1,200); reason 1200 (1); reason 1201 (1); "
        "2 other reasons"
    )


def test_what_a_search_and_a_retraining_could_not_read_is_counted_and_told(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lab.search(max_trials=1)
    assert lab.records()[0].num_skipped == 0
    assert "could not be read" not in lab.notes()
    path = spoil(tmp_path / "cache", "train3-1.flac")
    lab.search(max_trials=2)
    record = lab.records()[1]
    assert (record.state, record.num_skipped) == ("complete", 1)
    assert (
        f"trial 1: training files that could not be read, others standing in for them: 1 (such as {path})"
        in lab.notes()
    )

    (result,) = lab.retrain(record).results
    assert result["num_skipped"] == 1
    folder = Path(result["checkpoint"])
    assert json.loads((folder / "result.json").read_text())["num_skipped"] == 1
    ((name, reason),) = (line.split("\t") for line in (folder / "skipped.tsv").read_text().splitlines())
    assert name == str(path)
    assert "train3-1.flac" in reason


def test_what_the_corpus_leaves_out_is_told_before_anything_is_trained(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    load = lab.plugin.dataset.load
    left_out = (Skipped(path="/gone.wav", reason="/gone.wav is no audio"),)
    monkeypatch.setattr(lab.plugin.dataset, "load", lambda *a, **k: replace(load(*a, **k), skipped=left_out))
    lab.search(max_trials=1)
    assert "training files left out: 1 (such as /gone.wav): the file is no audio (1)" in lab.notes()
    assert lab.records()[0].num_skipped == 1
    (result,) = lab.retrain(lab.records()[0]).results
    assert (Path(result["checkpoint"]) / "skipped.tsv").read_text() == "/gone.wav\t/gone.wav is no audio\n"
