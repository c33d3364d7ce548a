"""Uncertainties and roles; phases, telemetry, idle power, carbon factors, shared meters: version 2 before alembic.

The tables came one after the other under that version, so that any of them may be there or not.
"""

from alembic import op
from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, String, Table

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

version_2 = MetaData()


def upgrade() -> None:
    """Adds the columns, and the tables that are missing."""
    op.add_column("greensv_charges", Column("uncertainty_uj", BigInteger))
    op.add_column("greensv_windows", Column("uncertainty_uj", BigInteger))
    op.add_column("greensv_windows", Column("role", String(16)))
    add_missing_tables()


def add_missing_tables() -> None:
    """Adds those tables of version 2 that are not there."""
    version_2.create_all(op.get_bind())


Table(
    "greensv_phases",
    version_2,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("study_id", String(64), nullable=False),
    Column("account", String(64), nullable=False),
    Column("trial_number", Integer),
    Column("phase", String(32), nullable=False),  # of a training step: data-wait, host-to-device, forward, ...
    Column("duration_s", Double, nullable=False),
    Column("domain", String(255), nullable=False),
    Column("energy_uj", BigInteger, nullable=False),  # attributed, never measured; PUE included
    Column("uncertainty_uj", BigInteger),
    Index("greensv_phases_by_trial", "study_id", "account", "trial_number"),
)

Table(
    "greensv_telemetry",
    version_2,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("study_id", String(64), nullable=False),
    Column("account", String(64), nullable=False),
    Column("trial_number", Integer),
    Column("purpose", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("host", String(255), nullable=False),
    Column("device", String(255), nullable=False),  # "cpu", "process", or "gpu:GPU-..."
    Column("power_w", Double),
    Column("utilisation", Double),  # 0 to 1, as are the next
    Column("memory_utilisation", Double),
    Column("memory_used_bytes", BigInteger),
    Column("clock_mhz", Double),
    Column("memory_clock_mhz", Double),
    Column("temperature_c", Double),
    Index("greensv_telemetry_by_trial", "study_id", "account", "trial_number"),
)

Table(
    "greensv_idle",
    version_2,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("study_id", String(64), nullable=False),
    Column("host", String(255), nullable=False),
    Column("meter", String(64), nullable=False),
    Column("domain", String(255), nullable=False),
    Column("power_w", Double, nullable=False),
    Column("uncertainty_w", Double, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("measured_at", Double, nullable=False),
    Index("greensv_idle_by_study", "study_id"),
)

Table(
    "greensv_carbon_factors",
    version_2,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("study_id", String(64), nullable=False),
    Column("source", String(64), nullable=False),  # the component's name
    Column("region", String(64), nullable=False),
    Column("method", String(16), nullable=False),  # life-cycle or direct
    Column("valid_from", Double, nullable=False),
    Column("valid_to", Double, nullable=False),
    Column("g_per_kwh", Double),  # null: the source failed; to be filled in later
    Column("is_estimated", Integer, nullable=False),
    Column("provenance", String(1024), nullable=False),
    Column("fetched_at", Double, nullable=False),
    Index("greensv_carbon_factors_by_study", "study_id", "valid_from"),
)

Table(
    "greensv_shared",  # what a meter reads of the whole of a node, where several processes use it
    version_2,
    Column("node", String(64), primary_key=True),  # the kernel's boot id: containers on one machine have the same
    Column("domain", String(255), primary_key=True),
    Column("owner_id", String(36)),  # the sharer that settles; null: the next to exchange
    # The meter's sample at the last settlement: a counter's, or power; taken_at_s is CLOCK_MONOTONIC, one per boot.
    Column("meter", String(64), nullable=False),
    Column("count", BigInteger),
    Column("unit_j", Double),
    Column("range_count", BigInteger),
    Column("power_w", Double),
    Column("taken_at_s", Double),
    # total = what all sharers were allotted + unallotted + residual
    Column("total_uj", BigInteger, nullable=False),
    Column("unallotted_uj", BigInteger, nullable=False),  # carried to the next settlement; may be below 0
    Column("residual_uj", BigInteger, nullable=False),  # what was unallotted when the last one had left; may be below 0
)

Table(
    "greensv_sharers",
    version_2,
    Column("id", String(36), primary_key=True),
    Column("domain", String(255), primary_key=True),
    Column("node", String(64), nullable=False),
    Column("meter", String(64), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("process_started_at", Double, nullable=False),
    Column("state", String(16), nullable=False),  # joining, active, left or lost
    Column("cpu_time_s", Double, nullable=False),
    Column("cpu_settled_s", Double, nullable=False),  # of it, what settlements have heeded
    Column("fraction", Double, nullable=False),  # of the last settlement
    Column("allotted_uj", BigInteger, nullable=False),
    Column("joined_at", Double, nullable=False),
    Column("beat_at", Double, nullable=False),
    Index("greensv_sharers_by_node", "node", "state"),
)
