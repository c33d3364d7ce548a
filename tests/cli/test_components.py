import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from greensv import hookspecs
from greensv.cli import components
from greensv.cli.main import cli
from greensv.energy.meter import Domain
from greensv.plugins import load_plugins, plugins_from
from simulated.nvml import UUIDS, FakeGpus, build_stub, run_python
from simulated.scripted import ScriptedMeter


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--no-plugins", *arguments], catch_exceptions=False)


def lines(result: Result) -> list[dict]:
    assert result.exit_code == 0
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_plugins_lists_every_component_with_its_kind_distribution_and_version():
    records = {(r["kind"], r["name"]): r for r in lines(run("plugins", "--json")) if r["kind"] != "problem"}
    installed = load_plugins(third_party=False)
    assert set(records) == {(kind, name) for kind, named in installed.components.items() for name in named}
    assert {("meter", name) for name in ("estimate", "nvml", "pyrapl", "rapl")} <= set(records)
    record = records["meter", "estimate"]
    assert (record["distribution"], record["version"]) == ("greensv", version("greensv"))


def test_plugins_says_why_a_meter_is_unavailable_and_nothing_for_the_others():
    records = {r["name"]: r for r in lines(run("plugins", "--json")) if r["kind"] != "problem"}
    assert records["estimate"]["reason"] is None
    assert records["nvml"]["reason"]  # with or without a driver: no GPU is in use


def test_plugins_prints_a_table(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = run("plugins")
    assert result.exit_code == 0
    assert "unavailable because" in result.stdout
    assert "estimate" in result.stdout


def with_plugin(monkeypatch: pytest.MonkeyPatch, *meters: ScriptedMeter, problem: str | None = None) -> None:
    """Adds a plugin with these meters to the built-in components."""
    module = ModuleType("scripted_plugin")
    module.greensv_meters = hookspecs.hookimpl(specname="greensv_meters")(lambda: meters)
    modules: dict[str, object] = {"scripted_plugin": module}
    if problem:
        modules["broken_plugin"] = ModuleType("broken_plugin")

    def load(**_: object):
        return plugins_from(modules)

    monkeypatch.setattr("greensv.plugins.load_plugins", load)


def test_plugins_shows_what_did_not_load(monkeypatch):
    with_plugin(monkeypatch, problem="implements no hook")
    assert "'broken_plugin'" in run("plugins").stdout
    assert [r for r in lines(run("plugins", "--json")) if r["kind"] == "problem" and "broken_plugin" in r["message"]]


def test_meters_shows_domains_quality_and_resolution_and_what_auto_takes():
    records = {r["meter"]: r for r in lines(run("meters", "--device", "cpu", "--json"))}
    estimate = records["estimate"]
    assert (estimate["quality"], estimate["is_available"], estimate["domains"]) == ("estimated", True, ["cpu", "dram"])
    assert (estimate["resolution_s"], estimate["gain_uncertainty"]) == (0.01, 0.5)
    taken = [domain.partition(":")[0] for record in records.values() for domain in record["auto_domains"]]
    assert set(taken) == {"cpu", "dram"}
    for record in records.values():
        assert record["is_available"] == (record["reason"] is None)
        assert record["is_available"] or record["remedy"]


def test_meters_explains_what_is_missing(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with_plugin(monkeypatch, ScriptedMeter("wall-plug", reason="no /dev/ttyUSB0"))
    result = run("meters", "--device", "cpu")
    assert result.exit_code == 0
    assert "wall-plug is unavailable: no /dev/ttyUSB0" in result.stdout
    assert "→ mend wall-plug" in result.stdout
    assert "Here `auto` chooses:" in result.stdout
    assert "the losses of the power supply" in result.stdout


def test_meters_says_what_is_estimated(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr("greensv.builtin.meters.powercap.DEFAULT_ROOT", "/nonexistent")
    monkeypatch.setattr("greensv.builtin.meters.rapl.availability", no_zones)
    result = run("meters", "--device", "cpu")
    assert "Not measured but estimated, perhaps off by half: cpu, dram." in result.stdout


def no_zones(*_: object):
    from greensv.builtin.meters.powercap import availability

    return availability(Path("/nonexistent"), frozenset())


def test_meters_shows_a_gpu_that_auto_cannot_measure(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(components, "_gpu_uuids", lambda device: ("GPU-gone",))
    result = run("meters")
    assert result.exit_code == 0
    assert "nothing: no meter measures gpu:GPU-gone, which is in use" in result.stdout
    as_json = run("meters", "--json")
    assert all(record["auto_domains"] == [] for record in lines(as_json))
    assert "auto can choose nothing here" in as_json.stderr


def test_meters_shows_what_named_ones_would_be_charged_for(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    plug = ScriptedMeter("wall-plug", Domain("node"))
    with_plugin(monkeypatch, plug, ScriptedMeter("tool", Domain("cpu"), Domain("gpu", "GPU-1")))
    arguments = ("meters", "--device", "cpu", "--meter", "wall-plug", "--meter", "estimate", "--also-meter", "tool")
    result = run(*arguments)
    assert result.exit_code == 0
    assert "With wall-plug and estimate and tool:" in result.stdout
    assert "wall-plug for node (charged)" in result.stdout
    assert "estimate for cpu, dram (a part of the whole, tells where its joules go; not added)" in result.stdout
    assert "tool for cpu, gpu:GPU-1 (shown beside, not added)" in result.stdout
    assert "Not measured but estimated" not in result.stdout  # what is charged is measured
    assert "the losses of the power supply" not in result.stdout  # a node's meter sees them
    records = {r["meter"]: r for r in lines(run(*arguments, "--json"))}
    assert records["wall-plug"]["roles"] == {"node": "charged"}
    assert records["estimate"]["roles"] == {"cpu": "part", "dram": "part"}
    assert records["tool"]["roles"] == {"cpu": "beside", "gpu:GPU-1": "beside"}
    assert all(record["auto_domains"] == [] for record in records.values())


def test_meters_that_cannot_be_used_together_are_listed_and_end_with_an_error(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with_plugin(monkeypatch, ScriptedMeter("wall-plug", Domain("cpu")))
    arguments = ["--no-plugins", "meters", "--device", "cpu", "--meter", "wall-plug", "--meter", "estimate"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert "estimate: dram: " in result.stdout
    assert "meters 'wall-plug' (cpu) and 'estimate' (cpu) would both count the same energy" in str(result.exception)


def test_meters_takes_options_of_a_meter(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    result = run("meters", "--device", "cpu", "--meter-option", "estimate.num_cpus=3")
    assert result.exit_code == 0
    assert "cpu: 2.22 W" in result.stdout  # 3 × 0.74 W


def test_a_meter_whose_probe_raises_breaks_no_listing(monkeypatch):
    class Broken(ScriptedMeter):
        def probe(self, request):
            raise TypeError("joules")

    with_plugin(monkeypatch, Broken("broken", Domain("node")))
    records = {r.get("name"): r for r in lines(run("plugins", "--json"))}
    assert records["broken"]["reason"] == "its probe failed (TypeError: joules)"


def test_meters_measures_a_simulated_gpu_in_a_real_process(tmp_path):
    gpus = FakeGpus(tmp_path / "gpus")
    gpus.add(0, energy_mj=5)
    code = f"""
import sys
from greensv.cli import components
from greensv.cli.main import main
components._gpu_uuids = lambda device: ({UUIDS[0]!r},)
sys.argv = ["greensv", "--no-plugins", "meters", "--json"]
main()
"""
    done = run_python(code, library=build_stub(tmp_path / "library"), gpus=gpus)
    assert done.returncode == 0, done.stderr
    records = {r["meter"]: r for r in map(json.loads, done.stdout.splitlines())}
    assert records["nvml"]["auto_domains"] == [f"gpu:{UUIDS[0]}"]


def test_listing_plugins_loads_neither_torch_nor_the_meters_libraries():

    code = """
import sys
from greensv.plugins import load_plugins
load_plugins(third_party=False)
print([name for name in ("torch", "optuna", "soundfile", "pynvml", "pyRAPL") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
