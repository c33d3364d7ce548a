"""Alembic's environment: runs on the connection, and in the transaction, that `schema` has open."""

from alembic import context

from greensv.energy.books.tables import VERSION_TABLE, metadata


def is_ours(name: str | None, kind: str, parents: object) -> bool:
    """Whether a name found in the database is one of greensv's: all others are Optuna's, or somebody else's."""
    return kind != "table" or (name is not None and name.startswith("greensv_"))


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=is_ours,
)
context.run_migrations()
