"""The book of factors on SQLite and on PostgreSQL."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine

from greensv.builtin.carbon.static import StaticCarbonSource
from greensv.energy.books.budget import Charge
from greensv.energy.books.ledger import Ledger
from greensv.energy.grid.book import CarbonBook
from greensv.energy.grid.series import FactorSeries

NOON = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
KWH_UJ = 3_600_000_000_000
HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    engine = create_engine(database_url)
    ledger = Ledger(engine)
    ledger.open_account("a-study", "search", KWH_UJ)
    yield ledger
    engine.dispose()


@pytest.fixture
def book(ledger: Ledger) -> CarbonBook:
    return CarbonBook(engine=ledger.engine, study_id="a-study", clock=lambda: NOON.timestamp())  # noqa: PLW0108


def factors(start: datetime, *values: float) -> list:
    (factor,) = StaticCarbonSource().series("FRA", start, start + HOUR)
    periods = [(start + n * HOUR, start + (n + 1) * HOUR) for n in range(len(values))]
    return [
        dataclasses.replace(factor, g_per_kwh=value, valid_from=since, valid_to=to)
        for value, (since, to) in zip(values, periods, strict=True)
    ]


def test_factors_come_back_as_they_were_kept(book: CarbonBook) -> None:
    book.record(StaticCarbonSource(), "FRA", factors(NOON, 10.5, 20.25))
    first, second = book.spans()
    assert (first.source, first.region, first.method) == ("static", "FRA", "life-cycle")
    assert (first.valid_from, first.valid_to) == (NOON.timestamp(), (NOON + HOUR).timestamp())
    assert (first.g_per_kwh, second.g_per_kwh, first.fetched_at) == (10.5, 20.25, NOON.timestamp())
    assert first.is_estimated is False
    assert "Ember" in first.provenance


def test_a_row_grows_and_what_is_known_is_not_kept_again(book: CarbonBook) -> None:
    source = StaticCarbonSource()
    book.record(source, "FRA", factors(NOON, 10.0, 10.0, 20.0))
    assert [(span.g_per_kwh, (span.valid_to - span.valid_from) / 3600) for span in book.spans()] == [(10, 2), (20, 1)]
    book.record(source, "FRA", factors(NOON, 10.0, 10.0))
    assert len(book.spans()) == 2
    book.record(source, "FRA", factors(NOON + 3 * HOUR, 20.0))
    assert [span.valid_to for span in book.spans()][-1] == (NOON + 4 * HOUR).timestamp()
    book.record(source, "FRA", factors(NOON, 11.0))
    assert len(book.spans()) == 3, "a figure that was corrected is kept beside the one before"
    book.record(source, "FRA", [])
    assert len(book.spans()) == 3


def test_failures_in_a_row_for_one_reason_are_one_row(book: CarbonBook) -> None:
    source = StaticCarbonSource()
    for start in (0.0, 10.0, 20.0):
        book.record_failure(source, "FRA", (start, start + 10.0), "down")
    book.record_failure(source, "FRA", (30.0, 40.0), "still down")
    assert [(span.valid_from, span.valid_to, span.g_per_kwh) for span in book.spans()] == [
        (0, 30, None),
        (30, 40, None),
    ]
    assert book.series() == {}


def test_the_charges_of_a_minute_are_one_span(ledger: Ledger, book: CarbonBook) -> None:
    seconds = [
        Charge(
            purpose="training",
            trial_number=3,
            started_at=NOON.timestamp() + n,
            ended_at=NOON.timestamp() + n + 1,
            meter="tiny",
            domain="cpu",
            quality="measured",
            energy_uj=1_000,
            pue=1.0,
        )
        for n in range(90)
    ]
    ledger.charge_unreserved("a-study", "search", seconds)
    assert book.charges_by_minute("retrain") == []
    found = book.charges_by_minute("search")
    assert [(span.started_at - NOON.timestamp(), span.ended_at - NOON.timestamp()) for span in found] == [
        (0, 60),
        (60, 90),
    ]
    assert [span.energy_uj for span in found] == [60_000, 30_000]
    book.record(StaticCarbonSource(), "FRA", factors(NOON, 10.0))
    series = FactorSeries(book.spans())
    assert series.figure(found).carbon_g == pytest.approx(series.figure(book.charges()).carbon_g)


def test_charges_carry_what_exceeded_the_cap(ledger: Ledger, book: CarbonBook) -> None:
    charge = Charge(
        purpose="training",
        trial_number=3,
        started_at=NOON.timestamp(),
        ended_at=(NOON + HOUR).timestamp(),
        meter="tiny",
        domain="cpu",
        quality="measured",
        energy_uj=3 * KWH_UJ,
        pue=1.0,
    )
    ledger.charge_unreserved("a-study", "search", [charge])
    assert ledger.statement("a-study", "search").overrun_uj == 2 * KWH_UJ
    (found,) = book.charges(account="search", trial_number=3)
    assert (found.energy_uj, found.purpose, found.started_at) == (3 * KWH_UJ, "training", NOON.timestamp())
    book.record(StaticCarbonSource(), "FRA", factors(NOON, 10.0))
    assert FactorSeries(book.spans()).figure([found]).carbon_g == pytest.approx(30.0)
    # Raising the cap moves the overrun under it, by rows that add up to no energy.
    ledger.open_account("a-study", "search", 5 * KWH_UJ)
    figure = FactorSeries(book.spans()).figure(book.charges())
    assert figure.energy_j == pytest.approx(3 * 3.6e6)
    assert figure.is_complete
    assert book.charges(account="retrain") == []
