"""Attributes the energy of a training to the phases of its steps. Quality: attributed, never measured.

An energy counter changes every 1 ms (RAPL) to 100 ms (NVML) and a forward pass may take 5 ms, so no meter sees the
phases. What is measured is the energy E of a whole training, by domain, and its duration T; what is timed are the
seconds t of each phase on the device's own time line (`greensv.speaker.training.phases`). The phases' sum is
exactly E.

The model
    A GPU rests while it waits for data and between steps (phase `other`): those seconds count at its idle power P_idle,
    at most at its mean power E / T. What remains goes to the phases in which it works, by their seconds. NVML's
    utilisation is a mean over 1/6 to 1 s, so many steps: it cannot tell the phases apart, and weighs nothing here.

    Any other domain (cpu, dram, host, node) is shared out by seconds: while the device waits for data, the CPU that
    prepares it works hardest, so that no idle power applies. Where a node is measured and its GPUs beside it, the GPUs'
    part of the node's energy is shared out as a GPU's.

P_idle is what was measured before the search; else the lowest power that telemetry has seen in the study; where there
is neither, the GPU's energy is shared out by seconds alone, which overstates the waiting.

The uncertainty (standard)
    - The phases' powers differ from their mean by an unknown amount, taken to be 25 % (`POWER_SPREAD`). With a share s
      of the seconds, a phase's energy (a GPU's: that above its rest) is off by 0.25 (1 - s) of itself: the sum being
      fixed, a phase that is alone has nothing to be off by.
    - A GPU that waits for some milliseconds keeps its clocks, so draws more than at rest. Its power lies anywhere
      between P_idle and its mean power: a rectangular distribution, (E / T - P_idle) t / √12 (GUM, 4.3.7).
    - The meter's own uncertainty, by share of the energy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from greensv.energy.devices.phase_book import DATA_WAIT, OTHER, PhaseEnergy
from greensv.energy.meter import Domain
from greensv.energy.metering.tally import Reading
from greensv.energy.monitoring import EnergyWindow
from greensv.speaker.training.phases import STEP_PHASES, StepTimes

POWER_SPREAD = 0.25
"""By how much the power of a phase differs from the mean of all: an assumption, as a relative standard deviation."""
RESTING = (DATA_WAIT, OTHER)
"""Phases in which the device has nothing to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestPower:
    """What a GPU draws while it has nothing to do, in watts; `uncertainty_w` is standard."""

    power_w: float
    uncertainty_w: float = 0.0


def attribute(
    window: EnergyWindow, times: StepTimes, *, rest: Mapping[Domain, RestPower] | None = None
) -> tuple[PhaseEnergy, ...]:
    """Returns each charged domain's energy by phase, `other` last; a domain's phases sum to its energy.

    Args:
        window: of a training, the device synchronised at both edges.
        times: of the steps in it.
        rest: what GPUs draw at rest, where that is known.
    """
    seconds = phase_seconds(times, duration_s=window.duration_s)
    known = rest or {}
    gpu_parts = [r for r in window.others if r.role == "part" and r.domain.kind == "gpu"]
    found: list[PhaseEnergy] = []
    for reading in window.readings:
        if reading.domain.kind == "gpu":
            found += _of_gpu(reading, seconds, known.get(reading.domain))
        elif reading.domain.kind == "node" and gpu_parts:
            found += _of_node(reading, gpu_parts, seconds, known)
        else:
            found += _by_seconds(reading, seconds)
    return tuple(found)


def phase_seconds(times: StepTimes, *, duration_s: float) -> dict[str, float]:
    """Returns the seconds of each phase and of `other`, which together are the window's.

    The device's clock and the host's differ by some parts in a million; should the phases be longer than their window,
    they are shortened alike.
    """
    seconds: dict[str, float] = {phase: max(0.0, times.seconds[phase]) for phase in STEP_PHASES}
    timed_s = sum(seconds.values())
    if timed_s > duration_s:
        seconds = {phase: value * duration_s / timed_s for phase, value in seconds.items()}
    return {**seconds, OTHER: max(0.0, duration_s - timed_s)}


def _by_seconds(reading: Reading, seconds: Mapping[str, float]) -> list[PhaseEnergy]:
    return _energies(reading, seconds, _shared_j(reading.energy_j, seconds, tuple(seconds)))


def _of_gpu(reading: Reading, seconds: Mapping[str, float], rest: RestPower | None) -> list[PhaseEnergy]:
    total_s = sum(seconds.values())
    working = tuple(phase for phase in seconds if phase not in RESTING)
    working_s = sum(seconds[phase] for phase in working)
    if rest is None or not working_s:
        return _by_seconds(reading, seconds)
    mean_w = reading.energy_j / total_s
    power_w = min(rest.power_w, mean_w)
    energy_j = {phase: power_w * seconds[phase] for phase in RESTING}
    energy_j |= _shared_j(reading.energy_j - sum(energy_j.values()), seconds, working)
    # A GPU that waits for a moment draws something between its rest and its mean.
    unknown_w = math.hypot(rest.uncertainty_w, (mean_w - power_w) / math.sqrt(12))
    spreads_j = {phase: unknown_w * seconds[phase] for phase in RESTING}
    spreads_j |= {
        phase: POWER_SPREAD * (1 - seconds[phase] / working_s) * (energy_j[phase] - power_w * seconds[phase])
        for phase in working
    }
    return _energies(reading, seconds, energy_j, spreads_j)


def _of_node(
    reading: Reading, gpus: Sequence[Reading], seconds: Mapping[str, float], rest: Mapping[Domain, RestPower]
) -> list[PhaseEnergy]:
    """A node's energy: that of its GPUs as a GPU's, all else by seconds. The node alone is charged."""
    of_gpus = [energy for gpu in gpus for energy in _of_gpu(gpu, seconds, rest.get(gpu.domain))]
    gpus_j = sum(gpu.energy_j for gpu in gpus)
    if gpus_j > reading.energy_j:
        return _by_seconds(reading, seconds)  # the meters disagree: nothing would be left for the rest of the node
    energy_j = _shared_j(reading.energy_j - gpus_j, seconds, tuple(seconds))
    spreads_j = _spreads_j(energy_j, seconds)
    for energy in of_gpus:
        energy_j[energy.phase] += energy.energy_j
        spreads_j[energy.phase] = math.hypot(spreads_j[energy.phase], energy.uncertainty_j)
    return _energies(reading, seconds, energy_j, spreads_j)


def _shared_j(energy_j: float, seconds: Mapping[str, float], wanted: Sequence[str]) -> dict[str, float]:
    """Returns an energy shared out by seconds. Without any, it is all of the last phase: none may be lost."""
    total_s = sum(seconds[phase] for phase in wanted)
    if not total_s:
        return {phase: energy_j if phase == wanted[-1] else 0.0 for phase in wanted}
    return {phase: energy_j * seconds[phase] / total_s for phase in wanted}


def _spreads_j(energy_j: Mapping[str, float], seconds: Mapping[str, float]) -> dict[str, float]:
    total_s = sum(seconds.values()) or 1.0
    return {phase: POWER_SPREAD * (1 - seconds[phase] / total_s) * value for phase, value in energy_j.items()}


def _energies(
    reading: Reading,
    seconds: Mapping[str, float],
    energy_j: Mapping[str, float],
    spreads_j: Mapping[str, float] | None = None,
) -> list[PhaseEnergy]:
    spreads = _spreads_j(energy_j, seconds) if spreads_j is None else spreads_j
    relative = reading.uncertainty_j / reading.energy_j if reading.energy_j else 0.0
    return [
        PhaseEnergy(
            phase=phase,
            domain=str(reading.domain),
            duration_s=duration_s,
            energy_j=energy_j[phase],
            uncertainty_j=math.hypot(spreads[phase], relative * energy_j[phase]),
        )
        for phase, duration_s in seconds.items()
    ]
