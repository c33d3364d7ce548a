"""A database that is away: which failures may pass by themselves, and how long to wait for that."""

import random
import time
from collections.abc import Callable, Iterator

from sqlalchemy.exc import DBAPIError, IntegrityError

from greensv.errors import StudyError

PATIENCE_S = 300.0
"""How long whoever must write waits for a database that is away. A server that restarts takes seconds to a minute."""

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0

_SQLITE_PASSING = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_CANTOPEN",  # the file, or its folder, is not there
    "SQLITE_READONLY_DBMOVED",  # moved, or replaced, while it was open
    "SQLITE_IOERR",  # a network file system that is away
    "SQLITE_PROTOCOL",
)
_SQLITE_STALE = ("SQLITE_READONLY_DBMOVED", "SQLITE_IOERR", "SQLITE_CANTOPEN")

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL_PASSING = (
    "08",  # connection exception
    "40001",  # serialization failure
    "40P01",  # deadlock
    "53300",  # too many connections
    "55P03",  # lock not available
    "57P",  # shut down, crashed, or starting up
)
_POSTGRESQL_FULL = "53100"


class StorageAway(StudyError):
    """The database cannot be reached, or is locked, for the moment: what failed may be tried again."""


def is_passing(error: DBAPIError) -> bool:
    """Whether a failure may pass by itself, so that the same transaction may succeed later."""
    if isinstance(error, IntegrityError):
        return False
    original = error.orig
    name = getattr(original, "sqlite_errorname", None)
    if name is not None:
        return str(name).startswith(_SQLITE_PASSING)
    state = getattr(original, "sqlstate", None)
    if state:
        return str(state).startswith(_POSTGRESQL_PASSING)
    # Without a code: the server said nothing, because there was none, or no connection to it any more.
    return error.connection_invalidated or type(original).__name__ in ("OperationalError", "ConnectionTimeout")


def is_full(error: DBAPIError) -> bool:
    """Whether the disk of the database is full: waiting does not help."""
    original = error.orig
    return getattr(original, "sqlite_errorname", None) == "SQLITE_FULL" or (
        getattr(original, "sqlstate", None) == _POSTGRESQL_FULL
    )


def is_stale(original: BaseException | None) -> bool:
    """Whether an SQLite connection has lost its file, so that it must be opened anew."""
    return str(getattr(original, "sqlite_errorname", "")).startswith(_SQLITE_STALE)


def pauses(patience_s: float, *, clock: Callable[[], float] = time.monotonic) -> Iterator[float]:
    """Yields seconds to wait between attempts until `patience_s` are over: growing, and no two processes alike."""
    until_s, pause_s = clock() + patience_s, _FIRST_PAUSE_S
    while (left_s := until_s - clock()) > 0:
        yield min(left_s, pause_s * random.uniform(0.75, 1.25))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
