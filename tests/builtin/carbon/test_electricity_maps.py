import logging
import os
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from greensv.builtin.carbon.electricity_maps import ElectricityMapsCarbonSource, ElectricityMapsOptions
from greensv.config.load import validate
from greensv.errors import CarbonError, ConfigError
from simulated.carbon_server import TOKEN, CarbonServer

AT = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def source(server: CarbonServer, **options: object) -> ElectricityMapsCarbonSource:
    return ElectricityMapsCarbonSource(ElectricityMapsOptions(base_url=server.maps_url, **options))  # type: ignore[arg-type]


def this_hour() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def test_hours_of_the_past_come_from_past_range_in_pieces_of_ten_days(server: CarbonServer) -> None:
    series = source(server).series("fr", AT, AT + timedelta(days=25))
    assert [(f.region, f.valid_from, f.g_per_kwh) for f in series[:2]] == [("FR", AT, 32), ("FR", AT + HOUR, 33)]
    assert len(series) == 25 * 24
    assert server.paths == ["past-range"] * 3


def test_the_last_day_comes_from_history_and_this_hour_from_latest(server: CarbonServer) -> None:
    server.has_past_range = False
    now = datetime.now(UTC)
    series = source(server).series("DE", now - 5 * HOUR, now)
    assert [f.valid_from for f in series] == [this_hour() - n * HOUR for n in range(5, -1, -1)]
    assert series[-1].valid_to == this_hour() + HOUR
    assert sorted(server.paths) == ["history", "latest"]


def test_every_question_names_the_zone_and_forbids_the_callers_own(server: CarbonServer) -> None:
    now = datetime.now(UTC)
    source(server).series("US-CAL-CISO", now - timedelta(days=3), now)
    assert server.asked
    for _, query, headers in server.asked:
        assert query["zone"] == "US-CAL-CISO"
        assert query["disableCallerLookup"] == "true"
        assert query["emissionFactorType"] == "lifecycle"
        assert headers["auth-token"] == TOKEN
        assert TOKEN not in query.values()


def test_an_answer_for_another_zone_is_refused(server: CarbonServer) -> None:
    server.answers_for = "DE"
    with pytest.raises(CarbonError, match="was asked for zone FR and answered for 'DE'"):
        source(server).factor("FR", AT)


def test_direct_factors_are_asked_for_and_an_answer_of_the_other_kind_is_refused(server: CarbonServer) -> None:
    direct = source(server).with_method("direct")
    assert (direct.factor("FR", AT).g_per_kwh, direct.factor("FR", AT).method) == (16, "direct")
    assert source(server).factor("FR", AT).g_per_kwh == 32, "each method has a cache of its own"
    item = '{"zone": "FR", "carbonIntensity": 1, "datetime": "2026-02-01T00:00:00Z", "emissionFactorType": "lifecycle"}'
    server.instead = (200, "application/json", f'{{"zone": "FR", "data": [{item}]}}')
    with pytest.raises(CarbonError, match="asked for direct factors and answered with 'lifecycle' ones"):
        direct.factor("FR", datetime(2026, 2, 1, tzinfo=UTC))


def test_modelled_hours_are_marked_and_asked_for_again(server: CarbonServer) -> None:
    server.is_estimated = True
    assert source(server).factor("FR", AT).is_estimated
    server.is_estimated = False
    # Young cached figures are taken for five minutes; these are made old.
    for path in _files():
        path.write_text(path.read_text().replace(f"{datetime.now(UTC).year}-", "2020-", 1))
    assert not source(server).factor("FR", AT).is_estimated


def _files() -> list[Path]:
    return sorted(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.json"))


def test_without_a_token_it_says_which_variable_to_set(server: CarbonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELECTRICITY_MAPS_TOKEN")
    with pytest.raises(CarbonError, match="set the environment variable ELECTRICITY_MAPS_TOKEN"):
        source(server).factor("FR", AT)
    monkeypatch.setenv("ELECTRICITY_MAPS_TOKEN", "a\nb")
    with pytest.raises(CarbonError, match="cannot be sent in a header"):
        source(server).factor("FR", AT)
    assert server.asked == []


def test_the_token_is_in_no_message_no_log_no_file_and_no_factor(
    server: CarbonServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "wrong-token-4567"
    monkeypatch.setenv("ELECTRICITY_MAPS_TOKEN", wrong)
    with pytest.raises(
        CarbonError, match="HTTP 401; the token is missing or wrong; it says 'Request unauthorized"
    ) as e:
        source(server).factor("FR", AT)
    assert wrong not in "".join(traceback.format_exception(e.value))
    assert server.asked[-1][2]["auth-token"] == wrong, "the server did see it, and says it in its answer"
    server.instead = (200, "application/json", f'{{"error": "no access for {wrong}"}}')
    with pytest.raises(CarbonError, match="no access for …"):
        source(server).factor("FR", AT)
    server.instead = None
    monkeypatch.setenv("ELECTRICITY_MAPS_TOKEN", TOKEN)
    factor = source(server).factor("FR", AT)
    assert TOKEN not in repr(factor) + repr(source(server).options) + caplog.text
    assert _files()
    assert all(TOKEN not in path.read_text() + str(path) for path in _files())


def test_a_redirect_does_not_carry_the_token_elsewhere(server: CarbonServer) -> None:
    server.instead = (302, "text/html", f"{server.url}/elsewhere")
    with pytest.raises(CarbonError, match="HTTP 302; it has moved"):
        source(server).factor("FR", AT)
    assert len(server.asked) == 1


def test_an_unknown_zone_is_a_mistake_in_the_configuration(server: CarbonServer) -> None:
    with pytest.raises(ConfigError, match=r"knows no zone 'XX'.*Zone 'XX' does not exist"):
        source(server).factor("XX", AT)
    with pytest.raises(ConfigError, match=r"names its zones by two letters, such as FR, .* found 'FRA'"):
        source(server).resolve_region("FRA")


def test_a_plan_without_the_past_says_so(server: CarbonServer) -> None:
    server.has_past_range = False
    with pytest.raises(CarbonError, match=r"HTTP 403; the token's plan.*needs a plan with past-range"):
        source(server).factor("FR", AT)


def test_a_plan_without_the_past_gives_the_last_day_of_a_longer_period(
    server: CarbonServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.has_past_range = False
    now = datetime.now(UTC)
    series = source(server).series("FR", now - timedelta(days=3), now)
    assert [f.valid_from for f in series] == [this_hour() - n * HOUR for n in range(24, -1, -1)]
    assert "needs a plan with past-range" in caplog.text
    assert TOKEN not in caplog.text


def test_an_address_has_a_cache_of_its_own(server: CarbonServer) -> None:
    """Two services behind one host, told apart by the path."""
    one = source(server)
    other = ElectricityMapsCarbonSource(ElectricityMapsOptions(base_url=f"{server.url}/sandbox/v3"))
    assert one.provider("FR").cache.folder != other.provider("FR").cache.folder
    assert one.factor("FR", AT).g_per_kwh == 32
    with pytest.raises(ConfigError, match="or base_url is wrong"):
        other.factor("FR", AT)


def test_latest_without_a_figure_or_too_old_is_an_error(server: CarbonServer) -> None:
    now = datetime.now(UTC)
    server.maps = lambda at: None
    with pytest.raises(CarbonError, match="no figure for FR just now: carbonIntensity is null"):
        source(server).factor("FR", now)
    server.maps = lambda at: 30
    server.published_to = now - timedelta(hours=9)
    with pytest.raises(CarbonError, match=r"the newest factor of Electricity Maps for FR is of .* (9|10)\.\d h old"):
        source(server).factor("FR", now)


def test_too_many_questions_is_said(server: CarbonServer) -> None:
    server.instead = (429, "application/json", '{"error": "Rate limit exceeded"}')
    with pytest.raises(CarbonError, match=r"HTTP 429; too many questions in a while.*Rate limit exceeded"):
        source(server).factor("FR", AT)


def test_a_token_travels_encrypted_only() -> None:
    _, problems = validate(ElectricityMapsOptions, {"base_url": "http://api.electricitymaps.com/v3"})
    assert "the token could be read on its way" in str(problems[0])
    _, problems = validate(ElectricityMapsOptions, {"token": "abc"})
    assert "unknown key" in str(problems[0])
    assert validate(ElectricityMapsOptions, {"base_url": "http://localhost:8080", "method": "direct"})[1] == []
