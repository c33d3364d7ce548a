import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from greensv.search.events import Event, Noted
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


def test_noise_that_a_search_and_a_retraining_could_not_read_is_counted_and_told(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    noises = tmp_path / "noises"
    noises.mkdir()
    for number in range(2):
        soundfile.write(noises / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, 16_000), 16_000)
    augmentation = {"noise_root": str(noises), "disturbances": [{"kind": "noise", "probability": 1.0}]}
    lost = noises / "0.wav"

    def lose(said: Event) -> None:
        # Every crop of the first trial is disturbed; the file was listed before.
        if isinstance(said, Noted) and "training speakers" in said.text:
            lost.unlink(missing_ok=True)

    lab.on_event = lose
    lab.search(max_trials=1, recipe={"augmentation": augmentation})
    record = lab.records()[0]
    assert (record.state, record.num_skipped) == ("complete", 1)
    told = "noise and room files that could not be read, crops being left without them: 1"
    assert f"trial 0: {told} (such as {lost}): no audio file the file" in lab.notes()

    lost.write_bytes(b"")
    (noises / "1.wav").unlink()
    for number in range(1, 20):
        soundfile.write(noises / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, 16_000), 16_000)
    (result,) = lab.retrain(record).results
    assert result["num_skipped"] == 1
    ((name, reason),) = (
        line.split("\t") for line in (Path(result["checkpoint"]) / "skipped.tsv").read_text().splitlines()
    )
    assert name == str(lost)
    assert "is empty" in reason


def test_what_the_corpus_leaves_out_is_told_before_anything_is_trained(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    load = lab.plugin.dataset.load
    left_out = (Skipped(path="/gone.wav", reason="/gone.wav is no audio"),)
    monkeypatch.setattr(lab.plugin.dataset, "load", lambda *a, **k: replace(load(*a, **k), skipped=left_out))
    lab.search(max_trials=1)
    assert "training files left out: 1 (such as /gone.wav): the file is no audio (1)" in lab.notes()
    assert lab.records()[0].num_skipped == 1
    (result,) = lab.retrain(lab.records()[0]).results
    assert (Path(result["checkpoint"]) / "skipped.tsv").read_text() == "/gone.wav\t/gone.wav is no audio\n"
