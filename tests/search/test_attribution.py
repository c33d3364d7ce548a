import math
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greensv.energy.devices.phase_book import PhaseEnergy
from greensv.energy.meter import Domain
from greensv.energy.metering.reading import Reading
from greensv.energy.metering.window import EnergyWindow
from greensv.search.attribution import RestPower, attribute, phase_seconds
from greensv.speaker.training.phases import STEP_PHASES, StepTimes

GPU = Domain("gpu", "GPU-1")
CPU = Domain("cpu", "0")
NODE = Domain("node")


def times(wait: float, copy: float, forward: float, backward: float, optimiser: float) -> StepTimes:
    seconds = dict(zip(STEP_PHASES, (wait, copy, forward, backward, optimiser), strict=True))
    return StepTimes(seconds=seconds, host_wait_s=0.0, num_steps=10)


def reading(domain: Domain, energy_j: float, *, uncertainty_j: float = 0.0, role: str = "charged") -> Reading:
    return Reading(
        domain=domain, meter="m", quality="measured", energy_j=energy_j, uncertainty_j=uncertainty_j, role=role
    )


def window(*readings: Reading, duration_s: float, others: Sequence[Reading] = ()) -> EnergyWindow:
    return EnergyWindow(
        name="training",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        duration_s=duration_s,
        readings=readings,
        others=tuple(others),
    )


def joules(found: Sequence[PhaseEnergy], domain: Domain) -> dict[str, float]:
    return {energy.phase: energy.energy_j for energy in found if energy.domain == str(domain)}


# 10 s: 2 s without data, 7 s of work, 1 s between steps.
STEP_TIMES = times(2.0, 0.5, 2.5, 3.5, 0.5)


def test_a_gpu_without_data_counts_at_its_idle_power_and_the_rest_goes_to_the_phases_by_time():
    found = attribute(window(reading(GPU, 1_700.0), duration_s=10.0), STEP_TIMES, rest={GPU: RestPower(power_w=100.0)})
    assert joules(found, GPU) == pytest.approx(
        {
            "data-wait": 200.0,
            "host-to-device": 100.0,  # of 1,400 J in 7 s
            "forward": 500.0,
            "backward": 700.0,
            "optimiser": 100.0,
            "other": 100.0,
        }
    )
    assert [energy.duration_s for energy in found] == pytest.approx([2.0, 0.5, 2.5, 3.5, 0.5, 1.0])


def test_the_uncertainty_of_a_wait_spans_idle_and_mean_power():
    (wait, *_, backward, _, _) = attribute(
        window(reading(GPU, 1_700.0, uncertainty_j=85.0), duration_s=10.0),
        STEP_TIMES,
        rest={GPU: RestPower(power_w=100.0, uncertainty_w=3.0)},
    )
    spread_w = math.hypot(3.0, (170.0 - 100.0) / math.sqrt(12))
    assert wait.uncertainty_j == pytest.approx(math.hypot(2.0 * spread_w, 0.05 * 200.0))
    # A quarter of what it used above rest, for the half of the working time that other phases had.
    assert backward.uncertainty_j == pytest.approx(math.hypot(0.25 * 0.5 * (700.0 - 350.0), 0.05 * 700.0))


def test_without_an_idle_power_a_gpus_energy_is_shared_out_by_time():
    found = attribute(window(reading(GPU, 1_000.0), duration_s=10.0), STEP_TIMES)
    assert joules(found, GPU) == pytest.approx(
        {
            "data-wait": 200.0,
            "host-to-device": 50.0,
            "forward": 250.0,
            "backward": 350.0,
            "optimiser": 50.0,
            "other": 100.0,
        }
    )


def test_an_idle_power_above_the_mean_counts_as_the_mean():
    """A GPU measured while another program used it."""
    found = attribute(window(reading(GPU, 1_000.0), duration_s=10.0), STEP_TIMES, rest={GPU: RestPower(power_w=400.0)})
    assert joules(found, GPU)["data-wait"] == pytest.approx(200.0)
    assert sum(joules(found, GPU).values()) == pytest.approx(1_000.0)


def test_a_cpus_energy_is_shared_out_by_time_whatever_its_idle_power():
    found = attribute(window(reading(CPU, 500.0), duration_s=10.0), STEP_TIMES, rest={CPU: RestPower(power_w=1.0)})
    assert joules(found, CPU)["data-wait"] == pytest.approx(100.0)


def test_a_nodes_energy_is_its_gpus_part_and_the_rest():
    metered = window(
        reading(NODE, 2_700.0),
        duration_s=10.0,
        others=[reading(GPU, 1_700.0, role="part"), reading(CPU, 9.0, role="part")],
    )
    found = attribute(metered, STEP_TIMES, rest={GPU: RestPower(power_w=100.0)})
    assert {energy.domain for energy in found} == {"node"}, "parts are charged with their node"
    assert joules(found, NODE)["data-wait"] == pytest.approx(200.0 + 200.0)
    assert joules(found, NODE)["backward"] == pytest.approx(700.0 + 350.0)
    assert sum(joules(found, NODE).values()) == pytest.approx(2_700.0)


def test_a_node_below_its_gpus_is_shared_out_by_time():
    metered = window(reading(NODE, 1_000.0), duration_s=10.0, others=[reading(GPU, 1_700.0, role="part")])
    found = attribute(metered, STEP_TIMES, rest={GPU: RestPower(power_w=100.0)})
    assert joules(found, NODE)["data-wait"] == pytest.approx(200.0)


def test_meters_shown_beside_ours_are_attributed_to_nothing():
    metered = window(reading(CPU, 500.0), duration_s=10.0, others=[reading(GPU, 70.0, role="beside")])
    assert {energy.domain for energy in attribute(metered, STEP_TIMES)} == {"cpu:0"}


def test_phases_longer_than_their_window_are_shortened():
    seconds = phase_seconds(times(4.0, 0.0, 8.0, 8.0, 0.0), duration_s=10.0)
    assert seconds == pytest.approx(
        {"data-wait": 2.0, "host-to-device": 0.0, "forward": 4.0, "backward": 4.0, "optimiser": 0.0, "other": 0.0}
    )


def test_a_training_stopped_before_its_first_step_is_other():
    found = attribute(
        window(reading(GPU, 300.0), duration_s=3.0), times(0, 0, 0, 0, 0), rest={GPU: RestPower(power_w=10.0)}
    )
    assert joules(found, GPU)["other"] == pytest.approx(300.0)


amounts = st.floats(0.0, 1e6)


@settings(deadline=None)
@given(
    seconds=st.tuples(amounts, amounts, amounts, amounts, amounts),
    duration_s=st.just(0.0) | st.floats(1e-9, 1e6),
    energy_j=amounts,
    rest_w=st.one_of(st.none(), st.floats(0.0, 1e3)),
    domain=st.sampled_from([GPU, CPU, NODE]),
    gpu_j=amounts,
)
def test_the_phases_always_sum_to_the_windows_energy(seconds, duration_s, energy_j, rest_w, domain, gpu_j):
    others = [reading(GPU, gpu_j, role="part")] if domain == NODE else []
    rest = {} if rest_w is None else {GPU: RestPower(power_w=rest_w)}
    found = attribute(
        window(reading(domain, energy_j), duration_s=duration_s, others=others), times(*seconds), rest=rest
    )
    assert sum(energy.energy_j for energy in found) == pytest.approx(energy_j)
    assert min(energy.energy_j for energy in found) >= -1e-9 * energy_j
    assert sum(energy.duration_s for energy in found) == pytest.approx(duration_s)
    assert all(math.isfinite(energy.uncertainty_j) and energy.uncertainty_j >= 0 for energy in found)
