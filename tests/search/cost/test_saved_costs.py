import json
import logging
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from greensv.config import FeatureConfig, Phase, Recipe
from greensv.search.cost import CostModel, Measured, Prediction, Work
from greensv.search.cost.saved import (
    MAX_POINTS,
    Hardware,
    SavedCost,
    hardware_of,
    keep_costs,
    load_costs,
    recipe_digest,
    saved_cost,
    teach,
)
from greensv.search.cost.track_record import track_record

HARDWARE = Hardware(
    device="NVIDIA H100 80GB HBM3",
    precision="bf16",
    num_threads=0,
    num_processes=1,
    meters={"gpu": "nvml (measured)"},
)


def point(number: int, *, recipe: str = "r", group: str = "g", **changes: object) -> SavedCost:
    found = SavedCost(
        macs=1e9 + number, activations=1e6, num_layers=20, joules=2.0, seconds=0.1, recipe=recipe, group=group
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def keep_many(folder: Path, first: int) -> None:
    for number in range(first, first + 10):
        keep_costs(HARDWARE, [point(number)], folder)


def test_points_come_back_as_they_were_kept(tmp_path: Path):
    points = [point(1, predicted_joules=1.5, predicted_log_std=0.2, at="2026-11-21T12:00:00+00:00"), point(2)]
    keep_costs(HARDWARE, points[:1], tmp_path)
    keep_costs(HARDWARE, points, tmp_path)
    assert load_costs(HARDWARE, tmp_path) == points
    assert load_costs(replace(HARDWARE, precision="fp32"), tmp_path) == []


def test_the_newest_points_are_kept(tmp_path: Path):
    keep_costs(HARDWARE, [point(number) for number in range(MAX_POINTS)], tmp_path)
    keep_costs(HARDWARE, [point(number) for number in range(MAX_POINTS, MAX_POINTS + 3)], tmp_path)
    found = load_costs(HARDWARE, tmp_path)
    assert len(found) == MAX_POINTS
    assert found[0] == point(3)
    assert found[-1] == point(MAX_POINTS + 2)


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=keep_many, args=(tmp_path, 100 * number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
        assert writer.exitcode == 0
    assert len(load_costs(HARDWARE, tmp_path)) == 30


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: "{",
        lambda data: "[]",
        lambda data: json.dumps({**data, "version": 99}),
        lambda data: json.dumps({**data, "points": [{**data["points"][0], "joules": -1.0}]}),
        lambda data: json.dumps({**data, "points": [{**data["points"][0], "surprise": 1}]}),
    ],
)
def test_a_damaged_file_is_passed_over_with_a_note_and_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
):
    keep_costs(HARDWARE, [point(1)], tmp_path)
    (path,) = tmp_path.glob("*.json")
    path.write_text(damage(json.loads(path.read_text())))  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert load_costs(HARDWARE, tmp_path) == []
    assert str(path) in caplog.text
    keep_costs(HARDWARE, [point(2)], tmp_path)
    assert load_costs(HARDWARE, tmp_path) == [point(2)]


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "costs").write_text("a file where the folder should be")
    keep_costs(HARDWARE, [point(1)], tmp_path / "costs")
    assert "is not kept for later predictions" in caplog.text


def test_hardware_is_told_apart_by_what_changes_joules_and_not_by_the_machine():
    about = {"device": "CPU Intel Xeon", "precision": "fp32", "meter of cpu:0": "rapl (measured)"}
    here = hardware_of(about, num_threads=4)
    assert here.meters == {"cpu": "rapl (measured)"}
    assert here.key.startswith("cpu-intel-xeon-fp32-")
    others = [
        hardware_of(about, num_threads=8),
        hardware_of({**about, "precision": "bf16"}, num_threads=4),
        hardware_of({**about, "processes": "2"}, num_threads=4),
        hardware_of({**about, "meter of cpu:0": "rapl (measured, × 1.03)"}, num_threads=4),
        hardware_of(about, num_threads=4, settings="abc"),
    ]
    assert len({here.key, *(other.key for other in others)}) == 6
    gpu = {"device": "NVIDIA H100", "precision": "bf16", "meter of gpu:GPU-1": "nvml (measured)"}
    twin = {"device": "NVIDIA H100", "precision": "bf16", "meter of gpu:GPU-2": "nvml (measured)"}
    assert hardware_of(gpu, num_threads=4) == hardware_of(twin, num_threads=8)


def test_a_recipe_is_known_by_what_a_second_of_speech_costs_in_it():
    def digest(phase: Phase, **changes: object) -> str:
        return recipe_digest(Recipe(phases=(phase,), **changes), phase, FeatureConfig(), num_classes=100)  # type: ignore[arg-type]

    plain = digest(Phase())
    assert digest(Phase(num_epochs=7, learning_rate=0.05)) == plain
    changed = [digest(Phase(crop_s=2.0)), digest(Phase(), batch_size=64), digest(Phase(), optimizer="adamw")]
    assert len({plain, *changed}) == 4


def test_a_model_starts_from_other_studies_and_trusts_those_of_the_same_recipe_more():
    same, other, own = point(0, group="a"), point(0, group="b", recipe="x", joules=8.0), point(0, group="me", joules=64)
    model = CostModel()
    assert teach(model, [same, other, own], recipe="r", group="me") == 2
    found = model.predict(same.work, speech_s=1.0).energy_j
    assert 2.0 < found < 4.0
    assert model.measured == []
    # A measurement of its own settles the scale.
    model.add(Measured(work=same.work, joules=5.0, seconds=0.1))
    assert abs(model.predict(same.work, speech_s=1.0).energy_j - 5.0) < abs(found - 5.0)


def test_pue_is_taken_out_when_kept_and_put_in_when_learned():
    work = Work(macs=1e9, activations=1e6, num_layers=20)
    predicted = Prediction(energy_j=30.0, upper_j=40.0, duration_s=1.0, log_std=0.1)
    kept = saved_cost(
        Measured(work=work, joules=3.0, seconds=0.1), predicted=predicted, speech_s=5.0, pue=1.5, recipe="r", group="g"
    )
    assert kept.joules == pytest.approx(2.0)
    assert kept.predicted_joules == pytest.approx(4.0)
    model = CostModel()
    teach(model, [kept], recipe="r", group="me", pue=1.2)
    assert model.predict(work, speech_s=1.0).energy_j == pytest.approx(2.4, rel=1e-3)


def test_the_track_record_counts_what_was_predicted_before():
    points = [
        point(1, predicted_joules=2.2, predicted_log_std=0.2),
        point(2, predicted_joules=1.0, predicted_log_std=0.2),
        point(3, predicted_joules=2.0, predicted_log_std=0.01),
        point(4),
    ]
    found = track_record(points)
    assert found is not None
    assert found.num_predictions == 3
    assert found.median_error == pytest.approx(0.1)
    assert found.share_inside == pytest.approx(2 / 3)
    assert track_record([point(4)]) is None
