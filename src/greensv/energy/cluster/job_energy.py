"""The energy of one SLURM job, from what CEEMS's and DCGM's exporters told a Prometheus server while it ran."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from greensv.energy.cluster.job_reader import Counter, JobOnNode
from greensv.energy.cluster.job_series import NodeSeries, find_job, node_series
from greensv.energy.cluster.job_split import Curve, Split, lowest_power_w, split
from greensv.energy.cluster.prometheus import PrometheusClient
from greensv.energy.meter import Quality

DAY_S = 86_400.0
IDLE_MEAN_S = 300.0
IDLE_LOOKBACK_S = DAY_S
SOCKET_POWER_W = 1000.0
GPU_GAIN_UNCERTAINTY = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What the server does not tell."""

    idle_w: float | None = None
    """What a node without its GPUs draws at rest, in watts; None: the lowest it drew in the day up to the job's end."""
    ipmi_includes_gpu: bool | None = None
    """Whether the power of the node's BMC holds that of its GPUs; must be said where a job had GPUs."""
    cpu_range_j: float = 262_143.328850
    """Where the package counters wrap."""
    dram_range_j: float = 65_712.999613
    """Where the dram counters wrap."""
    dram_max_power_w: float = 250.0
    """What the memory of a socket draws at the most: the longer a scrape gap, the more wraps a higher limit allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShare:
    """A job's energy on one node, and the node's in the same time, in joules."""

    hostname: str
    first_at: float
    last_at: float
    """UTC epoch seconds of the job's first and last sample."""
    energy_j: float
    host_j: float
    """Of `energy_j`, that of the machine without its GPUs."""
    gpu_j: float
    idle_j: float
    """Of `host_j`, the job's part of what the machine draws at rest."""
    uncertainty_j: float
    """Standard: scale, gaps, and what was used before the first and after the last sample."""
    node_j: float
    """Of the whole node, its GPUs included: all jobs' shares and what no job used."""
    idle_w: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnergy:
    """The energy of a job, without PUE."""

    job_id: str
    nodes: tuple[NodeShare, ...]
    quality: Quality = "attributed"

    @property
    def energy_j(self) -> float:
        """Joules on all nodes."""
        return sum(node.energy_j for node in self.nodes)

    @property
    def uncertainty_j(self) -> float:
        """Standard; meters of one kind are off alike on all nodes, so those of the nodes add up."""
        return sum(node.uncertainty_j for node in self.nodes)


def job_energy(
    client: PrometheusClient,
    job_id: str,
    options: JobOptions,
    *,
    lookback_s: float = 7 * DAY_S,
    end_s: float | None = None,
) -> JobEnergy:
    """Returns the energy of a job between its first and its last sample, node by node.

    Args:
        client: the server.
        job_id: the SLURM job id, which CEEMS calls `uuid`.
        options: what the server does not tell.
        lookback_s: how long ago the job may have begun.
        end_s: UTC epoch seconds up to which is looked; None: now.

    Raises:
        MeterError: there is no such job, or its node's energy is not known.
    """
    end_s = client.monotonic() + client.clock_offset_s() if end_s is None else end_s
    found = find_job(client, job_id, lookback_s=lookback_s, end_s=end_s)
    return JobEnergy(job_id=job_id, nodes=tuple(_share(client, job_id, part, options) for part in found))


def _share(client: PrometheusClient, job_id: str, part: JobOnNode, options: JobOptions) -> NodeShare:
    series = node_series(
        client,
        part,
        counters={
            "package": Counter(range_j=options.cpu_range_j, max_power_w=SOCKET_POWER_W),
            "dram": Counter(range_j=options.dram_range_j, max_power_w=options.dram_max_power_w),
        },
        ipmi_includes_gpu=options.ipmi_includes_gpu,
        idle_lookback_s=IDLE_LOOKBACK_S if options.idle_w is None else None,
    )
    notes = list(series.notes)
    idle_w = options.idle_w
    if idle_w is None:
        idle_w = _idle_w(series.idle_j)
        notes.append(f"idle power: {idle_w:.4g} W, the lowest of the day up to the job's end")
    shares = split(series.curves, from_s=part.first_at, to_s=part.last_at, idle_w=idle_w)
    host_j, gpu_j = float(shares.shares_j[job_id].sum()), shares.gpu_shares_j[job_id]
    num_jobs = np.sum([job.is_present(shares.grid_s) for job in series.curves.jobs.values()], axis=0)
    all_gpus_j = math.fsum(shares.gpu_shares_j.values()) + shares.unused_gpu_j
    return NodeShare(
        hostname=part.hostname,
        first_at=part.first_at,
        last_at=part.last_at,
        energy_j=host_j + gpu_j,
        host_j=host_j,
        gpu_j=gpu_j,
        idle_j=float((shares.idle_j / np.maximum(num_jobs, 1)).sum()),
        uncertainty_j=_uncertainty_j(series, part, shares, host_j=host_j, gpu_j=gpu_j),
        node_j=float(shares.host_j.sum()) + all_gpus_j,
        idle_w=idle_w,
        notes=tuple(notes),
    )


def _idle_w(stretches: Sequence[Curve]) -> float:
    """Of the stretches that are long enough for a mean, if any is."""
    long = [curve for curve in stretches if curve.at_s[-1] - curve.at_s[0] >= IDLE_MEAN_S]
    return min(lowest_power_w(curve, mean_over_s=IDLE_MEAN_S) for curve in long or stretches)


def _uncertainty_j(series: NodeSeries, part: JobOnNode, shares: Split, *, host_j: float, gpu_j: float) -> float:
    """Scale, edges and gaps in quadrature.

    A job begins up to one scrape before its first sample and ends up to one after its last, so that its figure lacks
    two times a uniform part of power × interval: root mean square √(1 + 1/6) of it.
    """
    duration_s = max(part.last_at - part.first_at, part.interval_s)
    power_w = (host_j + gpu_j) / duration_s
    edges_j = math.sqrt(7 / 6) * power_w * part.interval_s
    node_host_j = float(shares.host_j.sum())
    fraction = host_j / node_host_j if node_host_j > 0 else 1.0
    gaps_j = fraction * series.gap_spread_w / math.sqrt(12) * series.gap_s
    uncovered_j = power_w * series.uncovered_s
    return math.hypot(series.host_gain_uncertainty * host_j, GPU_GAIN_UNCERTAINTY * gpu_j, edges_j, gaps_j, uncovered_j)
