import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from greensv.builtin.meters import machine
from greensv.builtin.meters.estimate import EstimateMeter, EstimateOptions, EstimateSession, Model
from greensv.energy.meter import MeterRequest
from greensv.energy.metering.selection import choose_meters, open_meters
from greensv.energy.monitoring import Monitor
from greensv.errors import MeterError
from greensv.testing.meter_contract import MeterContract
from simulated.scripted import ScriptedClock

MODEL = Model(rest_w=3.0, busy_w=2.5, dram_w=8.0)


class TestEstimateContract(MeterContract):
    @pytest.fixture
    def meter(self) -> EstimateMeter:
        return EstimateMeter()


def test_energy_is_rest_power_times_time_and_busy_power_times_cpu_time():
    assert MODEL.energy_j("cpu", wall_s=10, cpu_s=4) == pytest.approx(10 * 3.0 + 4 * 2.5)
    assert MODEL.energy_j("dram", wall_s=10, cpu_s=4) == pytest.approx(80)


def test_counters_start_with_the_process_in_whole_microjoules():
    clock = ScriptedClock()
    session = EstimateSession(MODEL, ("cpu", "dram"), age_s=20, clock=clock, cpu_time_s=lambda: 1.5)
    clock.advance(10)
    cpu, dram = session.read()
    assert (str(cpu.domain), cpu.count, cpu.unit_j) == ("cpu", 30 * 3_000_000 + 3_750_000, 1e-6)
    assert (str(dram.domain), dram.count) == ("dram", 240_000_000)
    assert cpu.taken_at_s == clock()


def test_cpu_time_that_seems_to_fall_does_not_make_the_counter_fall():
    times = iter([5.0, 4.0, 6.0])
    session = EstimateSession(MODEL, ("cpu",), age_s=0, clock=lambda: 0.0, cpu_time_s=lambda: next(times))
    assert [session.read()[0].count for _ in range(3)] == [12_500_000, 12_500_000, 15_000_000]


def test_cpu_time_that_cannot_be_read_is_an_error():
    def fail() -> float:
        raise OSError("no /proc")

    session = EstimateSession(MODEL, ("cpu",), age_s=0, cpu_time_s=fail)
    with pytest.raises(MeterError, match="/proc cannot be read"):
        session.read()


def test_the_default_coefficients_are_cloud_carbon_footprints():
    options = EstimateOptions(num_cpus=4, memory_gb=16)
    assert EstimateMeter().probe(MeterRequest(options=options)).notes == (
        "cpu: 2.96 W, and 2.76 W for each busy CPU",  # 4 × 0.74 W; 3.5 W - 0.74 W
        "dram: 6.27 W",  # 16 GB × 0.392 W
    )


def test_an_estimate_is_labelled_and_knows_little_about_its_scale():
    about = EstimateMeter().probe(MeterRequest())
    assert EstimateMeter().quality == "estimated"
    assert about.gain_uncertainty == 0.5
    assert about.since_process_start


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (MeterRequest(leave_out=frozenset({"cpu"})), ["dram"]),
        (MeterRequest(options=EstimateOptions(kinds=("dram",))), ["dram"]),
        (MeterRequest(options=EstimateOptions(kinds=("dram",)), leave_out=frozenset({"dram"})), []),
    ],
)
def test_kinds_that_others_measure_are_left_out(request_, found):
    assert [str(domain) for domain in EstimateMeter().probe(request_).domains] == found


def test_without_proc_it_is_unavailable(monkeypatch):
    def fail() -> float:
        raise FileNotFoundError("/proc/self/stat")

    monkeypatch.setattr(machine, "process_age_s", fail)
    assert "no /proc as Linux has it" in (EstimateMeter().probe(MeterRequest()).reason or "")
    with pytest.raises(MeterError, match="Linux only"):
        EstimateMeter().open(MeterRequest())


def test_start_up_is_in_the_totals_of_a_real_process():
    options = {"estimate": {"min_w_per_cpu": 10.0, "max_w_per_cpu": 10.0, "num_cpus": 1, "kinds": ["cpu"]}}
    age_s = machine.process_age_s()
    with Monitor(open_meters(choose_meters([EstimateMeter()], ["estimate"], options=options))) as monitor:
        (reading,) = monitor.totals(fresh=True)
    assert 10 * age_s <= reading.energy_j <= 10 * (machine.process_age_s() + 0.05)


def test_cpu_time_counts_living_and_ended_children():
    spin = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\nsys.stdin.read()"
    before_s = machine.cpu_time_s()
    child = subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    living_s = machine.cpu_time_s() - before_s
    child.communicate()
    ended_s = machine.cpu_time_s() - before_s
    assert ended_s >= 0.29
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        pytest.skip("this kernel keeps no list of children (CONFIG_PROC_CHILDREN)")
    assert living_s >= 0.27  # clock ticks of 10 ms
    assert ended_s >= living_s - 0.05


def test_cpu_time_counts_processes_that_work_with_this_one():
    # Started by a shell that has ended: no descendant of this process any more.
    spin = "import os, sys, time\nwhile time.process_time() < 0.3: pass\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    shell = f"{sys.executable} -c '{spin}' & sleep 0.1"
    done = subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE, text=True)
    other = int(done.stdout.readline())
    try:
        done.wait()
        assert machine.cpu_time_s([other]) >= machine.cpu_time_s() + 0.27  # clock ticks of 10 ms
    finally:
        os.kill(other, signal.SIGKILL)
        done.stdout.close()


def test_the_process_age_grows_with_the_clock():
    before_s = time.monotonic()
    first_age_s = machine.process_age_s()
    between_s = time.monotonic()
    time.sleep(0.02)
    later_s = time.monotonic()
    second_age_s = machine.process_age_s()
    # However long this test is held up: the ages are as far apart as the readings.
    assert later_s - between_s - 1e-3 <= second_age_s - first_age_s <= time.monotonic() - before_s + 1e-3
