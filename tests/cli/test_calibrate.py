"""`greensv calibrate` on a small workload, the tiny meter (0.1 W always) and logs that the test writes."""

import csv
import json
import re
from pathlib import Path

import pytest

from greensv.energy.baseline import comparison, idle
from greensv.energy.baseline.gains import calibrations_folder, load_gains
from greensv.energy.meter import Domain
from greensv.search import calibration_workload


@pytest.fixture(autouse=True)
def small_and_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(calibration_workload, "BATCH_SIZE", 2)
    monkeypatch.setattr(calibration_workload, "NUM_FRAMES", 24)
    monkeypatch.setattr(idle, "BUSY_SHARE", 2.0)
    monkeypatch.setattr(idle, "SPREAD_SHARE", 100.0)
    monkeypatch.setattr(comparison, "MIN_DURATION_S", 0.0)
    monkeypatch.setattr(comparison, "MIN_VARIATION", 1e9)  # the tiny meter's power is constant


QUICK = ("--device", "cpu", "--meter", "tiny", "--steps", "1", "--repeats", "2", "--idle-s", "0.2")


def write_log(path: Path, *, scale: float, header=("time", "power_w")) -> Path:
    """Writes what a meter that reads `scale` times ours would have logged during the latest calibration."""
    stored = [p for p in calibrations_folder().glob("*.json") if not p.name.startswith("gains")]
    trace = json.loads(max(stored, key=lambda path: path.stat().st_mtime_ns).read_text())["trace"]
    first, last = trace["at_s"][0], trace["at_s"][-1]
    joules = trace["energies"][0]["energy_j"]
    power_w = scale * (joules[-1] - joules[0]) / (last - first)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(header)
        rows.writerows([first - 5 + i * (last - first + 10) / 40, power_w] for i in range(41))
    return path


def test_a_calibration_is_told_and_kept(greensv):
    found = greensv("calibrate", *QUICK)
    assert found.code == 0, found.err
    assert "greensv-resnet-1 on CPU" in found.out
    assert "measured by tiny (measured) for node" in found.out
    assert re.search(r"1 reference unit = 10 steps = [\d.]+ ± [\d.e-]+ J gross, in [\d.]+ s at [\d.]+ W", found.out)
    assert re.search(r"net of [\d.]+ W at rest: ", found.out)
    assert "2 repetitions of 1 steps" in found.out
    assert len(list(calibrations_folder().glob("cpu-*.json"))) == 1
    assert "repetition 2 of 2 ..." in found.err


def test_a_calibration_as_json_says_where_it_comes_from(greensv):
    record = json.loads(greensv("calibrate", *QUICK, "--json").out)
    assert record["workload"] == "greensv-resnet-1"
    assert record["hardware"]["meters"] == {"node": "tiny (measured)"}
    assert record["unit"]["power_w"] == pytest.approx(0.1, rel=0.4)
    assert len(record["energies_j"]) == record["num_repeats"] == 2
    assert Path(record["file"]).exists()
    assert {"torch", "num_threads", "precision", "driver", "measured_at", "greensv"} <= set(record)


def test_an_external_log_gives_a_correction_that_is_in_force_from_then_on(greensv, tmp_path: Path):
    assert greensv("calibrate", *QUICK).code == 0
    log = write_log(tmp_path / "wall.csv", scale=1.25, header=("when", "W"))
    against = ("--against", log, "--csv-column", "time=when", "--csv-column", "power_w=W", "--accuracy", "2")
    found = greensv("calibrate", *QUICK, *against)
    assert found.code == 0, found.err
    assert "external / ours = 1.25" in found.out
    assert "From now on tiny's node is multiplied by 1.25" in found.out
    gain = load_gains()["tiny", Domain("node")]
    assert gain.factor == pytest.approx(1.25, rel=0.02)
    assert gain.uncertainty >= 0.02
    assert gain.against == "wall.csv"
    assert "tiny's node is multiplied by 1.25" in greensv("meters", "--meter", "tiny").out.replace("\n", " ")
    again = json.loads(greensv("calibrate", *QUICK, "--json").out)
    assert again["unit"]["power_w"] == pytest.approx(0.125, rel=0.2)
    assert again["gains"] == {"tiny node": gain.factor}
    assert "Removed" in greensv("calibrate", "--forget-gains").out
    assert load_gains() == {}
    assert "There are no corrections" in greensv("calibrate", "--forget-gains").out


def test_a_second_comparison_is_as_good_as_the_first(greensv, tmp_path: Path):
    assert greensv("calibrate", *QUICK).code == 0
    log = write_log(tmp_path / "wall.csv", scale=1.25)
    for _ in range(2):  # of the same run, with the first correction in force since
        found = greensv("calibrate", *QUICK, "--against", log)
        assert found.code == 0, found.err
        assert load_gains()["tiny", Domain("node")].factor == pytest.approx(1.25, rel=0.02)


def test_the_options_of_a_meter_are_given_as_to_a_search(greensv):
    record = json.loads(greensv("calibrate", *QUICK, "--meter-option", "tiny.power_w=3.0", "--json").out)
    assert record["unit"]["power_w"] == pytest.approx(3.0, rel=0.4)
    assert (
        record["hardware"]["settings"] != json.loads(greensv("calibrate", *QUICK, "--json").out)["hardware"]["settings"]
    )
    assert len(list(calibrations_folder().glob("cpu-*.json"))) == 2
    assert "--meter-option 'tiny' is not like" in greensv("calibrate", *QUICK, "--meter-option", "tiny").err


def test_a_comparison_as_json(greensv, tmp_path: Path):
    greensv("calibrate", *QUICK)
    log = write_log(tmp_path / "wall.csv", scale=0.9)
    record = json.loads(greensv("calibrate", *QUICK, "--against", log, "--json").out)
    assert record["ratio"] == pytest.approx(0.9, rel=0.02)
    assert record["domains"] == [{"meter": "tiny", "domain": "node"}]
    assert record["gain"]["factor"] == pytest.approx(record["ratio"])


def test_without_a_calibration_there_is_nothing_to_compare(greensv, tmp_path: Path):
    (tmp_path / "wall.csv").write_text("time,power_w\n1795262400,1\n1795262401,1\n")
    found = greensv("calibrate", *QUICK, "--against", "wall.csv")
    assert found.code == 1
    assert "first log with the external meter while `greensv calibrate` runs" in found.err


def test_a_log_of_another_time_is_refused(greensv, tmp_path: Path):
    greensv("calibrate", *QUICK)
    (tmp_path / "wall.csv").write_text("time,power_w\n1700000000,1\n1700000100,1\n")
    found = greensv("calibrate", *QUICK, "--against", "wall.csv")
    assert found.code == 1
    assert "covers 0% of the run" in found.err
    assert load_gains() == {}


def test_a_ratio_that_is_no_scale_puts_nothing_in_force(greensv, tmp_path: Path):
    greensv("calibrate", *QUICK)
    found = greensv("calibrate", *QUICK, "--against", write_log(tmp_path / "wall.csv", scale=3.0))
    assert found.code == 1
    assert "which is no wrong scale" in found.err
    assert load_gains() == {}


@pytest.mark.parametrize("column", ["time", "watts=W", "power_w="])
def test_columns_are_named_by_what_they_hold(greensv, column: str):
    found = greensv("calibrate", "--csv-column", column)
    assert found.code == 2
    assert "should be ROLE=NAME, ROLE one of time, power_w, energy_j, energy_kwh" in found.err


def test_trials_shows_what_was_run_repeatedly(greensv, searched):
    found = json.loads(greensv("trials", "--repeats", "--json").out)
    assert set(found) == {"trials", "retrained"}
    assert found["trials"]["repeated"] == []
    assert "No network of study 'tiny' was run twice with the same recipe." in greensv("trials", "--repeats").out
    assert greensv("trials", "--repeats", "--csv").code == 2
