"""What a Prometheus server knows of a SLURM job and its nodes: where and when it ran, and the curves of each node."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from greensv.energy.cluster.job_reader import MANAGER, UNIT, Counter, JobOnNode, NodeReader, rapl_host
from greensv.energy.cluster.job_split import Curve, NodeCurves
from greensv.energy.cluster.prometheus import PrometheusClient, RawSeries, scrape_interval_s, selector_of
from greensv.energy.cluster.raw_energy import GAP_INTERVALS, Gap
from greensv.errors import MeterError


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeries:
    """The curves of a node, and how well they are known."""

    curves: NodeCurves
    idle_j: tuple[Curve, ...]
    """The machine's joules without its GPUs up to the job's end, in stretches without a break, for its idle power."""
    host_gain_uncertainty: float
    gap_s: float
    """Seconds within the job for which the machine's power was interpolated."""
    gap_spread_w: float
    """The range of the machine's power."""
    uncovered_s: float
    """Seconds of the job before the machine's first sample and after its last."""
    notes: tuple[str, ...]


def find_job(client: PrometheusClient, job_id: str, *, lookback_s: float, end_s: float) -> list[JobOnNode]:
    """Returns the nodes of a job, in order of name.

    Raises:
        MeterError: there is no such job, or a single sample of it.
    """
    query = selector_of(f"{UNIT}_cpu_user_seconds_total", manager=MANAGER, uuid=job_id)
    series = client.raw(query, duration_s=lookback_s, end_s=end_s)
    if not series:
        raise MeterError(
            f"{client.url} has no samples of SLURM job {job_id} in the last {lookback_s / 86_400:.3g} days "
            f"({query} finds nothing); compare with `sacct`, or look back longer with --look-back-days"
        )
    found = []
    for hostname, parts in itertools.groupby(sorted(series, key=_hostname), key=_hostname):
        samples = sorted(sample for part in parts for sample in part.samples)
        interval_s = scrape_interval_s(samples)
        if not interval_s:
            raise MeterError(
                f"there is a single sample of job {job_id} on {hostname}, and energy needs two: it ran for less than "
                "two scrapes"
            )
        found.append(
            JobOnNode(hostname=hostname, first_at=samples[0][0], last_at=samples[-1][0], interval_s=interval_s)
        )
    return found


def node_series(
    client: PrometheusClient,
    part: JobOnNode,
    *,
    counters: Mapping[str, Counter],
    ipmi_includes_gpu: bool | None,
    idle_lookback_s: float | None,
) -> NodeSeries:
    """Returns a node's curves over a job's time; the machine's energy also over the time before it, for its idle power.

    Args:
        client: the server.
        part: the job on the node.
        counters: the RAPL counters, `package` and `dram`.
        ipmi_includes_gpu: whether the power of the BMC holds that of the GPUs; None: not known.
        idle_lookback_s: seconds before the job's end; None: the idle power is known.

    Raises:
        MeterError: the machine's energy, or that of a GPU of a job, is not known, or the counters contradict.
    """
    reader = NodeReader(client, part, idle_lookback_s=idle_lookback_s or 0.0)
    notes: list[str] = []
    package_j, package_gaps = reader.rapl("package", counters["package"])
    dram_j, _ = reader.rapl("dram", counters["dram"])
    jobs = reader.jobs()
    gpus_j, gpu_gaps = reader.gpus({uuid for job in jobs.values() for uuid in job.gpu_fractions})
    bmc = reader.ipmi(includes_gpu=ipmi_includes_gpu, has_gpus=bool(gpus_j))
    host = bmc or rapl_host(package_j, dram_j, package_gaps, part)
    notes.append(host.note)
    energy_j = host.energy_j
    if host.includes_gpu and gpus_j:
        energy_j, note = _without_gpus(energy_j, gpus_j.values())
        notes += [note] if note else []
    idle_j = () if idle_lookback_s is None or bmc is not None else tuple(reader.idle_rapl(counters))
    within = [gap for gap in (*host.gaps, *gpu_gaps) if _touches(gap, part)]
    uncovered_s = _uncovered_s(energy_j, part)
    if uncovered_s > 0:
        notes.append(f"the machine's power is not known for {uncovered_s:.3g} s of the job: they are left out")
    return NodeSeries(
        curves=NodeCurves(host_j=energy_j, package_j=package_j, dram_j=dram_j, gpus_j=gpus_j, jobs=jobs),
        idle_j=idle_j or (energy_j,),
        host_gain_uncertainty=host.gain_uncertainty,
        gap_s=sum(gap.duration_s for gap in host.gaps if gap.is_interpolated and _touches(gap, part)),
        gap_spread_w=host.spread_w,
        uncovered_s=uncovered_s,
        notes=(*notes, *map(str, within)),
    )


def _without_gpus(energy_j: Curve, gpus_j: Iterable[Curve]) -> tuple[Curve, str]:
    """Takes the GPUs out of the machine's joules. Two meters never agree: below 0 is 0, and told."""
    steps = np.diff(energy_j.value, prepend=energy_j.value[:1])
    for gpu in gpus_j:
        steps[1:] -= gpu.steps(energy_j.at_s)
    cut_j = float(-steps[steps < 0].sum())
    curve = Curve(at_s=energy_j.at_s, value=np.cumsum(np.maximum(steps, 0.0)))
    return curve, f"in places the GPUs used more than the whole machine, by {cut_j:.3g} J in all" if cut_j > 0 else ""


def _touches(gap: Gap, part: JobOnNode) -> bool:
    return gap.started_at < part.last_at and gap.started_at + gap.duration_s > part.first_at


def _uncovered_s(energy_j: Curve, part: JobOnNode) -> float:
    """A machine and its jobs are scraped a moment apart at the most, where one exporter shows both."""
    missing_s = max(0.0, energy_j.at_s[0] - part.first_at) + max(0.0, part.last_at - energy_j.at_s[-1])
    return float(missing_s) if missing_s > GAP_INTERVALS * part.interval_s else 0.0


def _hostname(series: RawSeries) -> str:
    try:
        return series.labels["hostname"]
    except KeyError:
        raise MeterError(f"{series} has no label hostname, so its node is not known; CEEMS sets it") from None
