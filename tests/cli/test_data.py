import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from greensv.errors import DataError
from tiny.plugin import TinyDataset


def test_a_usable_dataset_is_counted_and_the_exit_code_is_0(greensv: Callable, study_file: Path) -> None:
    result = greensv("data", "check", study_file)
    assert result.code == 0
    assert "Dataset 'tiny'" in result.out
    rows = [line.split() for line in result.out.splitlines()]
    assert ["training", "10", "40"] in [row[:3] for row in rows]
    assert ["dev", "5", "20"] in [row[:3] for row in rows]
    assert ["test", "30", "60", "0", "0", "0"] in rows
    assert "A study can run on it." in result.out


def test_json_says_it_all(greensv: Callable, study_file: Path) -> None:
    result = greensv("data", "check", study_file, "--decode", "--json")
    assert result.code == 0
    record = json.loads(result.out)
    assert (record["dataset"], record["root"], record["is_usable"]) == ("tiny", None, True)
    assert record["train"]["num_speakers"] == 10
    assert record["train"]["sample_rates_hz"] == {"16000": 40}
    assert [test["num_target"] for test in record["tests"]] == [30]
    assert record["problems"] == []


def test_a_dataset_can_be_named_without_a_study(greensv: Callable) -> None:
    result = greensv("data", "check", "--dataset", "tiny", "--json")
    record = json.loads(result.out)
    assert (record["dataset"], record["crop_s"]) == ("tiny", 3.5)
    assert record["train"]["num_shorter_than_crop"] == 40


def test_a_broken_corpus_is_a_problem_with_where_to_get_it_and_the_exit_code_1(
    greensv: Callable, monkeypatch: pytest.MonkeyPatch, study_file: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DataError("the folder [wav] is missing")

    monkeypatch.setattr(TinyDataset, "load", fail)
    monkeypatch.setattr(TinyDataset, "where_to_get", "write to tiny@example.org")
    result = greensv("data", "check", study_file)
    assert result.code == 1
    assert "problem: the folder [wav] is missing" in result.out
    assert "Where to get the corpus: write to tiny@example.org" in result.out
    assert "No study can run on it." in result.out


def test_a_kaldi_folder_with_damaged_files_is_reported(greensv: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    names = [f"s{speaker:02d}-{number}" for speaker in range(22) for number in range(2)]
    for name in names:
        samples = np.random.default_rng(1).uniform(-0.5, 0.5, 16_000)
        soundfile.write(folder / f"{name}.wav", samples, 16_000)
    soundfile.write(folder / f"{names[0]}.wav", np.clip(3 * samples, -1, 1), 16_000)
    (folder / "wav.scp").write_text("".join(f"{name} train/{name}.wav\n" for name in names))
    (folder / "utt2spk").write_text("".join(f"{name} {name[:3]}\n" for name in names))
    result = greensv("data", "check", "--dataset", "kaldi", "--data-root", tmp_path / "data", "--decode")
    assert result.code == 0
    assert "1 × is clipped" in result.out
    assert "There are no test pairs" in result.out


def test_without_study_and_dataset_there_is_nothing_to_check(greensv: Callable) -> None:
    result = greensv("data", "check")
    assert result.code == 1
    assert "nothing to check: give a STUDY.toml, or --dataset NAME" in result.err


def test_an_unknown_dataset_is_named(greensv: Callable) -> None:
    result = greensv("data", "check", "--dataset", "tyni")
    assert result.code == 1
    assert "no dataset named 'tyni'" in result.err
