"""`greensv retrain` and `greensv evaluate` on what it leaves."""

import json
import os
import signal
from pathlib import Path

import pytest

from greensv.cli.reports import try_to_write_report
from greensv.search.storage import open_storage
from greensv.search.study import load
from greensv.speaker.dataset import ignore_progress
from tiny.plugin import TinyDataset, TinyOptions
from tiny.study import FULL_STEPS
from tiny.work import WORK


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WORK, "explodes", False)


def press_ctrl_c() -> None:
    WORK.on_step = None  # once: a second one would not wait for the step's end
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("choice", [(), ("--knee", "--all"), ("--trial", 0, "--knee"), ("--trial", 0, "--all")])
def test_exactly_one_choice_of_trials_is_made(greensv, searched, choice):
    found = greensv("retrain", *choice, "--budget-kwh", 1)
    assert found.code == 2
    assert "choose one of --trial N, --knee and --all" in found.err


@pytest.mark.parametrize("budget", ["0", "-2", "nan"])
def test_a_budget_that_is_none_is_wrong_usage(greensv, searched, budget: str):
    assert greensv("retrain", "--knee", "--budget-kwh", budget).code == 2
    assert greensv("retrain", "--knee").code == 2


@pytest.mark.parametrize(
    ("number", "message"),
    [(77, "there is no trial 77; completed trials: 0, 2, 3"), (1, "trial 1 is failed and cannot be retrained")],
)
def test_a_trial_that_cannot_be_retrained_is_told_with_those_that_can(greensv, searched, number, message):
    found = greensv("retrain", "--trial", number, "--budget-kwh", 1)
    assert found.code == 1
    assert message in found.err


def test_the_knee_is_retrained_and_shown(greensv, searched: Path):
    (knee,) = [t for t in map(json.loads, greensv("pareto", "--json").out.splitlines()) if t["is_knee"]]
    found = greensv("retrain", "--knee", "--budget-kwh", 0.01)
    assert found.code == 0, found.err
    number = knee["number"]
    lines = found.out.splitlines()
    assert f"trial {number}: {FULL_STEPS} of {FULL_STEPS} steps to train, reckoned" in found.out
    assert "Retraining ended: all 1 networks are trained and scored." in lines
    assert any(line.startswith(f"trial {number}: charged ") for line in lines)
    assert any(line.startswith("waiting for data: ") and "(attributed)" in line for line in map(str.strip, lines))
    assert any(line.startswith("  test: EER ") and "30 target and 60 nontarget pairs" in line for line in lines)
    budget = json.loads(greensv("budget", "--json").out)
    assert budget["retrain"]["cap_kwh"] == pytest.approx(0.01)
    assert 0 < budget["retrain"]["spent_kwh"] <= 0.01
    assert "Retraining of 'tiny'" in greensv("budget").out


def test_a_retraining_rewrites_the_report(greensv, searched: Path):
    report = searched / "runs" / "tiny" / "report.html"
    assert not report.exists()
    assert greensv("retrain", "--trial", 0, "--budget-kwh", 0.01).code == 0
    text = report.read_text(encoding="utf-8")
    for part in ("Retrained with the full recipe", "Where the energy of retraining went", "What retraining spent"):
        assert part in text
    budget = json.loads(greensv("budget", "--json").out)
    assert budget["retrain"]["by_purpose"]["report"] > 0
    assert 0 < budget["retrain"]["uncertainty_kwh"] < 0.05 * budget["retrain"]["spent_kwh"]


def test_a_report_says_why_the_search_ended_until_it_goes_on(greensv, study_file: Path, tmp_path: Path):
    report = tmp_path / "runs" / "tiny" / "report.html"
    assert greensv("search", study_file, "--budget-kwh", 0.01, "--max-trials", 1).code == 0
    report.unlink()
    assert greensv("retrain", "--trial", 0, "--budget-kwh", 0.01).code == 0
    assert "The search ended: 1 trials were run." in report.read_text(encoding="utf-8")
    storage, ledger = open_storage("sqlite:///runs/greensv.db", create=False)
    study = load("tiny", storage)
    study.optuna.enqueue_trial({})  # a search went on, and was killed before it ended
    try_to_write_report(study, ledger, report.parent)
    storage.engine.dispose()
    assert "The search ended" not in report.read_text(encoding="utf-8")


def test_with_json_standard_output_holds_the_results_alone(greensv, searched: Path):
    found = greensv("retrain", "--all", "--budget-kwh", 0.01, "--json")
    assert found.code == 0, found.err
    results = [json.loads(line) for line in found.out.splitlines()]
    front = [json.loads(line) for line in greensv("pareto", "--json").out.splitlines()]
    assert [result["trial"] for result in results] == [member["number"] for member in front]
    assert "Retraining ended" in found.err


def test_what_was_retrained_evaluates_to_the_same_error_rate(greensv, searched: Path, tmp_path: Path, monkeypatch):
    found = greensv("retrain", "--trial", 0, "--budget-kwh", 0.01, "--json")
    result = json.loads(found.out)
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "greensv" / "tiny"
    (protocol,) = TinyDataset().load_tests(None, TinyOptions(), cache_dir=cache, progress=ignore_progress)
    utterances, pairs = protocol.utterances, protocol.pairs
    data = tmp_path / "data"
    data.mkdir()
    rows = list(zip(utterances.ids, utterances.paths, utterances.speakers, strict=True))
    (data / "wav.scp").write_text("".join(f"{name} {path}\n" for name, path, _ in rows))
    (data / "utt2spk").write_text("".join(f"{name} {utterances.speaker_names[s]}\n" for name, _, s in rows))
    lines = [
        f"{int(target)} {utterances.ids[a]} {utterances.ids[b]}\n"
        for a, b, target in zip(pairs.enrolment, pairs.test, pairs.is_target, strict=True)
    ]
    (tmp_path / "trials").write_text("".join(lines))
    checkpoint = searched / "runs" / "tiny" / "trial-0000"
    found = greensv("evaluate", checkpoint, "--trial-list", tmp_path / "trials", "--data-root", data, "--json")
    assert found.code == 0, found.err
    evaluated = json.loads(found.out)
    assert evaluated["eer"] == pytest.approx(result["protocols"][0]["eer"], abs=1e-9)
    assert evaluated["min_dcf"] == pytest.approx(result["protocols"][0]["min_dcf"], abs=1e-9)


def test_a_budget_used_up_ends_with_1_and_a_larger_one_continues(greensv, searched: Path, monkeypatch):
    dearest = max(map(json.loads, greensv("pareto", "--json").out.splitlines()), key=lambda t: t["train_energy_kwh"])
    monkeypatch.setattr(WORK, "step_sleep_s", 0.04)
    small_kwh = 0.5 * dearest["train_energy_kwh"]
    found = greensv("retrain", "--trial", dearest["number"], "--budget-kwh", small_kwh)
    assert found.code == 1
    assert "the training so far is saved, raise --budget-kwh to continue it" in " ".join(found.out.split())
    assert "error: not everything was retrained, see above" in found.err
    monkeypatch.setattr(WORK, "step_sleep_s", 0.0)
    found = greensv("retrain", "--trial", dearest["number"], "--budget-kwh", 0.01)
    assert found.code == 0
    assert "continuing after step" in found.out


def test_ctrl_c_saves_and_ends_with_130_and_the_same_command_continues(greensv, searched: Path, monkeypatch):
    command = ("retrain", "--trial", 0, "--budget-kwh", 0.01)
    monkeypatch.setattr(WORK, "on_step", press_ctrl_c)
    stopped = greensv(*command)
    assert stopped.code == 130
    assert stopped.err == ""
    assert "Retraining ended: interrupted; the same command continues from the last saved step." in stopped.out
    found = greensv(*command)
    assert found.code == 0
    assert "trial 0: continuing after step " in found.out
