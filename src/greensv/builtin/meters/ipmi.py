"""The meter `ipmi`: the power of a whole server, as its baseboard management controller (BMC) measures it over DCMI."""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from typing import ClassVar

from greensv.builtin.meters.ipmi_query import LAST_WORDS_S, IpmiOptions, PowerQuery
from greensv.builtin.meters.ipmi_text import QueryFailed
from greensv.builtin.meters.visible_gpus import gpus_are_visible
from greensv.energy.meter import Availability, Domain, Meter, MeterRequest, MeterSession, PowerSample, Quality
from greensv.errors import MeterError
from greensv.hookspecs import hookimpl

logger = logging.getLogger(__name__)

GAIN_UNCERTAINTY = 0.05
"""±5 %: what ENERGY STAR's requirements for computer servers (version 3, data measurement) ask of a server's own power
reading above 200 W. That a BMC keeps it, and that it is a standard deviation rather than a bound, is our judgement."""
LARGEST_POWER_W = 65_534.0
"""DCMI reports 16 bits, of which 65535 means none."""
NUM_MISSED = 3
"""With so many readings in a row missing, the last good one is too old to be shown. Fewer are a BMC's everyday life."""


class IpmiMeter(Meter):
    """Everything in the machine (`node`), or all but its GPUs (`host`), by ipmitool or FreeIPMI's ipmi-dcmi."""

    name: ClassVar[str] = "ipmi"
    quality: ClassVar[Quality] = "measured"
    options_type: ClassVar[type | None] = IpmiOptions

    def probe(self, request: MeterRequest) -> Availability:
        """Asks the BMC once."""
        options = _options(request)
        try:
            domain = _domain(request, options)
            query = PowerQuery(options)
            power_w = query.power_w()
        except QueryFailed as failure:
            return Availability(reason=failure.reason, remedy=failure.remedy)
        notes = [f"{query.tool.name} reads {power_w:g} W"]
        if options.includes_gpu is None:
            notes.append("taken for the machine without GPUs: energy.options.ipmi.includes_gpu does not say otherwise")
        return Availability(
            domains=(domain,),
            resolution_s=max(options.resolution_s, options.interval_s),
            gain_uncertainty=GAIN_UNCERTAINTY,
            max_power_w=LARGEST_POWER_W,
            # Twice per reading of ours: at the same rate, one of them would be seen twice and another never.
            poll_interval_s=options.interval_s / 2,
            notes=tuple(notes),
        )

    def open(self, request: MeterRequest) -> MeterSession:
        """Asks the BMC once, then again and again from a thread."""
        options = _options(request)
        try:
            return IpmiSession(PowerQuery(options), _domain(request, options), options)
        except QueryFailed as failure:
            raise MeterError(f"meter 'ipmi' is not available: {failure}") from failure


class IpmiSession(MeterSession):
    """Asks in a thread of its own, since a BMC takes 10 ms or much longer; `read` shows the latest answer at once."""

    def __init__(self, query: PowerQuery, domain: Domain, options: IpmiOptions) -> None:
        self._query = query
        self._domain = domain
        self._interval_s = options.interval_s
        self._timeout_s = options.timeout_s
        self._longest_age_s = NUM_MISSED * options.interval_s + options.timeout_s
        self._num_failures = 0
        self._failure: QueryFailed | None = None
        self._sample = self._ask()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="greensv-ipmi", daemon=True)
        self._thread.start()

    def read(self) -> Sequence[PowerSample]:
        """Returns the latest reading, with the time it was taken at."""
        sample, failure = self._sample, self._failure
        age_s = time.monotonic() - sample.taken_at_s
        if age_s > self._longest_age_s or self._num_failures >= NUM_MISSED:
            reason = failure or "the BMC has not answered yet"
            raise MeterError(f"meter 'ipmi': no reading for {age_s:.1f} s: {reason}")
        return [sample]

    def close(self) -> None:
        """Ends the thread, and the question under way."""
        self._stopping.set()
        self._query.cancel()
        self._thread.join(timeout=self._timeout_s + 3 * LAST_WORDS_S)

    def _run(self) -> None:
        due_s = time.monotonic()
        while True:
            due_s = max(due_s + self._interval_s, time.monotonic())
            if self._stopping.wait(due_s - time.monotonic()):
                return
            try:
                self._sample = self._ask()
            except Exception as error:  # noqa: BLE001 - a thread that ends unseen would leave an old reading standing
                failure = error if isinstance(error, QueryFailed) else _unexpected(error)
                if self._stopping.is_set():
                    return
                if self._num_failures == 0:
                    logger.warning("meter 'ipmi': %s", failure)
                self._failure = failure
                self._num_failures += 1
            else:
                self._failure, self._num_failures = None, 0

    def _ask(self) -> PowerSample:
        asked_at_s = time.monotonic()
        power_w = self._query.power_w()
        taken_at_s = (asked_at_s + time.monotonic()) / 2
        return PowerSample(domain=self._domain, taken_at_s=taken_at_s, power_w=power_w)


def _unexpected(error: Exception) -> QueryFailed:
    return QueryFailed(f"asking the BMC failed ({type(error).__name__}: {error})", "report this to greensv")


def _options(request: MeterRequest) -> IpmiOptions:
    return request.options or IpmiOptions()


def _domain(request: MeterRequest, options: IpmiOptions) -> Domain:
    """Returns what the BMC's power is the power of."""
    uses_gpus = bool(request.gpu_uuids) or (request.uses_visible_gpus and gpus_are_visible())
    if options.includes_gpu is None and uses_gpus:
        raise QueryFailed(
            "GPUs are in use, and it is not stated whether the BMC's power holds theirs",
            "set energy.options.ipmi.includes_gpu: true where it is that of the power supplies, false where it is that "
            "of the board alone; load a GPU and look at the reading",
        )
    domain = Domain("node" if options.includes_gpu else "host")
    if domain.kind in request.leave_out:
        raise QueryFailed(f"other meters measure the {domain.kind} already", "nothing is missing")
    return domain


@hookimpl
def greensv_meters() -> Iterable[Meter]:
    """Provides `ipmi`."""
    return (IpmiMeter(),)
