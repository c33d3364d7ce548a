"""The figures of a running search or retraining as Prometheus metrics, for a server to scrape.

Names, units and types follow https://prometheus.io/docs/practices/naming/: joules, watts, grams, ratios; counters end
in `_total`. Everything is read when it is asked for, from the running process; nothing is written.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from greensv import __version__
from greensv.energy.books.budget import Statement
from greensv.energy.grid.fill import study_series
from greensv.energy.grid.series import CarbonFigure
from greensv.errors import ConfigError
from greensv.search.events import (
    Event,
    FrontKnown,
    JobOpened,
    Listener,
    Noted,
    RetrainingEnded,
    RetrainingStarted,
    Stepped,
    TrialEnded,
    TrialStarted,
)
from greensv.search.front import knee
from greensv.trial_record import TrialRecord
from greensv.units import j_from_kwh, j_from_uj

if TYPE_CHECKING:
    from prometheus_client.core import Metric

logger = logging.getLogger(__name__)

STATEMENT_AGE_S = 1.0
"""The account is asked of the database at most so often, however often the metrics are scraped."""
CARBON_AGE_S = 15.0
"""So is the carbon, which is a sum over all charges."""
CARBON_SHARE = 0.02
"""The carbon is worked out for at most this share of the time, however many the charges are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the metrics are served; port 0: any that is free."""

    host: str
    port: int


class RunningJob:
    """What is known of the job: its own events, its meters and its books. A collector for prometheus_client.

    Args:
        listen: told every event as well.
        clock: tells seconds that never go back.
    """

    def __init__(self, listen: Listener, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._listen, self._clock = listen, clock
        self._lock, self._books_lock = threading.Lock(), threading.Lock()
        self._opened: JobOpened | None = None
        self._states: dict[int, str] = {}
        self._trial: int | None = None
        self._step: Stepped | None = None
        self._front: tuple[TrialRecord, ...] | None = None
        self._statement: tuple[float, Statement] | None = None
        self._carbon: CarbonFigure | None = None
        self._carbon_due_s = -math.inf

    def __call__(self, event: Event) -> None:
        """Takes an event in and passes it on."""
        with self._lock:
            self._take(event)
        self._listen(event)

    def _take(self, event: Event) -> None:
        match event:
            case JobOpened():
                self._opened = event
                self._states = {record.number: record.state for record in event.records}
            case FrontKnown():
                self._front = tuple(event.front)
            case RetrainingStarted():
                self._trial, self._step = event.number, None
            case RetrainingEnded():
                self._trial, self._step = None, None
            case TrialStarted():
                self._trial, self._step = event.number, None
                self._states[event.number] = "running"
            case Stepped():
                self._step = event
            case TrialEnded():
                self._trial, self._step = None, None
                self._states[event.record.number] = event.record.state
                self._front = tuple(event.front)

    def collect(self) -> "Iterator[Metric]":
        """Yields the metrics as they are now; prometheus_client calls it for each scrape."""
        with self._lock:
            opened, trial, step, front = self._opened, self._trial, self._step, self._front
            states = list(self._states.values())
        if opened is not None:
            yield _info(opened)
            yield from _energy(opened)
            yield from self._books(opened)
        yield from _trials(states, trial, step)
        if front is not None:
            yield from _front(front)

    def _books(self, opened: JobOpened) -> "Iterator[Metric]":
        # A lock of its own: a database that keeps a scrape waiting must not keep the job's events waiting.
        with self._books_lock:
            self._read_books(opened)
            statement, carbon = self._statement, self._carbon
        if statement is not None:
            yield from _budget(statement[1], account=opened.metering.account)
        if carbon is not None:
            yield from _carbon(carbon)

    def _read_books(self, opened: JobOpened) -> None:
        """Keeps the last figures when the database does not answer: a scrape must not fail for it."""
        now_s = self._clock()
        try:
            if self._statement is None or now_s - self._statement[0] >= STATEMENT_AGE_S:
                metering = opened.metering
                self._statement = (now_s, metering.ledger.statement(metering.study_id, metering.account))
            if now_s >= self._carbon_due_s:
                self._read_carbon(opened)
        except Exception as error:  # noqa: BLE001 - any database, and a carbon source from a plugin
            logger.warning("the metrics lack what the books say just now: %s", error)

    def _read_carbon(self, opened: JobOpened) -> None:
        """Reads alone: `CarbonWatch.figure` would also write down the factors that it holds over."""
        watch, begun_s = opened.carbon, self._clock()
        try:
            charged = watch.book.charges_by_minute(opened.metering.account)
            self._carbon = study_series(watch.book, watch.source, watch.region, charged).figure(charged)
        finally:
            ended_s = self._clock()
            self._carbon_due_s = ended_s + max(CARBON_AGE_S, (ended_s - begun_s) / CARBON_SHARE)


@contextmanager
def exported(listen: Listener, address: Address | None) -> Iterator[Listener]:
    """Yields a listener, and serves the metrics of the job that tells it its events; without an address, none.

    Raises:
        ConfigError: the address cannot be used, as when another process has the port.
    """
    if address is None:
        yield listen
        return
    from prometheus_client import CollectorRegistry, start_http_server

    job = RunningJob(listen)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(job)
    try:
        server, thread = start_http_server(address.port, addr=address.host, registry=registry)
    except (OSError, UnicodeError) as error:  # a host name that cannot be one, such as a..b, is a UnicodeError
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"the metrics cannot be served on {address.host} port {address.port} ({why}); "
            "choose another --metrics-port (0: any that is free) or --metrics-host"
        ) from error
    try:
        host = f"[{address.host}]" if ":" in address.host else address.host
        listen(Noted(text=f"metrics for Prometheus: http://{host}:{server.server_port}/metrics"))
        yield job
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _info(opened: JobOpened) -> "Metric":
    from prometheus_client.core import InfoMetricFamily

    about = {"study": opened.study, "account": opened.metering.account, "version": __version__}
    return InfoMetricFamily("greensv", "The study, the account its energy is charged to, and greensv's version.", about)


def _energy(opened: JobOpened) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    metering = opened.metering
    labels = ("domain", "meter", "quality", "role")
    energy = CounterMetricFamily(
        "greensv_energy_joules",
        "Energy of what is charged since the start of this process, without PUE.",
        labels=labels,
    )
    uncertainty = GaugeMetricFamily(
        "greensv_energy_uncertainty_joules", "Standard uncertainty of greensv_energy_joules_total.", labels=labels
    )
    for reading in metering.monitor.known_totals():
        values = (str(reading.domain), reading.meter, reading.quality, reading.role)
        energy.add_metric(values, reading.energy_j)
        uncertainty.add_metric(values, reading.uncertainty_j)
    yield energy
    yield uncertainty
    if (power_w := metering.monitor.power_w) is not None:
        yield GaugeMetricFamily(
            "greensv_power_watts", "Power of what is charged over the last few readings, without PUE.", value=power_w
        )
    yield GaugeMetricFamily("greensv_pue_ratio", "Power usage effectiveness that charges hold.", value=metering.pue)


def _budget(statement: Statement, *, account: str) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    amounts = {
        "cap": ("What the account may spend.", statement.cap_uj),
        "reserved": ("What leases hold and have not spent.", statement.reserved_uj),
        "overrun": ("What was used beyond the cap, and is not in what was spent.", statement.overrun_uj),
    }
    for name, (what, amount_uj) in amounts.items():
        gauge = GaugeMetricFamily(f"greensv_budget_{name}_joules", f"{what} PUE included.", labels=("account",))
        gauge.add_metric((account,), j_from_uj(amount_uj))
        yield gauge
    spent = CounterMetricFamily(
        "greensv_budget_spent_joules",
        "What was charged in the whole study, PUE included.",
        labels=("account", "purpose"),
    )
    for purpose, amount_uj in statement.spent_by_purpose.items():
        spent.add_metric((account, purpose), j_from_uj(amount_uj))
    yield spent


def _carbon(figure: CarbonFigure) -> "Iterator[Metric]":
    from prometheus_client.core import GaugeMetricFamily

    if figure.carbon_g is not None:
        yield GaugeMetricFamily(
            "greensv_carbon_grams",
            "CO2-equivalent of what was charged to the account, by the factors of its time; later ones may revise it.",
            value=figure.carbon_g,
        )
    yield GaugeMetricFamily(
        "greensv_carbon_uncovered_joules", "Charged energy for whose time there is no factor.", value=figure.uncovered_j
    )


def _trials(states: list[str], trial: int | None, step: Stepped | None) -> "Iterator[Metric]":
    from prometheus_client.core import GaugeMetricFamily

    trials = GaugeMetricFamily("greensv_trials", "Trials of the study, by state.", labels=("state",))
    for state in sorted(set(states)):
        trials.add_metric((state,), states.count(state))
    yield trials
    if trial is not None:
        yield GaugeMetricFamily("greensv_trial_number", "The trial that is running.", value=trial)
    if step is not None:
        yield GaugeMetricFamily("greensv_training_step", "Step the training has come to.", value=step.step)
        yield GaugeMetricFamily("greensv_training_planned_steps", "Steps it is to take.", value=step.num_steps)


def _front(front: tuple[TrialRecord, ...]) -> "Iterator[Metric]":
    from prometheus_client.core import GaugeMetricFamily

    yield GaugeMetricFamily("greensv_front_trials", "Trials in the Pareto set.", value=len(front))
    if front:
        best = knee(front)
        yield GaugeMetricFamily(
            "greensv_knee_eer_ratio", "Equal error rate of the knee of the Pareto set.", value=best.eer or 0.0
        )
        yield GaugeMetricFamily(
            "greensv_knee_train_energy_joules",
            "Energy of the knee's full training, PUE included.",
            value=j_from_kwh(best.train_energy_kwh or 0.0),
        )
