import pytest

from greensv.config.study import SearchConfig
from greensv.search.rungs.levels import rung_levels


@pytest.mark.parametrize(
    ("num_steps", "changes", "levels"),
    [
        (2700, {}, (100, 300, 900, 2700)),
        (2700, {"num_rungs": 2}, (900, 2700)),
        (2700, {"num_rungs": 3, "eta": 2}, (675, 1350, 2700)),
        (2700, {"scheduler": "none"}, (2700,)),
        (100, {}, (34, 100)),  # 12 steps would be judged on warm-up
        (100, {"min_rung_steps": 10}, (12, 34, 100)),
        (10, {}, (10,)),
        (2, {"min_rung_steps": 1}, (1, 2)),
    ],
)
def test_each_rung_has_eta_times_the_steps_of_the_one_below(num_steps: int, changes: dict, levels: tuple[int, ...]):
    assert rung_levels(num_steps, SearchConfig(**changes)) == levels
