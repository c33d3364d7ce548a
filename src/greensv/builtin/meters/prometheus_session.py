"""An open meter `prometheus`: a thread that asks the server for new samples, and adds up the joules of every one."""

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from greensv.builtin.meters.prometheus_series import SeriesOptions, by_domain
from greensv.energy.cluster.prometheus import PrometheusClient, RawSample
from greensv.energy.cluster.raw_energy import RawEnergy, Scale
from greensv.energy.meter import CounterSample, Domain, MeterSession
from greensv.errors import MeterError
from greensv.units import MICROJOULES_PER_JOULE

logger = logging.getLogger(__name__)

MARGIN_S = 1.0
"""Looked back beyond the newest sample, so that the error of the clocks' comparison loses none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A domain, the series it is read from, and the newest sample of it."""

    options: SeriesOptions
    scale: Scale
    newest: RawSample


@dataclass(slots=True, kw_only=True)
class _Known:
    """The joules of a domain since the session was opened, up to `taken_at_s` by this machine's monotonic clock."""

    energy: RawEnergy
    taken_at_s: float = -math.inf


class PrometheusSession(MeterSession):
    """Shows each domain as a counter of microjoules since the session was opened.

    Power is integrated, and a wrapping counter unwrapped, in here: several samples may arrive between two reads, and
    only in here are all of them seen. `read` waits for nobody.

    Args:
        client: the server.
        sources: what is read.
        gpu_uuids: the GPUs in use.
        interval_s: the time between two scrapes.
        max_age_s: samples older than that are an error.
        poll_s: the server is asked so often.
    """

    def __init__(
        self,
        client: PrometheusClient,
        sources: Sequence[Source],
        *,
        gpu_uuids: Sequence[str],
        interval_s: float,
        max_age_s: float,
        poll_s: float,
    ) -> None:
        self._client = client
        self._gpu_uuids = gpu_uuids
        self._max_age_s = max_age_s
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._known: dict[Domain, _Known] = {}
        self._domains: dict[SeriesOptions, list[Domain]] = {}
        self._notes: list[str] = []
        self._fault: str | None = None
        self._failure: str | None = None
        self._stopping = threading.Event()
        offset_s = client.clock_offset_s()
        for source in sources:
            domain = source.scale.domain
            known = _Known(energy=RawEnergy(source.scale, interval_s=interval_s))
            known.energy.add([source.newest])
            self._known[domain] = known
            self._domains.setdefault(source.options, []).append(domain)
            self._place(known, offset_s)
        self._thread = threading.Thread(target=self._run, name="greensv-prometheus", daemon=True)
        self._thread.start()

    def read(self) -> Sequence[CounterSample]:
        """Returns the joules of each domain up to its newest sample, with that sample's time.

        Raises:
            MeterError: a counter lost energy; or the newest sample is too old, saying what the server said last.
        """
        with self._lock:
            if self._fault is not None:
                raise MeterError(self._fault)
            return [self._sample(domain, known) for domain, known in self._known.items()]

    def notes(self) -> Sequence[str]:
        """Returns the gaps between samples that were bridged since the last call."""
        with self._lock:
            notes, self._notes = self._notes, []
            return notes

    def close(self) -> None:
        """Ends the thread; waits for a request that is under way, as long as the server may take."""
        self._stopping.set()
        self._thread.join()

    def _sample(self, domain: Domain, known: _Known) -> CounterSample:
        age_s = time.monotonic() - known.taken_at_s
        if age_s > self._max_age_s:
            why = self._failure or "the server has no newer one; see whether the exporter runs and is scraped"
            raise MeterError(
                f"meter 'prometheus': the newest sample of {domain} is {age_s:.3g} s old "
                f"(at most {self._max_age_s:.3g} s): {why}"
            )
        return CounterSample(
            domain=domain,
            taken_at_s=known.taken_at_s,
            count=math.floor(known.energy.energy_j * MICROJOULES_PER_JOULE),
            unit_j=1 / MICROJOULES_PER_JOULE,
        )

    def _run(self) -> None:
        while not self._stopping.wait(self._poll_s):
            try:
                self._poll()
                self._failure = None
            except MeterError as error:
                self._failure = str(error)
            except Exception as error:
                logger.exception("asking Prometheus failed")
                self._failure = f"{type(error).__name__}: {error}"

    def _poll(self) -> None:
        offset_s = self._client.clock_offset_s()
        for options, domains in self._domains.items():
            newest_at = min(self._known[domain].energy.newest_at or math.inf for domain in domains)
            look_back_s = self._client.monotonic() + offset_s - newest_at + MARGIN_S
            found = by_domain(
                self._client.raw(options.query, duration_s=look_back_s), options, gpu_uuids=self._gpu_uuids
            )
            for domain in domains:
                self._add(self._known[domain], found.get(domain, ()), offset_s)

    def _add(self, known: _Known, samples: Sequence[RawSample], offset_s: float) -> None:
        with self._lock:
            newest_at = known.energy.newest_at
            try:
                self._notes += [str(gap) for gap in known.energy.add(samples)]
            except MeterError as error:
                # Energy is lost, or may be: no later sample brings it back.
                self._fault = f"meter 'prometheus': {error}"
                logger.error("%s", self._fault)
            if known.energy.newest_at != newest_at:
                self._place(known, offset_s)

    def _place(self, known: _Known, offset_s: float) -> None:
        """Places the newest sample on this machine's clock. The clocks drift against each other: never backwards."""
        newest_at = known.energy.newest_at
        assert newest_at is not None
        placed_s = min(newest_at - offset_s, time.monotonic())
        known.taken_at_s = max(known.taken_at_s, placed_s)
