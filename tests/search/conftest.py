from collections.abc import Iterator
from pathlib import Path

import pytest

from tiny.study import Lab, young_and_quick
from tiny.work import WORK


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that keeps the rendered voices from test to test."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def young_process(voices: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, young_and_quick():
        patch.setenv("XDG_CACHE_HOME", str(voices))
        yield


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A database, a plugin and a listener of this test's own."""
    monkeypatch.setattr(WORK, "factor", 1.0)
    # What one test's networks cost, at its own power, is not for another's predictions.
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    lab = Lab(folder=tmp_path)
    yield lab
    lab.close()
