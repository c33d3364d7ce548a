import math
from datetime import UTC, datetime

import pytest

from greensv.energy.meter import Domain
from greensv.energy.metering.parts import split
from greensv.energy.metering.reading import OpenMeter, Reading
from greensv.energy.metering.selection import choose_meters, open_meters
from greensv.energy.metering.window import EnergyWindow
from greensv.energy.monitoring import Monitor
from simulated.scripted import Gauge, ScriptedClock, ScriptedMeter, ScriptedSession

NODE, HOST, CPU, DRAM, GPU = (
    Domain("node"),
    Domain("host"),
    Domain("cpu", "0"),
    Domain("dram", "0"),
    Domain("gpu", "GPU-1"),
)


def reading(domain: Domain, energy_j: float, meter: str, *, role="part", scale_j=0.0, other_j=0.0, quality="measured"):
    return Reading(
        domain=domain,
        meter=meter,
        quality=quality,
        energy_j=energy_j,
        role=role,
        uncertainty_j=math.hypot(scale_j, other_j),
        scale_uncertainty_j=scale_j,
    )


def window_of(*readings: Reading) -> EnergyWindow:
    charged = tuple(r for r in readings if r.role == "charged")
    others = tuple(r for r in readings if r.role != "charged")
    return EnergyWindow(name="w", started_at=datetime.now(UTC), duration_s=10.0, readings=charged, others=others)


def test_the_rest_is_what_the_parts_leave_and_as_uncertain_as_all_together():
    """By hand: rapl's scale is off alike in both its readings, 40 + 10 = 50 J; with the node's 120 J, 130 J."""
    parts = split(
        window_of(
            reading(NODE, 2000.0, "ipmi", role="charged", scale_j=120.0),
            reading(CPU, 800.0, "rapl", scale_j=40.0),
            reading(DRAM, 200.0, "rapl", scale_j=10.0),
        )
    )
    assert [(p.name, p.energy_j, p.share) for p in parts] == [
        ("cpu:0", 800.0, 0.4),
        ("dram:0", 200.0, 0.1),
        ("rest", 1000.0, 0.5),
    ]
    rest = parts[-1]
    assert rest.uncertainty_j == pytest.approx(130.0)
    assert (rest.meter, rest.quality, rest.problem, rest.whole) == ("ipmi - rapl", "attributed", None, NODE)
    assert [p.uncertainty_j for p in parts[:2]] == [40.0, 10.0]


def test_parts_sum_to_the_whole():
    parts = split(
        window_of(
            reading(NODE, 1234.5, "ipmi", role="charged"), reading(CPU, 99.25, "rapl"), reading(GPU, 700.5, "nvml")
        )
    )
    assert sum(p.energy_j for p in parts) == pytest.approx(1234.5)


def test_a_rest_from_an_estimate_is_an_estimate():
    whole = reading(NODE, 100.0, "ipmi", role="charged")
    assert split(window_of(whole, reading(CPU, 10.0, "estimate", quality="estimated")))[-1].quality == "estimated"


def test_parts_that_exceed_the_whole_are_a_disagreement_and_not_zero():
    whole = reading(NODE, 1000.0, "ipmi", role="charged", scale_j=30.0)
    agreeing = split(window_of(whole, reading(GPU, 1090.0, "nvml", scale_j=40.0)))[-1]
    assert (agreeing.energy_j, agreeing.problem) == (-90.0, None)  # within 1.96 × 50 J
    disagreeing = split(window_of(whole, reading(GPU, 1110.0, "nvml", scale_j=40.0)))[-1]
    assert disagreeing.energy_j == -110.0
    assert "the meters disagree: nvml gpu:GPU-1 have 1110 J together, more than the 1000 J" in (
        disagreeing.problem or ""
    )


def test_a_host_holds_no_gpu():
    parts = split(
        window_of(
            reading(HOST, 500.0, "ipmi", role="charged"),
            reading(GPU, 900.0, "nvml", role="charged"),
            reading(CPU, 200.0, "rapl"),
        )
    )
    assert [(p.name, p.energy_j) for p in parts] == [("cpu:0", 200.0), ("rest", 300.0)]


def test_a_host_within_a_node_is_split_in_its_turn():
    parts = split(
        window_of(
            reading(NODE, 1000.0, "plug", role="charged"),
            reading(HOST, 400.0, "ipmi"),
            reading(CPU, 300.0, "rapl"),
            reading(GPU, 500.0, "nvml"),
        )
    )
    found = {(str(p.whole), p.name): p.energy_j for p in parts}
    assert found == {
        ("node", "host"): 400.0,
        ("node", "gpu:GPU-1"): 500.0,
        ("node", "rest"): 100.0,
        ("host", "cpu:0"): 300.0,
        ("host", "rest"): 100.0,
    }


def test_without_parts_or_without_a_whole_there_is_nothing_to_split():
    beside = reading(CPU, 10.0, "codecarbon", role="beside")
    assert split(window_of(reading(NODE, 100.0, "ipmi", role="charged"), beside)) == ()
    assert split(window_of(reading(CPU, 100.0, "rapl", role="charged"))) == ()


def test_a_node_that_drew_nothing_has_no_shares():
    parts = split(window_of(reading(NODE, 0.0, "ipmi", role="charged"), reading(CPU, 0.0, "rapl")))
    assert [p.share for p in parts] == [None, None]


def test_a_monitored_node_is_charged_once_and_split():
    """300 W for 10 s by the node's meter, 120 W of them by the CPU's: the account holds 3000 J."""
    clock = ScriptedClock()
    node, cpu = Gauge(clock, domain=NODE), Gauge(clock, domain=CPU)
    node.power_w, cpu.power_w = 300.0, 120.0
    choices = choose_meters([ScriptedMeter("plug", NODE), ScriptedMeter("rapl", CPU)], ["plug", "rapl"])
    sessions = {"plug": ScriptedSession(node.samples), "rapl": ScriptedSession(cpu.samples)}
    meters = [
        OpenMeter(name=m.name, quality=m.quality, session=sessions[m.name], availability=m.availability, roles=m.roles)
        for m in open_meters(choices)
    ]
    with Monitor(meters, interval_s=1000.0, clock=clock) as monitor:
        with monitor.window("busy") as window:
            clock.advance(10.0)
        assert sum(r.energy_j for r in monitor.totals(fresh=True)) == pytest.approx(3000.0)
    assert window.result.energy_j == pytest.approx(3000.0)
    assert [(p.name, round(p.energy_j, 6)) for p in split(window.result)] == [("cpu:0", 1200.0), ("rest", 1800.0)]
