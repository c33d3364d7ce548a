"""`greensv pareto`, `trials` and `budget` on a study of four trials, one of which diverged."""

import csv
import json

import optuna
import pytest

from greensv.units import kwh_from_j


def test_pareto_prints_one_object_per_member_from_the_cheapest_to_the_dearest(greensv, searched):
    found = greensv("pareto", "--json")
    assert found.code == 0
    front = [json.loads(line) for line in found.out.splitlines()]
    trials = [json.loads(line) for line in greensv("trials", "--json").out.splitlines()]
    complete = [t for t in trials if t["state"] == "complete"]
    for trial in complete:
        is_dominated = any(
            other["eer"] <= trial["eer"] and other["train_energy_kwh"] <= trial["train_energy_kwh"] and other != trial
            for other in complete
        )
        assert is_dominated != (trial["number"] in [member["number"] for member in front])
    energies = [member["train_energy_kwh"] for member in front]
    assert energies == sorted(energies)
    assert sum(member["is_knee"] for member in front) == 1
    for key in ("number", "params", "eer", "min_dcf", "measured_energy_kwh", "num_parameters", "macs", "carbon_g"):
        assert key in front[0]


def test_trials_prints_one_object_per_trial_of_every_state(greensv, searched):
    trials = [json.loads(line) for line in greensv("trials", "--json").out.splitlines()]
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3]
    assert [trial["state"] for trial in trials] == ["complete", "failed", "complete", "complete"]
    assert trials[1]["eer"] is None
    assert "diverged" in trials[1]["reason"]
    assert trials[1]["charged_energy_kwh"] > 0


def test_trials_as_csv_hold_what_the_json_holds(greensv, searched):
    rows = list(csv.DictReader(greensv("trials", "--csv").out.splitlines()))
    trials = [json.loads(line) for line in greensv("trials", "--json").out.splitlines()]
    assert [row["state"] for row in rows] == [trial["state"] for trial in trials]
    assert float(rows[0]["eer"]) == trials[0]["eer"]
    assert json.loads(rows[0]["params"]) == trials[0]["params"]
    assert greensv("trials", "--csv", "--json").code == 2


def test_budget_prints_one_object(greensv, searched):
    found = greensv("budget", "--json")
    (line,) = found.out.splitlines()
    budget = json.loads(line)
    assert budget["study"] == "tiny"
    assert budget["cap_kwh"] == pytest.approx(kwh_from_j(36_000.0))
    assert budget["reserved_kwh"] == 0
    assert budget["spent_kwh"] == pytest.approx(sum(budget["by_purpose"].values()))
    assert budget["spent_kwh"] <= budget["cap_kwh"]
    assert {"training", "probe", "evaluation"} <= set(budget["by_purpose"])
    assert budget["retrain"] is None


def test_tables_are_for_people(greensv, searched):
    pareto = greensv("pareto").out
    assert "Pareto set of 'tiny'" in pareto
    assert "knee" in pareto
    assert "width=2 depth=1" in pareto
    trials = greensv("trials").out
    assert "failed" in trials
    assert "diverged" in trials
    budget = greensv("budget").out
    assert "Search of 'tiny'" in budget
    assert "10 Wh" in budget
    assert "for training" in budget
    assert "Retraining" not in budget


@pytest.mark.parametrize("command", ["pareto", "trials", "budget"])
def test_without_a_database_each_command_says_what_to_do(greensv, tmp_path, command: str):
    found = greensv(command)
    assert found.code == 1
    assert "no study database at runs/greensv.db; start one with `greensv search`" in found.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["pareto", "trials", "budget", "retrain"])
def test_an_unknown_study_is_told_with_those_there_are(greensv, searched, command: str):
    options = ("--knee", "--budget-kwh", "1") if command == "retrain" else ()
    found = greensv(command, *options, "--study-name", "tinny")
    assert found.code == 1
    assert "no study named 'tinny'; did you mean 'tiny'? (there: tiny)" in found.err


def test_of_several_studies_one_must_be_chosen(greensv, searched):
    storage = optuna.storages.RDBStorage(f"sqlite:///{searched}/runs/greensv.db")
    optuna.create_study(storage=storage, study_name="foreign")
    storage.engine.dispose()
    assert "holds 2 studies; choose one with --study-name (there: foreign, tiny)" in greensv("pareto").err
    assert greensv("pareto", "--study-name", "tiny").code == 0
    assert "'foreign' was not made by greensv" in greensv("pareto", "--study-name", "foreign").err


def test_a_study_without_a_completed_trial_has_words_for_it(greensv, study_file):
    assert greensv("search", study_file, "--budget-kwh", "1e-9").code == 1
    assert "has no completed trial yet" in greensv("pareto").out
    assert greensv("pareto", "--json").out == ""
    assert greensv("trials", "--json").out == ""
    assert greensv("trials").code == 0
    assert "Search of 'tiny'" in greensv("budget").out


def test_a_study_without_an_account_has_words_for_it(greensv, searched):
    from sqlalchemy import create_engine, text

    engine = create_engine(f"sqlite:///{searched}/runs/greensv.db")
    with engine.begin() as connection:
        tables = connection.execute(text("SELECT name FROM sqlite_master WHERE name LIKE '%accounts'")).scalars().all()
        for table in tables:
            connection.execute(text(f"DELETE FROM {table}"))
    engine.dispose()
    assert "has no account yet; run `greensv search`" in greensv("budget").out
    assert json.loads(greensv("budget", "--json").out) == {"study": "tiny", "retrain": None}


def test_trials_hold_what_was_used_waiting_for_data_and_what_the_devices_did(greensv, searched):
    trials = [json.loads(line) for line in greensv("trials", "--json").out.splitlines()]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    for trial in complete:
        assert trial["data_wait_s"] >= 0
        assert 0 <= trial["data_wait_energy_kwh"] <= trial["measured_energy_kwh"]
        assert trial["data_wait_share"] == trial["data_wait_energy_kwh"] / trial["measured_energy_kwh"]
        assert isinstance(trial["telemetry"], dict)
    rows = list(csv.DictReader(greensv("trials", "--csv").out.splitlines()))
    assert isinstance(json.loads(rows[0]["telemetry"]), dict)
    assert "waits" in greensv("trials").out


def test_the_budget_holds_the_energy_of_training_by_phase(greensv, searched):
    phases = json.loads(greensv("budget", "--json").out)["training_phases"]
    assert phases["quality"] == "attributed"
    names = ["data-wait", "host-to-device", "forward", "backward", "optimiser", "other"]
    assert list(phases["by_phase"]) == names
    total = sum(phase["energy_kwh"] for phase in phases["by_phase"].values())
    assert phases["data_wait_share"] == pytest.approx(phases["data_wait_energy_kwh"] / total)
    assert "of training: waiting for data (attributed)" in greensv("budget").out
