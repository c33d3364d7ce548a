"""The series of one node on a Prometheus server, as the exporters of CEEMS and DCGM name them.

Names and labels: https://ceems-dev.github.io/ceems/docs/components/metrics (`uuid` is the SLURM job id) and NVIDIA's
dcgm-exporter.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from greensv.energy.cluster.job_split import Curve, JobCurves
from greensv.energy.cluster.prometheus import PrometheusClient, RawSample, RawSeries, scrape_interval_s, selector_of
from greensv.energy.cluster.raw_energy import Gap, Scale, cumulative_j, unbroken_j
from greensv.energy.meter import Domain
from greensv.errors import MeterError

MANAGER = "slurm"
UNIT = "ceems_compute_unit"
IPMI_GAIN_UNCERTAINTY, RAPL_GAIN_UNCERTAINTY = 0.05, 0.05
ZONE_OPTIONS = {"package": "cpu", "dram": "dram"}
"""What the command line calls the counters' zones."""
GPU_POWER = "DCGM_FI_DEV_POWER_USAGE"
GPU_LABELS = ("UUID", "gpuuuid")
"""dcgm-exporter's own label of a GPU's UUID, and the one CEEMS's documentation renames it to."""
GPU_HOST_LABELS = ("Hostname", "hostname")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOnNode:
    """A job's first and last sample on a node (UTC epoch seconds), and how often the node is scraped."""

    hostname: str
    first_at: float
    last_at: float
    interval_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """What a RAPL counter of one socket cannot tell itself."""

    range_j: float
    """Where it wraps."""
    max_power_w: float
    """What it counts draws no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The joules of a machine, with its GPUs or without, and what they were read from."""

    energy_j: Curve
    includes_gpu: bool
    gain_uncertainty: float
    gaps: tuple[Gap, ...]
    spread_w: float
    note: str


class NodeReader:
    """Asks for the series of one node."""

    def __init__(self, client: PrometheusClient, part: JobOnNode, *, idle_lookback_s: float) -> None:
        self._client = client
        self._part = part
        # A scrape of the machine beside the job's first and last, so that the curves reach over its edges.
        self._end_s = part.last_at + 2 * part.interval_s
        self._job_s = self._end_s - part.first_at + 2 * part.interval_s
        self._long_s = max(self._job_s, idle_lookback_s)

    def ipmi(self, *, includes_gpu: bool | None, has_gpus: bool) -> Host | None:
        """Returns the machine's joules from its BMC; None where it is not scraped."""
        query = selector_of("ceems_ipmi_dcmi_current_watts", hostname=self._part.hostname)
        series = [one for one in self._client.raw(query, duration_s=self._long_s, end_s=self._end_s) if one.samples]
        if not series:
            return None
        if has_gpus and includes_gpu is None:
            raise MeterError(
                f"the job's node {self._part.hostname} has GPUs, and whether the power that its BMC reports holds "
                "theirs differs from one make to another; say it with --ipmi-includes-gpu or --ipmi-excludes-gpu "
                "(a node at rest tells: compare its power with that of its GPUs)"
            )
        samples = self._joined(series, query)
        scale = Scale(domain=Domain("node"), kind="power-watts")
        curve, gaps = cumulative_j(samples, scale, interval_s=self._part.interval_s)
        powers_w = [value for _, value in samples]
        return Host(
            energy_j=Curve.of(curve),
            includes_gpu=bool(includes_gpu),
            gain_uncertainty=IPMI_GAIN_UNCERTAINTY,
            gaps=tuple(gaps),
            spread_w=max(powers_w) - min(powers_w),
            note="the machine's power: its BMC's, by IPMI-DCMI",
        )

    def rapl(self, zone: str, counter: Counter) -> tuple[Curve | None, tuple[Gap, ...]]:
        """Returns the joules of all sockets' packages or memory in the job's time; None where there is no counter.

        Raises:
            MeterError: a counter lost energy within the job, or is scraped twice.
        """
        curves, gaps = [], []
        for index, samples in self._sockets(zone, duration_s=self._job_s).items():
            try:
                curve, found = cumulative_j(samples, _scale(zone, index, counter), interval_s=self._part.interval_s)
            except MeterError as error:
                raise MeterError(
                    f"{error}, and so is that of the job on {self._part.hostname}; compare "
                    f"--{ZONE_OPTIONS[zone]}-range-j with the node's max_energy_range_uj"
                ) from error
            curves.append(Curve.of(curve))
            gaps += found
        return (sum_of(curves), tuple(gaps)) if curves else (None, ())

    def idle_rapl(self, counters: Mapping[str, Counter]) -> list[Curve]:
        """Returns the joules of all sockets up to the job's end, in stretches in which no counter lost energy.

        Args:
            counters: by zone, `package` and `dram`.
        """
        stretches: list[Curve] | None = None
        for zone, counter in counters.items():
            for index, samples in self._sockets(zone, duration_s=self._long_s).items():
                parts = unbroken_j(samples, _scale(zone, index, counter), interval_s=self._part.interval_s)
                curves = [Curve.of(part) for part in parts]
                stretches = curves if stretches is None else _sums_where_both(stretches, curves)
        return stretches or []

    def _sockets(self, zone: str, *, duration_s: float) -> Mapping[str, tuple[RawSample, ...]]:
        query = selector_of(f"ceems_rapl_{zone}_joules_total", hostname=self._part.hostname)
        found: dict[str, list[RawSeries]] = {}
        for one in self._client.raw(query, duration_s=duration_s, end_s=self._end_s):
            if one.samples:
                found.setdefault(one.labels.get("index", "all"), []).append(one)
        return {index: self._joined(series, query) for index, series in found.items()}

    def jobs(self) -> Mapping[str, JobCurves]:
        """Returns every job of the node."""
        user = self._by_uuid("cpu_user_seconds_total")
        system = self._by_uuid("cpu_system_seconds_total")
        memory = self._by_uuid("memory_used_bytes")
        fractions = self._gpu_fractions()
        none = Curve.of([(self._part.first_at, 0.0)])
        return {
            uuid: JobCurves(
                first_at=samples[0][0],
                last_at=samples[-1][0],
                cpu_time_s=sum_of([Curve.of_counter(samples), *(Curve.of_counter(s) for s in [system.get(uuid)] if s)]),
                memory_bytes=Curve.of(memory[uuid]) if uuid in memory else none,
                gpu_fractions=fractions.get(uuid, {}),
            )
            for uuid, samples in user.items()
        }

    def gpus(self, uuids: Iterable[str]) -> tuple[Mapping[str, Curve], tuple[Gap, ...]]:
        """Returns the joules of the node's GPUs by UUID, of those in `uuids` at the least, and the gaps in their power.

        Raises:
            MeterError: the server has no power of one of them.
        """
        wanted = sorted(uuids)
        curves: dict[str, Curve] = {}
        gaps: list[Gap] = []
        for label in GPU_LABELS if wanted else ():
            queries = [selector_of(GPU_POWER, **{name: self._part.hostname}) for name in GPU_HOST_LABELS]
            for query in (*queries, f'{GPU_POWER}{{{label}=~"{"|".join(wanted)}"}}'):
                for uuid, samples in self._by_label(query, label).items():
                    if uuid not in curves:
                        scale = Scale(domain=Domain("gpu", uuid), kind="power-watts")
                        interval_s = scrape_interval_s(samples) or self._part.interval_s
                        curve, found = cumulative_j(samples, scale, interval_s=interval_s)
                        curves[uuid] = Curve.of(curve)
                        gaps += found
        if missing := [uuid for uuid in wanted if uuid not in curves]:
            raise MeterError(
                f"jobs on {self._part.hostname} had the GPUs {', '.join(missing)}, and the server has no {GPU_POWER} "
                f"with that {' or '.join(GPU_LABELS)}; have it scrape dcgm-exporter"
            )
        return curves, tuple(gaps)

    def _by_label(self, query: str, label: str) -> Mapping[str, tuple[RawSample, ...]]:
        found: dict[str, list[RawSeries]] = {}
        for one in self._client.raw(query, duration_s=self._long_s, end_s=self._end_s):
            if label in one.labels and one.samples:
                found.setdefault(one.labels[label], []).append(one)
        return {value: self._joined(series, query) for value, series in found.items()}

    def _gpu_fractions(self) -> Mapping[str, Mapping[str, float]]:
        query = selector_of(f"{UNIT}_gpu_index_flag", manager=MANAGER, hostname=self._part.hostname)
        fractions: dict[str, dict[str, float]] = {}
        for one in self._client.raw(query, duration_s=self._job_s, end_s=self._end_s):
            gpu, job = one.labels.get("gpuuuid"), one.labels.get("uuid")
            if gpu and job and one.samples:
                of_job = fractions.setdefault(job, {})
                # One series per MIG slice: the slices of a job on one GPU add up.
                of_job[gpu] = of_job.get(gpu, 0.0) + max(value for _, value in one.samples)
        return fractions

    def _by_uuid(self, metric: str) -> Mapping[str, Sequence[RawSample]]:
        query = selector_of(f"{UNIT}_{metric}", manager=MANAGER, hostname=self._part.hostname)
        found: dict[str, list[RawSample]] = {}
        for one in self._client.raw(query, duration_s=self._job_s, end_s=self._end_s):
            if one.samples:
                found.setdefault(one.labels.get("uuid", ""), []).extend(one.samples)
        return {uuid: sorted(samples) for uuid, samples in found.items()}

    def _joined(self, series: Sequence[RawSeries], query: str) -> tuple[RawSample, ...]:
        """Joins the series of one thing. They follow each other: labels change as an exporter is moved, or with jobs.

        Before the job, of two series at the same time the one that began later has to wait for the other's end.

        Raises:
            MeterError: there are two at the same time within the job.
        """
        first, *others = sorted(series, key=lambda one: one.samples[0][0])
        samples, latest = list(first.samples), first
        for one in others:
            until_s = samples[-1][0]
            if one.samples[0][0] <= until_s and min(until_s, one.samples[-1][0]) >= self._end_s - self._job_s:
                raise MeterError(
                    f"{query} finds two series of the same thing at the same time ({latest}, {one}): the server "
                    "scrapes the same exporter twice; have one of its scrape jobs leave it out"
                )
            samples += [sample for sample in one.samples if sample[0] > until_s]
            latest = one if one.samples[-1][0] > until_s else latest
        return tuple(samples)


def rapl_host(package_j: Curve | None, dram_j: Curve | None, gaps: tuple[Gap, ...], part: JobOnNode) -> Host:
    if package_j is None:
        raise MeterError(
            f"the server has neither ceems_ipmi_dcmi_current_watts nor ceems_rapl_package_joules_total of "
            f"{part.hostname} for the time of the job, so its energy is not known"
        )
    return Host(
        energy_j=sum_of([package_j, *([dram_j] if dram_j is not None else [])]),
        includes_gpu=False,
        gain_uncertainty=RAPL_GAIN_UNCERTAINTY,
        gaps=gaps,
        spread_w=0.0,
        note="the machine's power: the counters of its processors and memory; not power supply, fans and disks",
    )


def sum_of(curves: Sequence[Curve]) -> Curve:
    """Returns the sum of curves, at every point of any of them."""
    at_s = np.unique(np.concatenate([curve.at_s for curve in curves]))
    return Curve(at_s=at_s, value=np.sum([np.interp(at_s, curve.at_s, curve.value) for curve in curves], axis=0))


def _sums_where_both(some: Sequence[Curve], others: Sequence[Curve]) -> list[Curve]:
    found = []
    for one in some:
        for other in others:
            first_s, last_s = max(one.at_s[0], other.at_s[0]), min(one.at_s[-1], other.at_s[-1])
            if first_s < last_s:
                both = sum_of([one, other])
                is_within = (both.at_s >= first_s) & (both.at_s <= last_s)
                found.append(Curve(at_s=both.at_s[is_within], value=both.value[is_within]))
    return found


def _scale(zone: str, index: str, counter: Counter) -> Scale:
    return Scale(
        domain=Domain("cpu" if zone == "package" else "dram", index),
        kind="counter-joules",
        range_j=counter.range_j,
        max_power_w=counter.max_power_w,
    )
