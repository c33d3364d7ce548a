import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from greensv.energy.books.tables import metadata

POSTGRESQL_VARIABLE = "GREENSV_TEST_POSTGRESQL_URL"


@pytest.fixture(scope="session")
def postgresql_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL database: the one an environment variable names, else a server started for these tests."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (greensv[postgresql])")
    if given := os.environ.get(POSTGRESQL_VARIABLE):
        yield given
        return
    server = next((str(p) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)
    initdb, postgres = (shutil.which(name, path=server) or shutil.which(name) for name in ("initdb", "postgres"))
    if initdb is None or postgres is None:
        pytest.skip(f"no PostgreSQL server is installed and {POSTGRESQL_VARIABLE} is not set")
    directory = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    if user is not None:
        shutil.chown(directory, user)
    data = directory / "data"
    initialise = [initdb, "-D", str(data), "-A", "trust", "-U", "greensv", "--no-sync"]
    subprocess.run(initialise, check=True, capture_output=True, user=user)
    serve = [postgres, "-D", str(data), "-k", str(directory), "-c", "listen_addresses=", "-c", "fsync=off"]
    process = subprocess.Popen(serve, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"postgresql+psycopg://greensv@/postgres?host={directory}"
        _wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)
        shutil.rmtree(directory)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'study.db'}"
        return
    url = request.getfixturevalue("postgresql_url")
    yield url
    engine = create_engine(url)
    metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def open_engine() -> Iterator[Callable[[str], Engine]]:
    """Makes engines that are disposed of after the test."""
    engines: list[Engine] = []

    def make(url: str) -> Engine:
        engines.append(create_engine(url))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(database_url: str, open_engine: Callable[[str], Engine]) -> Engine:
    """An engine on an empty database, on SQLite and on PostgreSQL."""
    return open_engine(database_url)


def _wait_for(url: str) -> None:
    engine = create_engine(url)
    deadline_s = time.monotonic() + 30
    while True:
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except Exception:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.1)
        else:
            engine.dispose()
            return
