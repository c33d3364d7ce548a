"""The meters of one run beside one another: what the joules of each are for, and which cannot be used together.

A meter of the whole machine (`node`, `host`) is charged, and those of its parts then only split it: charged too, they
would be the same joules twice.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations

from greensv.energy.meter import Availability, Domain, Meter, MeterRequest, Role
from greensv.errors import MeterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A meter that was considered: what it can measure, whether it is used, and why or why not."""

    meter: Meter
    request: MeterRequest
    availability: Availability
    is_chosen: bool
    why: str
    roles: Mapping[Domain, Role] = field(default_factory=dict)
    """What the joules of each of its domains are for, where it is chosen."""

    def domains(self, role: Role) -> tuple[Domain, ...]:
        """Returns the domains that it was chosen to measure in that role."""
        return tuple(domain for domain, its_role in self.roles.items() if its_role == role)


def chosen_domains(choices: Iterable[Choice]) -> Iterator[tuple[Choice, Domain]]:
    """Yields every domain that is measured, and which choice measures it."""
    for choice in choices:
        if choice.is_chosen:
            yield from ((choice, domain) for domain in choice.availability.domains)


def with_roles(choices: Iterable[Choice]) -> tuple[Choice, ...]:
    """Returns the choices with their roles: a domain inside another chosen one is a part of it, all else is charged."""
    choices = tuple(choices)
    domains = [domain for _, domain in chosen_domains(choices)]
    roles: dict[Domain, Role] = {
        domain: "part" if any(other.contains(domain) for other in domains) else "charged" for domain in domains
    }
    return tuple(
        replace(choice, roles={domain: roles[domain] for domain in choice.availability.domains})
        if choice.is_chosen
        else choice
        for choice in choices
    )


def refuse_overlaps(choices: Iterable[Choice]) -> None:
    """Refuses two meters that would count the same joules, where neither counts a part of what the other does.

    Raises:
        MeterError: naming both.
    """
    for (choice, domain), (other_choice, other) in combinations(chosen_domains(choices), 2):
        if domain.contains(other):
            _refuse_unlike_parts(whole=(choice, domain), part=(other_choice, other))
        elif other.contains(domain):
            _refuse_unlike_parts(whole=(other_choice, other), part=(choice, domain))
        elif domain.overlaps(other):
            raise MeterError(
                f"meters {choice.meter.name!r} ({domain}) and {other_choice.meter.name!r} ({other}) would both count "
                "the same energy; choose one of them, or show the other beside it with --also-meter"
            )


def _refuse_unlike_parts(*, whole: tuple[Choice, Domain], part: tuple[Choice, Domain]) -> None:
    """A job's share of a node is no sum of whole sockets and boards."""
    (choice, domain), (part_choice, part_domain) = whole, part
    if part_choice.availability.counts_others and not choice.availability.counts_others:
        raise MeterError(
            f"meter {choice.meter.name!r} ({domain}) counts this job alone, and {part_choice.meter.name!r} "
            f"({part_domain}) what other programs use, too, so the one is no part of the other; choose one of them, or "
            f"show the other beside it with --also-meter"
        )
