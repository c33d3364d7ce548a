"""Databases as older versions of greensv wrote them: their statements, and a few rows."""

from sqlalchemy import Engine, text

VERSION_1 = """
CREATE TABLE greensv_schema (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE greensv_accounts (
    study_id VARCHAR(64) NOT NULL, account VARCHAR(64) NOT NULL, cap_uj BIGINT NOT NULL, spent_uj BIGINT NOT NULL,
    reserved_uj BIGINT NOT NULL, overrun_uj BIGINT NOT NULL, PRIMARY KEY (study_id, account),
    CONSTRAINT greensv_accounts_not_negative CHECK (spent_uj >= 0 AND reserved_uj >= 0 AND overrun_uj >= 0),
    CONSTRAINT greensv_accounts_within_cap CHECK (spent_uj + reserved_uj <= cap_uj)
);
CREATE TABLE greensv_leases (
    id VARCHAR(36) NOT NULL, study_id VARCHAR(64) NOT NULL, account VARCHAR(64) NOT NULL, purpose VARCHAR(64) NOT NULL,
    trial_number INTEGER, host VARCHAR(255) NOT NULL, pid BIGINT NOT NULL, process_started_at {double} NOT NULL,
    state VARCHAR(16) NOT NULL, granted_uj BIGINT NOT NULL, left_uj BIGINT NOT NULL,
    opened_at {double} NOT NULL, last_beat_at {double} NOT NULL, ttl_s {double} NOT NULL,
    next_beat_s {double} NOT NULL, peak_power_w {double} NOT NULL, pue {double} NOT NULL,
    PRIMARY KEY (id), CONSTRAINT greensv_leases_not_negative CHECK (left_uj >= 0)
);
CREATE INDEX greensv_leases_by_study ON greensv_leases (study_id, state);
CREATE TABLE greensv_charges (
    id VARCHAR(36) NOT NULL, study_id VARCHAR(64) NOT NULL, account VARCHAR(64) NOT NULL, lease_id VARCHAR(36),
    trial_number INTEGER, purpose VARCHAR(64) NOT NULL, started_at {double} NOT NULL,
    ended_at {double} NOT NULL, meter VARCHAR(64) NOT NULL, domain VARCHAR(255) NOT NULL,
    quality VARCHAR(16) NOT NULL, energy_uj BIGINT NOT NULL, overrun_uj BIGINT NOT NULL, pue {double} NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT greensv_charges_not_negative CHECK (energy_uj >= 0 AND energy_uj + overrun_uj >= 0)
);
CREATE INDEX greensv_charges_by_trial ON greensv_charges (study_id, account, trial_number);
CREATE TABLE greensv_windows (
    id {serial} NOT NULL, study_id VARCHAR(64) NOT NULL, account VARCHAR(64) NOT NULL, trial_number INTEGER,
    name VARCHAR(255) NOT NULL, started_at {double} NOT NULL, duration_s {double} NOT NULL,
    meter VARCHAR(64) NOT NULL, domain VARCHAR(255) NOT NULL, quality VARCHAR(16) NOT NULL, energy_uj BIGINT NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX greensv_windows_by_trial ON greensv_windows (study_id, account, trial_number);
INSERT INTO greensv_schema VALUES (1);
INSERT INTO greensv_accounts VALUES ('s', 'search', 1000, 300, 50, 0);
INSERT INTO greensv_leases VALUES
    ('l', 's', 'search', 'training', 4, 'node/pid:[1]', 7, 5.5, 'open', 350, 50, 10.5, 11.5, 60, 8, 20, 1.5);
INSERT INTO greensv_charges VALUES
    ('c', 's', 'search', 'l', 4, 'training', 10.5, 11.5, 'rapl', 'cpu:0', 'measured', 300, 0, 1.5);
INSERT INTO greensv_windows (study_id, account, trial_number, name, started_at, duration_s, meter, domain, quality,
    energy_uj) VALUES ('s', 'search', 4, 'training', 10.5, 1, 'rapl', 'cpu:0', 'measured', 200);
"""

# Its other tables came later under the same version, and any of them may be missing.
VERSION_2 = """
UPDATE greensv_schema SET version = 2;
ALTER TABLE greensv_charges ADD COLUMN uncertainty_uj BIGINT;
ALTER TABLE greensv_windows ADD COLUMN uncertainty_uj BIGINT;
ALTER TABLE greensv_windows ADD COLUMN role VARCHAR(16);
CREATE TABLE greensv_idle (
    id {serial} NOT NULL, study_id VARCHAR(64) NOT NULL, host VARCHAR(255) NOT NULL, meter VARCHAR(64) NOT NULL,
    domain VARCHAR(255) NOT NULL, power_w {double} NOT NULL, uncertainty_w {double} NOT NULL,
    duration_s {double} NOT NULL, measured_at {double} NOT NULL, PRIMARY KEY (id)
);
CREATE INDEX greensv_idle_by_study ON greensv_idle (study_id);
INSERT INTO greensv_idle (study_id, host, meter, domain, power_w, uncertainty_w, duration_s, measured_at)
    VALUES ('s', 'node', 'rapl', 'cpu:0', 12.5, 0.5, 10, 9.5);
UPDATE greensv_charges SET uncertainty_uj = 3;
"""


def write_older_books(engine: Engine, version: int) -> None:
    """Fills an empty database with the books of version 1 or 2."""
    is_sqlite = engine.dialect.name == "sqlite"
    statements = VERSION_1 if version == 1 else VERSION_1 + VERSION_2
    statements = statements.replace("{serial}", "INTEGER" if is_sqlite else "BIGSERIAL")
    statements = statements.replace("{double}", "DOUBLE" if is_sqlite else "DOUBLE PRECISION")
    with engine.begin() as connection:
        for statement in statements.strip().rstrip(";").split(";\n"):
            connection.execute(text(statement))
