"""The telemetry of a study in its database: what devices were doing, every few seconds, and its summary by trial."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, func, select

from greensv.energy.books.budget import Purpose
from greensv.energy.books.tables import telemetry
from greensv.energy.devices.device_state import DeviceState


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryRecord:
    """The state of a device at a moment, UTC epoch seconds, and what it was working for."""

    at: float
    host: str
    purpose: Purpose
    trial_number: int | None
    state: DeviceState


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSummary:
    """What a device was doing in the training of a trial; None where it never told.

    `utilisation` and `memory_utilisation` are 0 to 1.
    """

    trial_number: int
    device: str
    num_records: int
    mean_power_w: float | None
    mean_utilisation: float | None
    mean_memory_utilisation: float | None
    max_memory_used_bytes: int | None
    mean_clock_mhz: float | None
    mean_memory_clock_mhz: float | None
    max_temperature_c: float | None


def record_telemetry(connection: Connection, study_id: str, account: str, records: Sequence[TelemetryRecord]) -> None:
    """Adds records."""
    rows = [
        {
            "study_id": study_id,
            "account": account,
            "trial_number": record.trial_number,
            "purpose": record.purpose,
            "at": record.at,
            "host": record.host,
            **asdict(record.state),
        }
        for record in records
    ]
    if rows:
        connection.execute(telemetry.insert(), rows)


def telemetry_summaries(connection: Connection, study_id: str, account: str) -> tuple[DeviceSummary, ...]:
    """Returns what each device was doing while it trained, by trial and device."""
    rows = connection.execute(
        select(
            telemetry.c.trial_number,
            telemetry.c.device,
            func.count().label("num_records"),
            func.avg(telemetry.c.power_w).label("mean_power_w"),
            func.avg(telemetry.c.utilisation).label("mean_utilisation"),
            func.avg(telemetry.c.memory_utilisation).label("mean_memory_utilisation"),
            func.max(telemetry.c.memory_used_bytes).label("max_memory_used_bytes"),
            func.avg(telemetry.c.clock_mhz).label("mean_clock_mhz"),
            func.avg(telemetry.c.memory_clock_mhz).label("mean_memory_clock_mhz"),
            func.max(telemetry.c.temperature_c).label("max_temperature_c"),
        )
        .where(
            telemetry.c.study_id == study_id,
            telemetry.c.account == account,
            telemetry.c.trial_number.is_not(None),
            telemetry.c.purpose == "training",
        )
        .group_by(telemetry.c.trial_number, telemetry.c.device)
        .order_by(telemetry.c.trial_number, telemetry.c.device)
    ).mappings()
    return tuple(DeviceSummary(**row) for row in rows)


def lowest_power_w(connection: Connection, study_id: str, device: str) -> float | None:
    """Returns the least that a device was seen to draw in a study, in watts; None where it was never seen to."""
    lowest = select(func.min(telemetry.c.power_w)).where(
        telemetry.c.study_id == study_id, telemetry.c.device == device, telemetry.c.power_w > 0
    )
    found = connection.execute(lowest).scalar_one()
    return None if found is None else float(found)
