"""Accounts, leases, charges and windows: version 1 of the mechanism before alembic.

Books of that version are there already, and new ones are made as `tables` is today; so there is nothing to do.
"""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Does nothing: no database is older."""
