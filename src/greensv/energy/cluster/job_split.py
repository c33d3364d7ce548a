"""A node's energy, split between the jobs that ran on it.

In each interval between two samples, with the energy E of the machine without its GPUs, of which I = min(E, idle power
× duration) is drawn at rest, and n jobs on it, job j gets

    I / n  +  (E - I) × [ (1 - m) × c_j / Σc  +  m × b_j / Σb ]

where c is the CPU time a job used in the interval, b the memory it held, and m the memory's part of what the
processor's own counters saw, dram / (package + dram); 0 where memory has no counter. Where no job used CPU time (or
held memory), that part is split equally. So the shares of all jobs add up to E. A GPU's energy goes to the jobs it is
bound to, by the fraction of it that each has.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greensv.energy.cluster.prometheus import RawSample

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A quantity over time, linear between its samples and constant outside them."""

    at_s: Array
    value: Array

    @classmethod
    def of(cls, samples: Sequence[RawSample]) -> "Curve":
        """Returns the curve through samples, in order of time."""
        table = np.array(samples, dtype=np.float64).reshape(-1, 2)
        return cls(at_s=table[:, 0], value=table[:, 1])

    @classmethod
    def of_counter(cls, samples: Sequence[RawSample]) -> "Curve":
        """Returns what a counter without range counted since its first sample; one that goes back began anew at 0."""
        curve = cls.of(samples)
        steps = np.diff(curve.value, prepend=curve.value[:1])
        return cls(at_s=curve.at_s, value=np.cumsum(np.where(steps < 0, curve.value, steps)))

    def steps(self, grid_s: Array) -> Array:
        """Returns the increase from each point of a grid to the next."""
        return np.diff(np.interp(grid_s, self.at_s, self.value))

    def means(self, grid_s: Array) -> Array:
        """Returns the value in the middle between two points of a grid."""
        return np.interp((grid_s[:-1] + grid_s[1:]) / 2, self.at_s, self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCurves:
    """What one job used on one node. It is there from its first sample to its last (UTC epoch seconds)."""

    first_at: float
    last_at: float
    cpu_time_s: Curve
    """CPU seconds since the first sample."""
    memory_bytes: Curve
    gpu_fractions: Mapping[str, float] = field(default_factory=dict)
    """Of each GPU bound to it, by UUID: 1, or the fraction that its MIG slices are."""

    def is_present(self, grid_s: Array) -> NDArray[np.bool_]:
        """Says for each interval of a grid whether the job was there."""
        middle_s = (grid_s[:-1] + grid_s[1:]) / 2
        return (middle_s > self.first_at) & (middle_s < self.last_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCurves:
    """What is known of one node: cumulative joules, and its jobs."""

    host_j: Curve
    """The machine without its GPUs."""
    package_j: Curve | None
    dram_j: Curve | None
    gpus_j: Mapping[str, Curve]
    jobs: Mapping[str, JobCurves]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A node's joules in a span of time, interval by interval; arrays have one value per interval of `grid_s`."""

    grid_s: Array
    host_j: Array
    idle_j: Array
    shares_j: Mapping[str, Array]
    """Of each job, of `host_j`."""
    gpu_shares_j: Mapping[str, float]
    """Of each job, of all GPUs."""
    unused_host_j: float
    """While no job was there."""
    unused_gpu_j: float
    """Of GPUs, or parts of them, that no job had."""


def split(node: NodeCurves, *, from_s: float, to_s: float, idle_w: float) -> Split:
    """Splits the joules of a node from one moment to another between its jobs, as the module says.

    Args:
        node: what is known of it.
        from_s: UTC epoch seconds, as `to_s`.
        to_s: later than `from_s`.
        idle_w: what the machine without its GPUs draws at rest, in watts.
    """
    grid_s = _grid(node, from_s, to_s)
    duration_s = np.diff(grid_s)
    host_j = node.host_j.steps(grid_s)
    idle_j = np.minimum(host_j, idle_w * duration_s)
    present = {name: job.is_present(grid_s) for name, job in node.jobs.items()}
    num_jobs = _sum(present.values(), duration_s.size)
    cpu = _fractions({name: job.cpu_time_s.steps(grid_s) for name, job in node.jobs.items()}, present, num_jobs)
    memory = _fractions({name: job.memory_bytes.means(grid_s) for name, job in node.jobs.items()}, present, num_jobs)
    in_dram = _dram_fraction(node, grid_s)
    busy_j = host_j - idle_j
    shares_j = {
        name: np.where(is_there, idle_j / np.maximum(num_jobs, 1), 0.0)
        + busy_j * ((1 - in_dram) * cpu[name] + in_dram * memory[name])
        for name, is_there in present.items()
    }
    gpu_shares_j, unused_gpu_j = _split_gpus(node, present, grid_s)
    return Split(
        grid_s=grid_s,
        host_j=host_j,
        idle_j=idle_j,
        shares_j=shares_j,
        gpu_shares_j=gpu_shares_j,
        unused_host_j=float(host_j[num_jobs == 0].sum()),
        unused_gpu_j=unused_gpu_j,
    )


def lowest_power_w(energy_j: Curve, *, mean_over_s: float) -> float:
    """Returns the lowest mean power (W) of stretches of `mean_over_s` seconds, or of a quarter of a shorter curve."""
    first_s, last_s = float(energy_j.at_s[0]), float(energy_j.at_s[-1])
    if last_s <= first_s:
        return 0.0
    stretch_s = min(mean_over_s, (last_s - first_s) / 4)
    grid_s = np.arange(first_s, last_s + 1e-6, stretch_s)
    return float(max(0.0, (energy_j.steps(grid_s) / stretch_s).min()))


def _grid(node: NodeCurves, from_s: float, to_s: float) -> Array:
    """All samples of the machine's energy, and the moments at which a job came or went."""
    edges = [at_s for job in node.jobs.values() for at_s in (job.first_at, job.last_at)]
    every = np.unique(np.concatenate([node.host_j.at_s, np.array([from_s, to_s, *edges])]))
    return every[(every >= from_s) & (every <= to_s)]


def _fractions(
    used: Mapping[str, Array], present: Mapping[str, NDArray[np.bool_]], num_jobs: Array
) -> Mapping[str, Array]:
    """Each job's part of what all present jobs used; equal parts where none used any; 0 where it was not there."""
    own = {name: np.where(present[name], np.maximum(values, 0.0), 0.0) for name, values in used.items()}
    total = _sum(own.values(), num_jobs.size)
    equal = 1 / np.maximum(num_jobs, 1)
    return {
        name: np.where(total > 0, values / np.where(total > 0, total, 1.0), np.where(present[name], equal, 0.0))
        for name, values in own.items()
    }


def _dram_fraction(node: NodeCurves, grid_s: Array) -> Array:
    none = np.zeros(grid_s.size - 1)
    if node.package_j is None or node.dram_j is None:
        return none
    dram_j = node.dram_j.steps(grid_s)
    both_j = dram_j + node.package_j.steps(grid_s)
    return np.divide(dram_j, both_j, out=none, where=both_j > 0)


def _split_gpus(
    node: NodeCurves, present: Mapping[str, NDArray[np.bool_]], grid_s: Array
) -> tuple[Mapping[str, float], float]:
    shares_j = dict.fromkeys(node.jobs, 0.0)
    unused_j = 0.0
    for uuid, curve in node.gpus_j.items():
        energy_j = curve.steps(grid_s)
        bound = {name: job.gpu_fractions.get(uuid, 0.0) * present[name] for name, job in node.jobs.items()}
        total = _sum(bound.values(), energy_j.size)
        # Slices that several jobs share are counted for each of them: together they have no more than the whole GPU.
        for name, fraction in bound.items():
            shares_j[name] += float((energy_j * fraction / np.maximum(total, 1.0)).sum())
        unused_j += float((energy_j * (1 - total / np.maximum(total, 1.0))).sum())
    return shares_j, unused_j


def _sum(rows: Iterable[NDArray[Any]], size: int) -> Array:
    total = np.zeros(size)
    for row in rows:
        total += row
    return total
