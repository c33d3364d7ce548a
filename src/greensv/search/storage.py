"""Opening the SQL database that holds the Optuna study and greensv's ledger side by side."""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from greensv.energy.books.ledger import Ledger
from greensv.energy.books.outages import PATIENCE_S, is_passing, pauses
from greensv.energy.books.schema import immediate_transactions
from greensv.errors import StudyError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

logger = logging.getLogger(__name__)

DEFAULT_STORAGE = "sqlite:///runs/greensv.db"
SQLITE_PREFIX = "sqlite:///"
POSTGRESQL_OPTIONS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # in ms
}
"""In seconds: how soon a server that does not answer any more is noticed. The URL's own values come first."""

MAKING_S = 10.0
"""A process that makes the tables of a new database is done after so many seconds."""

Made = TypeVar("Made")


def sqlite_path(url: str) -> Path | None:
    """Returns the file of an SQLite URL, `sqlite:///PATH`; None for other databases and for SQLite in memory."""
    path = url.removeprefix(SQLITE_PREFIX)
    return Path(path) if url.startswith(SQLITE_PREFIX) and path not in ("", ":memory:") else None


def study_folder(url: str, study_name: str) -> Path:
    """Returns the folder for a study's files: beside an SQLite database, else `runs/` in the current directory."""
    path = sqlite_path(url)
    return (path.parent if path else Path("runs")) / study_name


def open_storage(url: str, *, create: bool) -> tuple["RDBStorage", Ledger]:
    """Returns Optuna's storage and our ledger in the same database.

    Args:
        url: an SQLAlchemy URL, such as `sqlite:///runs/greensv.db`.
        create: make a missing SQLite file (and its folder); otherwise a missing file is an error.

    Raises:
        StudyError: the database cannot be reached, read or written, or the URL is none.
    """
    import optuna
    import sqlalchemy.exc

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Optuna 5 logs every schema check of alembic at INFO; a user's log should hold the search alone.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    path = sqlite_path(url)
    if path is not None:
        _check_file(path, create=create)
    elif "://" not in url:
        raise StudyError(f"{url!r} is no database URL; for a file write sqlite:///{url}")
    elif url.startswith("sqlite"):
        raise StudyError(f"{url} names no file, and a study outlives its process; write sqlite:///PATH")
    try:
        return _made_together(lambda: _open(url, _engine_options(url)))
    # RuntimeError: Optuna's word for tables of a version that this one cannot use.
    except (
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
        ImportError,
        ValueError,
        RuntimeError,
    ) as error:
        raise StudyError(
            f"the storage {hide_password(url)} cannot be opened: {_first_line(error)}{_remedy(url, error)}"
        ) from error


def _engine_options(url: str) -> dict[str, Any]:
    import sqlalchemy

    if sqlite_path(url) is not None:
        return {"connect_args": {"timeout": 60, "isolation_level": None}}
    if not url.startswith("postgresql"):
        return {}
    given = sqlalchemy.make_url(url).query
    return {"connect_args": {name: value for name, value in POSTGRESQL_OPTIONS.items() if name not in given}}


def _open(url: str, engine_kwargs: dict[str, Any]) -> tuple["RDBStorage", Ledger]:
    from greensv.search.patient_storage import PatientStorage

    storage = PatientStorage(url, engine_kwargs=engine_kwargs)
    immediate_transactions(storage.engine)
    return storage, Ledger(storage.engine)


def _made_together(make: Callable[[], Made]) -> Made:
    """Calls `make` again for a while when another process is making the same tables."""
    import sqlalchemy.exc

    until_s = time.monotonic() + MAKING_S
    while True:
        try:
            return make()
        except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError) as e:
            is_theirs = any(words in str(e.orig).lower() for words in ("already exists", "unique", "duplicate"))
            if not is_theirs or time.monotonic() > until_s:
                raise
            time.sleep(MAKING_S / 20)


def patiently(call: Callable[[], Made], *, patience_s: float = PATIENCE_S) -> Made:
    """Returns what a call to Optuna returns, made again for `patience_s` seconds while the database is away.

    The first call may have been carried out although its answer was lost. So give it what does no harm twice:
    `study.tell(..., skip_if_finished=True)`, attributes, reads. Of `study.ask`, a trial may be left RUNNING, without a
    lease; `reconcile` finds it.

    Raises:
        StorageInternalError, SQLAlchemyError: the database stayed away, or waiting does not help, as with a full disk.
    """
    import optuna
    import sqlalchemy.exc

    waits = pauses(patience_s)
    is_repeat = False
    while True:
        try:
            done = call()
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError) as error:
            # Optuna wraps what fails inside of its session, and passes on what fails when it ends.
            cause = error if isinstance(error, sqlalchemy.exc.DBAPIError) else error.__cause__
            pause_s = next(waits, None)
            if not isinstance(cause, sqlalchemy.exc.DBAPIError) or not is_passing(cause) or pause_s is None:
                raise
            if not is_repeat:
                logger.warning("the storage is away (%s); trying again for %.0f s", _first_line(cause), patience_s)
            is_repeat = True
            time.sleep(pause_s)
        else:
            if is_repeat:
                logger.warning("the storage can be used again")
            return done


@contextmanager
def storage_failures(url: str) -> Iterator[None]:
    """Turns a database that fails while it is used into an error for the user.

    Raises:
        StudyError: the database went away, is full or stays locked.
    """
    import optuna
    import sqlalchemy.exc

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise StudyError(
            f"the storage {hide_password(url)} failed: {_first_line(error.__cause__ or error)}; what was written "
            "before is safe: see that it can be reached and has room, then run the same command again"
        ) from error


def hide_password(url: str) -> str:
    """Returns a database URL without its password."""
    import sqlalchemy.exc

    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url


def prepare_folder(folder: Path) -> Path:
    """Makes a study's folder and sees that it can be written, before any energy is used; returns it.

    Raises:
        StudyError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StudyError(
            f"the study's folder {folder} cannot be written: {error.strerror}; change its permissions, make room, or "
            "choose another place with --storage"
        ) from error
    return folder


def _check_file(path: Path, *, create: bool) -> None:
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        exists = path.exists()
    except OSError as error:
        raise StudyError(
            f"the folder {path.parent} cannot be used: {error.strerror}; choose another with --storage"
        ) from error
    if not create and not exists:
        raise StudyError(f"no study database at {path}; start one with `greensv search`, or name it with --storage")
    target = path if exists else path.parent
    if path.is_dir():
        raise StudyError(f"{path} is a folder; --storage needs a file, such as sqlite:///{path}/greensv.db")
    if not os.access(target, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise StudyError(
            f"{target} cannot be written (SQLite also writes beside it); change its permissions or use --storage"
        )
    if exists and path.stat().st_size > 0:
        with path.open("rb") as file:
            if not file.read(16).startswith(b"SQLite format 3"):
                raise StudyError(f"{path} is no SQLite database; name another file with --storage")


def _first_line(error: BaseException) -> str:
    original = getattr(error, "orig", None) or error
    return str(original).splitlines()[0] if str(original) else type(original).__name__


def _remedy(url: str, error: Exception) -> str:
    if isinstance(error, ImportError) or "psycopg" in str(error):
        return "; install the driver with `pip install 'greensv[postgresql]'` and write postgresql+psycopg://…"
    return (
        "; check that the server runs and that the address, user and database in the URL are right"
        if "sqlite" not in url
        else ""
    )
