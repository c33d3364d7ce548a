import csv
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from greensv.errors import ConfigError
from greensv.search.simulation.table import TableProblem, learning_curves, read_curves, tied
from greensv.speaker.space import check_point

PUBLISHED = Path(__file__).parents[3] / "docs" / "benchmarks" / "learning-curves.csv"
SHIPPED = files("greensv.search.simulation") / "learning-curves.csv"

# architecture, seed, rung, step, eer, energy_j so far, scoring_j, duration_s so far, scoring_s, full_recipe_j,
# test_eer, upper end of its interval
TRAININGS = [
    (7, 0, 0, 5, 0.30, 10, 1, 5, 2, 3600, "", ""),
    (7, 0, 1, 15, 0.20, 30, 1, 15, 2, 3600, 0.10, 0.12),
    (7, 1, 0, 5, 0.32, 14, 3, 6, 2, 7200, "", ""),
    (7, 1, 1, 15, 0.18, 38, 3, 17, 2, 7200, 0.12, 0.14),
    (3, 0, 0, 5, 0.40, 2, 1, 1, 2, 720, "", ""),
    (3, 0, 1, 15, 0.22, 6, 1, 3, 2, 720, 0.12, 0.15),
    (3, 1, 0, 5, 0.41, 2, 1, 1, 2, 720, "", ""),
    (3, 1, 1, 15, 0.23, 6, 1, 3, 2, 720, 0.13, 0.16),
]


def write_table(path, trainings=TRAININGS, *, without=None):
    rows = [
        {
            "architecture": number,
            "seed": seed,
            "rung": rung,
            "step": step,
            "eer": eer,
            "eer_low": eer - 0.02,
            "eer_high": eer + 0.02,
            "energy_j": energy_j,
            "scoring_j": scoring_j,
            "duration_s": duration_s,
            "scoring_s": scoring_s,
            "full_recipe_j": full_recipe_j,
            "test_eer": test_eer,
            "test_eer_low": test_eer and test_eer - 0.02,
            "test_eer_high": high,
        }
        for (
            number, seed, rung, step, eer, energy_j, scoring_j, duration_s, scoring_s, full_recipe_j, test_eer, high
        ) in trainings
    ]  # fmt: skip
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, [name for name in rows[0] if name != without], extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.fixture
def problem(tmp_path):
    return TableProblem(write_table(tmp_path / "table.csv"))


def outcomes(problem, params, **steps):
    """All that 40 seeds of a search show: both trainings of the table."""
    return {problem.train(params, seed=seed, **steps) for seed in range(40)}


def test_architectures_are_numbered_from_the_cheapest_full_recipe(problem):
    cheap, dear = {"architecture": 0}, {"architecture": 1}
    check_point(dear, problem.space(), name="table")
    assert problem.space()["architecture"].high == 1
    assert problem.predict_train_energy_kwh(cheap) == pytest.approx(720 / 3.6e6)
    assert problem.predict_train_energy_kwh(dear) == pytest.approx(5400 / 3.6e6)


def test_a_piece_of_training_costs_what_it_used_and_its_scoring(problem):
    dear = {"architecture": 1}
    whole = outcomes(problem, dear, from_step=0, to_step=5)
    assert {round(3.6e6 * o.energy_kwh) for o in whole} == {11, 17}
    rest = outcomes(problem, dear, from_step=5, to_step=15)
    assert {round(3.6e6 * o.energy_kwh) for o in rest} == {21, 27}
    assert {round(o.duration_s) for o in rest} == {12, 13}
    assert {o.eer for o in rest} == {0.20, 0.18}
    assert problem.predict_kwh(dear, from_step=5, to_step=15) == pytest.approx(24 / 3.6e6)


def test_a_training_goes_on_with_the_seed_it_began_with(problem):
    dear = {"architecture": 1}
    for seed in range(20):
        began = problem.train(dear, seed=seed, from_step=0, to_step=5)
        ended = problem.train(dear, seed=seed, from_step=5, to_step=15)
        assert (began.eer, ended.eer) in {(0.30, 0.20), (0.32, 0.18)}


def test_trainings_of_one_search_have_different_seeds_of_the_table(tmp_path):
    trainings = [(n, *row[1:]) for n in range(12) for row in TRAININGS[:4]]
    problem = TableProblem(write_table(tmp_path / "table.csv", trainings))
    shown = {problem.train({"architecture": n}, seed=0, from_step=0, to_step=15).eer for n in range(12)}
    assert shown == {0.20, 0.18}


def test_the_truth_is_the_mean_test_eer_with_ties_made_equal(problem):
    # 11 % with an interval up to 13 %, and 12.5 %.
    assert problem.truth({"architecture": 1}) == (pytest.approx(0.11), pytest.approx(5400 / 3.6e6))
    assert problem.truth({"architecture": 0}) == (pytest.approx(0.11), pytest.approx(720 / 3.6e6))


def test_the_better_one_decides_with_what_it_is_tied():
    eer, high = np.array([0.16, 0.10, 0.13, 0.115]), np.array([0.20, 0.12, 0.14, 0.16])
    # 10 % reaches to 12 % and takes 11.5 % in; 13 % reaches to 14 % only, and 16 % stays what it is.
    assert tied(eer, high).tolist() == [0.16, 0.10, 0.13, 0.10]


def test_a_step_that_is_no_rung_is_refused(problem):
    with pytest.raises(ConfigError, match="no trainings of 7 steps; its rungs: 5, 15"):
        problem.train({"architecture": 0}, seed=0, from_step=0, to_step=7)


@pytest.mark.parametrize("dropped", range(len(TRAININGS)))
def test_an_unfinished_table_is_refused(tmp_path, dropped):
    trainings = [row for place, row in enumerate(TRAININGS) if place != dropped]
    with pytest.raises(ConfigError, match="no finished training of every architecture"):
        TableProblem(write_table(tmp_path / "table.csv", trainings))


def test_rungs_at_other_steps_in_one_table_are_refused(tmp_path):
    trainings = [*TRAININGS[:-1], (*TRAININGS[-1][:3], 16, *TRAININGS[-1][4:])]
    with pytest.raises(ConfigError, match="no finished training of every architecture"):
        TableProblem(write_table(tmp_path / "table.csv", trainings))


def test_a_table_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        TableProblem(tmp_path / "missing.csv")
    (tmp_path / "empty.csv").write_text("architecture,seed\n")
    with pytest.raises(ConfigError, match="has no rows"):
        TableProblem(tmp_path / "empty.csv")
    with pytest.raises(ConfigError, match="lacks columns: scoring_j"):
        TableProblem(write_table(tmp_path / "table.csv", without="scoring_j"))


def test_the_table_that_comes_with_greensv_is_the_published_one():
    assert SHIPPED.read_text() == PUBLISHED.read_text()


def test_the_table_that_comes_with_greensv_holds_real_curves():
    columns, judged = read_curves(SHIPPED).columns, read_curves(SHIPPED).judged
    num_architectures, num_seeds, num_rungs = columns["eer"].shape
    assert num_architectures >= 24
    assert (num_seeds, num_rungs) == (2, 4)
    assert np.all(np.diff(columns["energy_j"], axis=2) > 0)
    assert np.all((columns["eer_low"] <= columns["eer"]) & (columns["eer"] <= columns["eer_high"]))
    assert np.all((judged["test_eer"] > 0) & (judged["test_eer"] < 0.5))
    assert np.median(columns["eer"][..., -1]) < np.median(columns["eer"][..., 0])


def test_a_search_among_the_curves_of_greensv_has_something_to_find():
    problem = learning_curves()
    points = [{"architecture": n} for n in range(problem.space()["architecture"].high + 1)]
    truths = [problem.truth(params) for params in points]
    energies_kwh = [energy_kwh for _, energy_kwh in truths]
    assert energies_kwh == sorted(energies_kwh)
    assert len({eer for eer, _ in truths}) > 1
    eer, energy_kwh = problem.reference()
    assert all(e < eer and k < energy_kwh for e, k in truths)
