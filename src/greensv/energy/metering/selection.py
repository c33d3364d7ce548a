"""Which meters measure this run: the named ones, or for `auto` the best of greensv's own for each domain."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from greensv.energy.meter import Availability, Domain, DomainKind, Meter, MeterRequest
from greensv.energy.metering.choice import Choice, chosen_domains, refuse_overlaps, with_roles
from greensv.energy.metering.tally import OpenMeter
from greensv.errors import ConfigError, MeterError, did_you_mean

__all__ = [
    "AUTO",
    "NO_OPTIONS",
    "Choice",
    "canonical_gpu_uuid",
    "choose_meters",
    "meter_requests",
    "open_meters",
    "probe_meter",
]

AUTO = "auto"
AUTO_GPU_METER = "nvml"
AUTO_HOST_METERS = MappingProxyType(
    {
        "rapl": "measured by the processor's counters",
        "pyrapl": "measured by the processor's counters",
        "estimate": "estimated: nothing here measures it",
    }
)
"""What `auto` tries for the CPU and its memory, in this order, each for what those before it leave; and why.

Never a meter of the whole machine: those have to be told things (an address, a password, whether GPUs are included).
And a study's joules would mean something else where such a meter comes or goes.
"""
AUTO_METERS = (AUTO_GPU_METER, *AUTO_HOST_METERS)
"""All that `auto` looks at."""
HOST_KINDS: frozenset[DomainKind] = frozenset({"cpu", "dram"})
NO_OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


def choose_meters(
    meters: Iterable[Meter],
    names: Sequence[str],
    *,
    also: Sequence[str] = (),
    gpu_uuids: Sequence[str] = (),
    uses_visible_gpus: bool = False,
    process_ids: Sequence[int] = (),
    options: Mapping[str, Mapping[str, Any]] = NO_OPTIONS,
) -> tuple[Choice, ...]:
    """Probes meters and decides which are used, and what for; opens none.

    Args:
        meters: the installed meters.
        names: the meters wanted, all of them and no other; or `auto` alone.
        also: meters to be shown beside those and never charged; they may measure the same joules.
        gpu_uuids: the GPUs in use.
        uses_visible_gpus: the GPUs in use are those that CUDA would show; the meters find them.
        process_ids: other processes that work with this one.
        options: options by meter name, as in `[energy.options.<name>]`.

    Returns:
        Every meter that was considered, the unavailable ones of `auto` too.

    Raises:
        MeterError: a named meter is unknown or unavailable, two would be charged for the same joules, or something in
            use (a GPU, the CPU) would be measured by none: energy is never silently left out.
        ConfigError: options that cannot be used.
    """
    installed = {meter.name: meter for meter in meters}
    request = MeterRequest(
        gpu_uuids=tuple(map(canonical_gpu_uuid, gpu_uuids)),
        uses_visible_gpus=uses_visible_gpus,
        process_ids=tuple(process_ids),
    )
    requests = meter_requests(installed, request, options)
    if AUTO in names:
        if len(names) > 1:
            raise MeterError(
                f"meter 'auto' stands alone, found {', '.join(names)}; leave it out, or leave out the others"
            )
        choices = _choose_best(installed, requests)
    else:
        choices = _choose_named(installed, requests, names)
    refuse_overlaps(choices)
    _refuse_unmeasured_gpus(choices, request.gpu_uuids)
    return (*with_roles(choices), *_choose_also(installed, requests, names=also, beside=choices))


def open_meters(choices: Iterable[Choice]) -> tuple[OpenMeter, ...]:
    """Opens the chosen meters; all or none.

    Raises:
        MeterError: one of them could not be opened; those already open are closed again.
    """
    opened: list[OpenMeter] = []
    try:
        for choice in choices:
            if choice.is_chosen:
                opened.append(_open(choice))
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


def meter_requests(
    installed: Mapping[str, Meter], request: MeterRequest, options: Mapping[str, Mapping[str, Any]]
) -> dict[str, MeterRequest]:
    """Returns `request` for each installed meter, by name, with its own options.

    Raises:
        ConfigError: options that cannot be used, or of a meter that is not installed.
    """
    for name in options:
        if name not in installed:
            raise ConfigError(f"energy.options.{name}: {_unknown(name, installed)}")
    return {name: replace(request, options=_options(meter, options.get(name, {}))) for name, meter in installed.items()}


def canonical_gpu_uuid(uuid: str) -> str:
    """Returns a GPU's UUID as NVML writes it, `GPU-…`: torch leaves the prefix out."""
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def _open(choice: Choice) -> OpenMeter:
    meter = choice.meter
    return OpenMeter(
        name=meter.name,
        quality=meter.quality,
        session=meter.open(choice.request),
        availability=choice.availability,
        roles=choice.roles,
    )


def _options(meter: Meter, raw: Mapping[str, Any]) -> Any:
    where = f"energy.options.{meter.name}"
    if meter.options_type is None:
        if raw:
            raise ConfigError(
                f"{where}: meter {meter.name!r} has no options, found {', '.join(map(str, raw))}; remove them"
            )
        return None
    if not raw:
        return meter.options_type()  # without loading what checks the options of users
    from greensv.config.load import validate  # loads every table of study.toml

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
        if installed[name].is_beside_only:
            raise MeterError(
                f"meter {name!r} tells another tool's figures, which are never charged; show them beside with "
                f"--also-meter {name}"
            )
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


def _choose_also(
    installed: Mapping[str, Meter],
    requests: Mapping[str, MeterRequest],
    *,
    names: Sequence[str],
    beside: Iterable[Choice],
) -> tuple[Choice, ...]:
    chosen = {choice.meter.name for choice in beside if choice.is_chosen}
    choices = []
    for name in dict.fromkeys(names):
        leave_out = f"leave {name} out of energy.also_meters (--also-meter)"
        if name == AUTO:
            raise MeterError(f"'auto' chooses what is charged, and nothing beside it; {leave_out}, or name the meters")
        if name not in installed:
            raise MeterError(f"{_unknown(name, installed)}; or {leave_out}")
        if name in chosen:
            raise MeterError(f"meter {name!r} is charged already and cannot be shown beside itself; {leave_out}")
        choice = _consider(installed[name], requests[name], why="shown beside, never charged")
        if not choice.is_chosen:
            raise MeterError(
                f"meter {name!r}, to be shown beside, is not available: {_why_not(choice.availability)}; or {leave_out}"
            )
        choices.append(replace(choice, roles=dict.fromkeys(choice.availability.domains, "beside")))
    return tuple(choices)


def _consider(meter: Meter, request: MeterRequest, *, why: str) -> Choice:
    about = probe_meter(meter, request)
    reason = why if about.is_available else f"not available: {about.reason}"
    return Choice(meter=meter, request=request, availability=about, is_chosen=about.is_available, why=reason)


def _kinds(choices: Iterable[Choice]) -> frozenset[DomainKind]:
    return frozenset(domain.kind for _, domain in chosen_domains(choices))


def _refuse_unmeasured_gpus(choices: Sequence[Choice], gpu_uuids: Sequence[str]) -> None:
    measured = [domain for _, domain in chosen_domains(choices)]
    in_use = [Domain("gpu", uuid) for uuid in gpu_uuids]
    in_use += [domain for choice in choices for domain in choice.availability.unmeasured]
    for gpu in in_use:
        if not any(domain.overlaps(gpu) for domain in measured):
            about = [c for c in choices if c.meter.name == AUTO_GPU_METER and not c.availability.is_available]
            reason = f": {_why_not(about[0].availability)}" if about else ""
            raise MeterError(
                f"no meter measures {gpu}, which is in use, and its energy must not be left out{reason}; "
                "add a meter that measures it (`greensv meters` lists them), or do without the GPU (--device cpu, or "
                "CUDA_VISIBLE_DEVICES= )"
            )


def _why_not(about: Availability) -> str:
    return f"{about.reason}; {about.remedy}" if about.remedy else str(about.reason)


def _unknown(name: str, installed: Mapping[str, Meter]) -> str:
    known = ", ".join(sorted({*installed, AUTO}))
    return f"no meter named {name!r}{did_you_mean(name, [*installed, AUTO])} (installed: {known})"
