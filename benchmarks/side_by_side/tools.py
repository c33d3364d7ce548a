"""The tools side by side: each measures one window over the simulated hardware, in a process of its own."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

TESTS = Path(__file__).parents[2] / "tests"
JOULES_PER_KWH = 3.6e6

Energies = dict[str, float | None]


def be_tool(tool: str, folder: Path) -> None:
    """Measures the window with one tool and writes what it says, and when it began and ended; or what it raised."""
    plan = json.loads((folder / "plan.json").read_text())
    begin = TOOLS[tool](folder)
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # so that it is not kept waiting between what it reads and when we look at the clock
    opens_at_s = plan["starts_at_s"] + plan["opens_s"]
    if time.monotonic() > opens_at_s:
        (folder / f"{tool}.late").touch()
        return
    wait_until(opens_at_s)
    answer: dict[str, object]
    try:
        end = begin()
        from_s = time.monotonic()
        wait_until(plan["starts_at_s"] + plan["closes_s"])
        to_s = time.monotonic()
        read = end()
        answer = {"from_s": from_s, "to_s": to_s, "energies_j": read()}
    except Exception as error:  # noqa: BLE001 - what a tool does of counters that fail is what is looked at
        answer = {"error": f"{type(error).__name__}: {error}"}
    (folder / f"{tool}.json").write_text(json.dumps(answer))


def wait_until(at_s: float) -> None:
    """Sleeps until a moment of the monotonic clock."""
    time.sleep(max(0.0, at_s - time.monotonic()))


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
