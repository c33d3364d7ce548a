"""What a search shows while it runs: a live view on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from greensv.report.tables import duration_at, network_name
from greensv.search.events import (
    BudgetMoved,
    Event,
    FrontKnown,
    MetersChosen,
    Noted,
    Progressed,
    RungEnded,
    Stepped,
    TrialEnded,
    TrialStarted,
)
from greensv.trial_record import TrialRecord
from greensv.units import format_duration, format_energy, j_from_kwh, wh_from_j

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

LOSS_LINE_INTERVAL_S = 15.0
"""Seconds between two lines about one training when not on a terminal."""


def trial_line(record: TrialRecord) -> str:
    """Returns a finished trial in one line."""
    if record.state == "stopped":
        return f"trial {record.number} stopped: {record.reason}"
    if record.eer is None or record.train_energy_kwh is None:
        return f"trial {record.number} {record.state}: {record.reason}"
    return (
        f"trial {record.number}: EER {100 * record.eer:.2f} %, full training {_kwh(record.train_energy_kwh)}, "
        f"short training used {_kwh(record.measured_energy_kwh or 0)} (charged {_kwh(record.charged_energy_kwh or 0)})"
    )


def rung_line(event: RungEnded) -> str:
    """Returns in one line what a training has shown on its way."""
    record = event.record
    return (
        f"  trial {record.number}, rung {event.rung + 1} of {event.num_rungs}: EER {100 * (record.eer or 0):.2f} %, "
        f"full training {_kwh(record.train_energy_kwh or 0)}"
    )


def started_line(event: TrialStarted) -> str:
    """Returns the beginning of a trial in one line."""
    again = f", seed {event.repetition}" if event.repetition else ""
    part = f" ({event.part})" if event.part else ""
    return (
        f"trial {event.number}{again}{part}: {event.candidate}, {event.num_parameters:,} parameters, "
        f"{event.macs / 1e9:.3g} GMAC; reckoned {format_energy(event.expected_j)}, {format_duration(event.expected_s)}"
    )


def budget_line(event: BudgetMoved) -> str:
    """Returns the account in one line: Wh and per cent."""
    left_j = event.cap_j - event.spent_j - event.reserved_j
    parts = (("spent", event.spent_j), ("reserved", event.reserved_j), ("left", left_j))
    amounts = ", ".join(f"{name} {wh_from_j(value):.3g} Wh ({value / event.cap_j:.0%})" for name, value in parts)
    rest = duration_at(event.cap_j - event.spent_j, event.power_w)
    return f"budget {wh_from_j(event.cap_j):.4g} Wh: {amounts}; {event.power_w:.1f} W, lasts {rest}"


class PlainLog:
    """One line per thing that happens, for logs and pipes."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._last_line_s = 0.0
        self._last_budget: BudgetMoved | None = None
        self._last_percent: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, event: Event) -> None:
        """Prints what the event says, if it is time to."""
        match event:
            case Noted():
                self._print(event.text)
            case MetersChosen():
                for line in event.lines:
                    self._print(f"meter {line}")
            case Progressed():
                self._print_progress(event)
            case BudgetMoved():
                self._last_budget = event
            case TrialStarted():
                self._print(started_line(event))
            case Stepped():
                self._print_step(event)
            case RungEnded():
                self._print(rung_line(event))
            case TrialEnded():
                self._print(trial_line(event.record))
                if self._last_budget is not None:
                    self._print(budget_line(self._last_budget))

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)

    def _print_progress(self, event: Progressed) -> None:
        percent = 100 * event.done // event.total if event.total else 100
        quarter = percent // 25
        if self._last_percent.get(event.what) != quarter:
            self._last_percent[event.what] = quarter
            self._print(f"{event.what}: {event.done:,} of {event.total:,}")

    def _print_step(self, event: Stepped) -> None:
        now = time.monotonic()
        is_last = event.step == event.num_steps
        if event.loss is None or (now - self._last_line_s < LOSS_LINE_INTERVAL_S and not is_last):
            return
        self._last_line_s = now
        self._print(
            f"  {event.what}: epoch {event.epoch}/{event.num_epochs}, step {event.step}/{event.num_steps}, "
            f"loss {event.loss:.3f}"
        )


class LiveView:
    """A terminal's live view: budget, current trial, the front so far, meters, time left."""

    def __init__(self, console: "Console", *, title: str = "greensv search") -> None:
        self._console = console
        self._title = title
        self._budget: BudgetMoved | None = None
        self._meters: tuple[str, ...] = ()
        self._trial: TrialStarted | None = None
        self._activity = "starting"
        self._done = 0
        self._total = 0
        self._front: tuple[TrialRecord, ...] = ()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Takes the event in; the view shows it within a quarter of a second."""
        match event:
            case Noted():
                self._console.print(event.text, markup=False)
            case MetersChosen():
                self._meters = tuple(event.lines)
            case Progressed():
                self._activity, self._done, self._total = event.what, event.done, event.total
            case BudgetMoved():
                self._budget = event
            case FrontKnown():
                self._front = tuple(event.front)
            case TrialStarted():
                self._trial = event
                self._activity, self._done, self._total = "building", 0, 0
            case Stepped():
                loss = "" if event.loss is None else f", loss {event.loss:.3f}"
                if event.loss is not None or self._done == 0:
                    self._activity = f"{event.what}: epoch {event.epoch}/{event.num_epochs}{loss}"
                self._done, self._total = event.step, event.num_steps
            case RungEnded():
                self._console.print(rung_line(event), markup=False)
                self._trial, self._activity, self._done, self._total = None, "choosing what goes on", 0, 0
            case TrialEnded():
                self._console.print(trial_line(event.record), markup=False)
                self._trial, self._activity, self._done, self._total = None, "choosing the next candidate", 0, 0
                self._front = tuple(event.front)

    def _render(self) -> "Group":
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="bold", no_wrap=True)
        rows.add_column()
        if self._budget is not None:
            rows.add_row("budget", Text(budget_line(self._budget).split(": ", 1)[1]))
            rows.add_row("", ProgressBar(total=self._budget.cap_j, completed=self._budget.spent_j, width=60))
        if self._trial is not None:
            rows.add_row("trial", Text(started_line(self._trial).removeprefix("trial ")))
        rows.add_row("now", Text(self._activity))
        if self._total:
            rows.add_row("", ProgressBar(total=self._total, completed=self._done, width=60))
        rows.add_row("meters", Text("\n".join(self._meters) or "opening"))
        if self._front:
            best = [
                f"{100 * (t.eer or 0):5.2f} %  {_kwh(t.train_energy_kwh or 0):>9}  {network_name(t)}"
                for t in self._front
            ]
            rows.add_row("front", Text("\n".join(best[:8])))
        return Group(
            Panel(
                rows, title=self._title, title_align="left", subtitle="Ctrl-C ends cleanly; the same command continues"
            )
        )


def _kwh(energy_kwh: float) -> str:
    return format_energy(j_from_kwh(energy_kwh))
