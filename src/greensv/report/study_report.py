"""A study as one HTML file: the front, the trials, where the energy went, where the numbers come from."""

import io
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greensv.energy.devices.telemetry_book import DeviceSummary
from greensv.energy.grid.series import GridCarbon
from greensv.report.carbon_tables import carbon_words, notes
from greensv.report.repetitions import energy_spread, percent_spread, repetitions_of
from greensv.report.runs import line_names
from greensv.report.tables import any_uncertainty, eer_words, kwh, network_name
from greensv.trial_record import TrialRecord
from greensv.units import format_duration

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyReport:
    """What a report is made of."""

    name: str
    trials: Sequence[TrialRecord]
    front: Sequence[TrialRecord]
    knee: int | None
    account: Mapping[str, Any]
    carbon: GridCarbon
    provenance: Mapping[str, str]
    ended_because: str = ""
    telemetry: Sequence[DeviceSummary] = ()
    retrained: Sequence[Mapping[str, Any]] = ()
    """Results of retraining, as in each network's result.json."""
    retrain_account: Mapping[str, Any] | None = None
    """As `account`; None before the first retraining."""
    retrain_carbon: GridCarbon | None = None
    retrain_telemetry: Sequence[DeviceSummary] = ()
    windows: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """By trial, what each meter read of each domain in its training, also beside the charges; PUE included."""
    retrain_windows: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    run_names: Mapping[int, str] = field(default_factory=dict)
    """What a run of the retrain account is called, by the number in it."""


def write_report(report: StudyReport, path: Path) -> Path:
    """Writes the report as `path`, one HTML file that needs nothing else, and returns the path."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(loader=PackageLoader("greensv.report"), autoescape=select_autoescape(), trim_blocks=True)
    environment.filters.update(kwh=kwh, network=network_name, percent=_percent, duration=format_duration, whole=_whole)
    environment.filters.update(percent_spread=percent_spread, energy_spread=energy_spread)
    environment.filters.update(line_names=line_names, kwh_pm=_two_lines, eer=eer_words)
    text = environment.get_template("study.html").render(
        report=report,
        figure=front_figure(report),
        has_uncertainty=any_uncertainty(report.trials),
        other_windows=_read_otherwise(report.windows),
        other_retrain_windows=_read_otherwise(report.retrain_windows),
        retrain_carbon=carbon_words(report.retrain_carbon) if report.retrain_carbon else None,
        has_net=any(trial.net_energy_kwh is not None for trial in report.trials),
        repetitions=repetitions_of(report.trials, report.retrained),
        has_units=any(trial.reference_units is not None for trial in report.trials),
        # `calibrate` runs in one process; of several, `device` is `2 × …`.
        can_have_units=not any(re.match(r"\d+ × ", trial.device) for trial in report.trials),
        carbon=carbon_words(report.carbon),
        carbon_notes=notes([report.carbon]),
        bill_kwh=sum(trial.train_energy_kwh or 0.0 for trial in report.front),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Workers that end together write the same file.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".report-", delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
    return path


def front_figure(report: StudyReport) -> str:
    """Returns EER against the energy of the full training as SVG: the front joined, the knee ringed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    measured = [t for t in report.trials if t.eer is not None and t.train_energy_kwh is not None]
    done = [t for t in measured if t.state == "complete"]
    wh = [1e3 * (t.train_energy_kwh or 0) for t in done]
    axes.scatter(wh, [100 * _mean_eer(t) for t in done], color="#9aa5b1", s=28, label="trials")
    if stopped := [t for t in measured if t.state == "stopped"]:
        stopped_wh = [1e3 * (t.train_energy_kwh or 0) for t in stopped]
        label = "stopped on their way"
        axes.scatter(stopped_wh, [100 * (t.eer or 0) for t in stopped], color="#9aa5b1", s=20, marker="x", label=label)
    front_wh = [1e3 * (t.train_energy_kwh or 0) for t in report.front]
    front_eer = [100 * _mean_eer(t) for t in report.front]
    for trial, x, y in zip(report.front, front_wh, front_eer, strict=True):
        if trial.eer_std is not None:
            axes.errorbar([x], [y], yerr=[100 * trial.eer_std], color="#1a7f37", capsize=4, linewidth=1)
    axes.plot(front_wh, front_eer, color="#1a7f37", marker="o", drawstyle="steps-post", label="Pareto set")
    for trial, x, y in zip(report.front, front_wh, front_eer, strict=True):
        axes.annotate(str(trial.number), (x, y), textcoords="offset points", xytext=(6, 5), fontsize=9)
        if trial.number == report.knee:
            axes.scatter([x], [y], s=160, facecolors="none", edgecolors="#1a7f37", linewidths=1.6, label="knee")
    if wh:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("energy of the full training, Wh")
    axes.set_ylabel("EER on the development pairs, %")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue().decode()
    return svg[svg.index("<svg") :]


def _mean_eer(trial: TrialRecord) -> float:
    """Over all seeds it was trained with."""
    return (trial.eer if trial.eer_mean is None else trial.eer_mean) or 0.0


def _read_otherwise(windows: Mapping[int, Sequence[Mapping[str, Any]]]) -> dict[int, Sequence[Mapping[str, Any]]]:
    """Returns the trials of which more was read than what was charged."""
    return {number: rows for number, rows in windows.items() if any(row["role"] != "charged" for row in rows)}


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f}"


def _two_lines(energy_kwh: float | None, uncertainty_kwh: float | None) -> "str | Markup":
    """Returns an energy and, below it, its standard uncertainty: on one line they make tables wider than a window."""
    from markupsafe import Markup

    return "–" if energy_kwh is None else Markup(f"{kwh(energy_kwh)} <small>± {kwh(uncertainty_kwh)}</small>")


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
