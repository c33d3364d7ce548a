"""`greensv calibrate`: what a reference unit costs on this hardware, and by how much a meter's scale is off."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from greensv.cli.console import console, echo_json, installed_plugins
from greensv.cli.options import json_option, meter_option_option, meter_options
from greensv.errors import MeterError

if TYPE_CHECKING:
    from greensv.energy.baseline.comparison import Comparison
    from greensv.energy.baseline.gains import Gain
    from greensv.energy.baseline.idle import Source
    from greensv.search.calibration import Calibration
    from greensv.search.calibration_run import Bench

COLUMN_ROLES = ("time", "power_w", "energy_j", "energy_kwh")
DEFAULT_ACCURACY = 1.0


def _columns(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for item in given:
        role, equals, name = item.partition("=")
        if role not in COLUMN_ROLES or not equals or not name:
            raise click.BadParameter(f"{item!r} should be ROLE=NAME, ROLE one of {', '.join(COLUMN_ROLES)}")
        found[role] = name
    return found


@click.command()
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="What computes."
)
@click.option("--meter", "meters", multiple=True, metavar="NAME", help="Measure with this meter (repeatable).")
@meter_option_option
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N", help="Steps of a repetition: 10 on a CPU, 2000 on a GPU."
)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, metavar="R", help="Repetitions.")
@click.option(
    "--idle-s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Rest before the work, for net energy; 0: none.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="Compare the latest calibration with an external meter's log of the same time. Runs nothing.",
)
@click.option(
    "--domain", default="node", show_default=True, help="What the external meter reads: node, gpu, cpu:0, ..."
)
@click.option(
    "--csv-column",
    "columns",
    multiple=True,
    callback=_columns,
    metavar="ROLE=NAME",
    help="Column of the log; ROLE is time, power_w, energy_j or energy_kwh (repeatable).",
)
@click.option(
    "--accuracy",
    type=click.FloatRange(min=0, max=50),
    default=DEFAULT_ACCURACY,
    show_default=True,
    metavar="PERCENT",
    help="Standard uncertainty of the external meter's scale.",
)
@click.option("--forget-gains", is_flag=True, help="Take all corrections of this machine's meters out of force.")
@json_option
@click.pass_context
def calibrate(
    ctx: click.Context,
    /,
    *,
    device: str,
    meters: tuple[str, ...],
    settings: tuple[str, ...],
    steps: int | None,
    repeats: int,
    idle_s: float,
    as_json: bool,
    **gains: Any,
) -> None:
    """Train a small fixed network for some steps, and keep what they cost in joules on this hardware.

    Searches on the same hardware and meters then show energies in these reference units, too, which compare between
    machines. It takes 1 to 3 minutes; nothing else should run meanwhile.

    With --against, the calibration before is compared with the log of an external power meter, and the correction it
    finds is in force for all later measurements of this machine.
    """
    if gains["forget_gains"]:
        _forget_gains()
        return
    from greensv.search.calibration_run import open_bench

    bench = open_bench(
        installed_plugins(ctx),
        device_name=device,
        meters=meters or ("auto",),
        options=meter_options(settings),
    )
    if gains["against"] is not None:
        _compare(bench, gains["against"], flags=gains, as_json=as_json)
        return
    from greensv.search.calibration import as_json as calibration_as_json
    from greensv.search.calibration import store
    from greensv.search.calibration_run import run_calibration

    with _progress() as on_progress:
        run = run_calibration(bench, num_steps=steps, num_repeats=repeats, idle_s=idle_s, on_progress=on_progress)
    path = store(run.calibration, run.trace)
    for note in run.notes:
        click.echo(f"{click.style('note:', fg='yellow')} {note}", err=True)
    if as_json:
        echo_json({**calibration_as_json(run.calibration), "file": str(path), "notes": list(run.notes)})
        return
    for line in calibration_lines(run.calibration):
        console().print(line, markup=False, soft_wrap=True)
    console().print(f"Kept in {path}.", markup=False, soft_wrap=True)


def calibration_lines(found: "Calibration") -> list[str]:
    """Returns a calibration in words."""
    from greensv.units import format_duration

    unit, hardware = found.unit, found.hardware
    lines = [
        f"{found.workload} on {hardware.device} ({found.precision}, {found.num_threads} threads, torch {found.torch})",
        "measured by " + ", ".join(f"{meter} for {domain}" for domain, meter in hardware.meters.items()),
        f"1 reference unit = {found.steps_per_unit} steps = {unit.energy_j:.4g} ± {unit.uncertainty_j:.2g} J gross, in "
        f"{unit.seconds:.3g} s at {unit.power_w:.4g} W",
    ]
    if unit.net_j is not None and unit.net_uncertainty_j is not None:
        lines.append(
            f"net of {found.idle_power_w:.4g} W at rest: {unit.net_j:.4g} ± {unit.net_uncertainty_j:.2g} J a unit"
        )
    else:
        lines.append("net energy is not known: the machine's idle power was not measured")
    spread = "" if unit.std_j is None else f", standard deviation {100 * unit.std_j / unit.energy_j:.2g} %"
    duration = format_duration(unit.seconds * found.num_steps / found.steps_per_unit)
    lines.append(f"{found.num_repeats} repetitions of {found.num_steps} steps, {duration} each{spread}")
    return lines


def _compare(bench: "Bench", path: Path, *, flags: dict[str, Any], as_json: bool) -> None:
    from greensv.energy.baseline.comparison import check_factor, compare
    from greensv.energy.baseline.external import read_external
    from greensv.energy.baseline.gains import store_gains
    from greensv.search.calibration import find_latest
    from greensv.search.calibration_gain import gain_of, part_of

    stored = find_latest(bench.hardware)
    if stored is None:
        raise MeterError(
            "there is no calibration of this hardware with these meters to compare; first log with the external meter "
            "while `greensv calibrate` runs, with the same --device, --meter and --meter-option"
        )
    calibration, trace = stored
    part, is_one_meter = part_of(trace, flags["domain"])
    found = compare(part, read_external(path, flags["columns"]), accuracy=flags["accuracy"] / 100)
    gain = None
    if is_one_meter:
        check_factor(found)
        gain = gain_of(calibration, part, found, against=path.name)
        store_gains([gain])
    if as_json:
        echo_json(_comparison_record(found, gain, part.energy_j))
        return
    for line in _comparison_lines(found, gain, domain=flags["domain"]):
        console().print(line, markup=False, soft_wrap=True)


def _comparison_record(found: "Comparison", gain: "Gain | None", sources: "Iterable[Source]") -> dict[str, Any]:
    import dataclasses

    return {
        **dataclasses.asdict(found),
        "domains": [{"meter": meter, "domain": domain} for meter, domain in sources],
        "gain": None if gain is None else {**dataclasses.asdict(gain), "domain": str(gain.domain)},
    }


def _comparison_lines(found: "Comparison", gain: "Gain | None", *, domain: str) -> list[str]:
    clocks = "the power varied too little to compare the clocks"
    if found.offset_s is not None:
        clocks = f"clocks {found.offset_s:+.1f} s apart, correlation {found.correlation:.3f}"
    lines = [
        f"over {found.duration_s:.0f} s: external {found.external_j:.5g} J, ours {found.our_j:.5g} J; {clocks}",
        f"external / ours = {found.ratio:.4f} ± {100 * found.uncertainty:.2g} %; "
        f"as a line: {found.constant_w:.3g} W + {found.slope:.3g} × ours",
    ]
    if gain is None:
        return [
            *lines,
            f"None of our meters reads {domain} as a whole, so no correction is kept: the difference is mostly what no "
            "meter here sees (fans, storage, losses of the power supply), not a wrong scale.",
        ]
    if abs(found.constant_w) > 0.1 * found.external_j / found.duration_s:
        lines.append(
            "The constant is large: the difference is not one of scale alone, and the correction suits such loads."
        )
    return [
        *lines,
        f"From now on {gain.meter}'s {gain.domain} is multiplied by {gain.factor:.4f} (± {100 * gain.uncertainty:.2g} "
        "%). Studies begun before will not go on with it: start new ones. For reference units, calibrate again.",
    ]


def _forget_gains() -> None:
    from greensv.energy.baseline.gains import remove_gains

    path = remove_gains()
    console().print(f"Removed {path}." if path else "There are no corrections on this machine.", markup=False)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yields what shows on standard error what is done: on a terminal in one line, elsewhere each new stage."""
    is_terminal = sys.stderr.isatty()
    last_stage, told_at_s = "", 0.0

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal last_stage, told_at_s
        is_new, last_stage = stage != last_stage, stage
        if not is_terminal:
            if is_new:
                click.echo(f"{stage} ...", err=True)
        elif is_new or time.monotonic() - told_at_s > 0.5:
            told_at_s = time.monotonic()
            click.echo(f"\r\033[K{stage} {f'{done}/{total}' if total else ''}", nl=False, err=True)

    try:
        yield tell
    finally:
        if is_terminal:
            click.echo("\r\033[K", nl=False, err=True)
