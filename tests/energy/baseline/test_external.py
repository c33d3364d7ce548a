from pathlib import Path

import numpy as np
import pytest

from greensv.energy.baseline.external import read_external
from greensv.errors import DataError

NOON = 1_795_262_400.0
"""2026-11-21 12:00 UTC."""


def write(folder: Path, text: str) -> Path:
    path = folder / "wall.csv"
    path.write_text(text)
    return path


def test_powers_are_integrated_by_trapezoids(tmp_path: Path):
    found = read_external(write(tmp_path, f"time,power_w\n{NOON},100\n{NOON + 1},200\n{NOON + 3},200\n"))
    assert found.at_s.tolist() == [NOON, NOON + 1, NOON + 3]
    assert found.energy_j.tolist() == [0.0, 150.0, 550.0]
    assert found.energy_between(np.array([NOON + 1]), np.array([NOON + 2])).tolist() == [200.0]
    assert (found.gaps, found.quantum_j, found.name) == ((), 0.0, "wall.csv")


def test_cumulative_energies_count_from_the_first(tmp_path: Path):
    joules = read_external(write(tmp_path, f"time,energy_j\n{NOON},1000\n{NOON + 1},1010.5\n"))
    assert joules.energy_j.tolist() == [0.0, 10.5]
    hours = read_external(write(tmp_path, f"time,energy_kwh\n{NOON},7\n{NOON + 1},7.001\n"))
    assert hours.energy_j == pytest.approx([0.0, 3600.0])


def test_the_step_of_a_coarse_counter_is_seen(tmp_path: Path):
    rows = "".join(f"{NOON + i},{7 + 0.001 * (i // 4)}\n" for i in range(13))
    assert read_external(write(tmp_path, "time,energy_kwh\n" + rows)).quantum_j == pytest.approx(3600.0)
    fine = "".join(f"{NOON + i},{7 + 0.001 * i * i}\n" for i in range(13))
    assert read_external(write(tmp_path, "time,energy_kwh\n" + fine)).quantum_j == 0.0


def test_times_may_be_iso_8601_with_a_zone(tmp_path: Path):
    rows = "2026-11-21T12:00:00Z, 5, x\n2026-11-21T13:00:01.5+01:00, 5, y\n"
    found = read_external(write(tmp_path, "Time, W, note\n" + rows), {"time": "Time", "power_w": "W"})
    assert found.at_s.tolist() == [NOON, NOON + 1.5]


def test_a_byte_order_mark_and_other_columns_are_passed_over(tmp_path: Path):
    path = tmp_path / "wall.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"time,volts,power_w\r\n{NOON},230,5\r\n{NOON + 1},231,5\r\n".encode())
    assert read_external(path).energy_j.tolist() == [0.0, 5.0]


def test_gaps_are_found(tmp_path: Path):
    times = [NOON + i for i in (*range(10), *range(30, 40))]
    found = read_external(write(tmp_path, "time,power_w\n" + "".join(f"{t},1\n" for t in times)))
    assert found.gaps == ((NOON + 9, NOON + 30),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no readings"),
        ("time,power_w\n", "has no readings"),
        (f"time,power_w\n{NOON},1\n", "has one reading only"),
        (f"when,power_w\n{NOON},1\n", "no column 'time' (found: when, power_w); say which"),
        (f"times,power_w\n{NOON},1\n", "no column 'time'; did you mean 'times'?"),
        (f"time,watts\n{NOON},1\n", "should have exactly one of the columns power_w, energy_j, energy_kwh"),
        (f"time,power_w,energy_j\n{NOON},1,1\n", "should have exactly one of the columns"),
        (f"time,power_w\n{NOON},1\n{NOON},1\n", "line 3: the time does not increase"),
        (f"time,power_w\n{NOON},1\n{NOON + 1},n/a\n", "line 3, power_w: 'n/a' is no number"),
        (f"time,power_w\n{NOON},1\n{NOON + 1}\n", "line 3, power_w: None is no number"),
        (f"time,power_w\n{NOON},nan\n", "line 2, power_w: 'nan' is no reading of a meter"),
        (f"time,power_w\n{NOON},-5\n", "line 2, power_w: '-5' is no reading of a meter"),
        (f"time,energy_j\n{NOON},9\n{NOON + 1},8\n", "line 3: the energy falls from 9 to 8"),
        ("time,power_w\n12.5,1\n", "line 2: the time 12.5 is not in seconds since 1970"),
        (f"time,power_w\n{1000 * NOON},1\n", "is not in seconds since 1970"),
        (
            "time,power_w\n2026-11-21 12:00:00,1\n",
            "has no time zone; write it, such as 2026-11-21 12:00:00+00:00 for UTC",
        ),
        ("time,power_w\nyesterday,1\n", "'yesterday' is no time"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path: Path, text: str, message: str):
    with pytest.raises(DataError) as caught:
        read_external(write(tmp_path, text))
    assert message in str(caught.value)
    assert "wall.csv" in str(caught.value)


def test_a_file_that_is_no_text_is_told(tmp_path: Path):
    path = tmp_path / "wall.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="export the readings as CSV in UTF-8"):
        read_external(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_external(tmp_path / "missing.csv")
