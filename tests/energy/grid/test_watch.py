"""The watch with the real `rte` source against a local server, a scripted clock, and a real database."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from greensv.builtin.carbon.rte import RteCarbonSource, RteOptions
from greensv.builtin.carbon.static import StaticCarbonSource
from greensv.energy.books.budget import Charge
from greensv.energy.books.ledger import Ledger
from greensv.energy.carbon import CarbonFactor, CarbonSource
from greensv.energy.grid.book import CarbonBook
from greensv.energy.grid.fill import fill, study_series
from greensv.energy.grid.watch import CarbonWatch
from greensv.errors import CarbonError
from simulated.carbon_server import CarbonServer, carbon_server

NOON = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
KWH_UJ = 3_600_000_000_000


@dataclass
class Bench:
    """A study that has been charged 1 kWh a minute since `start`, and a clock that stands still until it is set."""

    ledger: Ledger
    server: CarbonServer
    now: datetime = NOON
    study_id: str = "a-study"
    start: datetime = field(default=NOON)

    @property
    def book(self) -> CarbonBook:
        return CarbonBook(engine=self.ledger.engine, study_id=self.study_id, clock=lambda: self.now.timestamp())  # noqa: PLW0108 - of the present `now`

    @property
    def rte(self) -> RteCarbonSource:
        return RteCarbonSource(RteOptions(base_url=self.server.rte_url, timeout_s=5.0), now=lambda: self.now)

    def watch(self, source: CarbonSource | None = None, region: str = "FRA") -> CarbonWatch:
        return CarbonWatch(source or self.rte, region, self.book, since=self.start.timestamp())

    def publish(self, at: datetime) -> None:
        """Sets the clock, and what the provider has published by then: all but the last half hour."""
        self.now, self.server.published_to = at, at - timedelta(minutes=30)

    def charge(self, start: datetime, minutes: float, *, trial_number: int | None = 0) -> None:
        charge = Charge(
            purpose="training",
            trial_number=trial_number,
            started_at=start.timestamp(),
            ended_at=(start + timedelta(minutes=minutes)).timestamp(),
            meter="tiny",
            domain="cpu",
            quality="measured",
            energy_uj=round(minutes * KWH_UJ),
            pue=1.0,
        )
        self.ledger.charge_unreserved(self.study_id, "search", [charge])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engine = create_engine(f"sqlite:///{tmp_path / 'study.db'}")
    ledger = Ledger(engine)
    ledger.open_account("a-study", "search", 10_000 * KWH_UJ)
    with carbon_server() as server:
        yield Bench(ledger=ledger, server=server)
    engine.dispose()


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def test_factors_are_fetched_while_a_search_runs_and_integrated(bench: Bench) -> None:
    bench.server.rte = lambda at: {0: 10, 15: 20, 30: 30, 45: 40}[at.minute]
    bench.publish(NOON + minutes(120))
    bench.charge(NOON, 60)
    with bench.watch() as watch:
        watch.refresh()
        figure = watch.figure(account="search", trial_number=0)
    # 15 kWh in each quarter.
    assert figure.carbon_g == pytest.approx(15 * (10 + 20 + 30 + 40))
    assert figure.is_complete
    assert figure.estimated_j == 0
    assert "éCO2mix" in figure.provenance[0]
    grid = watch.grid("search")
    assert (grid.source, grid.region, grid.method) == ("rte", "FRA", "direct")


def test_what_is_not_published_yet_is_held_over_and_replaced_when_it_is(bench: Bench) -> None:
    bench.server.rte = lambda at: 10 if at < NOON else 50
    bench.publish(NOON + minutes(10))
    bench.charge(NOON, 10)
    with bench.watch() as watch:
        watch.refresh()
        early = watch.figure(trial_number=0)
        assert early.carbon_g == pytest.approx(10 * 10), "the newest published is of 11:30, before the search began"
        assert early.is_complete
        assert early.estimated_j == early.energy_j
        assert early.provenance[0].startswith("held over from 2026-01-15T11:45Z: RTE éCO2mix")
        bench.publish(NOON + minutes(60))
        watch.refresh()
        late = watch.figure(trial_number=0)
    assert late.carbon_g == pytest.approx(10 * 50)
    assert late.estimated_j == 0


def test_nothing_is_held_over_for_longer_than_the_source_allows(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.publish(NOON + minutes(30))
    with bench.watch() as watch:
        watch.refresh()
        bench.server.instead = (503, "text/html", "")
        bench.now = NOON + minutes(180)
        bench.charge(NOON, 180)
        watch.refresh()
        figure = watch.figure()
    assert figure.gap == "carbon incomplete: 2 h 0 min of 3 h 0 min have no factor", "rte's figures hold for an hour"
    assert "no carbon factor from 'rte'" in caplog.text
    assert "HTTP 503" in caplog.text
    assert "greensv carbon --fill" in caplog.text
    failed = [span for span in bench.book.spans() if span.g_per_kwh is None]
    assert failed
    assert all("HTTP 503" in span.provenance and span.method == "direct" for span in failed)


def test_a_source_that_fails_stops_nothing_and_is_filled_in_later(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.server.instead = (200, "text/html", "<html>please log in</html>")
    bench.publish(NOON + minutes(30))
    bench.charge(NOON, 30)
    with bench.watch() as watch:
        watch.refresh()
        watch.refresh()
        figure = watch.figure(trial_number=0)
    assert figure.carbon_g is None
    assert figure.gap == "carbon incomplete: 30 min 0 s of 30 min 0 s have no factor"
    assert caplog.text.count("no carbon factor from 'rte'") == 1, "the same failure is told once"

    bench.server.instead, bench.now = None, NOON + timedelta(days=2)
    bench.server.published_to = bench.now
    charged = bench.book.charges()
    assert fill(bench.book, bench.rte, "FRA", charged) == (pytest.approx(1800.0), [])
    filled = study_series(bench.book, bench.rte, "FRA", charged).figure(charged)
    assert filled.carbon_g == pytest.approx(30 * 22)
    assert filled.is_complete
    asked = len(bench.server.asked)
    assert fill(bench.book, bench.rte, "FRA", charged) == (0.0, [])
    assert len(bench.server.asked) == asked, "nothing was missing"


def test_filling_keeps_what_was_told_and_says_what_was_not(bench: Bench) -> None:
    bench.server.rte = lambda at: 20 if at.day == 15 else None
    bench.charge(NOON, 15)
    bench.charge(NOON + timedelta(days=1), 15)
    bench.publish(NOON + timedelta(days=2))
    charged = bench.book.charges()
    filled_s, (problem,) = fill(bench.book, bench.rte, "FRA", charged)
    assert filled_s == pytest.approx(900.0)
    assert "published nothing for FRA between 2026-01-16T12:00Z" in problem
    figure = study_series(bench.book, bench.rte, "FRA", charged).figure(charged)
    assert figure.carbon_g == pytest.approx(15 * 20)
    assert figure.gap == "carbon incomplete: 15 min 0 s of 30 min 0 s have no factor"


@pytest.mark.parametrize("says_it_is_live", [True, False])
def test_a_plugin_may_raise_anything(bench: Bench, caplog: pytest.LogCaptureFixture, says_it_is_live: bool) -> None:
    class Broken(CarbonSource):
        name = "broken"
        is_live = says_it_is_live

        def factor(self, region: str, at: datetime) -> CarbonFactor:
            raise ZeroDivisionError("by zero")

    bench.now = NOON + minutes(5)
    bench.charge(NOON, 5)
    with bench.watch(Broken(), "sea") as watch:
        wait_for(lambda: bool(bench.book.spans()))
        assert watch.figure().carbon_g is None
    assert "ZeroDivisionError: by zero" in caplog.text
    assert {span.method for span in bench.book.spans()} == {"unknown"}


def test_a_server_that_hangs_does_not_hold_back_a_figure(bench: Bench) -> None:
    bench.server.delay_s = 0.5
    bench.publish(NOON + minutes(30))
    bench.charge(NOON, 30)
    with bench.watch() as watch:
        watch.refresh(wait_s=0.01)
        assert watch.figure().carbon_g is None


def test_a_source_that_asks_nobody_is_asked_ahead(bench: Bench) -> None:
    bench.now = NOON + minutes(1)
    with bench.watch(StaticCarbonSource()) as watch:
        wait_for(lambda: bool(bench.book.spans()))
        watch.refresh()
    (span,) = bench.book.spans()
    assert (span.valid_from, span.g_per_kwh, span.method) == (NOON.timestamp(), 56.039, "life-cycle")
    assert span.valid_to == (NOON + minutes(1 + 15 + 1)).timestamp()
    # Killed and never continued: what lies beyond is computed from the table.
    bench.charge(NOON, 60)
    charged = bench.book.charges()
    assert study_series(bench.book, StaticCarbonSource(), "FRA", charged).figure(charged).is_complete


def test_rows_that_say_the_same_of_the_time_after_become_one(bench: Bench) -> None:
    bench.server.rte = lambda at: 20
    for hours in range(1, 4):
        bench.publish(NOON + timedelta(hours=hours))
        with bench.watch() as watch:
            watch.refresh()
    published = [span for span in bench.book.spans() if not span.is_estimated]
    assert len(published) == 3
    assert study_series(bench.book, bench.rte, "FRA").gaps([(NOON.timestamp(), bench.now.timestamp())]) == []


def test_other_studies_have_books_of_their_own(bench: Bench) -> None:
    bench.book.record(StaticCarbonSource(), "FRA", StaticCarbonSource().series("FRA", NOON, NOON + minutes(5)))
    assert bench.book.spans()
    assert CarbonBook(engine=bench.ledger.engine, study_id="another").spans() == []
    assert set(bench.book.series()) == {("static", "FRA", "life-cycle")}


def test_a_series_without_periods_is_the_plugins_mistake(bench: Bench) -> None:
    factor = StaticCarbonSource().factor("FRA", NOON)
    with pytest.raises(CarbonError, match="'static' gave a series without periods"):
        bench.book.record(StaticCarbonSource(), "FRA", [factor])


def wait_for(is_so: Callable[[], bool]) -> None:
    import time

    until_s = time.monotonic() + 10.0
    while not is_so() and time.monotonic() < until_s:
        time.sleep(0.01)
    assert is_so()


def test_long_provenance_is_cut_to_its_column(bench: Bench) -> None:
    bench.book.record_failure(StaticCarbonSource(), "FRA", (0.0, 1.0), "x" * 5000)
    assert [len(span.provenance) for span in bench.book.spans()] == [1024]
