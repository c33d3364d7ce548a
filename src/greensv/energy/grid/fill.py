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


def fill(book: CarbonBook, source: CarbonSource, region: str, charged: Iterable[ChargeSpan]) -> tuple[float, list[str]]:
    """Asks the source for what is missing, or only estimated, of the time of `charged`; keeps and counts it.

    Returns:
        Seconds that have a factor now and had none, or an estimated one, before; and why some may have none still.

    Raises:
        ConfigError: the source does not know the region.
    """
    periods = [(c.started_at, c.ended_at) for c in charged]
    wanted = FactorSeries(_stored(book, source, region)).gaps(periods, with_estimated=True)
    problems = []
    for start, end in merged(wanted, slack_s=ASK_TOGETHER_S):
        try:
            # A moment is asked for, too: a charge need not last.
            factors = source.series(region, _utc(start), _utc(max(end, start + 1.0)))
        except CarbonError as error:  # another period may be known
            problems.append(str(error))
        else:
            book.record(source, region, factors)
    known = FactorSeries(_stored(book, source, region))
    if not problems and (without := known.gaps(periods)):
        problems.append(
            f"{source.name} told no factor for {_length(without):,.0f} s of the study, the first at "
            f"{_utc(without[0][0]):%Y-%m-%dT%H:%MZ}: not published yet, or further back than it tells"
        )
    return _length(wanted) - _length(known.gaps(periods, with_estimated=True)), problems


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
