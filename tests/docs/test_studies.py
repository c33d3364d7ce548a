"""The studies in `studies/` can be run, and their recipes are those they name, by the formulas of their sources."""

import math
from pathlib import Path
from typing import Any

import pytest

from greensv.config import Phase, StudyConfig
from greensv.config.load import merge, read_toml
from greensv.errors import ConfigError
from greensv.plugins import load_plugins
from greensv.search.configure import configure
from greensv.speaker.training.schedule import learning_rate, margin

ROOT = Path(__file__).parents[2]
STUDIES = sorted(ROOT.glob("studies/*/study.toml"))
RECIPES = ("paper-table1", "wespeaker-v2")


def study(name: str, folder: Path) -> StudyConfig:
    """The study, given folders that have what it looks for in them."""
    raw = read_toml(ROOT / "studies" / name / "study.toml")
    roots: dict[str, Any] = {"dataset": {"root": str(folder)}}
    ways = raw.get("recipe", {}).get("augmentation", {}).get("disturbances", [])
    for way in ways:
        for below in way["folders"]:
            (folder / below).mkdir(parents=True, exist_ok=True)
    if ways:
        roots["recipe"] = {"augmentation": {"noise_root": str(folder), "rir_root": str(folder)}}
    return configure(merge(raw, roots), source=name, plugins=load_plugins(third_party=True))


def values(schedule: Any, phase: Phase, *, steps_per_epoch: int) -> list[float]:
    num_steps = phase.num_epochs * steps_per_epoch
    return [schedule(step, num_steps=num_steps, phase=phase) for step in range(num_steps)]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_each_study_is_right_and_named_after_its_folder(path: Path, tmp_path: Path) -> None:
    assert study(path.parent.name, tmp_path).name == path.parent.name
    assert (path.parent / "README.md").is_file()


def test_the_quickstart_is_the_one_that_ships() -> None:
    # A copy: links do not survive every way a repository travels.
    shipped = ROOT / "src" / "greensv" / "search" / "quickstart.toml"
    assert (ROOT / "studies" / "quickstart" / "study.toml").read_text() == shipped.read_text()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_with_folders_of_noise_needs_to_be_told_where_they_are(name: str) -> None:
    raw = merge(read_toml(ROOT / "studies" / name / "study.toml"), {"dataset": {"root": "/data"}})
    with pytest.raises(
        ConfigError, match=r"folders below noise_root and rir_root, not given; give --noise-root and --rir-root"
    ):
        configure(raw, source=name, plugins=load_plugins(third_party=False))


def test_the_papers_learning_rates_are_kiwanos_after_the_warm_up(tmp_path: Path) -> None:
    (phase,) = study("paper-table1", tmp_path).recipe.phases
    found = values(learning_rate, phase, steps_per_epoch=11)
    # Epochs 6 to 20, 21 to 30, 31 to 40, and 41.
    expected = [0.2] * 15 + [0.04] * 10 + [0.008] * 10 + [0.0016]
    assert found[6 * 11 :] == pytest.approx([rate for rate in expected for _ in range(11)])


def test_the_papers_margin_is_kiwanos_in_the_middle_of_each_epoch(tmp_path: Path) -> None:
    (phase,) = study("paper-table1", tmp_path).recipe.phases
    middles = values(margin, phase, steps_per_epoch=1)
    expected = [0.2 * min(max((epoch - 5) / 15, 0), 1) for epoch in range(42)]
    assert middles == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("number", "initial", "final", "num_warmup"), [(0, 0.1, 5e-5, 6), (1, 1e-4, 2.5e-5, 1)])
def test_wespeakers_learning_rates_are_its_exponential_decrease(
    number: int, initial: float, final: float, num_warmup: int, tmp_path: Path
) -> None:
    recipe = study("wespeaker-v2", tmp_path).recipe
    phase, scale = recipe.phases[number], recipe.batch_size / 64
    found = values(learning_rate, phase, steps_per_epoch=10)
    num_steps = len(found)
    expected = [scale * initial * math.exp((s + 0.5) / num_steps * math.log(final / initial)) for s in range(num_steps)]
    assert found[num_warmup * 10 :] == pytest.approx(expected[num_warmup * 10 :], rel=1e-4)


def test_wespeakers_margin_rises_as_its_scheduler_raises_it(tmp_path: Path) -> None:
    main, large = study("wespeaker-v2", tmp_path).recipe.phases
    found = values(margin, main, steps_per_epoch=10)
    first, last = 19 * 10, 39 * 10
    expected = [0.2 * (1 - math.exp((s + 0.5 - first) / (last - first) * math.log(1e-3))) for s in range(first, last)]
    assert not any(found[:first])
    assert found[first:last] == pytest.approx(expected, rel=1e-4)
    assert set(found[last:]) == {0.2}
    assert set(values(margin, large, steps_per_epoch=10)) == {0.5}


@pytest.mark.parametrize(("name", "share"), [("paper-table1", 0.8), ("wespeaker-v2", 0.6)])
def test_as_many_crops_are_disturbed_as_the_source_says(name: str, share: float, tmp_path: Path) -> None:
    ways = study(name, tmp_path).recipe.augmentation.disturbances
    assert sum(way.probability for way in ways) == pytest.approx(share)
    assert sorted(way.kind for way in ways) == ["music", "noise", "reverb", "speech"]


def test_the_papers_systems_lie_in_the_space_of_its_study(tmp_path: Path) -> None:
    from greensv.search.candidate import build_space

    plugins = load_plugins(third_party=False)
    space = build_space(study("paper-table1", tmp_path).backbones, plugins)
    systems = plugins.get("backbone", "resnet").systems()
    assert len(systems) == 15
    for name, params in systems.items():
        assert all(space.spaces["resnet"][key].problem(value) is None for key, value in params.items()), name
