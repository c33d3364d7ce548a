"""Runs the reference workload with the meters on: rest, warm-up, then repetition after repetition."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greensv import __version__
from greensv.energy.baseline.comparison import Trace
from greensv.energy.baseline.gains import Gain, load_gains, source_words, with_gains
from greensv.energy.baseline.idle import (
    IdleBaseline,
    Source,
    measure_idle,
    modelled_powers,
    needs_measuring,
    source_of,
    this_host,
)
from greensv.energy.meter import Domain
from greensv.energy.metering.reading import Reading
from greensv.energy.metering.selection import NO_OPTIONS, Choice, choose_meters, open_meters
from greensv.energy.monitoring import EnergyWindow, Monitor
from greensv.errors import MeterError
from greensv.plugins import Plugins
from greensv.search.calibration import Calibration, Hardware, meter_settings, unit_cost
from greensv.search.calibration_workload import NAME, STEPS_PER_UNIT, ReferenceWorkload

if TYPE_CHECKING:
    import torch

WARMUP_STEPS = {"cpu": 2, "cuda": 100}
"""Steps before the measured ones: they allocate memory, choose algorithms, and let clocks and fans settle."""
NUM_STEPS = {"cpu": 10, "cuda": 2000}
"""Measured steps of a repetition: some 25 s on two CPU cores, and long enough for a counter that changes each 0.1 s."""
MIN_SPACING_S = 0.2
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What calibrates: the device, and the meters chosen for it."""

    plugins: Plugins
    device: "torch.device"
    choices: tuple[Choice, ...]
    gains: Mapping[tuple[str, Domain], Gain]
    """Corrections in force."""
    hardware: Hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished calibration, the trace of its joules, and what is to be said of it."""

    calibration: Calibration
    trace: Trace
    notes: tuple[str, ...]


def open_bench(
    plugins: Plugins,
    *,
    device_name: str,
    meters: Sequence[str],
    options: Mapping[str, Mapping[str, Any]] = NO_OPTIONS,
) -> Bench:
    """Chooses the device and the meters; opens nothing.

    Raises:
        MeterError: as `choose_meters` and `load_gains`.
        ConfigError: the device or an option cannot be used.
    """
    from greensv.speaker.device import gpu_uuids, processor_name, resolve_device

    device = resolve_device(device_name)  # type: ignore[arg-type]
    choices = choose_meters(plugins.all("meter"), meters, gpu_uuids=gpu_uuids(device), options=options)
    gains = load_gains()
    measured = {
        str(domain): source_words(choice.meter, domain, gains)
        for choice in choices
        for domain, role in choice.roles.items()
        if role != "beside"
    }
    hardware = Hardware(
        host=this_host(), device=processor_name(device), meters=measured, settings=meter_settings(choices)
    )
    return Bench(plugins=plugins, device=device, choices=choices, gains=gains, hardware=hardware)


def run_calibration(
    bench: Bench,
    *,
    num_steps: int | None,
    num_repeats: int,
    idle_s: float,
    on_progress: Callable[[str, int, int], None],
) -> Run:
    """Rests, warms up and runs the reference workload `num_repeats` times.

    Args:
        bench: as `open_bench` returned it.
        num_steps: of each repetition; None: as many as suit the kind of device.
        num_repeats: how often.
        idle_s: seconds of rest before, for net energies; 0: none.
        on_progress: told what is done, how much of it, and how much there is.

    Raises:
        MeterError: a meter fails, or sees no energy.
    """
    import torch

    kind, gains = bench.device.type, bench.gains
    steps = num_steps or NUM_STEPS[kind]
    notes: list[str] = []
    on_progress("preparing the workload", 0, 0)
    # Made before the rest: a GPU that has been spoken to rests at another power than one that has not.
    workload = ReferenceWorkload(bench.plugins, bench.device)
    recorder = _Recorder()
    with Monitor(with_gains(open_meters(bench.choices), gains), synchronise=workload.wait) as monitor:
        recorder.observe(monitor.known_totals())
        monitor.add_observer(recorder.observe)
        baseline = _idle(monitor, idle_s, notes, on_progress)
        for step in range(WARMUP_STEPS[kind]):
            on_progress("warming up", step + 1, WARMUP_STEPS[kind])
            workload.step()
        windows = []
        for number in range(1, num_repeats + 1):
            told = partial(on_progress, f"repetition {number} of {num_repeats}")
            windows.append(_repetition(monitor, workload, steps, told))
        recorder.observe(monitor.totals(fresh=True))
        notes += monitor.notes
    unit = unit_cost(windows, [baseline.net(w) for w in windows], num_steps=steps, steps_per_unit=STEPS_PER_UNIT)
    if unit.energy_j <= 0:
        raise MeterError(
            f"the meters saw no energy in {num_repeats} × {steps} steps: their counters change too rarely; "
            "raise --steps, or use another meter"
        )
    idle = baseline.power_w(source_of(reading) for reading in windows[0].readings)
    calibration = Calibration(
        workload=NAME,
        steps_per_unit=STEPS_PER_UNIT,
        hardware=bench.hardware,
        unit=unit,
        num_steps=steps,
        num_repeats=num_repeats,
        energies_j=tuple(window.energy_j for window in windows),
        idle_power_w=idle[0] if idle else None,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        num_threads=torch.get_num_threads(),
        driver=_driver() if kind == "cuda" else "",
        torch=torch.__version__,
        greensv=__version__,
        gains={f"{meter} {domain}": gain.factor for (meter, domain), gain in gains.items()},
    )
    return Run(calibration=calibration, trace=recorder.trace(), notes=tuple(dict.fromkeys(notes)))


class _Recorder:
    """Keeps the running joules after each poll."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, dict[Source, float]]] = []

    def observe(self, readings: tuple[Reading, ...]) -> None:
        self._rows.append((time.time(), {source_of(reading): reading.energy_j for reading in readings}))

    def trace(self) -> Trace:
        rows = self._rows[:1]
        for row in self._rows[1:]:
            if row[0] - rows[-1][0] >= MIN_SPACING_S:  # closer ones tell a power that is mostly noise
                rows.append(row)
        sources = rows[0][1]
        return Trace(
            at_s=tuple(at_s for at_s, _ in rows),
            energy_j={source: tuple(energies[source] for _, energies in rows) for source in sources},
        )


def _idle(
    monitor: Monitor, idle_s: float, notes: list[str], on_progress: Callable[[str, int, int], None]
) -> IdleBaseline:
    powers = modelled_powers(monitor.meters, host=this_host(), at=datetime.now(UTC))
    if idle_s and any(needs_measuring(meter) for meter in monitor.meters):
        found = measure_idle(
            monitor,
            duration_s=idle_s,
            on_interval=lambda done_s, power_w: on_progress("measuring idle power", round(done_s), round(idle_s)),
        )
        if found.disturbance is None:
            powers = (*powers, *found.powers)
        else:
            notes.append(
                f"the machine was not idle before the workload: {found.disturbance}; net energy is not known, and the "
                "workload itself may have been disturbed. Run it when nothing else does"
            )
    return IdleBaseline(powers=powers)


def _repetition(
    monitor: Monitor, workload: ReferenceWorkload, num_steps: int, on_step: Callable[[int, int], None]
) -> EnergyWindow:
    with monitor.window("reference workload") as window:
        for step in range(num_steps):
            workload.step()
            on_step(step + 1, num_steps)
    monitor.check()
    return window.result


def _driver() -> str:
    try:
        return NVIDIA_DRIVER.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError):
        return ""
