import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from greensv.builtin.carbon.hour_cache import HourCache, Point, cache_at, hour_of

HOUR = datetime(2026, 1, 15, 12, tzinfo=UTC)
POINTS = [Point(at=HOUR, g_per_kwh=15.0), Point(at=HOUR + timedelta(minutes=15), g_per_kwh=16.5)]
LATER = HOUR + timedelta(days=3)


def test_an_hour_that_is_long_over_is_read_back_for_good(tmp_path: Path) -> None:
    cache = HourCache(tmp_path / "rte")
    assert cache.read(HOUR, now=LATER) is None
    cache.write(HOUR, POINTS, now=LATER)
    assert cache.read(HOUR, now=LATER + timedelta(days=900)) == POINTS
    assert [path.name for path in (tmp_path / "rte").iterdir()] == ["2026-01-15T12.json"], "nothing half-written stays"


@pytest.mark.parametrize(
    ("points", "fetched_at"),
    [
        (POINTS, HOUR + timedelta(hours=2)),
        ([Point(at=HOUR, g_per_kwh=15.0, is_estimated=True)], LATER),
        ([], LATER),
    ],
)
def test_an_hour_that_may_change_is_kept_for_minutes_only(
    tmp_path: Path, points: list[Point], fetched_at: datetime
) -> None:
    cache = HourCache(tmp_path)
    cache.write(HOUR, points, now=fetched_at)
    assert cache.read(HOUR, now=fetched_at + timedelta(minutes=4)) == points
    assert cache.read(HOUR, now=fetched_at + timedelta(minutes=6)) is None
    assert cache.read(HOUR, now=fetched_at - timedelta(minutes=1)) is None, "a clock that was set back"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"fetched_at": "2026-01-18T12:00:00+00:00"}',
        '{"fetched_at": "now", "points": []}',
        '{"fetched_at": "2026-01-18T12:00:00+00:00", "points": [{"at": "2026-01-15T12:00:00+00:00"}]}',
        '{"fetched_at": "2026-01-18T12:00:00+00:00", "points": [{"at": "2026-01-15T13:00:00+00:00", "g_per_kwh": 5, '
        '"estimated": false}]}',
        '{"fetched_at": "2026-01-18T12:00:00+00:00", "points": [{"at": "2026-01-15T12:00:00+00:00", "g_per_kwh": -5, '
        '"estimated": false}]}',
        '{"fetched_at": "2026-01-18T12:00:00", "points": []}',
    ],
)
def test_a_damaged_file_is_said_and_not_used(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "2026-01-15T12.json").write_text(text)
    assert HourCache(tmp_path).read(HOUR, now=LATER) is None
    assert "cannot be read" in caplog.text
    assert "asked for again" in caplog.text


def test_a_cache_that_cannot_be_written_is_said_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = HourCache(tmp_path / "file" / "rte")
    cache.write(HOUR, POINTS, now=LATER)
    assert "cannot be cached" in caplog.text
    assert cache.read(HOUR, now=LATER) is None


def test_names_cannot_leave_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_at("rte", "host:80", "../../FR", "direct").folder
    assert folder == tmp_path / "greensv" / "carbon" / "rte" / "host_80" / ".._.._FR" / "direct"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_at("rte").folder == Path(os.environ["HOME"]) / ".cache" / "greensv" / "carbon" / "rte"


def test_hours_are_utc() -> None:
    assert hour_of(datetime.fromisoformat("2026-01-15T13:59:59.5+01:00")) == HOUR
