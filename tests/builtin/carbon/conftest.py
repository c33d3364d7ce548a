from collections.abc import Iterator
from pathlib import Path

import pytest

from simulated.carbon_server import TOKEN, CarbonServer, carbon_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CarbonServer]:
    """Both providers on loopback, a token for one of them, and a cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ELECTRICITY_MAPS_TOKEN", TOKEN)
    with carbon_server() as server:
        yield server
