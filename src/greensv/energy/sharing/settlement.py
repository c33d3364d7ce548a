"""The books of what processes on one node share: who takes part, who settles, and what each one is allotted.

Each function works in one transaction on an open connection, and locks a domain's row before it touches those who share
it. After every transaction, for every domain and in whole microjoules,

    total = sum over all sharers, past ones too, of what they were allotted + unallotted + residual

`unallotted` is carried to the next settlement; `residual` is what was left of it when nobody was.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from greensv.energy.books.schema import BUSY_TIMEOUT_S
from greensv.energy.books.tables import idle
from greensv.energy.meter import Domain, Sample
from greensv.energy.sharing.rows import (
    ACTIVE,
    JOINING,
    LEFT,
    LOST,
    Mark,
    Member,
    SharedDomain,
    Sharer,
    elect,
    insert_sharer,
    lock_domain,
    sharers_of_domain,
    sharers_of_node,
    write_domain,
    write_sharers,
)
from greensv.errors import MeterError
from greensv.units import MICROJOULES_PER_JOULE

logger = logging.getLogger(__name__)

TTL_S = 30.0
"""A process that has been silent for so long, while others were not, is lost to them. It may come back."""

_GONE_AFTER_S = BUSY_TIMEOUT_S + TTL_S
"""Who has been silent for so long is gone even where nobody can look, as in another container: no busy database keeps a
living process out of the books longer than its timeout."""

_JOIN_LOCK = 0x67726566  # any number of our own, another than that of schema.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a process tells of one domain."""

    domain: Domain
    meter: str
    cpu_time_s: float
    """Of the process and those that work for it, since it started."""
    passed_on_uj: int | None
    """What its readings have said so far; None where it was always alone and they say what the meter does."""
    first: Sample | None
    latest: Sample | None
    energy_j: Callable[[Mark, Sample], float]
    """The domain's joules from a mark, maybe another process's, to one of this process's samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a process is told of one domain."""

    allotted_uj: int
    fraction: float
    """Its share of the latest settlement: what to expect until the next."""
    settled: Mark | None
    """The owner's meter at the latest settlement; None before the first."""
    owed_uj: int
    """What all of them together have read beyond that settlement, and will be allotted the less of what comes."""
    num_sharers: int


def join(
    connection: Connection, member: Member, meters: Mapping[Domain, str], *, cpu_time_s: float, now: float
) -> dict[Domain, bool]:
    """Enters a process as sharer of the domains it meters; returns for each whether it is the only one.

    The only one is allotted what it reads from its first sample on. One that joins others is allotted its part from the
    settlement on with which they let it in.

    Raises:
        MeterError: another process of the node charges an overlapping domain, such as the node of which this is a part.
    """
    if connection.dialect.name == "postgresql":  # two that join at once must see one another, and insert no row twice
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _JOIN_LOCK})
    _refuse_overlaps(connection, member, meters, now=now)
    is_alone = {}
    for domain, meter in sorted(meters.items()):
        row = lock_domain(connection, member.node, domain, meter=meter)
        others = sharers_of_domain(connection, member, domain)
        _give_up(connection, dead := [other for other in others if _is_gone(other, now=now)])
        is_alone[domain] = len(dead) == len(others)
        if is_alone[domain]:
            row.owner_id, row.meter, row.mark = member.id, meter, None
            row.residual_uj, row.unallotted_uj = row.residual_uj + row.unallotted_uj, 0
            write_domain(connection, row)
        me = Sharer(
            id=member.id,
            domain=domain,
            meter=meter,
            holder=member.holder,
            state=ACTIVE if is_alone[domain] else JOINING,
            cpu_time_s=cpu_time_s,
            cpu_settled_s=cpu_time_s,
            fraction=1.0 if is_alone[domain] else 0.0,
            beat_at=now,
        )
        insert_sharer(connection, me, node=member.node, now=now)
    return is_alone


def exchange(
    connection: Connection, member: Member, reports: Iterable[Report], *, now: float
) -> dict[Domain, Standing]:
    """Takes in what a process reports and tells it where it stands; if it is the owner of a domain, settles that first.

    The owner is the one whose readings of the domain count. One that died, left or fell silent is replaced by the next
    process to come here, which goes on from where the meter stood at the last settlement.
    """
    return {r.domain: _exchange(connection, member, r, now=now) for r in sorted(reports, key=lambda r: r.domain)}


def leave(connection: Connection, member: Member, reports: Iterable[Report], *, now: float) -> dict[Domain, Standing]:
    """Settles a process's domains a last time; what it was allotted in all are its final readings."""
    return {r.domain: _leave(connection, member, r, now=now) for r in sorted(reports, key=lambda r: r.domain)}


def split_uj(amount_uj: int, weights: Sequence[int]) -> list[int]:
    """Splits a whole amount by weights, equally where all are 0; the parts are whole and add up to it.

    What rounding leaves goes to the largest remainders (Hamilton's method), among equal ones to the first.
    """
    if not any(weights):
        weights = [1] * len(weights)
    total = sum(weights)
    parts = [amount_uj * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: -(amount_uj * weights[i] % total))
    for index in by_remainder[: amount_uj - sum(parts)]:
        parts[index] += 1
    return parts


def _exchange(connection: Connection, member: Member, report: Report, *, now: float) -> Standing:
    row = lock_domain(connection, member.node, report.domain, meter=report.meter)
    living, me = _roll_call(connection, member, report, now=now)
    if row.owner_id not in {sharer.id for sharer in living}:
        elect(connection, row, member.id)
    if row.owner_id == member.id:
        _settle(connection, member, row, living, report)
        write_domain(connection, row)
    write_sharers(connection, living if row.owner_id == member.id else [me])
    return _standing(row, living, me)


def _leave(connection: Connection, member: Member, report: Report, *, now: float) -> Standing:
    row = lock_domain(connection, member.node, report.domain, meter=report.meter)
    living, me = _roll_call(connection, member, report, now=now)
    _settle(connection, member, row, living, report)
    # Readings never go back: what they said beyond the allotment, the others get the less of it.
    beyond_uj = max(0, (report.passed_on_uj or 0) - me.allotted_uj)
    me.allotted_uj, row.unallotted_uj = me.allotted_uj + beyond_uj, row.unallotted_uj - beyond_uj
    me.state, me.fraction = LEFT, 0.0
    row.owner_id = None if row.owner_id == member.id else row.owner_id
    write_domain(connection, row)
    write_sharers(connection, living)
    return _standing(row, living, me)


def _standing(row: SharedDomain, living: Sequence[Sharer], me: Sharer) -> Standing:
    return Standing(
        allotted_uj=me.allotted_uj,
        fraction=me.fraction,
        settled=row.mark,
        owed_uj=max(0, -row.unallotted_uj),
        num_sharers=len(living),
    )


def _roll_call(connection: Connection, member: Member, report: Report, *, now: float) -> tuple[list[Sharer], Sharer]:
    """Returns those who share a domain, this process among them and its report taken in; gives up on the dead."""
    everyone = sharers_of_domain(connection, member, report.domain)
    me = next(sharer for sharer in everyone if sharer.id == member.id)
    # Silence counts up to when this process last got through: a busy database had kept all of them out since.
    gone = [s for s in everyone if s is not me and (me.beat_at - s.beat_at > TTL_S or s.is_dead)]
    _give_up(connection, gone)
    if me.state == LOST:  # it was stopped for so long that the others went on without it
        me.state, me.cpu_settled_s = JOINING, report.cpu_time_s
    me.cpu_time_s, me.beat_at = max(me.cpu_time_s, report.cpu_time_s), now
    return [sharer for sharer in everyone if sharer not in gone], me


def _is_gone(sharer: Sharer, *, now: float) -> bool:
    return sharer.is_dead or now - sharer.beat_at > _GONE_AFTER_S


def _give_up(connection: Connection, gone: Iterable[Sharer]) -> None:
    for sharer in gone:
        sharer.state, sharer.fraction = LOST, 0.0
        write_sharers(connection, [sharer])


def _settle(
    connection: Connection, member: Member, row: SharedDomain, living: Sequence[Sharer], report: Report
) -> None:
    """Allots what the domain used since the last settlement to those who took part, then lets the newcomers in."""
    taking_part = [sharer for sharer in living if sharer.state == ACTIVE]
    first = Mark(meter=report.meter, sample=report.first) if report.first else None
    before = row.mark or first
    if not taking_part and before and first and first.sample.taken_at_s > before.sample.taken_at_s:
        before = first  # what only the dead used is not charged to the living
    if before is None:
        return
    row.mark, energy_uj, interval_s = before, 0, 0.0
    if report.latest is not None and report.latest.taken_at_s > before.sample.taken_at_s:
        row.mark = Mark(meter=report.meter, sample=report.latest)
        interval_s = report.latest.taken_at_s - before.sample.taken_at_s
        try:
            energy_uj = round(report.energy_j(before, report.latest) * MICROJOULES_PER_JOULE)
        except MeterError as error:
            logger.warning("shared energy is missing from the books: %s", error)
    row.total_uj += energy_uj
    row.unallotted_uj += energy_uj
    allot_uj = max(0, row.unallotted_uj)
    row.unallotted_uj -= allot_uj
    idle_uj = round(_idle_power_w(connection, member, report) * interval_s * MICROJOULES_PER_JOULE)
    _allot(taking_part or living, allot_uj, idle_uj=min(idle_uj, allot_uj))
    _let_in(living, num_before=len(taking_part))


def _allot(taking_part: Sequence[Sharer], allot_uj: int, *, idle_uj: int) -> None:
    """Gives what the machine draws at rest to all alike, and the rest by CPU time."""
    busy_us = [round((sharer.cpu_time_s - sharer.cpu_settled_s) * 1e6) for sharer in taking_part]
    idle_parts = split_uj(idle_uj, [1] * len(taking_part))
    for sharer, rest, part in zip(taking_part, idle_parts, split_uj(allot_uj - idle_uj, busy_us), strict=True):
        sharer.allotted_uj += rest + part
        sharer.cpu_settled_s = sharer.cpu_time_s
        if allot_uj:
            sharer.fraction = (rest + part) / allot_uj


def _let_in(living: Sequence[Sharer], *, num_before: int) -> None:
    """Makes everyone active. What newcomers will use is not known yet: they count on nothing, the others on less."""
    for sharer in living:
        if sharer.state == ACTIVE:
            sharer.fraction *= num_before / len(living)
        else:
            sharer.state, sharer.cpu_settled_s = ACTIVE, sharer.cpu_time_s


def _refuse_overlaps(connection: Connection, member: Member, meters: Mapping[Domain, str], *, now: float) -> None:
    for other in sharers_of_node(connection, member.node):
        for domain, meter in meters.items():
            overlaps = domain != other.domain and domain.overlaps(other.domain)
            if overlaps and not _is_gone(other, now=now):
                raise MeterError(
                    f"process {other.holder.pid} on this machine charges {other.domain} by meter {other.meter!r}, and "
                    f"this one would charge {domain} by meter {meter!r}: the same energy twice; use the same meters in "
                    "both, or run them one after the other"
                )


def _idle_power_w(connection: Connection, member: Member, report: Report) -> float:
    """What the domain draws at rest, by whichever study measured it last on this machine; 0 where none did."""
    host = member.holder.host.rpartition("/")[0]  # a holder's host is the machine's name and its PID namespace
    known = (idle.c.host == host, idle.c.meter == report.meter, idle.c.domain == str(report.domain))
    latest = select(idle.c.power_w).where(*known).order_by(idle.c.measured_at.desc()).limit(1)
    return float(connection.execute(latest).scalar_one_or_none() or 0.0)
