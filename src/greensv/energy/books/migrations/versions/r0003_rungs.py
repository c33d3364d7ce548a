"""The search's rungs; and the end of the mechanism before alembic."""

from alembic import op
from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

from greensv.energy.books.migrations.versions.r0002_uncertainty_and_sharing import add_missing_tables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

version_3 = MetaData()


def upgrade() -> None:
    """Adds the table, and tells older versions of greensv, which look at `greensv_schema`, to keep out."""
    add_missing_tables()  # books that say they are of version 2 may lack some of its tables
    version_3.create_all(op.get_bind())
    op.execute("UPDATE greensv_schema SET version = 3")


Table(
    "greensv_rungs",
    version_3,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("study_id", String(64), nullable=False),
    Column("trial_number", Integer, nullable=False),
    Column("repetition", Integer, nullable=False, server_default="0"),
    Column("rung", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("lease_id", String(36)),
    Column("attempts", Integer, nullable=False),
    Column("start_step", BigInteger, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("worker", String(255)),
    Column("data", Text),
    Column("updated_at", Double, nullable=False),
    UniqueConstraint("study_id", "trial_number", "repetition", "rung", name="greensv_rungs_once"),
    Index("greensv_rungs_by_state", "study_id", "state"),
)
