"""Trials, fronts and budgets as tables for people. Energies in Wh or kWh, EER in %."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from greensv.trial_record import TrialRecord
from greensv.units import format_duration, format_energy, j_from_kwh

if TYPE_CHECKING:
    from rich.table import Table

NETWORK_WIDTH = 10
UNCERTAINTY_NOTE = "±: standard uncertainty (68 %)"


def trials_table(trials: Sequence[TrialRecord], *, title: str, knee: int | None = None) -> "Table":
    """Returns one row per trial, narrow enough for 80 columns; the trial numbered `knee` is marked.

    A trial without an EER shows its state in that column. Below an energy is its standard uncertainty in per cent,
    where the table has any. What was used waiting for data is attributed, a share of the short training. The kind of
    block is shown where it differs; GMAC and minDCF are in the JSON and the report.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("blocks × channels", overflow="fold", min_width=NETWORK_WIDTH)
    for heading in ("params", "EER %", "full\ntraining", "short\ntraining", "waits\nfor data", "charged"):
        table.add_column(heading, justify="right", no_wrap=True)
    with_uncertainty = any_uncertainty(trials)
    if with_uncertainty:
        table.caption = UNCERTAINTY_NOTE
        table.caption_justify = "left"

    def energy(value: float | None, uncertainty: float | None) -> str:
        return f"{kwh(value)}\n{_relative(value, uncertainty)}" if with_uncertainty and value else kwh(value)

    with_block = len({trial.params.get("block") for trial in trials}) > 1
    for trial in trials:
        row: list[str | Text] = [
            f"{'knee ' if trial.number == knee else ''}{trial.number}",
            Text(network_name(trial, with_block=with_block)),  # not markup: a plugin's options may hold brackets
            f"{trial.num_parameters / 1e6:.3g} M" if trial.num_parameters is not None else "–",
            _eer_cell(trial),
            energy(trial.train_energy_kwh, trial.train_energy_uncertainty_kwh),
            energy(trial.measured_energy_kwh, trial.measured_uncertainty_kwh),
            "–" if trial.data_wait_share is None else f"{100 * trial.data_wait_share:.1f} %",
            energy(trial.charged_energy_kwh, trial.charged_uncertainty_kwh),
        ]
        table.add_row(*row)
    return table


def any_uncertainty(trials: Sequence[TrialRecord]) -> bool:
    """Whether any of the trials has an energy with its uncertainty: those of an older greensv have none."""
    return any(
        value is not None
        for trial in trials
        for value in (trial.train_energy_uncertainty_kwh, trial.measured_uncertainty_kwh, trial.charged_uncertainty_kwh)
    )


def data_wait_text(phases: Mapping[str, Any]) -> str:
    """Returns in words what trainings used waiting for data; `phases` as `accounts.phases_as_json` returns them."""
    return (
        f"waiting for data: {kwh(phases['data_wait_energy_kwh'])}, {100 * phases['data_wait_share']:.1f} % of the "
        f"training's energy (attributed), in {format_duration(phases['data_wait_s'])}"
    )


def reasons(trials: Sequence[TrialRecord]) -> list[str]:
    """Returns why trials have no values, a line each."""
    return [f"trial {trial.number} {trial.state}: {trial.reason}" for trial in trials if trial.reason]


def _eer_cell(trial: TrialRecord) -> str:
    """Returns an EER on lines of its own: with what scatters, or with why it is not of a whole training."""
    if trial.eer is None:
        return trial.state
    if trial.state != "complete":
        return f"{eer_words(trial)}\n{trial.state}"
    return eer_words(trial).replace(" ± ", "\n± ").replace(" (", "\n(")


def eer_words(trial: TrialRecord) -> str:
    """Returns an EER in per cent: of one training, or mean ± standard deviation over the seeds it was trained with."""
    if trial.eer_mean is not None and trial.eer_std is not None:
        return f"{100 * trial.eer_mean:.2f} ± {100 * trial.eer_std:.2f} ({1 + (trial.repetitions or 0)} seeds)"
    return "–" if trial.eer is None else f"{100 * trial.eer:.2f}"


def network_name(trial: TrialRecord, *, with_block: bool = True) -> str:
    """Returns a network on one short line: blocks per stage and channels where they are known, else its parameters."""
    blocks, channels = trial.summary.get("blocks"), trial.summary.get("channels")
    if blocks and channels:
        block = f" {trial.params['block']}" if with_block and "block" in trial.params else ""
        return f"{_list(blocks)} × {_list(channels)}{block}"
    return " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.params.items()) or "–"


def kwh(energy_kwh: float | None) -> str:
    """Returns an energy in the unit that suits its size; a dash when it is not known."""
    return "–" if energy_kwh is None else format_energy(j_from_kwh(energy_kwh))


def kwh_with_uncertainty(energy_kwh: float | None, uncertainty_kwh: float | None) -> str:
    """Returns an energy with its standard uncertainty; a dash for what is not known."""
    return "–" if energy_kwh is None else f"{kwh(energy_kwh)} ± {kwh(uncertainty_kwh)}"


def budget_table(statement: Mapping[str, Any], *, title: str) -> "Table":
    """Returns an account: cap, spent, reserved, left, and the spending by purpose.

    Args:
        statement: `cap_kwh`, `spent_kwh`, `reserved_kwh`, `overrun_kwh`, and `by_purpose` in kWh; `uncertainty_kwh` of
            what is spent, standard, None where that is not known; `net_kwh` and `without_idle_power_kwh` where an idle
            power is known.
        title: the table's heading.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    cap = statement["cap_kwh"]
    left = cap - statement["spent_kwh"] - statement["reserved_kwh"]
    rows = {"cap": cap, "spent": statement["spent_kwh"], "reserved": statement["reserved_kwh"], "left": left}
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/bold]", kwh(value), f"{100 * value / cap:.1f} %")
        if name == "spent" and "uncertainty_kwh" in statement:
            uncertainty = statement["uncertainty_kwh"]
            share = "–" if uncertainty is None else f"{100 * uncertainty / cap:.1f} %"
            table.add_row("± standard uncertainty", kwh(uncertainty), share)
    if statement["overrun_kwh"]:
        table.add_row("beyond the cap", kwh(statement["overrun_kwh"]), f"{100 * statement['overrun_kwh'] / cap:.2f} %")
    if "net_kwh" in statement:
        table.add_row("net of idle power", kwh(statement["net_kwh"]), f"{100 * statement['net_kwh'] / cap:.1f} %")
    if statement.get("without_idle_power_kwh"):
        unknown = statement["without_idle_power_kwh"]
        table.add_row("idle power unknown for", kwh(unknown), f"{100 * unknown / cap:.1f} %")
    if statement["by_purpose"]:
        table.add_section()
    for purpose, value in statement["by_purpose"].items():
        table.add_row(f"for {purpose}", kwh(value), f"{100 * value / cap:.1f} %")
    if (phases := statement.get("training_phases")) is not None:
        waiting = phases["data_wait_energy_kwh"]
        table.add_row("of training: waiting for data (attributed)", kwh(waiting), f"{100 * waiting / cap:.1f} %")
    return table


def duration_at(energy_j: float, power_w: float) -> str:
    """Returns how long an energy lasts at a power; `–` without power."""
    return format_duration(energy_j / power_w) if power_w > 0 else "–"


def _relative(value: float, uncertainty: float | None) -> str:
    return "±–" if uncertainty is None else f"±{100 * uncertainty / value:.2g} %"


def _list(values: Sequence[Any]) -> str:
    return "-".join(str(value) for value in values)
