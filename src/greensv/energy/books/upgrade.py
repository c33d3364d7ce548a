"""Brings the tables of older books up to date: with alembic, imported only when there is something to do."""

from sqlalchemy import Connection, inspect, select, text

from greensv.energy.books.schema import describe, revision
from greensv.energy.books.tables import former_version, metadata, revisions
from greensv.errors import StudyError

_ADVISORY_LOCK = 0x67726565  # any number of our own: "gree"
_FORMER_REVISIONS = {1: "0001", 2: "0002"}
_ALEMBIC_TELLS = 3
"""In the former version table: the version is in alembic's."""


def bring_up_to_date(connection: Connection, *, head: str) -> None:
    """Makes the tables in an empty database, or changes those of an older one, keeping every row.

    All in the connection's transaction, and by one process at a time.

    Raises:
        StudyError: the books were written by a newer greensv.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    found = revision(connection)
    if found is None:
        former = _former(connection)
        if former is None:
            metadata.create_all(connection)
            connection.execute(former_version.insert(), {"version": _ALEMBIC_TELLS})
            connection.execute(revisions.insert(), {"version_num": head})
            return
        if former not in _FORMER_REVISIONS:
            raise _too_new(connection, str(former), head)
        found = _FORMER_REVISIONS[former]
        metadata.create_all(connection, tables=[revisions])
        connection.execute(revisions.insert(), {"version_num": found})
    if found != head:  # another process may have been faster
        _upgrade(connection, found=found, head=head)


def _former(connection: Connection) -> int | None:
    if not inspect(connection).has_table(former_version.name):
        return None
    return connection.execute(select(former_version.c.version)).scalar_one_or_none()


def _upgrade(connection: Connection, *, found: str, head: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "greensv.energy.books:migrations")
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if found not in known:
        raise _too_new(connection, found, head)
    config.attributes["connection"] = connection
    command.upgrade(config, head)


def _too_new(connection: Connection, found: str, head: str) -> StudyError:
    return StudyError(
        f"{describe(connection.engine)} holds books of revision {found}; this greensv knows up to {head}; "
        "upgrade greensv, or choose another --storage"
    )
