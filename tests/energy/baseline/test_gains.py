import dataclasses
import json
from pathlib import Path

import pytest

from greensv.energy.baseline.gains import (
    Gain,
    calibrations_folder,
    load_gains,
    parse_domain,
    remove_gains,
    source_words,
    store_gains,
    with_gains,
    write_json,
)
from greensv.energy.meter import Domain
from greensv.energy.monitoring import Monitor
from greensv.errors import MeterError
from simulated.scripted import CPU, Counter, ScriptedClock, ScriptedMeter, ScriptedSession, open_scripted

DRAM = Domain("dram", "0")


def gain(**changes) -> Gain:
    found = Gain(
        meter="scripted",
        domain=CPU,
        factor=1.04,
        uncertainty=0.012,
        against="wall.csv",
        measured_at="2026-11-21T12:00:00+00:00",
    )
    return dataclasses.replace(found, **changes)


def test_gains_are_kept_for_each_machine(tmp_path: Path):
    assert load_gains(tmp_path) == {}
    store_gains([gain()], tmp_path)
    store_gains([gain(domain=DRAM, factor=0.9), gain(factor=1.05)], tmp_path)
    store_gains([gain(factor=2.0)], tmp_path, host="elsewhere")
    assert load_gains(tmp_path) == {
        ("scripted", CPU): gain(factor=1.05),
        ("scripted", DRAM): gain(domain=DRAM, factor=0.9),
    }
    assert load_gains(tmp_path, host="elsewhere")["scripted", CPU].factor == 2.0
    removed = remove_gains(tmp_path)
    assert removed is not None
    assert load_gains(tmp_path) == {}
    assert remove_gains(tmp_path) is None
    assert len(list(tmp_path.iterdir())) == 1


def test_they_lie_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert calibrations_folder() == tmp_path / "greensv" / "calibrations"
    assert store_gains([gain()]).parent == calibrations_folder()
    assert load_gains() == {("scripted", CPU): gain()}
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert calibrations_folder() == tmp_path / ".local" / "share" / "greensv" / "calibrations"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": "greensv-gains", "version": 2, "gains": []}',
        '{"format": "greensv-gains", "version": 1, "gains": [{}]}',
    ],
)
def test_a_damaged_file_is_an_error_not_no_correction(tmp_path: Path, text: str):
    path = store_gains([gain()], tmp_path)
    path.write_text(text)
    with pytest.raises(MeterError, match="restore the file, or remove it"):
        load_gains(tmp_path)


@pytest.mark.parametrize("change", [{"factor": -1.0}, {"factor": 0.0}, {"domain": "planet:9"}])
def test_a_gain_that_makes_no_sense_is_an_error(tmp_path: Path, change: dict):
    path = store_gains([gain()], tmp_path)
    data = json.loads(path.read_text())
    data["gains"][0].update(change)
    path.write_text(json.dumps(data))
    with pytest.raises(MeterError):
        load_gains(tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MeterError, match="cannot be written"):
        write_json(tmp_path / "file" / "folder" / "gains.json", {})


@pytest.mark.parametrize("domain", [CPU, DRAM, Domain("node"), Domain("gpu", "GPU-8e1f"), Domain("host")])
def test_domains_are_read_as_they_are_written(domain: Domain):
    assert parse_domain(str(domain)) == domain


def test_readings_are_multiplied_and_their_uncertainty_is_the_corrections():
    clock = ScriptedClock()
    counter = Counter(clock)
    meter = open_scripted(ScriptedSession(counter.samples))
    meter = dataclasses.replace(meter, availability=dataclasses.replace(meter.availability, gain_uncertainty=0.05))
    (corrected,) = with_gains([meter], {("scripted", CPU): gain(), ("other", CPU): gain(meter="other", factor=7.0)})
    monitor = Monitor([corrected], clock=clock)
    monitor.poll()
    with monitor.window("work") as window:
        counter.add(1000.0)
        clock.advance(100.0)
    (reading,) = window.result.readings
    assert reading.energy_j == pytest.approx(1040.0)
    assert reading.scale_uncertainty_j == pytest.approx(0.012 * 1040.0)
    monitor.stop()


def test_a_meter_with_a_domain_that_is_not_corrected_keeps_its_uncertainty():
    meter = open_scripted(ScriptedSession(list), domains=[CPU, DRAM])
    meter = dataclasses.replace(meter, availability=dataclasses.replace(meter.availability, gain_uncertainty=0.05))
    (corrected,) = with_gains([meter], {("scripted", CPU): gain()})
    assert corrected.gains == {CPU: 1.04}
    assert corrected.availability.gain_uncertainty == 0.05


def test_provenance_names_the_correction():
    meter = ScriptedMeter("scripted", CPU)
    assert source_words(meter, CPU, {}) == "scripted (measured)"
    assert source_words(meter, CPU, {("scripted", CPU): gain()}) == "scripted (measured, × 1.04)"
