"""Problems by name and from a file; whatever is wrong with a user's own is said with its place."""

from functools import partial
from pathlib import Path

import pytest

from greensv.errors import ConfigError
from greensv.search.simulation.comparison import compare
from greensv.search.simulation.loading import load_problem
from greensv.search.simulation.methods import DEFAULT_METHODS, METHODS, methods_named
from greensv.search.simulation.simulate import Setting

BOWLS = Path(__file__).with_name("bowls.py")


def bowl(name: str = "Bowl") -> str:
    return f"{BOWLS}:{name}"


def test_the_surrogate_by_name_and_with_another_kappa():
    assert load_problem("table1").name == "table1-k0.1"
    assert load_problem("table1", kappa=0.15).name == "table1-k0.15"


@pytest.mark.parametrize("name", ["Bowl", "bowl"])
def test_a_class_and_an_instance_of_a_file(name: str):
    problem = load_problem(bowl(name))
    assert problem.name == "bowl"
    assert list(problem.space()) == ["x", "y"]
    assert problem.truth({"x": 0.7, "y": 0})[0] == pytest.approx(0.02 + 0.1 / 90)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tabel1", "did you mean 'table1'"),
        ("nowhere.py:Bowl", "there is no Python file 'nowhere.py'"),
        (str(BOWLS), "write FILE.py:NAME"),
        (bowl("Bowll"), "did you mean 'Bowl'"),
        (bowl("ready"), "is no search problem but int"),
        (bowl("Problem"), "abstract"),
        (bowl("FallingSteps"), r"rise from 1 or more, found \[10, 5\]"),
        (bowl("SeedOutside"), "2.0 is outside 0.0 to 1.0"),
    ],
)
def test_a_problem_that_cannot_be_loaded(name: str, words: str):
    with pytest.raises(ConfigError, match=words):
        load_problem(name)


def test_a_kappa_for_another_problem_or_out_of_bounds():
    with pytest.raises(ConfigError, match="belongs to the problem table1"):
        load_problem(bowl(), kappa=0.1)
    with pytest.raises(ConfigError, match="between -1 and 1"):
        load_problem("table1", kappa=float("nan"))


def test_a_file_that_raises_when_it_is_imported(tmp_path: Path):
    file = tmp_path / "broken.py"
    file.write_text("\nimport math\nmath.sqrt(-1)\n")
    with pytest.raises(ConfigError, match=r"raised ValueError: .*\(line 3 of broken.py\)"):
        load_problem(f"{file}:Bowl")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NotANumber", r"train: eer.*fraction from 0 to 1, found nan"),
        ("Raises", r"train\(.*raised IndexError: .*line \d+ of bowls.py"),
        ("FreeTraining", r"train: energy_kwh.*above 0, found 0.0"),
    ],
)
def test_a_problem_that_answers_what_it_must_not_ends_the_comparison(name: str, words: str):
    with pytest.raises(ConfigError, match=words):
        compare(
            lambda: load_problem(bowl(name)),
            [METHODS["random"]],
            Setting(budget_kwh=0.3),
            num_seeds=1,
            at_kwh=[0.3],
            num_points=10,
        )


def test_methods_by_name():
    assert [m.name for m in methods_named(["gp", "greensv", "gp"])] == ["gp", "greensv"]
    assert set(DEFAULT_METHODS) <= set(METHODS)
    with pytest.raises(ConfigError, match="did you mean 'greensv'"):
        methods_named(["greensvv"])
    with pytest.raises(ConfigError, match="names none"):
        methods_named([])


def test_a_comparison_in_processes_of_their_own_is_that_in_one():
    arguments = {"num_seeds": 1, "at_kwh": [0.1, 0.3], "num_points": 200}
    load, methods = partial(load_problem, bowl()), [METHODS["random"], METHODS["nsga2"]]
    told: list[str] = []
    one = compare(load, methods, Setting(budget_kwh=0.3), advance=told.append, **arguments)
    assert told == ["random", "nsga2"]
    elsewhere = compare(load, methods[:1], Setting(budget_kwh=0.3), num_jobs=2, **arguments)
    assert list(elsewhere.results) == one.of("random")
    first = one.as_json()["methods"]["random"]
    assert [point["energy_kwh"] for point in first["hypervolume_fraction"]] == [0.1, 0.3]
    assert first["hypervolume_fraction"][1]["mean"] == one.of("random")[0].fractions[1] > 0
    assert first["hypervolume_fraction"][1]["deviation"] is None
    # Fewer trials than its population: NSGA-II is random search.
    assert one.of("nsga2")[0].fractions == one.of("random")[0].fractions
    level = float(one.curves("random").mean(axis=0)[-1])
    passes = one.passes_kwh("random", level=level)
    assert passes is not None
    assert passes <= 0.3
    assert one.passes_kwh("random", level=2.0) is None
