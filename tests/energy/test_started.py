"""`greensv.energy.monitor`: measuring in any Python program."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import greensv.energy
from greensv.energy import started
from greensv.energy.meter import Domain
from greensv.energy.started import start_monitor
from greensv.errors import ConfigError, MeterError
from simulated.nvml import UUIDS, FakeGpus, build_stub, run_python
from simulated.scripted import ScriptedMeter


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_program_is_measured_without_torch_and_without_optuna():
    done = run("""
        import sys
        import greensv.energy
        early = [name for name in ("greensv.plugins", "greensv.energy.monitoring", "numpy") if name in sys.modules]
        with greensv.energy.monitor("auto").window("train") as window:
            sum(range(100_000))
        result = window.result
        assert result.energy_j > 0
        assert result.uncertainty_j > 0
        assert result.name == "train"
        print(early, [name for name in ("torch", "optuna", "sqlalchemy", "pydantic") if name in sys.modules])
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] []\n", "")


def test_a_monitor_that_nobody_stops_ends_with_the_interpreter_and_closes_its_meters():
    done = run("""
        from greensv.energy.meter import Availability, CounterSample, Domain, Meter, MeterSession
        from greensv.energy.started import start_monitor

        class Session(MeterSession):
            def read(self):
                return [CounterSample(domain=Domain("node"), taken_at_s=0.0, count=0, unit_j=1.0)]
            def close(self):
                print("closed")

        class Plug(Meter):
            name, quality = "plug", "measured"
            def probe(self, request):
                return Availability(domains=(Domain("node"),))
            def open(self, request):
                return Session()

        start_monitor([Plug()], ["plug"], interval_s=0.01)
        print("ends")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ends\nclosed\n", "")


def test_a_block_stops_the_monitor_and_its_windows_nest():
    with greensv.energy.monitor("estimate", gpu_uuids=()) as monitor:
        with monitor.window("outer") as outer, monitor.window("inner") as inner:
            sum(range(10_000))
        assert outer.result.energy_j >= inner.result.energy_j > 0
        assert {reading.meter for reading in outer.result.readings} == {"estimate"}
    with pytest.raises(MeterError, match="the monitor has stopped"), monitor.window("late"):
        pass
    monitor.stop()  # once more does no harm


def test_it_says_which_meters_it_considered():
    with greensv.energy.monitor(gpu_uuids=()) as monitor:
        chosen = {str(d) for c in monitor.choices if c.is_chosen for d in c.availability.domains}
        assert {domain.partition(":")[0] for domain in chosen} == {"cpu", "dram"}
        assert "nvml" in {choice.meter.name for choice in monitor.choices if not choice.is_chosen}


def test_options_reach_their_meter_and_mistakes_are_told():
    options = {"estimate": {"num_cpus": 1, "min_w_per_cpu": 0, "max_w_per_cpu": 1, "kinds": ["cpu"]}}
    with greensv.energy.monitor("estimate", gpu_uuids=(), options=options) as monitor:
        assert [str(domain) for c in monitor.choices for domain in c.availability.domains] == ["cpu"]
    with pytest.raises(ConfigError, match="did you mean 'num_cpus'"):
        greensv.energy.monitor("estimate", options={"estimate": {"num_cpu": 1}})
    with pytest.raises(MeterError, match="did you mean 'estimate'"):
        greensv.energy.monitor("estimat")


def test_the_device_is_waited_for_at_both_edges():
    calls: list[str] = []
    monitor = greensv.energy.monitor("estimate", gpu_uuids=(), synchronise=lambda: calls.append("waited"))
    with monitor, monitor.window("train"):
        calls.append("work")
    assert calls == ["waited", "work", "waited"]


def test_a_damaged_file_of_gains_leaves_no_meter_open(monkeypatch: pytest.MonkeyPatch):
    def damaged() -> None:
        raise ConfigError("gains.json is damaged")

    meter = ScriptedMeter("plug", Domain("node"))
    monkeypatch.setattr(started, "load_gains", damaged)
    with pytest.raises(ConfigError, match="damaged"):
        start_monitor([meter], ["plug"])
    assert meter.sessions == []


def test_nothing_to_measure_with_is_an_error():
    with pytest.raises(MeterError, match="no meter for cpu and dram"):
        start_monitor([], gpu_uuids=())


MEASURE = """
import sys
from pathlib import Path
import greensv.energy

with greensv.energy.monitor("nvml") as monitor, monitor.window("train") as window:
    for number, energy_mj in enumerate((2500, 9000)):
        Path(sys.argv[1], str(number), "energy_mj").write_text(f"{energy_mj}")
print([(str(reading.domain), round(reading.energy_j, 6)) for reading in window.result.readings])
"""


def test_the_gpus_are_those_that_cuda_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gpus = FakeGpus(tmp_path / "gpus")
    for number in (0, 1):
        gpus.add(number, energy_mj=1000)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    library = build_stub(tmp_path / "library")
    done = run_python(MEASURE, library=library, gpus=gpus, arguments=(str(gpus.folder),))
    assert done.stdout == f"{[(f'gpu:{UUIDS[1]}', 8.0), (f'gpu:{UUIDS[0]}', 1.5)]}\n", done.stderr
