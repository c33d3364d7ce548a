from datetime import UTC, datetime, timedelta

import pytest

from greensv.builtin.carbon.rte import RteCarbonSource, RteOptions
from greensv.config.load import validate
from greensv.errors import CarbonError, ConfigError
from simulated.carbon_server import CarbonServer

AT = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
QUARTER, HOUR = timedelta(minutes=15), timedelta(hours=1)


def source(server: CarbonServer, **options: object) -> RteCarbonSource:
    return RteCarbonSource(RteOptions(base_url=server.rte_url, **options))  # type: ignore[arg-type]


def test_a_series_has_the_published_quarter_hours(server: CarbonServer) -> None:
    server.rte = lambda at: at.hour * 100 + at.minute
    series = source(server).series("FRA", AT, AT + HOUR)
    assert [(f.valid_from, f.g_per_kwh) for f in series] == [(AT + n * QUARTER, 1200 + 15 * n) for n in range(4)]
    assert all(f.valid_to - f.valid_from == QUARTER for f in series)  # type: ignore[operator]
    first = series[0]
    assert (first.region, first.method, first.is_estimated, first.valid_at) == (
        "FRA",
        "direct",
        False,
        "2026-01-15T12:00Z",
    )
    assert "éCO2mix" in first.source
    assert "Licence Ouverte" in first.source
    assert server.rte_url in first.source


def test_a_quarter_hour_without_a_figure_is_a_gap_and_no_zero(server: CarbonServer) -> None:
    server.rte = lambda at: None if at.minute == 30 else 15
    series = source(server).series("FRA", AT, AT + HOUR)
    assert [f.valid_from.minute for f in series] == [0, 15, 45]  # type: ignore[union-attr]
    assert series[1].valid_to == AT + 2 * QUARTER, "the quarter hour before does not stand for it"


def test_a_null_that_the_service_gives_all_the_same_is_left_out(server: CarbonServer) -> None:
    body = '{"results": [{"taux_co2": 15, "date_heure": "2026-01-15T13:00:00+01:00"}, '
    server.instead = (200, "application/json", body + '{"taux_co2": null, "date_heure": "2026-01-15T13:15:00+01:00"}]}')
    assert [(f.valid_from, f.g_per_kwh) for f in source(server).series("FRA", AT, AT + HOUR)] == [(AT, 15)]


def test_a_long_period_is_asked_for_day_by_day(server: CarbonServer) -> None:
    series = source(server).series("FRA", AT, AT + timedelta(days=3))
    assert len(series) == 3 * 96
    assert len(server.asked) == 4
    assert all(int(query["limit"]) <= 100 for _, query, _ in server.asked)


def test_hours_that_are_long_over_are_asked_for_once(server: CarbonServer) -> None:
    first = source(server).series("FRA", AT, AT + 3 * HOUR)
    asked = len(server.asked)
    assert source(server).series("FRA", AT, AT + 3 * HOUR) == first
    assert len(server.asked) == asked
    assert source(server).factor("FRA", AT + HOUR).g_per_kwh == 23
    assert len(server.asked) == asked


def test_another_address_has_a_cache_of_its_own(server: CarbonServer) -> None:
    source(server).series("FRA", AT, AT + HOUR)
    asked = len(server.asked)
    elsewhere = RteOptions(base_url=server.rte_url.replace("127.0.0.1", "localhost"))
    RteCarbonSource(elsewhere).series("FRA", AT, AT + HOUR)
    assert len(server.asked) > asked


def test_what_was_published_last_stands_for_the_moment_and_says_so(server: CarbonServer) -> None:
    now = datetime.now(UTC)
    server.published_to = now - timedelta(minutes=40)
    factor = source(server).factor("FRA", now)
    assert factor.is_estimated
    assert factor.valid_from is not None
    assert factor.valid_from <= server.published_to


def test_a_stale_source_is_an_error_with_the_age(server: CarbonServer) -> None:
    now = datetime.now(UTC)
    server.published_to = now - timedelta(hours=5)
    for ask in (lambda: source(server).factor("FRA", now), lambda: source(server).series("FRA", now - HOUR, now)):
        with pytest.raises(CarbonError, match=r"the newest factor of rte is of .*, (4\.9|5\.\d) h old"):
            ask()


def test_no_records_at_all_is_an_error(server: CarbonServer) -> None:
    server.instead = (200, "application/json", '{"total_count": 0, "results": []}')
    with pytest.raises(CarbonError, match="holds no figure at all"):
        source(server).factor("FRA", datetime.now(UTC))
    with pytest.raises(CarbonError, match="published nothing for FRA"):
        source(server).factor("FRA", AT)
    with pytest.raises(CarbonError, match="published nothing for FRA between 2026-01-15T12:00Z"):
        source(server).series("FRA", AT, AT + HOUR)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            (429, "application/json", '{"errorcode": 10002, "error": "Too many requests"}'),
            "HTTP 429.*Too many requests",
        ),
        ((400, "application/json", '{"error_code": "ODSQLError", "message": "bad where"}'), "HTTP 400.*bad where"),
        ((404, "text/html", "<html>"), "HTTP 404; it is not there"),
        ((503, "text/html", "<html>down</html>"), "HTTP 503$"),
        ((302, "text/html", "http://127.0.0.1:1/"), "HTTP 302; it has moved"),
        ((200, "text/html", "<html>please log in</html>"), "answered with text/html, not JSON"),
        ((200, "application/json", "[1]"), "without a list 'results' \\(found list\\)"),
        ((200, "application/json", '{"results": 5}'), "without a list 'results'"),
        ((200, "application/json", '{"results": [{"taux_co2": 15, "date_heure": "soon"}]}'), "the time 'soon'"),
        ((200, "application/json", '{"results": [{"taux_co2": 15, "date_heure": "2026-01-15T12:00"}]}'), "has no zone"),
        (
            (200, "application/json", '{"results": [{"taux_co2": "15", "date_heure": "2026-01-15T12:00Z"}]}'),
            "'15' g/kWh",
        ),
        (
            (200, "application/json", '{"results": [{"taux_co2": NaN, "date_heure": "2026-01-15T12:00Z"}]}'),
            "nan g/kWh",
        ),
        (
            (200, "application/json", '{"results": [{"taux_co2": -3, "date_heure": "2026-01-15T12:00Z"}]}'),
            "-3 g/kWh",
        ),
    ],
)
def test_an_answer_that_cannot_be_used_is_said(
    server: CarbonServer, answer: tuple[int, str, str], message: str
) -> None:
    server.instead = answer
    with pytest.raises(CarbonError, match=message):
        source(server).factor("FRA", AT)


def test_a_server_that_is_too_slow_or_not_there_is_said(server: CarbonServer) -> None:
    server.delay_s = 0.5
    with pytest.raises(CarbonError, match=r"was not reached: no answer within 0\.05 s"):
        source(server, timeout_s=0.05).factor("FRA", AT)
    with pytest.raises(CarbonError, match="was not reached"):
        RteCarbonSource(RteOptions(base_url="http://127.0.0.1:1")).factor("FRA", AT)


def test_a_failure_leaves_nothing_in_the_cache(server: CarbonServer) -> None:
    server.instead = (503, "text/html", "")
    with pytest.raises(CarbonError):
        source(server).factor("FRA", AT)
    server.instead = None
    assert source(server).factor("FRA", AT).g_per_kwh == 22


def test_it_knows_france_alone() -> None:
    assert RteCarbonSource().resolve_region("fr") == "FRA"
    with pytest.raises(ConfigError, match="knows France alone, region FRA, found 'WORLD'"):
        RteCarbonSource().factor("WORLD", AT)
    with pytest.raises(ConfigError, match="gives direct factors only; leave out life-cycle"):
        RteCarbonSource().with_method("life-cycle")
    assert RteCarbonSource().with_method("direct").method == "direct"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"base_url": "ftp://x"}, "base_url begins with https://, found 'ftp://x'"),
        ({"base_url": "https://me:pass@x/"}, "no user, password, query"),
        ({"base_url": "https://x/?key=1"}, "no user, password, query"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"dataset": "eco2mix"}, "dataset"),
    ],
)
def test_options_are_checked(options: dict[str, object], problem: str) -> None:
    _, problems = validate(RteOptions, options, where="energy.carbon_options.rte")
    assert problem in "; ".join(map(str, problems))
