"""Which meters measure this run: the named ones, or for `auto` the best of greensv's own for each domain."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType
from typing import Any

from greensv.config.load import validate
from greensv.energy.meter import Availability, Domain, DomainKind, Meter, MeterRequest
from greensv.energy.tally import OpenMeter
from greensv.errors import ConfigError, MeterError, did_you_mean

AUTO = "auto"
AUTO_GPU_METER = "nvml"
AUTO_HOST_METERS = MappingProxyType(
    {
        "rapl": "measured by the processor's counters",
        "pyrapl": "measured by the processor's counters",
        "estimate": "estimated: nothing here measures it",
    }
)
"""What `auto` tries for the CPU and its memory, in this order, each for what those before it leave; and why."""
HOST_KINDS: frozenset[DomainKind] = frozenset({"cpu", "dram"})
NO_OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A meter that was considered: what it can measure, whether it is used, and why or why not."""

    meter: Meter
    request: MeterRequest
    availability: Availability
    is_chosen: bool
    why: str


def choose_meters(
    meters: Iterable[Meter],
    names: Sequence[str],
    *,
    gpu_uuids: Sequence[str] = (),
    process_ids: Sequence[int] = (),
    options: Mapping[str, Mapping[str, Any]] = NO_OPTIONS,
) -> tuple[Choice, ...]:
    """Probes meters and decides which are used; opens none.

    Args:
        meters: the installed meters.
        names: the meters wanted, all of them and no other; or `auto` alone.
        gpu_uuids: the GPUs in use.
        process_ids: other processes that work with this one.
        options: options by meter name, as in `[energy.options.<name>]`.

    Returns:
        Every meter that was considered, the unavailable ones of `auto` too.

    Raises:
        MeterError: a named meter is unknown or unavailable, two measure the same joules, or something in use (a GPU,
            the CPU) would be measured by none: energy is never silently left out.
        ConfigError: options that cannot be used.
    """
    installed = {meter.name: meter for meter in meters}
    requests = _requests(installed, gpu_uuids, process_ids, options)
    if AUTO in names:
        if len(names) > 1:
            raise MeterError(
                f"meter 'auto' stands alone, found {', '.join(names)}; leave it out, or leave out the others"
            )
        choices = _choose_best(installed, requests)
    else:
        choices = _choose_named(installed, requests, names)
    _refuse_overlaps(choices)
    _refuse_unmeasured_gpus(choices, tuple(gpu_uuids))
    return choices


def open_meters(choices: Iterable[Choice]) -> tuple[OpenMeter, ...]:
    """Opens the chosen meters; all or none.

    Raises:
        MeterError: one of them could not be opened; those already open are closed again.
    """
    opened: list[OpenMeter] = []
    try:
        for choice in choices:
            if choice.is_chosen:
                meter, session = choice.meter, choice.meter.open(choice.request)
                about = choice.availability
                opened.append(OpenMeter(name=meter.name, quality=meter.quality, session=session, availability=about))
    except BaseException:
        for other in opened:
            other.session.close()
        raise
    return tuple(opened)


def probe_meter(meter: Meter, request: MeterRequest) -> Availability:
    """Returns what the meter's own `probe` says; a probe that raises is why the meter is unavailable."""
    try:
        return meter.probe(request)
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        return Availability(
            reason=f"its probe failed ({type(error).__name__}: {error})",
            remedy="report this to those who wrote the meter",
        )


def canonical_gpu_uuid(uuid: str) -> str:
    """Returns a GPU's UUID as NVML writes it, `GPU-…`: torch leaves the prefix out."""
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def _requests(
    installed: Mapping[str, Meter],
    gpu_uuids: Sequence[str],
    process_ids: Sequence[int],
    options: Mapping[str, Mapping[str, Any]],
) -> dict[str, MeterRequest]:
    for name in options:
        if name not in installed:
            raise ConfigError(f"energy.options.{name}: {_unknown(name, installed)}")
    uuids = tuple(canonical_gpu_uuid(uuid) for uuid in gpu_uuids)
    return {
        name: MeterRequest(
            gpu_uuids=uuids, process_ids=tuple(process_ids), options=_options(meter, options.get(name, {}))
        )
        for name, meter in installed.items()
    }


def _options(meter: Meter, raw: Mapping[str, Any]) -> Any:
    where = f"energy.options.{meter.name}"
    if meter.options_type is None:
        if raw:
            raise ConfigError(
                f"{where}: meter {meter.name!r} has no options, found {', '.join(map(str, raw))}; remove them"
            )
        return None
    options, problems = validate(meter.options_type, raw, where=where)
    if problems:
        raise ConfigError("; ".join(map(str, problems)))
    return options


def _choose_named(
    installed: Mapping[str, Meter], requests: Mapping[str, MeterRequest], names: Sequence[str]
) -> tuple[Choice, ...]:
    choices = []
    for name in dict.fromkeys(names):
        if name not in installed:
            raise MeterError(_unknown(name, installed))
        choice = _consider(installed[name], requests[name], why="asked for by name")
        if not choice.is_chosen:
            raise MeterError(f"meter {name!r} is not available: {_why_not(choice.availability)}")
        choices.append(choice)
    return tuple(choices)


def _choose_best(installed: Mapping[str, Meter], requests: Mapping[str, MeterRequest]) -> tuple[Choice, ...]:
    """Only greensv's own meters: installing a package must never change a number."""
    choices = []
    if AUTO_GPU_METER in installed:
        choices.append(_consider(installed[AUTO_GPU_METER], requests[AUTO_GPU_METER], why="measured by the driver"))
    for name, why in AUTO_HOST_METERS.items():
        measured = HOST_KINDS & _kinds(choices)
        if name in installed and measured != HOST_KINDS:
            choices.append(_consider(installed[name], replace(requests[name], leave_out=measured), why=why))
    if missing := HOST_KINDS - _kinds(choices):
        reasons = "; ".join(
            f"{c.meter.name}: {_why_not(c.availability)}" for c in choices if not c.availability.is_available
        )
        raise MeterError(f"no meter for {' and '.join(sorted(missing))}: {reasons or 'no meters are installed'}")
    return tuple(choices)


def _consider(meter: Meter, request: MeterRequest, *, why: str) -> Choice:
    about = probe_meter(meter, request)
    reason = why if about.is_available else f"not available: {about.reason}"
    return Choice(meter=meter, request=request, availability=about, is_chosen=about.is_available, why=reason)


def _kinds(choices: Iterable[Choice]) -> frozenset[DomainKind]:
    return frozenset(domain.kind for _, domain in _chosen_domains(choices))


def _chosen_domains(choices: Iterable[Choice]) -> Iterator[tuple[str, Domain]]:
    for choice in choices:
        if choice.is_chosen:
            yield from ((choice.meter.name, domain) for domain in choice.availability.domains)


def _refuse_overlaps(choices: Iterable[Choice]) -> None:
    for (name, domain), (other_name, other) in combinations(_chosen_domains(choices), 2):
        if domain.overlaps(other):
            raise MeterError(
                f"meters {name!r} ({domain}) and {other_name!r} ({other}) would both count the same energy; "
                "choose one of them"
            )


def _refuse_unmeasured_gpus(choices: Sequence[Choice], gpu_uuids: Sequence[str]) -> None:
    measured = [domain for _, domain in _chosen_domains(choices)]
    for uuid in map(canonical_gpu_uuid, gpu_uuids):
        gpu = Domain("gpu", uuid)
        if not any(domain.overlaps(gpu) for domain in measured):
            about = [c for c in choices if c.meter.name == AUTO_GPU_METER and not c.availability.is_available]
            reason = f": {_why_not(about[0].availability)}" if about else ""
            raise MeterError(
                f"no meter measures {gpu}, which is in use, and its energy must not be left out{reason}; "
                "add a meter that measures it (`greensv meters` lists them), or use --device cpu"
            )


def _why_not(about: Availability) -> str:
    return f"{about.reason}; {about.remedy}" if about.remedy else str(about.reason)


def _unknown(name: str, installed: Mapping[str, Meter]) -> str:
    known = ", ".join(sorted({*installed, AUTO}))
    return f"no meter named {name!r}{did_you_mean(name, [*installed, AUTO])} (installed: {known})"
