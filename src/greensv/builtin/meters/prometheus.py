"""The meter `prometheus`: energy that exporters such as CEEMS or DCGM have measured, read back as raw samples.

A sample is known to the server after its scrape, so the joules of a moment arrive up to a scrape interval later, and
those of the first interval began before the meter was opened: its resolution is the scrape interval. Each sample keeps
the time at which the server took it.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

from greensv.builtin.meters.prometheus_series import PrometheusOptions, SeriesOptions, by_domain
from greensv.builtin.meters.prometheus_session import PrometheusSession, Source
from greensv.builtin.meters.visible_gpus import hides_all
from greensv.energy.cluster.prometheus import PrometheusClient, RawSample, scrape_interval_s
from greensv.energy.meter import Availability, Domain, Meter, MeterRequest, MeterSession, Quality
from greensv.errors import MeterError
from greensv.hookspecs import hookimpl

LOOKBACK_S = 900.0
"""Series are looked for in the last quarter of an hour, which holds several samples at any usual scrape interval."""
MIN_AGE_S = 60.0
MAX_AGE_INTERVALS = 4
MIN_POLL_S, MAX_POLL_S = 0.25, 5.0
VISIBLE_GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"

_Samples = dict[Domain, tuple[SeriesOptions, tuple[RawSample, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the server has of what is wanted."""

    client: PrometheusClient
    gpu_uuids: tuple[str, ...]
    sources: tuple[Source, ...]
    interval_s: float
    max_age_s: float
    notes: tuple[str, ...]

    @property
    def poll_s(self) -> float:
        """How often the server is asked: a quarter of a scrape interval after a sample at the latest."""
        return min(max(self.interval_s / 4, MIN_POLL_S), MAX_POLL_S)


class _UnavailableError(Exception):
    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.availability = Availability(reason=reason, remedy=remedy)


class PrometheusMeter(Meter):
    """What a Prometheus server scrapes from exporters of energy or power: CEEMS, DCGM, or any by selector."""

    name: ClassVar[str] = "prometheus"
    quality: ClassVar[Quality] = "measured"
    options_type: ClassVar[type | None] = PrometheusOptions

    def probe(self, request: MeterRequest) -> Availability:
        """Asks the server for the series; asks nothing where no server is configured."""
        try:
            found = _find(request)
        except _UnavailableError as error:
            return error.availability
        return Availability(
            domains=tuple(source.scale.domain for source in found.sources),
            resolution_s=found.interval_s + found.poll_s,
            gain_uncertainty=max(source.options.gain_uncertainty for source in found.sources),
            max_power_w=max(source.scale.max_power_w for source in found.sources),
            is_dated=True,
            notes=found.notes,
        )

    def open(self, request: MeterRequest) -> MeterSession:
        """Starts a thread that asks the server for new samples."""
        try:
            found = _find(request)
        except _UnavailableError as error:
            about = error.availability
            raise MeterError(f"meter 'prometheus' is not available: {about.reason}; {about.remedy}") from error
        return PrometheusSession(
            found.client,
            found.sources,
            gpu_uuids=found.gpu_uuids,
            interval_s=found.interval_s,
            max_age_s=found.max_age_s,
            poll_s=found.poll_s,
        )


def _find(request: MeterRequest) -> _Found:
    options = request.options or PrometheusOptions()
    where = "[energy.options.prometheus] of study.toml"
    if not options.url:
        raise _UnavailableError("no server is configured", f"set url and presets or series in {where}")
    if not options.all_series():
        raise _UnavailableError("no series is configured", f"set presets or series in {where}")
    gpu_uuids = _gpu_uuids(request)
    wanted = [one for one in options.all_series(gpu_uuids) if _is_wanted(one, request, gpu_uuids)]
    notes: list[str] = []
    try:
        client = PrometheusClient(options.url, timeout_s=options.timeout_s)
        samples = _look_up(client, wanted, gpu_uuids, notes)
        offset_s = client.clock_offset_s()
    except MeterError as error:
        raise _UnavailableError(str(error), f"see {where}") from error
    if not samples:
        raise _UnavailableError(
            f"none of the configured series is of what is to be measured (GPUs in use: {', '.join(gpu_uuids) or 'none'}"
            f"; measured by others: {', '.join(sorted(request.leave_out)) or 'nothing'})",
            f"add the series of it to {where}, or leave this meter out",
        )
    _refuse_overlaps(samples)
    interval_s = options.scrape_interval_s or _interval_s(samples)
    max_age_s = options.max_age_s or max(MIN_AGE_S, MAX_AGE_INTERVALS * interval_s)
    _refuse_old(samples, now_at=client.monotonic() + offset_s, max_age_s=max_age_s)
    return _Found(
        client=client,
        gpu_uuids=tuple(domain.index for domain in samples if domain.kind == "gpu"),
        sources=tuple(
            Source(options=one, scale=one.scale_of(domain), newest=found[-1])
            for domain, (one, found) in samples.items()
        ),
        interval_s=interval_s,
        max_age_s=max_age_s,
        notes=(*notes, f"scraped every {interval_s:.3g} s: joules are known up to so much later"),
    )


def _gpu_uuids(request: MeterRequest) -> tuple[str, ...]:
    """Returns the GPUs in use, by UUID or the beginning of one. A server knows those of the whole cluster."""
    if not request.uses_visible_gpus:
        return request.gpu_uuids
    return tuple(
        name for name in os.environ.get(VISIBLE_GPUS_VARIABLE, "").replace(" ", "").split(",") if name[:4] == "GPU-"
    )


def _is_wanted(one: SeriesOptions, request: MeterRequest, gpu_uuids: Sequence[str]) -> bool:
    if one.domain_kind in request.leave_out:
        return False
    if one.domain_kind != "gpu" or gpu_uuids:
        return True
    if request.uses_visible_gpus and not hides_all(os.environ):
        raise _UnavailableError(
            f"{VISIBLE_GPUS_VARIABLE} names no GPU by its UUID, and the server knows those of many machines",
            f"set {VISIBLE_GPUS_VARIABLE} to the UUIDs of the GPUs in use (`nvidia-smi -L`)",
        )
    return False


def _look_up(
    client: PrometheusClient, wanted: Sequence[SeriesOptions], gpu_uuids: Sequence[str], notes: list[str]
) -> _Samples:
    samples: _Samples = {}
    for one in wanted:
        series = client.raw(one.query, duration_s=LOOKBACK_S)
        if not series:
            _refuse_missing(one, notes)
        for domain, found in by_domain(series, one, gpu_uuids=gpu_uuids).items():
            if domain in samples:
                raise MeterError(
                    f"{samples[domain][0].query} and {one.query} would both count {domain}; leave one of them out"
                )
            samples[domain] = (one, found)
    return samples


def _refuse_missing(one: SeriesOptions, notes: list[str]) -> None:
    if one.is_required:
        raise MeterError(
            f"the server has no samples of {one.query} of the last {LOOKBACK_S / 60:.0f} min; look at the metric and "
            "its labels on the server's own page (the label hostname of CEEMS is the option hostname)"
        )
    notes.append(f"the server has no {one.query}: that energy is not measured")


def _refuse_overlaps(samples: _Samples) -> None:
    """A whole and its parts are welcome: the selection of meters charges the whole alone."""
    for domain, other in combinations(samples, 2):
        if domain.overlaps(other) and not (domain.contains(other) or other.contains(domain)):
            raise _UnavailableError(
                f"{samples[domain][0].query} ({domain}) and {samples[other][0].query} ({other}) would both count the "
                "same energy",
                "leave one of them out of [energy.options.prometheus]",
            )


def _refuse_old(samples: _Samples, *, now_at: float, max_age_s: float) -> None:
    for one, found in samples.values():
        age_s = now_at - found[-1][0]
        if age_s > max_age_s:
            raise _UnavailableError(
                f"the newest sample of {one.query} is {age_s:.3g} s old (at most {max_age_s:.3g} s)",
                "see whether the exporter runs and is scraped (Status, Targets on the server's own page)",
            )


def _interval_s(samples: _Samples) -> float:
    """The longest of the series' intervals: what is true of all of them."""
    intervals_s = [scrape_interval_s(found) for _, found in samples.values()]
    known_s = [interval_s for interval_s in intervals_s if interval_s is not None]
    if len(known_s) < len(intervals_s):
        raise _UnavailableError(
            "the server has a single sample of a series, which does not tell how often it scrapes",
            "wait for another scrape, or set scrape_interval_s in [energy.options.prometheus]",
        )
    return max(known_s)


@hookimpl
def greensv_meters() -> Iterable[Meter]:
    """Provides `prometheus`."""
    return (PrometheusMeter(),)
