import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from greensv.energy.devices.phase_book import PhaseTotal
from greensv.energy.devices.telemetry_book import DeviceSummary
from greensv.energy.grid.series import CarbonFigure, GridCarbon
from greensv.report.study_report import StudyReport, front_figure, write_report
from greensv.search.accounts import phases_as_json
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


def in_france(**changes: object) -> GridCarbon:
    fields: dict = {
        "covered_g": 0.616,
        "energy_j": 0.011 * 3.6e6,
        "uncovered_j": 0.0,
        "duration_s": 1800.0,
        "uncovered_s": 0.0,
        "estimated_j": 0.0,
        "lowest_g_per_kwh": 56.0,
        "highest_g_per_kwh": 56.0,
        "provenance": ("Somebody 2024",),
    }
    figure = CarbonFigure(**{**fields, **changes})
    return GridCarbon(source="static", region="FRA", method="life-cycle", figure=figure)


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
        "carbon": in_france(),
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


def test_reference_units_are_recommended_where_they_can_be_had(tmp_path: Path):
    alone = trial(0, 0.30, 0.001)
    assert "<code>greensv calibrate</code>" in write_report(make(alone), tmp_path / "r.html").read_text()
    several = dataclasses.replace(alone, device="2 × NVIDIA H100 80GB HBM3")
    assert "<code>greensv calibrate</code>" not in write_report(make(several), tmp_path / "r.html").read_text()


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
    assert by_name["carbon"] == ["source: Somebody 2024"]
    assert "Carbon of the search: 0.616 g CO2e in FRA at 56 g/kWh (life-cycle; static)." in html
    assert "The search ended: 8 trials were run." in html
    assert "Retraining the whole front will use about 103 Wh" in html
    assert html.count('<tr class="front">') == 3 + 3


def test_a_report_tells_how_the_factor_changed_and_what_has_none(tmp_path: Path):
    carbon = in_france(uncovered_j=0.0055 * 3.6e6, uncovered_s=720.0, lowest_g_per_kwh=12.0, highest_g_per_kwh=212.0)
    html = written(make(*TRIALS, carbon=carbon), tmp_path)
    assert "0.616 g CO2e and more in FRA at 12 to 212 g/kWh (mean 112) (life-cycle; static)" in html
    assert "carbon incomplete: 12 min 0 s of 30 min 0 s have no factor, for 5.5 Wh of 11 Wh" in html
    unknown = in_france(uncovered_j=0.011 * 3.6e6, uncovered_s=1800.0, covered_g=0.0, provenance=())
    html = written(make(*TRIALS, carbon=unknown), tmp_path)
    assert "Carbon of the search: not known in FRA" in html
    assert "0 g CO2e" not in html


def test_a_report_needs_no_other_file_and_nobody_on_the_net(tmp_path: Path):
    html = written(make(*TRIALS), tmp_path)
    assert not re.search(r'(src|href)="(?!#)', html.replace("xlink:href", "href"))
    assert "<script" not in html
    assert "@import" not in html
    assert "url(http" not in html


def test_what_others_wrote_is_text_and_no_markup(tmp_path: Path):
    failed = TrialRecord(number=9, state="failed", params={"option": NASTY}, reason=NASTY)
    carbon = GridCarbon(source=NASTY, region=NASTY, method=NASTY, figure=in_france(provenance=(NASTY,)).figure)
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


PHASES = phases_as_json(
    (
        PhaseTotal(phase="data-wait", duration_s=90.0, energy_j=3_600.0, uncertainty_j=360.0),
        PhaseTotal(phase="forward", duration_s=600.0, energy_j=32_400.0, uncertainty_j=720.0),
    )
)


def test_a_report_says_what_was_used_waiting_for_data_and_by_each_phase(tmp_path: Path):
    first = dataclasses.replace(TRIALS[0], data_wait_energy_kwh=1.2e-5)  # of 1e-4 kWh
    report = make(first, *TRIALS[1:])
    report = dataclasses.replace(report, account={**report.account, "training_phases": PHASES})
    html = written(report, tmp_path)
    words = " ".join(html.split())
    assert (
        "Energy spent waiting for data: <strong>1 Wh</strong>, 10.00 % of the energy of training (attributed)" in words
    )
    rows = Rows(html).rows
    heading, row = rows[0], rows[1]
    assert row[heading.index("waiting for data %")] == "12.00"
    assert rows[2][heading.index("waiting for data %")] == "–"
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["data-wait"] == ["1 min 30 s", "1 Wh", "0.1 Wh", "10.00 %"]
    assert by_name["forward"] == ["10 min 0 s", "9 Wh", "0.2 Wh", "90.00 %"]


def test_a_report_without_phases_claims_nothing_about_them(tmp_path: Path):
    html = written(make(*TRIALS), tmp_path)
    assert "Energy spent waiting" not in html
    assert "What the devices did" not in html


def test_a_report_shows_what_each_device_did_and_a_dash_for_what_it_did_not_tell(tmp_path: Path):
    gpu = DeviceSummary(
        trial_number=2,
        device="gpu:GPU-1",
        num_records=12,
        mean_power_w=312.4,
        mean_utilisation=0.973,
        mean_memory_utilisation=None,
        max_memory_used_bytes=21_500_000_000,
        mean_clock_mhz=1_755.2,
        mean_memory_clock_mhz=None,
        max_temperature_c=0.0,
    )
    rows = Rows(written(make(*TRIALS, telemetry=[gpu]), tmp_path)).rows
    assert ["2", "gpu:GPU-1", "97.30", "–", "21.5 GB", "1,755", "–", "312", "0", "12"] in rows


def test_a_report_shows_energies_with_their_uncertainty_and_a_dash_without(tmp_path: Path):
    known = dataclasses.replace(
        TRIALS[0],
        train_energy_uncertainty_kwh=2e-5,
        measured_uncertainty_kwh=2e-5,
        charged_uncertainty_kwh=1e-5,
        reference_units=12.5,
        reference_units_uncertainty=0.25,
    )
    report = make(known, *TRIALS[1:])
    report = dataclasses.replace(report, account={**report.account, "uncertainty_kwh": 1e-4})
    rows = Rows(written(report, tmp_path)).rows
    heading, first, second = rows[:3]
    assert first[heading.index("full training")] == "1 Wh ± 0.02 Wh"
    assert first[heading.index("short training")] == "0.1 Wh ± 0.02 Wh"
    assert first[heading.index("charged")] == "0.125 Wh ± 0.01 Wh"
    assert first[heading.index("reference units")] == "12.5 ± 0.25"
    assert second[heading.index("full training")] == "2 Wh ± –"
    assert {row[0]: row[1:] for row in rows}["spent"] == ["10 Wh ± 0.1 Wh", "50.0 %"]


def window_row(meter: str, domain: str, role: str, uncertainty_kwh: float | None) -> dict[str, object]:
    return {
        "meter": meter,
        "domain": domain,
        "role": role,
        "quality": "measured",
        "duration_s": 90.0,
        "energy_kwh": 0.01,
        "uncertainty_kwh": uncertainty_kwh,
    }


def test_a_report_shows_what_other_meters_read_of_the_same_trainings(tmp_path: Path):
    charged = window_row("rapl", "cpu:0", "charged", 1e-4)
    windows = {1: [charged, window_row("ipmi", "node", "beside", None)], 2: [charged]}
    html = written(make(*TRIALS, windows=windows), tmp_path)
    rows = Rows(html).rows
    assert "The same trainings by other meters" in html
    assert ["1", "rapl", "cpu:0", "charged", "measured", "1 min 30 s", "10 Wh ± 0.1 Wh"] in rows
    assert ["1", "ipmi", "node", "beside", "measured", "1 min 30 s", "10 Wh ± –"] in rows
    assert not any(row[:2] == ["2", "rapl"] for row in rows), "nothing else was read of it"
    assert "by other meters" not in written(make(*TRIALS, windows={2: [charged]}), tmp_path)


def test_a_report_shows_what_was_retrained_and_its_account(tmp_path: Path):
    test = {"protocol": "Vox1-O", "eer": 0.012, "eer_low": 0.01, "eer_high": 0.015, "min_dcf": 0.125}
    run = {
        "trial": 1,
        "seed": 4,
        "protocols": [test],
        "predicted_train_energy_kwh": 0.01,
        "charged_energy_kwh": 0.012,
        "charged_uncertainty_kwh": 1e-4,
        "carbon_g": 2.5,
        "is_carbon_incomplete": False,
        "device": "CPU",
    }
    account = {**make().account, "by_purpose": {"training": 0.007}, "training_phases": PHASES}
    cpu = DeviceSummary(
        trial_number=5_000_001,
        device="cpu",
        num_records=3,
        mean_power_w=None,
        mean_utilisation=0.5,
        mean_memory_utilisation=None,
        max_memory_used_bytes=None,
        mean_clock_mhz=None,
        mean_memory_clock_mhz=None,
        max_temperature_c=None,
    )
    report = make(
        *TRIALS,
        retrained=[run],
        retrain_account=account,
        retrain_carbon=in_france(),
        retrain_telemetry=[cpu],
        run_names={5_000_001: "1, seed 4"},
    )
    html = written(report, tmp_path)
    rows = Rows(html).rows
    expected = ["1, seed 4", "Vox1-O", "1.20", "1.00 to 1.50", "0.125", "10 Wh ± –", "12 Wh ± 0.1 Wh", "2.5", "CPU"]
    assert expected in rows
    assert ["for training", "7 Wh", "35.0 %"] in rows
    assert ["forward", "10 min 0 s", "9 Wh", "0.2 Wh", "90.00 %"] in rows
    assert ["1, seed 4", "cpu", "50.00", "–", "–", "–", "–", "–", "–", "3"] in rows
    assert "Carbon of retraining: 0.616 g" in html
    assert "Retrained" not in written(make(*TRIALS), tmp_path)


def test_a_trial_without_figures_shows_why_in_their_place(tmp_path: Path):
    failed = TrialRecord(number=9, state="failed", params={"width": 1}, reason="diverged", charged_energy_kwh=0.001)
    ended_early = dataclasses.replace(trial(8, 0.4, 0.002), state="interrupted", reason="Ctrl-C")
    rows = Rows(written(make(*TRIALS, failed, ended_early), tmp_path)).rows
    assert ["9", "width=1", "–", "–", "failed: diverged", "1 Wh", "–"] in rows
    assert any(row[:2] == ["8", "width=10 interrupted: Ctrl-C"] and "40.00" in row for row in rows)


def test_the_tables_fit_a_window_of_1100_pixels(tmp_path: Path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    shape = {"blocks": [3, 4, 16, 3], "channels": [32, 64, 128, 256]}
    known = [
        dataclasses.replace(
            trial,
            summary=shape,
            params={"block": "basic-2"},
            data_wait_energy_kwh=1e-6,
            train_energy_uncertainty_kwh=0.000123,
            measured_uncertainty_kwh=0.0000123,
            charged_uncertainty_kwh=0.0000123,
            net_energy_kwh=0.000321,
            net_uncertainty_kwh=0.0000123,
            reference_units=1234.5,
            reference_units_uncertainty=12.3,
            carbon_g=0.0575,
        )
        for trial in TRIALS
    ]
    failed = TrialRecord(number=9, state="failed", params={"width": 1}, reason="too dear " * 20)
    path = write_report(make(*known, failed), tmp_path / "report.html")
    tell_width = "<script>document.title = `${document.documentElement.scrollWidth} ${[...document.querySelectorAll"
    tell_width += "('.scroll')].map(e => e.scrollWidth - e.clientWidth)}`</script></body>"
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", tell_width), encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=1100,900", "--dump-dom", path.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    found = re.search(r"<title>(\d+) ([\d,]+)</title>", shown)
    assert found is not None, shown[:500]
    assert int(found[1]) <= 1100
    assert found[2] == "0,0", "no table is wider than its place"
