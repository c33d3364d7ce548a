"""`greensv search` as it is typed: exit codes, what it says, what it leaves."""

import json
import re
import signal
from pathlib import Path

import pytest

from greensv.cli.search import study_data
from greensv.errors import ConfigError
from tiny.study import STUDY_TOML
from tiny.work import SLEEP_VARIABLE

NO_FLAGS = {
    "study_name": None,
    "seed": None,
    "device": None,
    "dataset": None,
    "data_root": None,
    "backbones": (),
    "meters": (),
}


def test_a_search_says_what_it_does_in_plain_lines_and_ends_with_what_to_type_next(greensv, study_file, tmp_path):
    found = greensv("search", study_file, "--budget-kwh", 0.01, "--max-trials", 2)
    assert found.code == 0, found.err
    assert found.err == ""
    assert "\x1b" not in found.out, "not on a terminal: no colours, no cursor"
    lines = found.out.splitlines()
    assert lines[0] == "meter tiny: node (measured, ±1%)"
    for beginning in (
        "tiny: 10 training speakers, 40 utterances",
        "probing the ends of the search space",
        "retraining one typical network in full will use about ",
        "the charge never exceeds the cap",
        "trial 0: tiny width=2 depth=1, 244 parameters",
        "  trial 0: epoch 2/2, step 10/10, loss ",
        "trial 0: EER ",
        "budget 10 Wh: spent ",
        "trial 1: tiny width=16 depth=3",
        "The search ended: 2 trials were run.",
        "Retraining the whole front in full will use about ",
        "Carbon of this search: ",
    ):
        assert any(line.startswith(beginning) for line in lines), (beginning, found.out)
    assert re.search(
        r"^9\.\d+ Wh buys about [\d,]+ typical trials of [\d.]+ Wh on this machine", found.out, re.MULTILINE
    )
    assert lines[-1].startswith("Next: greensv retrain --knee --budget-kwh ")
    assert lines[-1].endswith("--study-name tiny"), "the default storage need not be typed"
    report = tmp_path / "runs" / "tiny" / "report.html"
    assert f"Report: {report.relative_to(tmp_path)}" in lines
    assert "2 trials were run" in report.read_text()


def test_a_data_root_of_nobody_is_a_clear_error(greensv, study_file):
    found = greensv("search", study_file, "--budget-kwh", 0.01, "--data-root", "~nobody-of-that-name/x")
    assert found.code == 1
    assert "--data-root ~nobody-of-that-name/x cannot be used" in found.err


def test_a_budget_beyond_all_measure_is_a_usage_error(greensv, study_file):
    found = greensv("search", study_file, "--budget-kwh", "1e300")
    assert found.code == 2
    assert "the unit is kWh" in found.err


def test_a_report_that_cannot_be_written_is_a_warning(greensv, study_file, tmp_path):
    (tmp_path / "runs" / "tiny" / "report.html").mkdir(parents=True)
    found = greensv("search", study_file, "--budget-kwh", 0.01, "--max-trials", 1)
    assert found.code == 0
    assert "warning: the report cannot be written" in found.err
    assert "The search ended: 1 trials were run" in found.out
    assert "Report:" not in found.out


def test_the_next_command_names_a_storage_of_ones_own_and_works(greensv, study_file, tmp_path):
    url = f"sqlite:///{tmp_path}/mine.db"
    found = greensv("search", study_file, "--budget-kwh", 0.01, "--max-trials", 1, "--storage", url)
    assert found.code == 0, found.err
    following = found.out.splitlines()[-1].removeprefix("Next: greensv ").split()
    assert following[-2:] == ["--storage", url]
    following[following.index("--budget-kwh") + 1] = "0.01"  # several times as much: a tiny training is noisy
    assert greensv(*following).code == 0
    assert (tmp_path / "tiny" / "trial-0000" / "model.safetensors").exists()


def test_a_rerun_continues_and_may_raise_the_cap_but_nothing_else(greensv, study_file):
    command = ("search", study_file, "--max-trials")
    assert greensv(*command, 1, "--budget-kwh", 0.01).code == 0
    found = greensv(*command, 2, "--budget-kwh", 0.02)
    assert found.code == 0
    assert "2 trials were run" in found.out
    lowered = greensv(*command, 3, "--budget-kwh", 0.01)
    assert lowered.code == 1
    assert lowered.err.startswith("error: the search account of this study has a budget of 20 Wh; it can be raised but")
    other = greensv(*command, 3, "--budget-kwh", 0.02, "--seed", 5)
    assert other.code == 1
    assert "  seed: 1 → 5\n" in other.err
    trials = [json.loads(line) for line in greensv("trials", "--json").out.splitlines()]
    assert [trial["state"] for trial in trials] == ["complete", "complete"]


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf", "-inf", "much", ""])
def test_a_budget_that_is_none_is_wrong_usage(greensv, study_file, tmp_path, budget: str):
    found = greensv("search", study_file, f"--budget-kwh={budget}")
    assert found.code == 2
    assert "--budget-kwh" in found.err
    assert not (tmp_path / "runs").exists(), "nothing is written"


@pytest.mark.parametrize("arguments", [(), ("--budget-kwh",), ("--budget-kwh", "1", "--max-trials", "0")])
def test_a_search_without_its_budget_is_wrong_usage(greensv, study_file, arguments: tuple[str, ...]):
    found = greensv("search", study_file, *arguments)
    assert found.code == 2
    assert ("--max-trials" if len(arguments) > 2 else "--budget-kwh") in found.err


@pytest.mark.parametrize(
    ("study", "options", "messages"),
    [
        (None, (), ["no study file", "study.toml"]),
        ("name = ", (), ["is no valid TOML"]),
        (STUDY_TOML.replace("batch_size", "batchsize"), (), ["has one mistake", "did you mean 'batch_size'?"]),
        (STUDY_TOML, ("--backbone", "resnett"), ["backbones.resnett: ", "did you mean 'resnet'?"]),
        (STUDY_TOML, ("--dataset", "kaldi"), ["dataset 'kaldi' needs a folder; give it with --data-root"]),
        (STUDY_TOML, ("--meter", "tinny"), ["energy.meters: ", "did you mean 'tiny'?"]),
        (STUDY_TOML, ("--study-name", "a/b"), ["name: a study's name is made of letters"]),
        (STUDY_TOML, ("--storage", "mine.db"), ["is no database URL; for a file write sqlite:///mine.db"]),
        ('name = "x"\nbackbones = 3\n', ("--backbone", "tiny"), ["dataset.name: missing"]),
        (STUDY_TOML, ("--dataset", "kaldi", "--data-root", "nowhere"), ["nowhere"]),
    ],
)
def test_a_users_error_is_told_without_a_traceback(greensv, tmp_path, study, options, messages):
    path = tmp_path / "my" / "study.toml"
    if study is not None:
        path.parent.mkdir()
        path.write_text(study)
    found = greensv("search", path, "--budget-kwh", 0.01, *options)
    assert found.code == 1
    assert found.err.startswith("error: ")
    for message in messages:
        assert message in found.err


def test_a_typing_error_in_the_data_folder_can_be_mended(greensv, study_file, write_kaldi_tree, tmp_path):
    write_kaldi_tree(tmp_path / "data", {"train": {f"t{i}": 8 for i in range(6)}, "test": {"x": 4, "y": 4}})
    command = ("search", study_file, "--budget-kwh", 0.01, "--max-trials", 1, "--dataset", "kaldi", "--data-root")
    assert greensv(*command, tmp_path / "dota").code == 1
    found = greensv(*command, tmp_path / "data")
    assert "another configuration" not in found.err


def test_a_budget_too_small_is_refused_with_advice(greensv, study_file):
    found = greensv("search", study_file, "--budget-kwh", 1e-5)
    assert found.code == 1
    assert "--budget-kwh" in found.err


@pytest.mark.slow
def test_ctrl_c_saves_and_ends_with_130_and_the_same_command_continues(start, greensv, study_file):
    command = ("search", study_file, "--budget-kwh", "1", "--max-trials", "2")
    process = start(*command, **{SLEEP_VARIABLE: "0.15"})
    for line in process.stdout:
        if line.startswith("trial 0: tiny"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    assert "The search ended: interrupted; the same command continues." in out
    assert "No trial was completed" in out
    trials = [json.loads(line) for line in greensv("trials", "--json").out.splitlines()]
    assert [trial["state"] for trial in trials] == ["interrupted", "waiting"]
    budget = json.loads(greensv("budget", "--json").out)
    assert budget["reserved_kwh"] == 0
    assert budget["spent_kwh"] > 0
    found = greensv(*command)
    assert found.code == 0
    trials = [json.loads(line) for line in greensv("trials", "--json").out.splitlines()]
    assert [trial["state"] for trial in trials] == ["complete", "complete"]


def test_the_embedded_quickstart_is_a_study_and_flags_are_laid_over_it():
    assert study_data(None, NO_FLAGS)["name"] == "quickstart"
    flags = {
        **NO_FLAGS,
        "study_name": "mine",
        "seed": 7,
        "device": "cpu",
        "backbones": ("resnet", "tiny"),
        "meters": ("estimate",),
    }
    data = study_data(None, flags)
    assert (data["name"], data["seed"], data["device"]) == ("mine", 7, "cpu")
    assert data["backbones"]["resnet"] == study_data(None, NO_FLAGS)["backbones"]["resnet"]
    assert data["backbones"]["tiny"] == {}
    assert data["energy"]["meters"] == ["estimate"]
    assert data["recipe"] == study_data(None, NO_FLAGS)["recipe"]


def test_folders_of_noise_and_rooms_given_on_the_command_line_replace_those_of_the_file(tmp_path: Path):
    path = tmp_path / "study.toml"
    path.write_text('name = "x"\n[recipe]\nscale = 32.0\n[recipe.augmentation]\nnoise_root = "musan"\n')
    data = study_data(path, {**NO_FLAGS, "noise_root": tmp_path / "other", "rir_root": Path("rirs")})
    assert data["recipe"] == {
        "scale": 32.0,
        "augmentation": {"noise_root": str(tmp_path / "other"), "rir_root": str(Path.cwd() / "rirs")},
    }
    with pytest.raises(ConfigError, match=r"--rir-root .* cannot be used"):
        study_data(path, {**NO_FLAGS, "rir_root": Path("~nobody-of-that-name/x")})


def test_another_dataset_takes_neither_root_nor_options_from_the_file(tmp_path: Path):
    path = tmp_path / "study.toml"
    path.write_text('name = "x"\n[dataset]\nname = "tiny"\nroot = "here"\n[dataset.options]\nseed = 3\n')
    other = study_data(path, {**NO_FLAGS, "dataset": "kaldi", "data_root": tmp_path / "there"})
    assert other["dataset"] == {"name": "kaldi", "root": str(tmp_path / "there")}
    same = study_data(path, {**NO_FLAGS, "dataset": "tiny"})
    assert same["dataset"] == {"name": "tiny", "root": str(tmp_path / "here"), "options": {"seed": 3}}
    with pytest.raises(ConfigError, match="no study file"):
        study_data(tmp_path / "none.toml", NO_FLAGS)


def test_on_a_terminal_a_live_view_is_shown(greensv, study_file, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    found = greensv("search", study_file, "--budget-kwh", 0.01, "--max-trials", 1)
    assert found.code == 0
    assert "\x1b[" in found.out
    assert "greensv search" in found.out, "the title of the view"
    assert "Ctrl-C ends cleanly" in found.out
