"""What is known of a study's carbon: the stored series, completed where that asks nobody, or filled in on request."""

from collections.abc import Iterable
from datetime import UTC, datetime

from greensv.energy.carbon import CarbonSource
from greensv.energy.grid.book import CarbonBook, as_span
from greensv.energy.grid.series import ChargeSpan, FactorSeries, FactorSpan, merged
from greensv.errors import CarbonError

ASK_TOGETHER_S = 3_600.0
"""Periods closer than this are asked for in one question."""


def study_series(
    book: CarbonBook, source: CarbonSource, region: str, charged: Iterable[ChargeSpan] = ()
) -> FactorSeries:
    """Returns the stored series of a source and region.

    A source that asks no network also covers what is missing of the time of `charged`, by what it says now.
    """
    spans = _stored(book, source, region)
    if not source.is_live:
        missing = FactorSeries(spans).gaps((c.started_at, c.ended_at) for c in charged)
        spans += [span for period in missing for span in ask(source, region, period)]
    return FactorSeries(spans)


def fill(book: CarbonBook, source: CarbonSource, region: str, charged: Iterable[ChargeSpan]) -> float:
    """Asks the source for what is missing, or only estimated, of the time of `charged`; keeps and counts it.

    Returns:
        Seconds that have a factor now and had none, or an estimated one, before.

    Raises:
        ConfigError, CarbonError: the source did not tell for some period; what it told for others is kept.
    """
    periods = [(c.started_at, c.ended_at) for c in charged]
    wanted = FactorSeries(_stored(book, source, region)).gaps(periods, with_estimated=True)
    errors = []
    for start, end in merged(wanted, slack_s=ASK_TOGETHER_S):
        try:
            # A moment is asked for, too: a charge need not last.
            factors = source.series(region, _utc(start), _utc(max(end, start + 1.0)))
        except CarbonError as error:  # another period may be known
            errors.append(error)
        else:
            book.record(source, region, factors)
    if errors:
        raise errors[0]
    left = FactorSeries(_stored(book, source, region)).gaps(periods, with_estimated=True)
    return _length(wanted) - _length(left)


def ask(source: CarbonSource, region: str, period: tuple[float, float]) -> list[FactorSpan]:
    """Returns what the source says now of a period in UTC epoch seconds, storing nothing.

    Raises:
        ConfigError, CarbonError: the source did not tell.
    """
    start, end = period
    factors = source.series(region, _utc(start), _utc(max(end, start + 1.0)))
    now = datetime.now(UTC).timestamp()
    return [as_span(source, region, factor, fetched_at=now) for factor in factors]


def _stored(book: CarbonBook, source: CarbonSource, region: str) -> list[FactorSpan]:
    spans = book.spans(source.name, region)
    return [span for span in spans if source.method is None or span.method == source.method]


def _length(periods: list[tuple[float, float]]) -> float:
    return sum(end - start for start, end in periods)


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
