import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from greensv.errors import ConfigError
from greensv.report.det_figure import check_det_path, write_det
from greensv.speaker.scoring.det import DetCurve, det_curve
from greensv.speaker.scoring.metrics import eer
from greensv.speaker.scoring.sorted_scores import sort_scores


@pytest.fixture(scope="module")
def curve() -> tuple[DetCurve, float]:
    rng = np.random.default_rng(0)
    is_target = np.arange(900) < 300
    scores = rng.normal(size=900) + 2 * is_target
    return det_curve(sort_scores(scores, is_target)), eer(scores, is_target)


def test_points_are_written_as_csv_and_json(curve: tuple[DetCurve, float], tmp_path: Path) -> None:
    points, rate = curve
    for name in ("det.csv", "det.json"):
        write_det(tmp_path / name, points, eer=rate, title="scores")
    rows = list(csv.DictReader((tmp_path / "det.csv").read_text().splitlines()))
    record = json.loads((tmp_path / "det.json").read_text())
    assert record["eer"] == rate
    assert record["thresholds"][0] is None
    assert rows[0]["threshold"] == "inf"
    for found in ([float(row["miss"]) for row in rows], record["miss"]):
        assert found == points.miss.tolist()
    assert [float(row["threshold"]) for row in rows[1:]] == record["thresholds"][1:] == points.thresholds[1:].tolist()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_figure_is_of_the_form_that_its_name_says(suffix: str, curve: tuple[DetCurve, float], tmp_path: Path) -> None:
    path = tmp_path / f"det{suffix}"
    check_det_path(path)
    write_det(path, curve[0], eer=curve[1], title="scores")
    start = path.read_bytes()[:200]
    assert {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF"}[suffix.lower()] in start or b"<?xml" in start
    if suffix == ".png":
        colours = Image.open(path).convert("RGB").getcolors(1 << 20)
        assert colours is not None
        assert any(blue > 150 and red < 80 for _, (red, _, blue) in colours)  # the curve itself


def test_perfect_scores_have_a_figure_without_points(tmp_path: Path) -> None:
    points = det_curve(sort_scores([2.0, 1.0], [True, False]))
    write_det(tmp_path / "det.png", points, eer=0.0, title="perfect")
    assert (tmp_path / "det.png").stat().st_size > 1000


def test_files_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"written as \.png, .*; found 'det.txt'"):
        check_det_path(tmp_path / "det.txt")
    with pytest.raises(ConfigError, match="is missing"):
        check_det_path(tmp_path / "none" / "det.png")
    (tmp_path / "det.png").mkdir()
    with pytest.raises(ConfigError, match="it is a folder"):
        check_det_path(tmp_path / "det.png")
