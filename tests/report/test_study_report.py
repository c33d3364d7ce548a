import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from greensv.report.study_report import Carbon, StudyReport, front_figure, write_report
from greensv.search.front import knee, pareto_front
from greensv.trial_record import TrialRecord

NASTY = "<script>alert('x')</script> & [/bold]"


def trial(number: int, eer: float, energy_kwh: float) -> TrialRecord:
    return TrialRecord(
        number=number,
        state="complete",
        params={"width": number + 2},
        eer=eer,
        min_dcf=0.5,
        train_energy_kwh=energy_kwh,
        measured_energy_kwh=energy_kwh / 10,
        charged_energy_kwh=energy_kwh / 8,
        carbon_g=1.25,
        num_parameters=1_234_567,
        macs=2_000_000_000,
    )


def make(*trials: TrialRecord, **changes: object) -> StudyReport:
    front = pareto_front(trials)
    fields: dict = {
        "name": "my study",
        "trials": trials,
        "front": front,
        "knee": knee(front).number if front else None,
        "account": {
            "cap_kwh": 0.02,
            "spent_kwh": 0.01,
            "reserved_kwh": 0.0,
            "overrun_kwh": 0.001,
            "by_purpose": {"training": 0.008, "probe": 0.002},
            "by_quality": {"measured": 0.01},
            "by_meter": {"rapl": 0.01},
        },
        "carbon": Carbon(region="FRA", g_per_kwh=56.0, source="Somebody 2024", method="life-cycle", valid_at="2023"),
        "provenance": {"greensv": "0.1.0", "meter of cpu": "rapl (measured)"},
        "ended_because": "8 trials were run",
    }
    return StudyReport(**{**fields, **changes})


class Rows(HTMLParser):
    """The cells of each row, and the tags, which must be balanced."""

    VOID = ("meta", "br", "link")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


TRIALS = (trial(0, 0.30, 0.001), trial(1, 0.10, 0.002), trial(2, 0.09, 0.1), trial(3, 0.5, 0.05))


def written(report: StudyReport, folder: Path) -> str:
    path = write_report(report, folder / "new" / "report.html")
    assert path == folder / "new" / "report.html"
    return path.read_text(encoding="utf-8")


def test_a_report_holds_front_trials_account_carbon_and_provenance(tmp_path: Path):
    html = written(make(*TRIALS), tmp_path)
    rows = Rows(html).rows
    first_cells = [row[0] for row in rows]
    assert first_cells[:4] == ["trial", "0", "1 (knee)", "2"], "the front, from the cheapest to the dearest"
    assert first_cells[4:9] == ["trial", "0", "1 (knee)", "2", "3"], "then all trials"
    assert rows[1][1:7] == ["width=2", "1,234,567", "2", "30.00", "0.500", "1 Wh"]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["cap"] == ["20 Wh", "100.0 %"]
    assert by_name["spent"] == ["10 Wh", "50.0 %"]
    assert by_name["beyond the cap"] == ["1 Wh", "5.0 %"]
    assert by_name["for training"] == ["8 Wh", "40.0 %"]
    assert by_name["measured"] == ["10 Wh", "50.0 %"]
    assert by_name["meter of cpu"] == ["rapl (measured)"]
    assert by_name["carbon factor"] == ["Somebody 2024"]
    # 0.011 kWh at 56 g/kWh, what was used beyond the cap included.
    assert "0.616 g CO2e in FRA at 56.0 g/kWh" in html
    assert "The search ended: 8 trials were run." in html
    assert "Retraining the whole front will use about 103 Wh" in html
    assert html.count('<tr class="front">') == 3 + 3


def test_a_report_needs_no_other_file_and_nobody_on_the_net(tmp_path: Path):
    html = written(make(*TRIALS), tmp_path)
    assert not re.search(r'(src|href)="(?!#)', html.replace("xlink:href", "href"))
    assert "<script" not in html
    assert "@import" not in html
    assert "url(http" not in html


def test_what_others_wrote_is_text_and_no_markup(tmp_path: Path):
    failed = TrialRecord(number=9, state="failed", params={"option": NASTY}, reason=NASTY)
    carbon = Carbon(region=NASTY, g_per_kwh=1.0, source=NASTY, method="direct", valid_at=NASTY)
    report = make(*TRIALS, failed, name=NASTY, carbon=carbon, provenance={NASTY: NASTY}, ended_because=NASTY)
    html = written(report, tmp_path)
    assert "<script" not in html
    parsed = Rows(html)
    assert "script" not in parsed.tags
    assert any(NASTY in cell for row in parsed.rows for cell in row)


def test_a_search_without_a_completed_trial_has_a_report_too(tmp_path: Path):
    html = written(make(TrialRecord(number=0, state="failed", reason="diverged")), tmp_path)
    assert "1 trials" in html
    assert "failed: diverged" in html
    assert "0 in the Pareto set" in " ".join(html.split())
    assert written(make(), tmp_path)


def test_the_figure_shows_every_trial_and_names_the_front():
    svg = front_figure(make(*TRIALS))
    assert svg.startswith("<svg")
    # Markers are drawn by reference: a circle each for the four trials and for three members of the front.
    assert svg.count("<use ") >= 7
    assert "EER on the development pairs" in svg
    assert "knee" in svg


@pytest.mark.parametrize("trials", [(), TRIALS[:1]])
def test_the_figure_of_few_trials(trials: tuple[TrialRecord, ...]):
    assert front_figure(make(*trials)).startswith("<svg")
