"""`--also-meter` in a search and in a retraining: figures beside, and not a joule of them charged."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

NOT_INSTALLED = "no meter named 'estimat'; did you mean 'estimate'?"


def rows(path: Path, query: str) -> set[tuple]:
    connection = sqlite3.connect(path)
    try:
        return set(connection.execute(query))
    finally:
        connection.close()


@pytest.mark.parametrize("account", ["search", "retrain"])
def test_windows_hold_the_meter_beside_and_charges_do_not(
    account: str, greensv: Callable, study_file: Path, searched: Path
):
    if account == "search":
        result = greensv(
            "search", study_file, "--budget-kwh", "0.01", "--max-trials", "1",
            "--study-name", "beside", "--also-meter", "estimate",
        )  # fmt: skip
        assert "estimate: cpu, dram (estimated, ±50%; beside, never charged)" in result.out
    else:
        result = greensv("retrain", "--knee", "--budget-kwh", "0.01", "--also-meter", "estimate")
    assert result.code == 0, result.err
    database = searched / "runs" / "greensv.db"
    where = f"where account = '{account}'"
    beside = rows(database, f"select meter, domain, role from greensv_windows {where} and role = 'beside'")
    assert beside == {("estimate", "cpu", "beside"), ("estimate", "dram", "beside")}
    assert rows(database, f"select distinct meter from greensv_charges {where}") == {("tiny",)}


def test_what_a_meter_beside_read_is_shown_with_each_trial(greensv: Callable, study_file: Path):
    options = ("--budget-kwh", "0.01", "--max-trials", "1", "--also-meter", "estimate")
    assert greensv("search", study_file, *options).code == 0
    trial = json.loads(greensv("trials", "--json").out.splitlines()[0])
    found = {(w["meter"], w["domain"], w["role"]): w for w in trial["windows"]}
    assert {key for key in found if key[2] == "beside"} == {
        ("estimate", "cpu", "beside"),
        ("estimate", "dram", "beside"),
    }
    charged = found["tiny", "node", "charged"]
    assert charged["energy_kwh"] == pytest.approx(trial["measured_energy_kwh"], rel=1e-3)
    assert charged["uncertainty_kwh"] == pytest.approx(trial["measured_uncertainty_kwh"], rel=1e-3)
    assert trial["versions"]["meter estimate"].startswith("greensv ")
    assert "The same trainings by other meters" in Path("runs/tiny/report.html").read_text(encoding="utf-8")


def test_a_meter_that_is_not_there_is_told_before_anything_runs(greensv: Callable, study_file: Path, searched: Path):
    result = greensv("search", study_file, "--budget-kwh", "0.01", "--study-name", "new", "--also-meter", "estimat")
    assert (result.code, "energy.also_meters" in result.err, NOT_INSTALLED in result.err) == (1, True, True)
    result = greensv("retrain", "--knee", "--budget-kwh", "0.01", "--also-meter", "estimat")
    assert (result.code, NOT_INSTALLED in result.err) == (1, True)
