"""Rows of the tables `greensv_shared` and `greensv_sharers`: read, locked and written back on an open connection."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, RowMapping, Select, Update, and_, or_, select, update

from greensv.energy.books.budget import Holder, is_alive
from greensv.energy.books.tables import shared, sharers
from greensv.energy.meter import CounterSample, Domain, DomainKind, PowerSample, Sample

JOINING, ACTIVE, LEFT, LOST = "joining", "active", "left", "lost"

_SAMPLE_COLUMNS = ("count", "unit_j", "range_count", "power_w", "taken_at_s")
_CHANGING_COLUMNS = ("state", "cpu_time_s", "cpu_settled_s", "fraction", "allotted_uj", "beat_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process that shares the domains of a node."""

    id: str
    node: str
    holder: Holder


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Where a meter of a domain stood at some moment, read by one process of the node or another."""

    meter: str
    sample: Sample


@dataclass(slots=True, kw_only=True)
class SharedDomain:
    """A row of `greensv_shared`, locked; changed in memory and written back."""

    node: str
    domain: Domain
    meter: str
    owner_id: str | None = None
    mark: Mark | None = None
    total_uj: int = 0
    unallotted_uj: int = 0
    residual_uj: int = 0


@dataclass(slots=True, kw_only=True)
class Sharer:
    """A row of `greensv_sharers`; changed in memory and written back."""

    id: str
    domain: Domain
    meter: str
    holder: Holder
    state: str
    cpu_time_s: float
    cpu_settled_s: float
    fraction: float
    allotted_uj: int = 0
    beat_at: float

    @property
    def is_dead(self) -> bool:
        """Whether it is known to run no more; one that runs where this process cannot look is not."""
        return is_alive(self.holder) is False


def lock_domain(connection: Connection, node: str, domain: Domain, *, meter: str) -> SharedDomain:
    """Returns a domain's row, locked until the transaction ends; a new one where there is none yet."""
    # SQLite has no FOR UPDATE, and needs none: its transactions began with the write lock.
    wanted = select(shared).where(shared.c.node == node, shared.c.domain == str(domain)).with_for_update()
    row = connection.execute(wanted).mappings().one_or_none()
    if row is None:
        new = SharedDomain(node=node, domain=domain, meter=meter)
        connection.execute(shared.insert(), {"node": node, "domain": str(domain), **_values(new)})
        return new
    amounts = {name: row[name] for name in ("total_uj", "unallotted_uj", "residual_uj")}
    return SharedDomain(
        node=node, domain=domain, meter=row["meter"], owner_id=row["owner_id"], mark=_mark(row, domain), **amounts
    )


def write_domain(connection: Connection, row: SharedDomain) -> None:
    """Writes a domain's row back."""
    connection.execute(_of_domain(row).values(**_values(row)))


def elect(connection: Connection, row: SharedDomain, owner_id: str) -> None:
    """Makes a process the owner of a domain, in place of the one that the row names."""
    unchanged = shared.c.owner_id.is_(None) if row.owner_id is None else shared.c.owner_id == row.owner_id
    found = connection.execute(_of_domain(row).where(unchanged).values(owner_id=owner_id))
    assert found.rowcount == 1, "the row is locked"
    row.owner_id = owner_id


def insert_sharer(connection: Connection, sharer: Sharer, *, node: str, now: float) -> None:
    """Writes a new sharer's row."""
    key = {"id": sharer.id, "domain": str(sharer.domain), "node": node, "meter": sharer.meter, "joined_at": now}
    process = {name: getattr(sharer.holder, name) for name in ("host", "pid", "process_started_at")}
    values = {name: getattr(sharer, name) for name in _CHANGING_COLUMNS}
    connection.execute(sharers.insert(), {**key, **process, **values})


def write_sharers(connection: Connection, changed: Iterable[Sharer]) -> None:
    """Writes sharers' rows back."""
    for sharer in changed:
        one = and_(sharers.c.id == sharer.id, sharers.c.domain == str(sharer.domain))
        values = {name: getattr(sharer, name) for name in _CHANGING_COLUMNS}
        connection.execute(update(sharers).where(one).values(values))


def sharers_of_node(connection: Connection, node: str) -> list[Sharer]:
    """Returns who takes part in sharing any domain of a node."""
    present = sharers.c.state.in_((JOINING, ACTIVE))
    return _all(connection, select(sharers).where(sharers.c.node == node, present))


def sharers_of_domain(connection: Connection, member: Member, domain: Domain) -> list[Sharer]:
    """Returns who takes part in sharing a domain, and the process itself even if the others took it for lost."""
    present = or_(sharers.c.state.in_((JOINING, ACTIVE)), sharers.c.id == member.id)
    wanted = and_(sharers.c.node == member.node, sharers.c.domain == str(domain), present)
    return _all(connection, select(sharers).where(wanted).order_by(sharers.c.joined_at, sharers.c.id))


def _all(connection: Connection, query: Select[Any]) -> list[Sharer]:
    return [_sharer(row) for row in connection.execute(query).mappings()]


def _sharer(row: RowMapping) -> Sharer:
    holder = Holder(host=row["host"], pid=row["pid"], process_started_at=row["process_started_at"])
    kind, _, index = row["domain"].partition(":")
    domain = Domain(cast(DomainKind, kind), index or "all")
    values = {name: row[name] for name in _CHANGING_COLUMNS}
    return Sharer(id=row["id"], domain=domain, meter=row["meter"], holder=holder, **values)


def _of_domain(row: SharedDomain) -> Update:
    return update(shared).where(shared.c.node == row.node, shared.c.domain == str(row.domain))


def _values(row: SharedDomain) -> dict[str, Any]:
    sample = row.mark.sample if row.mark else None
    return {
        **{name: getattr(row, name) for name in ("owner_id", "total_uj", "unallotted_uj", "residual_uj")},
        "meter": row.mark.meter if row.mark else row.meter,
        **{name: getattr(sample, name, None) for name in _SAMPLE_COLUMNS},
    }


def _mark(row: RowMapping, domain: Domain) -> Mark | None:
    if row["taken_at_s"] is None:
        return None
    sample: Sample
    if row["power_w"] is not None:
        sample = PowerSample(domain=domain, taken_at_s=row["taken_at_s"], power_w=row["power_w"])
    else:
        names = ("count", "unit_j", "range_count", "taken_at_s")
        sample = CounterSample(domain=domain, **{name: row[name] for name in names})
    return Mark(meter=row["meter"], sample=sample)
