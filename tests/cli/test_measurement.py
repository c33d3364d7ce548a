"""The report of a measurement, of a machine with a node meter and others beside it."""

from datetime import UTC, datetime

import pytest

from greensv.cli.measurement import Measurement, as_json_record, print_table
from greensv.energy.meter import Domain
from greensv.energy.metering.reading import Reading
from greensv.energy.metering.window import EnergyWindow

STARTED_AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
NODE = Reading(
    domain=Domain("node"), meter="ipmi", quality="measured", energy_j=7200.0, uncertainty_j=30.0, resolution_s=1.0
)


def measurement(cpu_j: float, *, pue: float = 1.0, command: tuple[str, ...] = ("train",)) -> Measurement:
    cpu = Reading(
        domain=Domain("cpu", "0"), meter="rapl", quality="measured", energy_j=cpu_j, uncertainty_j=40.0, role="part"
    )
    beside = Reading(
        domain=Domain("cpu"), meter="codecarbon", quality="estimated", energy_j=5000.0, uncertainty_j=9.0, role="beside"
    )
    window = EnergyWindow(
        name="command", started_at=STARTED_AT, duration_s=36.0, readings=(NODE,), others=(cpu, beside)
    )
    return Measurement(
        command=command,
        started_at=STARTED_AT,
        duration_s=36.0,
        exit_code=0,
        pue=pue,
        window=window,
        problem=None,
        notes=("rapl: not available: no permission",),
    )


def table(report: Measurement, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", "400")
    assert report.window is not None
    print_table(report, report.window)
    return [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]


def test_only_what_is_charged_is_in_the_total_and_the_rest_of_the_node_is_told():
    record = as_json_record(measurement(4200.0))
    assert (record["energy_j"], record["uncertainty_j"]) == (7200.0, 30.0)
    assert [(d["meter"], d["domain"], d["role"], d["resolution_s"]) for d in record["domains"]] == [
        ("ipmi", "node", "charged", 1.0),
        ("rapl", "cpu:0", "part", 0.0),
        ("codecarbon", "cpu", "beside", 0.0),
    ]
    (rest,) = record["rest"]
    assert (rest["whole"], rest["energy_j"], rest["uncertainty_j"]) == ("node", 3000.0, 50.0)  # 30² + 40² = 50²


def test_meters_that_disagree_are_told(capsys, monkeypatch):
    report = measurement(9000.0)
    (rest,) = as_json_record(report)["rest"]
    assert rest["energy_j"] == -1800.0
    assert rest["problem"]
    assert rest["problem"] in table(report, capsys, monkeypatch)


def test_the_table_has_a_line_for_each_and_says_what_is_not_added(capsys, monkeypatch):
    rows = table(measurement(4200.0, pue=1.5), capsys, monkeypatch)
    assert "ipmi node 7,200 30 0.002 200 measured" in rows
    assert "rapl cpu:0 4,200 40 0.00117 117 measured, a part, not added" in rows
    assert "codecarbon cpu 5,000 9 0.00139 139 estimated, beside, not added" in rows
    assert "ipmi - rapl rest of node 3,000 50 0.000833 83.3 attributed, a part, not added" in rows
    assert "total × PUE 1.5 10,800 45 0.003 300" in rows
    assert "rapl: not available: no permission" in rows


def test_a_long_command_is_cut_to_a_line(capsys, monkeypatch):
    rows = table(measurement(1.0, command=("python", "-c", "x\n" * 100)), capsys, monkeypatch)
    (line,) = [row for row in rows if row.startswith("python")]
    assert line.startswith("python -c 'x x x")
    assert "…: 36 s, exit code 0" in line
