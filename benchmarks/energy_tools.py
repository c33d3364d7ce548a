"""The same live counters read by greensv, CodeCarbon, Zeus and carbontracker at the same time, beside the truth.

    uv venv --python 3.11 VENV
    uv pip install --python VENV/bin/python codecarbon==3.3.2 zeus==0.16.0 carbontracker==2.4.7
    uv run python benchmarks/energy_tools.py --tools-python VENV/bin/python

A process of its own writes a powercap tree each millisecond and the state of a GPU each 100 ms, after known functions
of power: random bursts on the package and the GPU, constant power on the memory. The tree is mounted on
/sys/class/powercap, and the GPU answers through a stand-in for libnvidia-ml, so that each tool runs as released, with
its defaults. Each measures the same window in a process of its own; its energies are compared with the integral from
the moment it had begun until it was told to end. In a second series the package's counter wraps once, in the middle of
the window, as a Xeon's does every half hour at 150 W. Prints a Markdown report.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
LEAD_S = 25.0
"""For starting and importing four tools at once."""
PACKAGE_UPDATE_S, GPU_UPDATE_S = 0.001, 0.1
DOMAINS = ("package", "dram", "gpu")
JOULES_PER_KWH = 3.6e6

Energies = dict[str, float | None]


def main() -> None:
    """Runs all tools side by side and prints a table, or is the hardware or one of the tools."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools-python", default=sys.executable)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--part", choices=["hardware", *TOOLS])
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.part == "hardware":
        be_hardware(arguments.folder)
    elif arguments.part:
        be_tool(arguments.part, arguments.folder)
    else:
        compare(arguments.tools_python, num_runs=arguments.runs, seconds=arguments.seconds)


def compare(tools_python: str, *, num_runs: int, seconds: float) -> None:
    """Measures `num_runs` windows without and with a wrap, and prints a table of each."""
    print(f"Windows of {seconds:g} s, {num_runs} of each; error in % of the truth, from the lowest to the highest.")
    for wraps in (False, True):
        found: dict[str, list[Energies]] = {tool: [] for tool in TOOLS}
        truths: dict[str, list[Energies]] = {tool: [] for tool in TOOLS}
        for run in range(num_runs):
            for tool, (energies, truth) in measure(tools_python, seconds=seconds, seed=run, wraps=wraps).items():
                found[tool].append(energies)
                truths[tool].append(truth)
        print(f"\n{'The package counter wraps once' if wraps else 'No counter wraps'}:\n")
        print("| tool | package | memory | GPU | all it gives, against all |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for tool in TOOLS:
            cells = [spread(tool, domain, found[tool], truths[tool]) for domain in (*DOMAINS, "total")]
            print(f"| {tool} | {' | '.join(cells)} |", flush=True)
    sys.path.insert(0, str(Path(__file__).parent))
    from watched import machine

    print(f"\n{machine()}, Python {platform.python_version()}")


def spread(tool: str, domain: str, found: list[Energies], truths: list[Energies]) -> str:
    """Returns a cell: the median error in % and its range."""
    errors = [
        100 * (energies[domain] / truth[domain] - 1)
        for energies, truth in zip(found, truths, strict=True)
        if energies.get(domain) is not None and truth[domain]
    ]
    if not errors:
        return "not given"
    failed = f", {len(found) - len(errors)} failed" if len(errors) < len(found) else ""
    return f"{statistics.median(errors):+.2f} ({min(errors):+.2f} to {max(errors):+.2f}{failed})"


def measure(tools_python: str, *, seconds: float, seed: int, wraps: bool) -> Mapping[str, tuple[Energies, Energies]]:
    """Runs the hardware and every tool once; returns what each said, and what was true in its window."""
    sys.path.insert(0, str(TESTS))
    from simulated.namespace import run_with_powercap

    with tempfile.TemporaryDirectory(prefix="energy-tools-") as name:
        folder = Path(name)
        library = make_hardware(folder)
        starts_at_s = time.monotonic()
        opens_s = LEAD_S + random.Random(seed).uniform(0, GPU_UPDATE_S)  # at random to the GPU's updates
        plan = {"starts_at_s": starts_at_s, "opens_s": opens_s, "closes_s": opens_s + seconds}
        plan |= {"seed": seed, "wraps": wraps}
        (folder / "plan.json").write_text(json.dumps(plan))
        this = [str(Path(__file__)), "--folder", str(folder), "--part"]
        with subprocess.Popen([sys.executable, *this, "hardware"]) as hardware:
            commands = [
                shlex.join([sys.executable if tool == "greensv" else tools_python, *this, tool])
                + f" >{shlex.quote(str(folder / tool))}.log 2>&1"
                for tool in TOOLS
            ]
            environment = f"export LD_LIBRARY_PATH={library} FAKE_NVML_DIR={folder}/gpus PATH={folder}/bin:$PATH; "
            done = run_with_powercap(
                folder / "powercap", ["bash", "-c", environment + " & ".join(commands) + " & wait"]
            )
            hardware.terminate()
        assert done.returncode == 0, done.stderr
        curves = make_curves(seed, plan["closes_s"])
        results = {}
        for tool in TOOLS:
            answer = folder / f"{tool}.json"
            if not answer.exists():
                raise SystemExit(f"{tool} failed:\n{(folder / f'{tool}.log').read_text()}")
            said = json.loads(answer.read_text())
            from_s, to_s = said["from_s"] - starts_at_s, said["to_s"] - starts_at_s
            truth: Energies = {d: curve.energy_j(to_s) - curve.energy_j(from_s) for d, curve in curves.items()}
            truth["total"] = sum(truth.values())
            given = [energy for energy in said["energies_j"].values() if energy is not None]
            results[tool] = ({"total": sum(given), **said["energies_j"]}, truth)
            print(f"  run {seed}: {tool} {said['energies_j']} truth {truth}", file=sys.stderr)
        return results


def make_curves(seed: int, length_s: float) -> dict[str, Any]:
    """Returns the power of each domain as a function of the time since the start."""
    from simulated.powers import bursts, constant

    rng = random.Random(seed)
    mean_s = {"mean_low_s": 2.0, "mean_high_s": 6.0, "length_s": length_s + 60}
    return {
        "package": bursts(rng, low_w=40.0, high_w=150.0, **mean_s),
        "dram": constant(12.0),
        "gpu": bursts(rng, low_w=100.0, high_w=300.0, **mean_s),
    }


def make_hardware(folder: Path) -> Path:
    """Writes the powercap tree and the GPU's first state; returns the folder of the stand-in for libnvidia-ml."""
    from simulated import nvml
    from simulated.powercap_tree import PowercapTree

    tree = PowercapTree(folder / "powercap")
    tree.add_part(tree.add_package(0), 0)
    (tree.root / "intel-rapl" / "subsystem").symlink_to("..")  # CodeCarbon looks for it, and Linux has it
    (folder / "bin").mkdir()
    (folder / "bin" / "nvidia-smi").write_text("#!/bin/sh\n")  # without it, CodeCarbon sees no GPU
    (folder / "bin" / "nvidia-smi").chmod(0o755)
    gpus = nvml.FakeGpus(folder / "gpus")
    number = f"{1:012d}"
    gpus.add(0, energy_mj=number, power_mw=number, instant_mw=number, utilisation=90, memory_utilisation=30)
    gpus.set(0, memory_used=1, memory_total=2, temperature=60)
    library = folder / "library"
    library.mkdir()
    flags = ["-shared", "-fPIC", "-fvisibility=hidden", "-Wl,-soname,libnvidia-ml.so.1"]
    sources = [nvml.STUB, Path(__file__).with_name("nvml_limits.c")]
    subprocess.run(["gcc", *flags, "-o", library / "libnvidia-ml.so.1", *sources], check=True)
    return library


def be_hardware(folder: Path) -> None:
    """Writes counters and power in real time, in place and in fixed width, until it is terminated."""
    sys.path.insert(0, str(TESTS))
    from simulated.powercap_tree import PACKAGE_RANGE_UJ

    with contextlib.suppress(PermissionError):
        os.nice(-10)  # hardware does not wait for a processor
    plan = json.loads((folder / "plan.json").read_text())
    curves = make_curves(plan["seed"], plan["closes_s"])
    zone = folder / "powercap" / "intel-rapl" / "intel-rapl:0"
    paths = {"package": zone / "energy_uj", "dram": zone / "intel-rapl:0:0" / "energy_uj"}
    paths |= {what: folder / "gpus" / "0" / what for what in ("energy_mj", "power_mw", "instant_mw")}
    files = {what: os.open(path, os.O_WRONLY) for what, path in paths.items()}
    wraps_at_s = (plan["opens_s"] + plan["closes_s"]) / 2
    first_uj = PACKAGE_RANGE_UJ - round(curves["package"].energy_j(wraps_at_s) * 1e6) if plan["wraps"] else 10**9
    next_gpu_s = 0.0
    while True:
        now_s = time.monotonic() - plan["starts_at_s"]
        package_uj = (first_uj + round(curves["package"].energy_j(now_s) * 1e6)) % PACKAGE_RANGE_UJ
        os.pwrite(files["package"], f"{package_uj:012d}\n".encode(), 0)
        os.pwrite(files["dram"], f"{round(curves['dram'].energy_j(now_s) * 1e6):012d}\n".encode(), 0)
        if now_s >= next_gpu_s:
            next_gpu_s += GPU_UPDATE_S
            power_mw = round(curves["gpu"].power_w(now_s) * 1e3)
            energy_mj = 10**6 + round(curves["gpu"].energy_j(now_s) * 1e3)
            for what, number in (("energy_mj", energy_mj), ("power_mw", power_mw), ("instant_mw", power_mw)):
                os.pwrite(files[what], f"{number:012d}\n".encode(), 0)
        time.sleep(PACKAGE_UPDATE_S)


def be_tool(tool: str, folder: Path) -> None:
    """Measures the window with one tool and writes what it says, and when it began and ended."""
    plan = json.loads((folder / "plan.json").read_text())
    begin = TOOLS[tool](folder)
    wait_until(plan["starts_at_s"] + plan["opens_s"])
    end = begin()
    from_s = time.monotonic()
    wait_until(plan["starts_at_s"] + plan["closes_s"])
    to_s = time.monotonic()
    read = end()
    answer = {"from_s": from_s, "to_s": to_s, "energies_j": read()}
    (folder / f"{tool}.json").write_text(json.dumps(answer))


def wait_until(at_s: float) -> None:
    """Sleeps until a moment of the monotonic clock; one that has passed is an error."""
    left_s = at_s - time.monotonic()
    if left_s < 0:
        raise SystemExit(f"{-left_s:.1f} s late: give the tools a longer lead")
    time.sleep(left_s)


Begin = Callable[[], Callable[[], Callable[[], Energies]]]
"""Opens the window; what it returns closes it; what that returns says the joules."""


def greensv(folder: Path) -> Begin:
    """The meters `rapl` and `nvml`, read each second."""
    sys.path.insert(0, str(TESTS))
    from greensv.energy.metering.selection import choose_meters, open_meters
    from greensv.energy.monitoring import Monitor
    from greensv.plugins import load_plugins
    from simulated.nvml import UUIDS

    meters = load_plugins(third_party=False).all("meter")
    monitor = Monitor(open_meters(choose_meters(meters, ["rapl", "nvml"], gpu_uuids=[UUIDS[0]])))
    monitor.start()

    def begin() -> Callable[[], Callable[[], Energies]]:
        manager = monitor.window("window")
        window = manager.__enter__()

        def end() -> Callable[[], Energies]:
            manager.__exit__(None, None, None)
            names = {"cpu": "package", "dram": "dram", "gpu": "gpu"}
            return lambda: {names[reading.domain.kind]: reading.energy_j for reading in window.result.readings}

        return end

    return begin


def codecarbon(folder: Path) -> Begin:
    """`OfflineEmissionsTracker` in machine mode, every 15 s, its default."""
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="FRA", tracking_mode="machine", save_to_file=False, allow_multiple_runs=True
    )

    def begin() -> Callable[[], Callable[[], Energies]]:
        tracker.start()

        def end() -> Callable[[], Energies]:
            tracker.stop()
            said = tracker.final_emissions_data
            return lambda: {
                "package": said.cpu_energy * JOULES_PER_KWH,
                "dram": said.ram_energy * JOULES_PER_KWH,
                "gpu": said.gpu_energy * JOULES_PER_KWH,
            }

        return end

    return begin


def zeus(folder: Path) -> Begin:
    """`ZeusMonitor`, whose `cpu_energy` and `dram_energy` are of RAPL zones."""
    from zeus.monitor import ZeusMonitor

    monitor = ZeusMonitor()

    def begin() -> Callable[[], Callable[[], Energies]]:
        monitor.begin_window("window", sync_execution=False)

        def end() -> Callable[[], Energies]:
            said = monitor.end_window("window", sync_execution=False)
            return lambda: {
                "package": sum(said.cpu_energy.values()) if said.cpu_energy else None,
                "dram": sum(said.dram_energy.values()) if said.dram_energy else None,
                "gpu": sum(said.gpu_energy.values()) if said.gpu_energy else None,
            }

        return end

    return begin


def carbontracker(folder: Path) -> Begin:
    """One epoch of `CarbonTracker`, without its PUE of 1.58; its CPU figure covers package and memory zones."""
    from carbontracker.tracker import CarbonTracker

    tracker = CarbonTracker(epochs=2, epochs_before_pred=0, monitor_epochs=2, verbose=0)

    def begin() -> Callable[[], Callable[[], Energies]]:
        tracker.epoch_start()

        def end() -> Callable[[], Energies]:
            thread = tracker.tracker
            thread.epoch_end()

            def read() -> Energies:
                kwh = {comp.name: float(comp.energy_usage(thread.epoch_times)[0]) for comp in thread.components}
                gpu_j, cpu_j = (kwh[name] * JOULES_PER_KWH if name in kwh else None for name in ("gpu", "cpu"))
                return {"package": cpu_j, "dram": None, "gpu": gpu_j}

            return read

        return end

    return begin


TOOLS: Mapping[str, Callable[[Path], Begin]] = MappingProxyType(
    {"greensv": greensv, "codecarbon": codecarbon, "zeus": zeus, "carbontracker": carbontracker}
)


if __name__ == "__main__":
    main()
