"""The ledger's tables. They live in the study's database, beside Optuna's, named `greensv_*`.

No foreign key leads to Optuna's tables and none of its ids is used: Optuna's `delete_study` silently does nothing when
a foreign key holds it back, and SQLite gives the id of a deleted study to the next one, which would inherit its budget.
Times are UTC epoch seconds. A change here needs a step that brings older tables to it: see `migrations`.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

VERSION_TABLE = "greensv_alembic_version"
"""Not `alembic_version`, which is Optuna's."""

revisions = Table(VERSION_TABLE, metadata, Column("version_num", String(32), primary_key=True))

# How versions were kept before alembic. Its row says 3, at which a greensv that knows only this table refuses to go on.
former_version = Table("greensv_schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

accounts = Table(
    "greensv_accounts",
    metadata,
    Column("study_id", String(64), primary_key=True),
    Column("account", String(64), primary_key=True),
    Column("cap_uj", BigInteger, nullable=False),
    Column("spent_uj", BigInteger, nullable=False),
    Column("reserved_uj", BigInteger, nullable=False),
    Column("overrun_uj", BigInteger, nullable=False),
    CheckConstraint("spent_uj >= 0 AND reserved_uj >= 0 AND overrun_uj >= 0", name="greensv_accounts_not_negative"),
    CheckConstraint("spent_uj + reserved_uj <= cap_uj", name="greensv_accounts_within_cap"),
)

leases = Table(
    "greensv_leases",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("study_id", String(64), nullable=False),
    Column("account", String(64), nullable=False),
    Column("purpose", String(64), nullable=False),
    Column("trial_number", Integer),
    Column("host", String(255), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("process_started_at", Double, nullable=False),
    Column("state", String(16), nullable=False),  # open, settled or reaped
    Column("granted_uj", BigInteger, nullable=False),
    Column("left_uj", BigInteger, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("last_beat_at", Double, nullable=False),
    Column("ttl_s", Double, nullable=False),
    Column("next_beat_s", Double, nullable=False),
    Column("peak_power_w", Double, nullable=False),
    Column("pue", Double, nullable=False),
    CheckConstraint("left_uj >= 0", name="greensv_leases_not_negative"),
    Index("greensv_leases_by_study", "study_id", "state"),
)

charges = Table(
    "greensv_charges",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("study_id", String(64), nullable=False),
    Column("account", String(64), nullable=False),
    Column("lease_id", String(36)),
    Column("trial_number", Integer),
    Column("purpose", String(64), nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double, nullable=False),
    Column("meter", String(64), nullable=False),
    Column("domain", String(255), nullable=False),
    Column("quality", String(16), nullable=False),
    Column("energy_uj", BigInteger, nullable=False),
    Column("overrun_uj", BigInteger, nullable=False),
    Column("pue", Double, nullable=False),
    Column("uncertainty_uj", BigInteger),  # standard; those of one meter add up, since its scale is off alike
    # Room under the cap takes in an old overrun by a row with a negative overrun; energy itself is never negative.
    CheckConstraint("energy_uj >= 0 AND energy_uj + overrun_uj >= 0", name="greensv_charges_not_negative"),
    Index("greensv_charges_by_trial", "study_id", "account", "trial_number"),
)

windows = Table(
    "greensv_windows",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("study_id", String(64), nullable=False),
    Column("account", String(64), nullable=False),
    Column("trial_number", Integer),
    Column("name", String(255), nullable=False),
    Column("started_at", Double, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("meter", String(64), nullable=False),
    Column("domain", String(255), nullable=False),
    Column("quality", String(16), nullable=False),
    Column("energy_uj", BigInteger, nullable=False),
    Column("uncertainty_uj", BigInteger),
    Column("role", String(16)),  # charged, part or beside; null in rows of version 1: charged
    Column("resolution_s", Double),  # how often the counter or sensor changes; null in older rows
    Index("greensv_windows_by_trial", "study_id", "account", "trial_number"),
)

phases = Table(
    "greensv_phases",
    metadata,
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

telemetry = Table(
    "greensv_telemetry",
    metadata,
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

idle = Table(
    "greensv_idle",
    metadata,
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

carbon_factors = Table(
    "greensv_carbon_factors",
    metadata,
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


shared = Table(
    "greensv_shared",  # what a meter reads of the whole of a node, where several processes use it
    metadata,
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

sharers = Table(
    "greensv_sharers",
    metadata,
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

rungs = Table(
    "greensv_rungs",  # the search's: what each trial has trained so far, and who trains it now
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("study_id", String(64), nullable=False),
    Column("trial_number", Integer, nullable=False),
    Column("repetition", Integer, nullable=False, server_default="0"),
    Column("rung", Integer, nullable=False),
    Column("state", String(16), nullable=False),  # running, done, stopped, failed or retired
    Column("lease_id", String(36)),
    Column("attempts", Integer, nullable=False),
    Column("start_step", BigInteger, nullable=False),
    Column("step", BigInteger, nullable=False),  # done so far, and saved
    Column("worker", String(255)),
    Column("data", Text),  # JSON
    Column("updated_at", Double, nullable=False),
    UniqueConstraint("study_id", "trial_number", "repetition", "rung", name="greensv_rungs_once"),
    Index("greensv_rungs_by_state", "study_id", "state"),
)
