"""Reference units: the real workload, made small, measured by the tiny meter, whose power is known."""

import dataclasses
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from greensv.builtin.backbones import resnet
from greensv.energy.baseline import idle
from greensv.energy.baseline.comparison import Trace
from greensv.energy.baseline.gains import Gain, store_gains
from greensv.energy.baseline.idle import NetEnergy, this_host
from greensv.energy.meter import Availability, Domain, MeterRequest, Role
from greensv.energy.metering.choice import Choice
from greensv.energy.metering.reading import Reading
from greensv.energy.metering.repetitions import combine_repetitions
from greensv.energy.metering.window import EnergyWindow
from greensv.errors import MeterError, StudyError
from greensv.plugins import plugins_from
from greensv.search import calibration_workload
from greensv.search.calibration import (
    Calibration,
    Hardware,
    UnitCost,
    find,
    find_latest,
    in_force,
    meter_settings,
    store,
    unit_cost,
)
from greensv.search.calibration_gain import gain_of, part_of
from greensv.search.calibration_run import open_bench, run_calibration
from greensv.search.calibration_workload import ReferenceWorkload
from greensv.search.reference import CALIBRATION_ATTRIBUTE
from greensv.search.study import ENVIRONMENT_ATTRIBUTE
from greensv.units import j_from_kwh
from tiny.plugin import TinyMeter, TinyMeterOptions, TinyPlugin
from tiny.study import Lab

NODE = Domain("node")
HARDWARE = Hardware(host=this_host(), device="CPU of a test", meters={"node": "tiny (measured)"})
TRACE = Trace(at_s=(0.0, 1.0), energy_j={("tiny", "node"): (0.0, 5.0)})


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def small_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_workload, "BATCH_SIZE", 2)
    monkeypatch.setattr(calibration_workload, "NUM_FRAMES", 24)
    monkeypatch.setattr(idle, "BUSY_SHARE", 2.0)
    monkeypatch.setattr(idle, "SPREAD_SHARE", 100.0)


def plugins():
    return plugins_from({"tiny": TinyPlugin(), "resnet": resnet})


def window(energy_j: float, *, scale_j: float = 0.0, own_j: float = 0.0, duration_s: float = 10.0) -> EnergyWindow:
    reading = Reading(
        domain=NODE,
        meter="tiny",
        quality="measured",
        energy_j=energy_j,
        uncertainty_j=math.hypot(scale_j, own_j),
        scale_uncertainty_j=scale_j,
    )
    return EnergyWindow(name="x", started_at=datetime.now(UTC), duration_s=duration_s, readings=(reading,))


def unit(**changes) -> UnitCost:
    found = UnitCost(
        energy_j=50.0,
        std_j=1.0,
        uncertainty_j=2.0,
        repeatability_j=0.5,
        net_j=30.0,
        net_uncertainty_j=1.5,
        seconds=4.0,
        power_w=12.5,
    )
    return dataclasses.replace(found, **changes)


def calibration(**changes) -> Calibration:
    found = Calibration(
        workload="greensv-resnet-1",
        steps_per_unit=10,
        hardware=HARDWARE,
        unit=unit(),
        num_steps=20,
        num_repeats=3,
        energies_j=(99.0, 100.0, 101.0),
        idle_power_w=5.0,
        measured_at="2026-11-21T12:00:00+00:00",
    )
    return dataclasses.replace(found, **changes)


def test_a_unit_is_the_mean_of_the_repetitions():
    windows = [window(e, scale_j=0.05 * e, own_j=3.0) for e in (90.0, 100.0, 110.0)]
    together = combine_repetitions(windows)
    nets = [NetEnergy(energy_j=w.energy_j - 40.0, uncertainty_j=6.0) for w in windows]
    found = unit_cost(windows, nets, num_steps=20, steps_per_unit=10)
    assert found.energy_j == pytest.approx(50.0)
    assert found.std_j == pytest.approx(5.0)
    assert found.repeatability_j == pytest.approx(5.0 / math.sqrt(3)) == pytest.approx(together.repeatability_j / 2)
    # 5 % of 50 J is off alike in all three.
    assert found.uncertainty_j == pytest.approx(math.hypot(found.repeatability_j, 2.5))
    assert found.uncertainty_j == pytest.approx(together.uncertainty_j / 2)
    assert (found.net_j, found.net_uncertainty_j) == (pytest.approx(30.0), pytest.approx(3.0))
    assert (found.seconds, found.power_w) == (pytest.approx(5.0), pytest.approx(10.0))


def test_a_single_repetition_has_no_deviation_and_no_net_without_idle_power():
    found = unit_cost([window(100.0)], [None], num_steps=10, steps_per_unit=10)
    assert (found.std_j, found.net_j, found.net_uncertainty_j) == (None, None, None)
    assert found.energy_j == 100.0


def test_repetitions_that_agree_by_chance_are_no_better_than_their_windows():
    found = unit_cost([window(100.0, own_j=10.0)] * 2, [None, None], num_steps=10, steps_per_unit=10)
    assert (found.std_j, found.repeatability_j) == (0.0, pytest.approx(10 / math.sqrt(2)))


def test_an_energy_in_units_has_no_pue_and_only_the_repetitions_uncertainty():
    units, uncertainty = calibration().units(0.001, pue=1.2)
    assert units == pytest.approx(3600 / 1.2 / 50)
    assert uncertainty == pytest.approx(units * 0.5 / 50)


def test_calibrations_are_kept_for_each_hardware(tmp_path: Path):
    assert find(HARDWARE, tmp_path) is None
    other = calibration(hardware=dataclasses.replace(HARDWARE, device="another CPU"))
    store(calibration(), TRACE, tmp_path)
    store(other, TRACE, tmp_path)
    newer = calibration(unit=unit(energy_j=51.0))
    path = store(newer, TRACE, tmp_path)
    assert path.name.startswith("cpu-of-a-test-")
    assert find(HARDWARE, tmp_path) == (newer, TRACE)
    assert find(other.hardware, tmp_path) == (other, TRACE)
    assert len(list(tmp_path.iterdir())) == 2
    elsewhere = dataclasses.replace(HARDWARE, meters={"node": "tiny (measured, × 1.1)"})
    assert find(elsewhere, tmp_path) is None


def test_the_latest_calibration_is_found_whatever_the_corrections(tmp_path: Path):
    corrected = dataclasses.replace(HARDWARE, meters={"node": "tiny (measured, × 1.1)"})
    assert find_latest(corrected, tmp_path) is None
    first = calibration()
    store(first, TRACE, tmp_path)
    assert find_latest(corrected, tmp_path) == (first, TRACE)
    later = calibration(hardware=corrected, measured_at="2026-11-21T13:00:00+00:00", gains={"tiny node": 1.1})
    store(later, TRACE, tmp_path)
    assert find_latest(HARDWARE, tmp_path) == (later, TRACE)
    for change in ({"host": "other"}, {"device": "another CPU"}, {"settings": "aa"}, {"meters": {"node": "x (y)"}}):
        assert find_latest(dataclasses.replace(HARDWARE, **change), tmp_path) is None


def choice(
    *, options: object = None, rest_power_w: dict[Domain, float] | None = None, role: Role = "charged"
) -> Choice:
    return Choice(
        meter=TinyMeter(),
        request=MeterRequest(options=options),
        availability=Availability(domains=(NODE,), rest_power_w=rest_power_w or {}),
        is_chosen=True,
        why="a test",
        roles={NODE: role},
    )


def test_what_is_set_about_a_meter_tells_calibrations_apart():
    assert meter_settings([choice()]) == meter_settings([choice(options=TinyMeterOptions())]) == ""
    found = {
        meter_settings([choice(options=TinyMeterOptions(power_w=2.0))]),
        meter_settings([choice(options=TinyMeterOptions(power_w=3.0))]),
        meter_settings([choice(options=TinyMeterOptions(work_j=2.0))]),
        meter_settings([choice(rest_power_w={NODE: 5.0})]),
        meter_settings([choice(rest_power_w={NODE: 6.0})]),
    }
    assert len(found) == 5
    assert "" not in found
    assert meter_settings([choice(options=TinyMeterOptions(power_w=2.0), role="beside")]) == ""


@pytest.mark.parametrize("damage", ["{", '{"format": "greensv-reference", "version": 99}', "null"])
def test_a_damaged_calibration_is_told(tmp_path: Path, damage: str):
    store(calibration(), TRACE, tmp_path).write_text(damage)
    with pytest.raises(MeterError, match="run `greensv calibrate` again"):
        find(HARDWARE, tmp_path)


def test_a_calibration_with_a_field_too_few_is_damaged(tmp_path: Path):
    path = store(calibration(), TRACE, tmp_path)
    data = json.loads(path.read_text())
    del data["calibration"]["unit"]["energy_j"]
    path.write_text(json.dumps(data))
    with pytest.raises(MeterError, match="energy_j"):
        find(HARDWARE, tmp_path)


def test_the_workload_is_always_the_same_and_leaves_the_generators_alone(small_workload: None):
    import torch

    before = torch.random.get_rng_state()
    losses = []
    for _ in range(2):
        workload = ReferenceWorkload(plugins(), torch.device("cpu"))
        losses.append([float(workload.step()) for _ in range(3)])
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_workload_is_the_papers_narrowest_network():
    """A change here is a new workload: rename it."""
    import torch

    workload = ReferenceWorkload(plugins(), torch.device("cpu"))
    assert sum(weight.numel() for weight in workload._network.parameters()) == 1_255_360
    assert (calibration_workload.NAME, calibration_workload.STEPS_PER_UNIT) == ("greensv-resnet-1", 10)
    assert tuple(workload._batch.shape) == (16, 200, 81)
    assert float(workload._batch[0, 0, 0]) == pytest.approx(-0.0168918, abs=1e-6)


def test_a_run_measures_rest_and_work(small_workload: None):
    bench = open_bench(plugins(), device_name="cpu", meters=("tiny",))
    told: list[str] = []
    run = run_calibration(
        bench, num_steps=2, num_repeats=3, idle_s=0.3, on_progress=lambda stage, done, total: told.append(stage)
    )
    found = run.calibration
    # The tiny meter sees 0.1 W, whatever this network does.
    assert found.unit.power_w == pytest.approx(0.1, rel=0.4)
    assert found.unit.energy_j == pytest.approx(0.1 * found.unit.seconds, rel=0.4)
    assert len(found.energies_j) == found.num_repeats == 3
    assert found.idle_power_w == pytest.approx(0.1, rel=0.4)
    assert found.unit.net_j == pytest.approx(0.0, abs=0.8 * found.unit.energy_j)
    assert found.hardware.meters == {"node": "tiny (measured)"}
    assert list(dict.fromkeys(told)) == [
        "preparing the workload",
        "measuring idle power",
        "warming up",
        "repetition 1 of 3",
        "repetition 2 of 3",
        "repetition 3 of 3",
    ]
    energies = run.trace.energy_j["tiny", "node"]
    assert list(energies) == sorted(energies)
    assert energies[-1] > energies[0]
    assert len(energies) == len(run.trace.at_s)


def test_a_busy_machine_has_no_net_energy_and_says_why(small_workload: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(idle, "BUSY_SHARE", -1.0)
    bench = open_bench(plugins(), device_name="cpu", meters=("tiny",))
    run = run_calibration(bench, num_steps=1, num_repeats=1, idle_s=0.1, on_progress=lambda *told: None)
    assert run.calibration.unit.net_j is None
    assert any("the machine was not idle before the workload" in note for note in run.notes)


def test_corrections_in_force_are_in_the_run(small_workload: None):
    correction = Gain(meter="tiny", domain=NODE, factor=2.0, uncertainty=0.005, against="x", measured_at="now")
    store_gains([correction])
    bench = open_bench(plugins(), device_name="cpu", meters=("tiny",))
    run = run_calibration(bench, num_steps=1, num_repeats=1, idle_s=0.0, on_progress=lambda *told: None)
    assert run.calibration.unit.power_w == pytest.approx(0.2, rel=0.4)
    assert run.calibration.hardware.meters == {"node": "tiny (measured, × 2)"}
    assert run.calibration.gains == {"tiny node": 2.0}


@pytest.mark.parametrize(
    ("domain", "expected", "is_one"),
    [
        ("cpu:0", [("rapl", "cpu:0")], True),
        ("gpu", [("nvml", "gpu:GPU-1")], True),
        ("node", [("rapl", "cpu:0"), ("rapl", "cpu:1"), ("nvml", "gpu:GPU-1")], False),
    ],
)
def test_what_the_external_meter_reads_is_found(domain: str, expected: list, is_one: bool):
    sources = (("rapl", "cpu:0"), ("rapl", "cpu:1"), ("nvml", "gpu:GPU-1"))
    trace = Trace(at_s=(0.0, 1.0), energy_j=dict.fromkeys(sources, (0.0, 1.0)))
    part, found_one = part_of(trace, domain)
    assert (list(part.energy_j), found_one) == (expected, is_one)
    with pytest.raises(MeterError, match="several domains are cpu; it has cpu:0"):
        part_of(trace, "cpu")
    with pytest.raises(MeterError, match="the calibration has no domain 'dram'"):
        part_of(trace, "dram")


def test_a_second_correction_multiplies_the_first():
    from greensv.energy.baseline.comparison import Comparison

    found = Comparison(
        ratio=1.1,
        uncertainty=0.02,
        external_j=110.0,
        our_j=100.0,
        duration_s=60.0,
        offset_s=0.0,
        correlation=1.0,
        constant_w=0.0,
        slope=1.1,
    )
    gain = gain_of(calibration(gains={"tiny node": 0.5}), TRACE, found, against="wall.csv")
    assert (gain.meter, gain.domain, gain.against) == ("tiny", NODE, "wall.csv")
    assert gain.factor == pytest.approx(0.55)
    assert gain.uncertainty == 0.02


def test_a_search_without_calibration_knows_no_reference_units(lab: Lab):
    lab.search(max_trials=1)
    record = lab.records()[0]
    assert record.reference_units is None
    assert "reference_units" not in record.attributes()
    assert CALIBRATION_ATTRIBUTE not in lab.open()[0].optuna.user_attrs


def test_a_search_shows_its_energies_in_reference_units(lab: Lab):
    energy = {"meters": ["tiny"], "interval_s": 0.02, "idle_s": 0.0, "pue": 1.25}
    lab.search(max_trials=1, energy=energy)
    environment = lab.open()[0].optuna.user_attrs[ENVIRONMENT_ATTRIBUTE]
    assert in_force(environment) is None
    hardware = Hardware(host=this_host(), device=environment["device"], meters={"node": "tiny (measured)"})
    store(calibration(hardware=hardware), TRACE)
    lab.search(max_trials=2, energy=energy)
    before, after = lab.records()[:2]
    assert before.reference_units is None
    assert after.reference_units == pytest.approx(j_from_kwh(after.train_energy_kwh or 0) / 1.25 / 50)
    assert after.reference_units_uncertainty == pytest.approx(after.reference_units * 0.01)
    kept = lab.open()[0].optuna.user_attrs[CALIBRATION_ATTRIBUTE]
    assert (kept["workload"], kept["joules_per_unit"]) == ("greensv-resnet-1", 50.0)
    assert "reference unit of greensv-resnet-1 here: 50 ± 2 J" in lab.notes()


def test_a_calibration_with_other_meter_options_is_not_a_searchs(lab: Lab):
    options = {"tiny": {"power_w": 2.0}}
    energy = {"meters": ["tiny"], "interval_s": 0.02, "idle_s": 0.0, "options": options}
    store(calibration(hardware=open_bench(plugins(), device_name="cpu", meters=("tiny",)).hardware), TRACE)
    lab.search(max_trials=1, energy=energy)
    assert lab.records()[0].reference_units is None
    bench = open_bench(plugins(), device_name="cpu", meters=("tiny",), options=options)
    store(calibration(hardware=bench.hardware), TRACE)
    lab.search(max_trials=2, energy=energy)
    assert lab.records()[1].reference_units is not None


def test_a_damaged_calibration_stops_no_search(lab: Lab):
    lab.search(max_trials=1)
    environment = lab.open()[0].optuna.user_attrs[ENVIRONMENT_ATTRIBUTE]
    hardware = Hardware(host=this_host(), device=environment["device"], meters={"node": "tiny (measured)"})
    store(calibration(hardware=hardware), TRACE).write_text("{")
    lab.search(max_trials=2)
    assert lab.records()[1].state == "complete"
    assert lab.records()[1].reference_units is None


def test_a_study_does_not_go_on_with_another_correction(lab: Lab):
    lab.search(max_trials=1)
    store_gains([Gain(meter="tiny", domain=NODE, factor=1.5, uncertainty=0.01, against="x", measured_at="now")])
    with pytest.raises(StudyError, match=r"tiny \(measured, × 1\.5\)"):
        lab.search(max_trials=2)
