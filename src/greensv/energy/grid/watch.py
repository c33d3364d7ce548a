"""Fetches the carbon factors of a study's grid while it runs, in a thread of its own that nothing waits for."""

import logging
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from greensv.energy.books.budget import this_process
from greensv.energy.carbon import CarbonFactor, CarbonSource
from greensv.energy.grid.book import UNKNOWN_METHOD, CarbonBook
from greensv.energy.grid.fill import study_series
from greensv.energy.grid.series import CarbonFigure, FactorSeries, GridCarbon
from greensv.errors import CarbonError, GreensvError

logger = logging.getLogger(__name__)

FETCH_INTERVAL_S = 900.0
REVISE_S = 6 * 3_600.0
"""Missing and estimated factors are asked for again for so long; later, `greensv carbon --fill` does."""
HELD_OVER = "held over"
CLOSING_S = 10.0
"""How long the end of a job waits for a fetch, at most."""


class CarbonWatch:
    """The factors of one study from the start of this process on. A context manager: fetches between enter and exit.

    A source that fails never stops anything: the period is kept without a factor, and the figures say so. A source that
    asks no network is asked ahead, so that a killed process leaves no gap.
    """

    def __init__(
        self,
        source: CarbonSource,
        region: str,
        book: CarbonBook,
        *,
        interval_s: float = FETCH_INTERVAL_S,
        since: float | None = None,
    ) -> None:
        """Fetches nothing yet.

        Args:
            source: with its options.
            region: as the source writes it (`CarbonSource.resolve_region`).
            book: of the study.
            interval_s: seconds from one fetch to the next.
            since: UTC epoch seconds from which on factors are wanted; None: since this process started.
        """
        self.source, self.region, self.book = source, region, book
        self._interval_s = interval_s
        self._since = this_process().process_started_at if since is None else since
        self._tried_to = self._since
        self._reason = ""
        self._turn = threading.Condition()
        self._num_asked, self._num_answered, self._is_ending = 1, 0, False
        self._thread = threading.Thread(target=self._run, name="greensv-carbon", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._turn:
            self._is_ending = True
            self._turn.notify_all()
        self._thread.join(timeout=CLOSING_S)

    def refresh(self, *, wait_s: float = CLOSING_S) -> None:
        """Asks a live source once more and waits for it, for `wait_s` at most: before a report, not while training."""
        if not self.source.is_live or not self._thread.is_alive():
            return
        with self._turn:
            self._num_asked += 1
            asked = self._num_asked
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._num_answered >= asked, timeout=wait_s)

    def figure(self, *, account: str | None = None, trial_number: int | None = None) -> CarbonFigure:
        """Returns the carbon of what was charged so far to the study, an account or a trial of it. Asks no network."""
        self._hold_over(self.book.clock())
        charged = self.book.charges(account=account, trial_number=trial_number)
        try:
            series = study_series(self.book, self.source, self.region, charged)
        except Exception as error:  # noqa: BLE001 - as in `_fetch`: what is stored must do
            logger.debug("no carbon factor from %r: %s", self.source.name, error)
            series = self._series()
        return series.figure(charged)

    def grid(self, account: str) -> GridCarbon:
        """Returns the carbon of an account so far, with what it is counted by. Asks no network."""
        figure = self.figure(account=account)
        methods = [span.method for _, _, span in self._series().spans] or [self.source.method or UNKNOWN_METHOD]
        return GridCarbon(source=self.source.name, region=self.region, method=methods[-1], figure=figure)

    def _run(self) -> None:
        while not self._is_ending:
            asked = self._num_asked
            self._fetch()
            with self._turn:
                self._num_answered = asked
                self._turn.notify_all()
                self._turn.wait_for(
                    lambda: self._is_ending or self._num_asked > self._num_answered, timeout=self._interval_s
                )

    def _fetch(self) -> None:
        now = self.book.clock()
        try:
            for start, end in self._wanted(now):
                factors = self.source.series(
                    self.region, datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)
                )
                self.book.record(self.source, self.region, factors)
            self._hold_over(now)
            if self._series().gaps([(max(self._since, now - 1.0), now)]):
                raise CarbonError("nothing recent enough was published")
            self._reason = ""
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and the job must go on
            self._failed(now, str(error) if isinstance(error, GreensvError) else f"{type(error).__name__}: {error}")
        self._tried_to = now

    def _wanted(self, now: float) -> list[tuple[float, float]]:
        series = self._series()
        if not self.source.is_live:
            return series.gaps([(self._since, now + self._interval_s + 60.0)])
        revised = max(self._since, now - REVISE_S)
        missing = series.gaps([(revised, now)], with_estimated=True)
        # From before the start: what was published last may stand for what is not published yet.
        return [(min(start for start, _ in missing) - self.source.hold_s, now)] if missing else []

    def _hold_over(self, until: float) -> None:
        """Lets the newest published factor of a live source stand for the time since, marked as an estimate."""
        if not self.source.is_live:
            return
        spans = [
            span
            for span in self.book.spans(self.source.name, self.region)
            if span.g_per_kwh is not None and not span.provenance.startswith(HELD_OVER)
        ]
        newest = max(spans, key=lambda span: (span.valid_to, span.fetched_at), default=None)
        if newest is None or newest.g_per_kwh is None:
            return
        since, until = max(self._since, newest.valid_to), min(until, newest.valid_to + self.source.hold_s)
        for start, end in self._series().gaps([(since, until)]) if since < until else []:
            factor = CarbonFactor(
                region=self.region,
                g_per_kwh=newest.g_per_kwh,
                source=f"{HELD_OVER} from {datetime.fromtimestamp(newest.valid_to, UTC):%Y-%m-%dT%H:%MZ}: "
                f"{newest.provenance}",
                method="direct" if newest.method == "direct" else "life-cycle",
                valid_at=f"{datetime.fromtimestamp(start, UTC):%Y-%m-%dT%H:%MZ}",
                valid_from=datetime.fromtimestamp(start, UTC),
                valid_to=datetime.fromtimestamp(end, UTC),
                is_estimated=True,
            )
            self.book.record(self.source, self.region, [factor])

    def _failed(self, now: float, reason: str) -> None:
        if reason != self._reason:
            logger.warning(
                "no carbon factor from %r: %s; the job goes on without, fill it in later with `greensv carbon --fill`",
                self.source.name,
                reason,
            )
        self._reason = reason
        try:
            self._hold_over(now)
            for period in self._series().gaps([(self._tried_to, now)]):
                self.book.record_failure(self.source, self.region, period, reason)
        except Exception as error:  # noqa: BLE001 - the database, too, may fail in any way
            logger.warning("the missing carbon factor could not be noted: %s", error)

    def _series(self) -> FactorSeries:
        return study_series(self.book, self.source, self.region)
