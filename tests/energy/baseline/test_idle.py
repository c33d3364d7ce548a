"""Idle power: the real monitor on a simulated clock, counters whose power is known, a /proc/stat of the test's own."""

import dataclasses
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from greensv.builtin.meters.estimate import EstimateMeter, EstimateOptions
from greensv.energy.baseline.idle import (
    IdleBaseline,
    IdlePower,
    charged_domains,
    measure_idle,
    modelled_powers,
    this_host,
)
from greensv.energy.meter import Domain, MeterRequest
from greensv.energy.metering.tally import OpenMeter
from greensv.energy.monitoring import Monitor
from simulated.scripted import CPU, Counter, ScriptedClock, ScriptedSession, open_scripted

GPU = Domain("gpu", "GPU-1")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Machine:
    """A socket and a GPU whose powers are known, and the time of its CPUs."""

    def __init__(self, folder: Path) -> None:
        self.clock = ScriptedClock()
        self.cpu, self.gpu = Counter(self.clock), Counter(self.clock, domain=GPU)
        self.cpu_w = iter(lambda: 20.0, None)
        self.gpu_w, self.num_busy = 40.0, 0.0
        self.stat = folder / "stat"
        self.busy, self.resting = 5000.0, 100_000.0
        self.pass_time(0.0)
        cpu = open_scripted(ScriptedSession(self.cpu.samples), name="socket")
        gpu = open_scripted(ScriptedSession(self.gpu.samples), name="board", domains=[GPU])
        self.meters = [with_gain(cpu, 0.03), with_gain(gpu, 0.05)]
        self.monitor = Monitor(self.meters, clock=self.clock)
        self.monitor.poll()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.cpu.add(next(self.cpu_w) * seconds)
        self.gpu.add(self.gpu_w * seconds)
        self.busy += 100 * seconds * self.num_busy
        self.resting += 100 * seconds * (4 - self.num_busy)
        self.stat.write_text(f"cpu  {round(self.busy)} 0 0 {round(self.resting)} 0 0 0 0 0 0\ncpu0 1 1 1 1\n")

    def measure(self, duration_s: float = 30.0, on_interval=lambda done_s, power_w: None):
        return measure_idle(
            self.monitor,
            duration_s=duration_s,
            on_interval=on_interval,
            clock=self.clock,
            wait=self.pass_time,
            stat=self.stat,
        )


def with_gain(meter: OpenMeter, gain: float, **changes) -> OpenMeter:
    about = dataclasses.replace(meter.availability, gain_uncertainty=gain, **changes)
    return dataclasses.replace(meter, availability=about)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.monitor.stop()


def idle_power(**changes) -> IdlePower:
    power = IdlePower(
        host=this_host(),
        meter="socket",
        domain="cpu:0",
        power_w=20.0,
        uncertainty_w=0.5,
        duration_s=30.0,
        measured_at=NOON,
    )
    return dataclasses.replace(power, **changes)


def test_idle_power_is_the_mean_of_each_domain(machine: Machine):
    told = []
    found = machine.measure(on_interval=lambda done_s, power_w: told.append((done_s, power_w)))
    cpu, gpu = found.powers
    assert (cpu.source, gpu.source) == (("socket", "cpu:0"), ("board", "gpu:GPU-1"))
    assert cpu.power_w == pytest.approx(20.0)
    assert gpu.power_w == pytest.approx(40.0)
    assert cpu.duration_s == found.duration_s == pytest.approx(30.0)
    assert cpu.host == this_host()
    assert cpu.measured_at.tzinfo is UTC
    assert told[0] == (pytest.approx(1.0), pytest.approx(60.0))
    assert len(told) == 30
    assert found.disturbance is None


def test_its_uncertainty_is_that_of_the_scale_and_of_the_spread(machine: Machine):
    machine.cpu_w = iter([18.0, 22.0] * 15)
    cpu, gpu = machine.measure().powers
    # 15 × 18 and 15 × 22: the deviation is 2 √(30/29).
    of_mean_w = 2 * math.sqrt(30 / 29) / math.sqrt(30)
    assert cpu.power_w == pytest.approx(20.0)
    assert cpu.uncertainty_w == pytest.approx(math.hypot(of_mean_w, 0.03 * 20.0))
    assert gpu.uncertainty_w == pytest.approx(0.05 * 40.0)


def test_a_machine_whose_cpus_work_is_not_idle(machine: Machine):
    machine.num_busy = 1.0
    found = machine.measure()
    assert found.busy_share == pytest.approx(0.25, abs=0.01)
    assert found.disturbance == "25% of the machine's CPU time was in use"


def test_a_power_that_varies_is_not_that_of_rest(machine: Machine):
    machine.cpu_w = iter([20.0] * 15 + [60.0] * 15)
    disturbance = machine.measure().disturbance
    assert disturbance is not None
    assert disturbance.startswith("the power of cpu:0 varied by ±20.3 W around 40 W")


def test_without_proc_stat_only_the_power_tells(machine: Machine):
    found = measure_idle(
        machine.monitor,
        duration_s=5.0,
        on_interval=lambda done_s, power_w: None,
        clock=machine.clock,
        wait=machine.clock.advance,
        stat=Path("/nowhere/stat"),
    )
    assert found.busy_share is None
    assert found.disturbance is None


def test_what_the_listener_raises_ends_it(machine: Machine):
    def on_interval(done_s: float, power_w: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine.measure(on_interval=on_interval)


def test_readings_are_as_far_apart_as_the_slowest_counter_needs(tmp_path: Path):
    clock = ScriptedClock()
    counter = Counter(clock)
    meter = with_gain(open_scripted(ScriptedSession(counter.samples)), 0.0, resolution_s=0.25)
    monitor = Monitor([meter], clock=clock)
    monitor.poll()
    times = []
    measure_idle(
        monitor,
        duration_s=30.0,
        on_interval=lambda done_s, power_w: times.append(done_s),
        clock=clock,
        wait=clock.advance,
        stat=tmp_path / "none",
    )
    monitor.stop()
    assert times == pytest.approx([5, 10, 15, 20, 25, 30])


def test_the_model_of_the_estimate_knows_its_own_rest_power():
    request = MeterRequest(options=EstimateOptions(num_cpus=4, memory_gb=10))
    meter = EstimateMeter()
    opened = OpenMeter(
        name="estimate", quality="estimated", session=meter.open(request), availability=meter.probe(request)
    )
    cpu, dram = modelled_powers([opened], host="here", at=NOON)
    assert cpu.power_w == pytest.approx(4 * 0.74)
    assert dram.power_w == pytest.approx(10 * 0.392)
    assert dram.uncertainty_w == pytest.approx(0.5 * 3.92)
    assert (cpu.duration_s, cpu.host, cpu.measured_at) == (0.0, "here", NOON)
    opened.session.close()


def test_domains_that_only_tell_parts_are_in_no_net_figure():
    meter = open_scripted(ScriptedSession(list), domains=[CPU, GPU])
    assert charged_domains(dataclasses.replace(meter, roles={CPU: "part"})) == (GPU,)


def test_net_is_gross_less_idle_power_times_duration(machine: Machine):
    machine.cpu_w, machine.gpu_w = iter(lambda: 50.0, None), 240.0
    with machine.monitor.window("work") as window:
        for _ in range(10):
            machine.pass_time(1.0)
            machine.monitor.poll()
    baseline = IdleBaseline(
        powers=(
            idle_power(uncertainty_w=0.7),
            idle_power(meter="board", domain="gpu:GPU-1", power_w=40.0, uncertainty_w=2.0),
        )
    )
    net = baseline.net(window.result)
    assert net is not None
    assert net.energy_j == pytest.approx(10 * (50 - 20 + 240 - 40))
    # Scales of 3 and 5 %, each of its meter's net energy. The socket's idle power is less certain than its scale alone.
    gross_rest_j2 = sum(r.uncertainty_j**2 - r.scale_uncertainty_j**2 for r in window.result.readings)
    idle_rest_w2 = 0.7**2 - (0.03 * 20) ** 2
    expected = math.sqrt((0.03 * 300) ** 2 + (0.05 * 2000) ** 2 + 100 * idle_rest_w2 + gross_rest_j2)
    assert net.uncertainty_j == pytest.approx(expected)
    assert not net.is_impossible


def test_without_the_idle_power_of_every_domain_net_is_unknown(machine: Machine):
    with machine.monitor.window("work") as window:
        machine.pass_time(10.0)
    assert IdleBaseline(powers=(idle_power(),)).net(window.result) is None
    assert IdleBaseline(powers=()).net(window.result) is None


def test_a_net_below_zero_is_told_not_clipped(machine: Machine):
    machine.gpu_w = 10.0
    with machine.monitor.window("work") as window:
        machine.pass_time(10.0)
    gpu = idle_power(meter="board", domain="gpu:GPU-1", power_w=40.0, uncertainty_w=2.0)
    net = IdleBaseline(powers=(idle_power(), gpu)).net(window.result)
    assert net is not None
    assert net.energy_j == pytest.approx(-300.0)
    assert net.is_impossible
    vague = IdleBaseline(powers=(idle_power(), dataclasses.replace(gpu, uncertainty_w=40.0))).net(window.result)
    assert vague is not None
    assert not vague.is_impossible
