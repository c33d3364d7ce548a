import dataclasses

import pytest

from greensv.energy.books.accrual import Accrual, Use
from greensv.energy.meter import Domain
from greensv.energy.metering.reading import Reading
from simulated.scripted import ScriptedClock

USE = Use(lease=None, purpose="training", trial_number=3)


def total(energy_j: float, *, gain: float = 0.05) -> Reading:
    return Reading(
        domain=Domain("gpu", "GPU-1"),
        meter="nvml",
        quality="measured",
        energy_j=energy_j,
        uncertainty_j=gain * energy_j + 7.0,
        scale_uncertainty_j=gain * energy_j,
    )


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


def test_a_charge_is_as_uncertain_as_the_scale_of_its_meter_and_charges_add_up(clock):
    accrual = Accrual(pue=1.2, clock=clock)
    accrual.add([total(0)])
    accrual.add([total(100)])
    (first,) = accrual.take(USE)
    accrual.add([total(250)])
    (second,) = accrual.take(USE)
    assert (first.energy_uj, first.uncertainty_uj) == (120_000_000, 6_000_000)
    assert first.uncertainty_uj + second.uncertainty_uj == pytest.approx(1.2 * 0.05 * 250e6, abs=2)


def test_a_meter_without_a_stated_scale_states_none(clock):
    accrual = Accrual(pue=1.0, clock=clock)
    accrual.add([total(100, gain=0.0)])
    (charge,) = accrual.take(USE)
    assert charge.uncertainty_uj == 0


def test_energy_worked_out_for_the_time_before_the_meters_is_as_uncertain_as_its_power(clock):
    accrual = Accrual(pue=1.0, clock=clock)
    accrual.add([total(0)])
    clock.advance(1)
    accrual.add([total(100)])
    (charge,) = accrual.startup(3.0, counted_meters=())
    assert charge.energy_uj == 300_000_000
    # 300 J, between nothing and twice as much, of a meter known to 5 %.
    assert charge.uncertainty_uj == pytest.approx(300e6 * (1 / 3 + 0.05**2) ** 0.5, abs=2)


def test_a_charge_covers_the_time_since_the_one_before_it_of_the_same_domain(clock):
    """A counter that changes every 3 s beside one that does each second: both cover all the time, once."""
    accrual = Accrual(pue=1.0, clock=clock)
    slow = dataclasses.replace(total(0), meter="ipmi")
    durations_s: dict[str, list[float]] = {"nvml": [], "ipmi": []}
    for second in range(1, 7):
        clock.advance(1)
        accrual.add([total(10.0 * second), dataclasses.replace(slow, energy_j=30.0 * (second // 3))])
        for charge in accrual.take(USE):
            durations_s[charge.meter].append(charge.ended_at - charge.started_at)
    assert durations_s == {"nvml": pytest.approx([1.0] * 6), "ipmi": pytest.approx([3.0, 3.0])}


def test_energy_counted_since_the_process_started_covers_the_time_since_then(clock):
    accrual = Accrual(pue=1.0, clock=clock)
    accrual.count_from(clock() - 8.0, ["nvml"])
    clock.advance(1)
    accrual.add([total(90), dataclasses.replace(total(10), meter="ipmi")])
    durations_s = {charge.meter: charge.ended_at - charge.started_at for charge in accrual.take(USE)}
    assert durations_s == pytest.approx({"nvml": 9.0, "ipmi": 1.0})
    clock.advance(1)
    accrual.add([total(100)])
    (second,) = accrual.take(USE)
    assert second.ended_at - second.started_at == pytest.approx(1.0)


def test_a_startup_that_cannot_be_worked_out_is_logged(clock, caplog):
    accrual = Accrual(pue=1.0, clock=clock)
    accrual.add([total(0)])
    clock.advance(1)
    assert accrual.startup(3.0, counted_meters=()) == []
    assert "meter 'nvml' showed no energy of gpu:GPU-1 in its first 1 s" in caplog.text
    assert accrual.startup(3.0, counted_meters=("nvml",)) == []
    assert len(caplog.records) == 1
