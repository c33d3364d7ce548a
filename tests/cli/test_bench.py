"""`greensv bench search` as a user runs it."""

import json
from pathlib import Path

import pytest

BOWL = Path(__file__).parents[1] / "search" / "simulation" / "bowls.py"
QUICK = ("bench", "search", "--problem", f"{BOWL}:Bowl", "--methods", "greensv,random,tpe-default", "--seeds", 2)


def test_table_figure_and_json(greensv, tmp_path: Path):
    result = greensv(*QUICK, "--budget-kwh", 0.4, "--plot", "front.png", "--json", "front.json")
    assert result.code == 0, result.err
    for words in ("bowl: 2 seeds", "greensv", "random", "tpe-default", "0.04 kWh", "0.4 kWh", "±"):
        assert words in result.out
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((tmp_path / "front.json").read_text())
    assert figures["problem"] == "bowl"
    assert figures["num_seeds"] == 2
    points = figures["methods"]["greensv"]["hypervolume_fraction"]
    assert [point["energy_kwh"] for point in points] == pytest.approx([0.04, 0.08, 0.16, 0.4])
    assert 0 < points[-1]["mean"] <= 1.01
    assert points[-1]["mean"] == pytest.approx(sum(points[-1]["by_seed"]) / 2)
    assert figures["methods"]["greensv"]["mean_spent_kwh"] <= 0.4


def test_json_on_standard_output_is_all_there_is(greensv, tmp_path: Path):
    result = greensv(
        *QUICK[:5], "random", "--seeds", 1, "--budget-kwh", 0.3, "--at", "0.1,0.3", "--workers", 2, "--deaths", 0.2,
        "--storage", f"sqlite:///{tmp_path / 'new' / 'b.db'}", "--json", "-",
    )  # fmt: skip
    assert result.code == 0, result.err
    figures = json.loads(result.out)
    assert figures["num_workers"] == 2
    assert len(figures["methods"]["random"]["hypervolume_fraction"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--methods", "greensv,randm"), "did you mean 'random'"),
        (("--methods", ""), "names none"),
        (("--problem", "bowl.py:Bowl"), "there is no Python file 'bowl.py'"),
        (("--problem", f"{BOWL}:NotANumber", "--budget-kwh", "1"), "found nan"),
        (("--kappa", "nan"), "--kappa is between -1 and 1"),
        (("--budget-kwh", "0"), "above 0"),
        (("--budget-kwh", "nan"), "above 0"),
        (("--at", "5,x"), "not like 5,10,20,50"),
        (("--at", "60"), "at most the budget of 50 kWh"),
        (("--plot", "front.txt"), ".png"),
        (("--plot", "nowhere/front.png"), "the folder nowhere is missing"),
        (("--json", "nowhere/front.json"), "the folder nowhere is missing"),
        (("--storage", "b.db", "--budget-kwh", "1"), "no database URL"),
    ],
)
def test_bad_input_is_refused_in_words(greensv, arguments: tuple[str, ...], words: str):
    given = arguments if "--methods" in arguments else (*arguments, "--methods", "random")
    result = greensv("bench", "search", "--seeds", 1, *given)
    assert result.code == 1
    assert words in " ".join(result.err.split())
