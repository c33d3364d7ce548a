import json

import pytest

from greensv.energy.baseline.idle import NetEnergy
from greensv.search.measuring import TrainingCost
from greensv.search.rungs.so_far import RungFigures, SoFar
from greensv.search.training_window import DataWait


def part(num_steps: int, joules_per_step: float, **changes: object) -> TrainingCost:
    values: dict[str, object] = {
        "energy_j": num_steps * joules_per_step + 5.0,
        "uncertainty_j": 0.1 * num_steps * joules_per_step,
        "joules_per_step": joules_per_step,
        "joules_per_step_uncertainty": 0.1 * joules_per_step,
        "seconds_per_step": 0.5,
        "num_steps": num_steps + 3,
        "num_steady_steps": num_steps,
        "data_wait": DataWait(duration_s=1.0, energy_j=2.0),
        "net": NetEnergy(energy_j=10.0, uncertainty_j=1.0),
    }
    return TrainingCost(**{**values, **changes})  # type: ignore[arg-type]


def test_parts_add_up_and_steady_steps_are_weighed_by_their_number():
    whole = SoFar().plus(part(10, 2.0), num_skipped=1).plus(part(30, 4.0), num_skipped=3)
    assert whole.energy_j == pytest.approx(25 + 125)
    assert whole.num_steps == 46
    assert whole.joules_per_step == pytest.approx((10 * 2.0 + 30 * 4.0) / 40)
    assert whole.joules_per_step_uncertainty == pytest.approx(0.1 * whole.joules_per_step)
    assert whole.seconds_per_step == pytest.approx(0.5)
    assert (whole.data_wait_s, whole.data_wait_j, whole.net_j) == (2.0, 4.0, 20.0)
    assert whole.num_skipped == 3


def test_what_is_not_known_of_one_part_is_not_known_of_the_whole():
    whole = SoFar().plus(part(10, 2.0, data_wait=None, net=None), num_skipped=0).plus(part(10, 2.0), num_skipped=0)
    assert whole.data_wait_s is None
    assert whole.data_wait_j is None
    assert whole.net_j is None


def test_it_survives_the_database():
    figures = RungFigures(step=13, eer=0.1, min_dcf=0.5, train_energy_kwh=2.0, measured_energy_kwh=0.1)
    whole = SoFar(other_phases={"large": (3.0, 0.3)}).plus(part(10, 2.0), num_skipped=0)
    whole = whole.at_rung(figures, duration_s=7.0)
    again = SoFar.from_json(json.loads(json.dumps({**whole.as_json(), "saved_as": "somewhere"})))
    assert again == whole
    assert again.curve[0]["eer"] == 0.1
    assert again.duration_s == 7.0
