from pathlib import Path
from typing import Any

import pytest

from greensv.errors import ConfigError
from greensv.search.configure import configure
from tiny.study import Lab, study_data


def mistakes(lab: Lab, data: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configure(data, source="study.toml", plugins=lab.plugins)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("study.toml has ")
    return [line.removeprefix("  ") for line in lines]


def test_a_right_study_is_returned_whole(lab: Lab):
    config = configure(study_data(), source="study.toml", plugins=lab.plugins)
    assert (config.name, config.dataset.name, list(config.backbones)) == ("tiny", "tiny", ["tiny"])
    assert config.recipe.batch_size == 8


def test_all_mistakes_come_out_together_with_their_paths(lab: Lab):
    data = study_data(
        name="a/b",
        sede=3,
        dataset={"name": "tiny", "options": {"num_speakers": 3}},
        backbones={"tiny": {"width": 99}, "resnett": {}},
        recipe={"batch_size": "8"},
        energy={
            "meters": ["tiny", "nvm"],
            "options": {"tiny": {"power_w": "much"}, "wattmeter": {}},
            "region": "ATLANTIS",
        },
    )
    found = mistakes(lab, data)
    for path, what in [
        ("name", "a study's name is made of letters"),
        ("sede", "did you mean 'seed'?"),
        ("dataset.options.num_speakers", "unknown key; did you mean 'num_train_speakers'?"),
        ("backbones.tiny.width", "99 is outside 2 to 16"),
        ("backbones.resnett", "did you mean 'resnet'?"),
        ("recipe.batch_size", "found '8'; write it without quotes"),
        ("energy.meters", "no meter named 'nvm'; did you mean 'nvml'?"),
        ("energy.options.tiny.power_w", "should be a number"),
        ("energy.options.wattmeter", "no meter named 'wattmeter'"),
        ("energy.region", "ATLANTIS"),
    ]:
        assert any(line.startswith(f"{path}: ") and what in line for line in found), (path, found)
    assert len(found) == 10


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dataset": {"name": "tyni"}}, "dataset.name: no dataset named 'tyni'; did you mean 'tiny'?"),
        ({"dataset": {"name": "kaldi"}}, "dataset.root: dataset 'kaldi' needs a folder; give it with --data-root"),
        ({"energy": {"carbon_source": "live"}}, "energy.carbon_source: no carbon source named 'live'"),
        ({"energy": {"carbon_source": ["static"]}}, "energy.carbon_source: should be text in quotes"),
        ({"energy": {"meters": ["auto", "tiny"]}}, "energy.meters: 'auto' stands alone"),
        ({"energy": {"options": {"nvml": {"x": 1}}}}, "energy.options.nvml: meter 'nvml' has no options"),
        ({"energy": {"region": 3}}, "energy.region: should be text in quotes"),
    ],
)
def test_what_only_the_installed_components_know_is_checked_too(lab: Lab, changes: dict[str, Any], expected: str):
    (found,) = mistakes(lab, study_data(**changes))
    assert found.startswith(expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": 3},
        {"dataset": {"name": ["tiny"]}},
        {"dataset": {"name": "tiny", "options": 3}},
        {"backbones": []},
        {"backbones": {"tiny": 3}},
        {"energy": "much"},
        {"energy": {"meters": 3}},
        {"energy": {"meters": [["tiny"]]}},
        {"energy": {"options": []}},
        {"energy": {"options": {"tiny": 3}}},
        {"name": None},
        {"name": 3},
    ],
)
def test_tables_of_the_wrong_type_are_mistakes_like_others(lab: Lab, changes: dict[str, Any]):
    assert mistakes(lab, {**study_data(), **changes})


def test_missing_folders_of_noise_and_rooms_are_found_before_anything_runs(lab: Lab, tmp_path: Path):
    def recipe(**augmentation: Any) -> dict[str, Any]:
        return study_data(recipe={**study_data()["recipe"], "augmentation": augmentation})

    ways = [{"kind": "noise", "probability": 0.5, "folders": ["noise"]}, {"kind": "reverb", "probability": 0.5}]
    (tmp_path / "here" / "noise").mkdir(parents=True)
    there, here = str(tmp_path / "there"), str(tmp_path / "here")
    found = mistakes(lab, recipe(noise_root=there, rir_root=there, disturbances=ways))
    assert len(found) == 2
    for line, key, source in zip(found, ("noise_root", "rir_root"), ("openslr.org/17", "openslr.org/28"), strict=True):
        assert line.startswith(f"recipe.augmentation.{key}: there is no folder {there}; ")
        assert source in line
    ways[0]["folders"] = ["noise", "musik"]
    (line,) = mistakes(lab, recipe(noise_root=here, rir_root=here, disturbances=ways))
    assert line.startswith(f"recipe.augmentation.disturbances[0].folders: there is no folder {here}/musik; ")
    ways[0]["folders"] = ["noise"]
    config = configure(
        recipe(noise_root=here, rir_root=here, disturbances=ways), source="study.toml", plugins=lab.plugins
    )
    assert config.recipe.augmentation.noise_root == here


def test_options_of_a_meter_without_options_may_be_empty(lab: Lab):
    config = configure(study_data(energy={"options": {"nvml": {}}}), source="study.toml", plugins=lab.plugins)
    assert config.energy.options == {"nvml": {}}
