"""Which time series the meter `prometheus` reads, and which domain each of them is: options, presets, labels."""

import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, MinLen

from greensv.energy.cluster.prometheus import RawSample, RawSeries, selector_of
from greensv.energy.cluster.raw_energy import Scale, SeriesKind
from greensv.energy.meter import Domain, DomainKind
from greensv.errors import MeterError

UUID_LENGTH = len("GPU-01234567-89ab-cdef-0123-456789abcdef")
LABEL = re.compile(r"\{(\w+)\}")
Preset = Literal["ceems", "ceems-ipmi", "dcgm", "dcgm-energy"]
CPU_RANGE_J, DRAM_RANGE_J = 262_143.328850, 65_712.999613
"""Where the RAPL counters of Intel's servers wrap: `max_energy_range_uj` of their package and dram zones."""
SOCKET_POWER_W = 1000.0
DRAM_POWER_W = 250.0
"""Of the memory of a socket. The lower the limit, the longer a scrape gap that holds one wrap at the most."""
RAPL_GAIN_UNCERTAINTY = GPU_GAIN_UNCERTAINTY = 0.05
NODE_GAIN_UNCERTAINTY = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesOptions:
    """One table of `[[energy.options.prometheus.series]]`: a selector, and what its numbers mean."""

    query: Annotated[str, MinLen(1)]
    """A selector such as `node_rapl_package_joules_total{instance="n1:9100"}`: no function, no range."""
    kind: SeriesKind
    """Whether the series counts joules or shows watts."""
    domain: Annotated[str, MinLen(1)]
    """`node`, `host`, `cpu:0`, `dram` …; a label in braces stands for its value, as in `gpu:{UUID}`."""
    scale: Annotated[float, Gt(0)] = 1.0
    """Joules, or watts, of a 1 in the series: 0.001 for one in millijoules or milliwatts."""
    range_j: Annotated[float, Gt(0)] | None = None
    """A counter starts again at 0 beyond that many joules; without it, a counter that goes back is an error."""
    max_power_w: Annotated[float, Gt(0)] = 20_000.0
    """The domain draws no more: what tells a counter's wrap from a reset."""
    gain_uncertainty: Annotated[float, Ge(0)] = 0.05
    """Relative standard uncertainty of the scale."""
    is_required: bool = True
    """Whether it is an error that the server has no such series."""

    def __post_init__(self) -> None:
        if self.domain_kind not in get_args(DomainKind):
            raise ValueError(f"domain {self.domain!r} is none of {', '.join(get_args(DomainKind))}, with :… or without")

    @property
    def domain_kind(self) -> str:
        """The domain's kind, such as `gpu`."""
        return self.domain.partition(":")[0]

    def scale_of(self, domain: Domain) -> Scale:
        """Returns what the numbers mean, for one domain."""
        return Scale(domain=domain, kind=self.kind, unit=self.scale, range_j=self.range_j, max_power_w=self.max_power_w)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusOptions:
    """Options of the meter `prometheus`. A bearer token comes from the environment, GREENSV_PROMETHEUS_TOKEN."""

    url: str = ""
    """The server, such as `http://prometheus:9090`."""
    presets: tuple[Preset, ...] = ()
    """Series that are known. ceems: the RAPL counters of CEEMS's exporter; ceems-ipmi: the node's power, which the same
    exporter asks of its BMC; dcgm: the power of the GPUs in use, of NVIDIA's dcgm-exporter; dcgm-energy: their
    counters."""
    series: tuple[SeriesOptions, ...] = ()
    """Any others."""
    hostname: str = ""
    """The label `hostname` of the CEEMS series; empty: this machine's name."""
    ipmi_includes_gpu: bool = False
    """Whether the power that the BMC reports is that of the whole machine, its GPUs included; on many it is not."""
    cpu_range_j: Annotated[float, Gt(0)] = CPU_RANGE_J
    """Where CEEMS's package counters wrap: `max_energy_range_uj` of the machine's packages, in joules."""
    dram_range_j: Annotated[float, Gt(0)] = DRAM_RANGE_J
    """Where CEEMS's dram counters wrap."""
    dram_max_power_w: Annotated[float, Gt(0)] = DRAM_POWER_W
    """What the memory of a socket draws at the most, in watts: what tells the wrap of its counter from a reset."""
    scrape_interval_s: Annotated[float, Gt(0)] | None = None
    """The time between two samples; without it, that of the samples the server has."""
    max_age_s: Annotated[float, Gt(0)] | None = None
    """Samples that are older are an error; without it 60 s, or 4 scrape intervals if that is longer."""
    timeout_s: Annotated[float, Gt(0)] = 10.0
    """How long the server may be silent."""

    def all_series(self, gpu_uuids: Sequence[str] = ()) -> tuple[SeriesOptions, ...]:
        """Returns the series of the presets, of GPUs only those of `gpu_uuids` where it names any, and the others."""
        return (*(one for preset in self.presets for one in self._preset(preset, gpu_uuids)), *self.series)

    def _preset(self, preset: Preset, gpu_uuids: Sequence[str]) -> Sequence[SeriesOptions]:
        hostname = self.hostname or socket.gethostname()
        match preset:
            case "ceems":
                return (self._rapl("package", "cpu", hostname), self._rapl("dram", "dram", hostname))
            case "ceems-ipmi":
                query = selector_of("ceems_ipmi_dcmi_current_watts", hostname=hostname)
                domain = "node" if self.ipmi_includes_gpu else "host"
                return (
                    SeriesOptions(
                        query=query, kind="power-watts", domain=domain, gain_uncertainty=NODE_GAIN_UNCERTAINTY
                    ),
                )
            case "dcgm":
                return (_dcgm("DCGM_FI_DEV_POWER_USAGE", "power-watts", gpu_uuids, scale=1.0),)
            case "dcgm-energy":
                return (_dcgm("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter-joules", gpu_uuids, scale=1e-3),)

    def _rapl(self, zone: str, kind: str, hostname: str) -> SeriesOptions:
        return SeriesOptions(
            query=selector_of(f"ceems_rapl_{zone}_joules_total", hostname=hostname),
            kind="counter-joules",
            domain=f"{kind}:{{index}}",
            range_j=self.dram_range_j if kind == "dram" else self.cpu_range_j,
            max_power_w=self.dram_max_power_w if kind == "dram" else SOCKET_POWER_W,
            gain_uncertainty=RAPL_GAIN_UNCERTAINTY,
            is_required=kind == "cpu",  # many processors have no counter of their memory
        )


def _dcgm(name: str, kind: SeriesKind, gpu_uuids: Sequence[str], *, scale: float) -> SeriesOptions:
    """A server may know thousands of GPUs: only those in use are asked for."""
    query = f'{name}{{UUID=~"({"|".join(gpu_uuids)}).*"}}' if gpu_uuids else name
    return SeriesOptions(
        query=query, kind=kind, domain="gpu:{UUID}", scale=scale, gain_uncertainty=GPU_GAIN_UNCERTAINTY
    )


def by_domain(
    series: Sequence[RawSeries], options: SeriesOptions, *, gpu_uuids: Sequence[str]
) -> Mapping[Domain, tuple[RawSample, ...]]:
    """Returns the samples of each domain, of GPUs only those of `gpu_uuids` (or beginnings of them).

    One domain may have several series one after the other, as when its exporter was started anew under another name.

    Raises:
        MeterError: a series lacks a label, two are of one domain at the same time, or the beginning of a UUID is that
            of several GPUs.
    """
    found: dict[Domain, list[RawSeries]] = {}
    for one in series:
        domain = _domain(one, options)
        if one.samples and (domain.kind != "gpu" or _is_used(domain, gpu_uuids)):
            found.setdefault(domain, []).append(one)
    _refuse_ambiguous(found, gpu_uuids)
    return {domain: _joined(domain, parts, options) for domain, parts in found.items()}


def _domain(series: RawSeries, options: SeriesOptions) -> Domain:
    try:
        text = LABEL.sub(lambda match: series.labels[match[1]], options.domain)
    except KeyError as error:
        raise MeterError(
            f"{series} has no label {error.args[0]!r}, which its domain {options.domain!r} asks for; "
            "name the domain by a label that it has"
        ) from error
    kind, _, index = text.partition(":")
    if kind == "gpu" and index and not index.startswith(("GPU-", "MIG-")):
        index = f"GPU-{index}"
    return Domain(kind, index or "all")  # type: ignore[arg-type] # SeriesOptions has checked it


def _is_used(domain: Domain, gpu_uuids: Sequence[str]) -> bool:
    return any(domain.index.startswith(uuid) for uuid in gpu_uuids) or (domain.index == "all" and bool(gpu_uuids))


def _refuse_ambiguous(domains: Iterable[Domain], gpu_uuids: Sequence[str]) -> None:
    """A server knows the GPUs of other machines, too: what is enough of a UUID on this one may fit one of theirs."""
    for uuid in gpu_uuids:
        fitting = [domain.index for domain in domains if domain.kind == "gpu" and domain.index.startswith(uuid)]
        if len(fitting) > 1 and len(uuid) < UUID_LENGTH:
            raise MeterError(
                f"{uuid} begins the UUIDs of {len(fitting)} GPUs that the server knows ({fitting[0]}, {fitting[1]}); "
                "name those in use by their full UUIDs (`nvidia-smi -L`) in CUDA_VISIBLE_DEVICES"
            )


def _joined(domain: Domain, parts: Sequence[RawSeries], options: SeriesOptions) -> tuple[RawSample, ...]:
    in_order = sorted(parts, key=lambda part: part.samples[0][0])
    for earlier, later in pairwise(in_order):
        if later.samples[0][0] <= earlier.samples[-1][0]:
            raise MeterError(
                f"{options.query} finds two series for {domain}, {earlier} and {later}; narrow the selector, or tell "
                "them apart by a label in the domain, such as 'gpu:{UUID}'"
            )
    return tuple(sample for part in in_order for sample in part.samples)
