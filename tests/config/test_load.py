"""study.toml → `StudyConfig`: what is accepted, and how each mistake is told."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greensv.config import Phase, StudyConfig
from greensv.config.load import Problem, differences, merge, parse_study, read_toml, to_json
from greensv.errors import ConfigError

SMALLEST: Mapping[str, Any] = {"name": "small", "dataset": {"name": "espeak"}, "backbones": {"resnet": {}}}


def mistakes(data: Mapping[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_study(data, source="study.toml")
    headline, *lines = str(caught.value).splitlines()
    count = "one mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    assert headline == f"study.toml has {count}:"
    return [line.removeprefix("  ") for line in lines]


def test_a_study_needs_a_name_a_dataset_and_a_backbone_and_all_else_has_defaults():
    config = parse_study(SMALLEST, source="study.toml")
    assert config.name == "small"
    assert config.recipe.phases == (Phase(),)
    assert config.energy.meters == ("auto",)
    assert mistakes({}) == [f"{key}: missing; it has no default" for key in ("name", "dataset", "backbones")]


def test_values_at_every_depth_reach_the_records():
    config = parse_study(
        {
            **SMALLEST,
            "recipe": {"scale": 32, "phases": [{"crop_s": 2}, {"name": "large-margin", "crop_s": 6.0}]},
            "energy": {"meters": ["nvml", "rapl"], "options": {"rapl": {"deep": [1, {"x": None}]}}},
            "backbones": {"resnet": {"depth": [8, 16], "block": "basic-2"}},
        },
        source="study.toml",
    )
    assert config.recipe.phases[1] == Phase(name="large-margin", crop_s=6.0)
    assert config.energy.meters == ("nvml", "rapl")
    assert config.energy.options == {"rapl": {"deep": [1, {"x": None}]}}
    assert config.backbones["resnet"] == {"depth": [8, 16], "block": "basic-2"}
    # A whole number is fine for a real one, and becomes one: equal configurations must give equal text.
    assert [type(value) for value in (config.recipe.scale, config.recipe.phases[0].crop_s)] == [float, float]


def test_all_mistakes_are_told_at_once():
    assert mistakes(
        {
            "name": "",
            "sede": 3,
            "dataset": {"name": "espeak", "root": 3},
            "backbones": {},
            "recipe": {"phases": [{"num_epochs": 0}, {"crop": 3.0}], "spec_augment": {"probability": 1.5}},
            "search": {"sampler": "tpee"},
        }
    ) == [
        "name: should not be empty",
        "dataset.root: should be text in quotes, found 3",
        "backbones: should not be empty",
        "recipe.spec_augment.probability: should be less than or equal to 1, found 1.5",
        "recipe.phases[0].num_epochs: should be greater than or equal to 1, found 0",
        "recipe.phases[1].crop: unknown key; did you mean 'crop_s'? (known: name, num_epochs, crop_s, learning_rate, "
        "schedule, final_learning_rate, milestones, gamma, warmup_fraction, margin, margin_start_fraction, "
        "margin_full_fraction, margin_rise, speeds, num_averaged_epochs)",
        "search.sampler: should be 'greensv', 'tpe', 'tpe-default', 'gp', 'nsga2' or 'random', found 'tpee'; did you "
        "mean 'tpe'?",
        "sede: unknown key; did you mean 'seed'? (known: name, kind, seed, device, num_threads, dataset, backbones, "
        "features, recipe, search, energy)",
    ]


@pytest.mark.parametrize(
    ("part", "mistake"),
    [
        ({"seed": "64"}, "seed: should be a whole number, found '64'; write it without quotes"),
        ({"seed": True}, "seed: should be a whole number, found true"),
        ({"seed": 64.0}, "seed: should be a whole number, found 64.0"),
        ({"seed": -1}, "seed: should be greater than or equal to 0, found -1"),
        ({"seed": None}, "seed: should be a whole number, found None"),
        ({"seed": 2**63}, f"seed: too large a number; whole numbers reach from -{2**63 - 1} to {2**63 - 1}"),
        ({"name": 3}, "name: should be text in quotes, found 3"),
        ({"name": "\ud800"}, "name: not UTF-8 text, found '\\ud800'"),
        ({"recipe": {"scale": "30"}}, "recipe.scale: should be a number, found '30'; write it without quotes"),
        ({"recipe": {"scale": True}}, "recipe.scale: should be a number, found true"),
        ({"recipe": {"scale": float("inf")}}, "recipe.scale: should be a finite number, found inf"),
        ({"energy": {"pue": float("nan")}}, "energy.pue: should be a finite number, found nan"),
        ({"features": {"use_energy": 1}}, "features.use_energy: should be true or false, found 1"),
        (
            {"features": {"use_energy": "no"}},
            "features.use_energy: should be true or false, found 'no'; write it without quotes",
        ),
        ({"energy": {"meters": "nvml"}}, "energy.meters: should be a list, found 'nvml'; write it in brackets"),
        ({"energy": {"meters": []}}, "energy.meters: should not be empty"),
        ({"energy": {"meters": ["nvml", 3]}}, "energy.meters[1]: should be text in quotes, found 3"),
        ({"energy": {"options": {"rapl": 3}}}, "energy.options.rapl: should be a table, found 3"),
        ({"recipe": []}, "recipe: should be a table, found []"),
        ({"recipe": {"phases": {"num_epochs": 3}}}, "recipe.phases: should be a list, found {'num_epochs': 3}"),
        ({"recipe": {"phases": [3]}}, "recipe.phases[0]: should be a table, found 3"),
        ({"backbones": {"resnet": 3}}, "backbones.resnet: should be a table, found 3"),
        ({"name": ["x" * 100]}, f"name: should be text in quotes, found ['{'x' * 75}..."),
    ],
)
def test_a_value_of_another_type_is_a_mistake_and_never_converted(part: Mapping[str, Any], mistake: str):
    assert mistakes({**SMALLEST, **part}) == [mistake]


def test_what_json_cannot_hold_is_a_mistake_even_where_any_value_may_stand():
    import datetime

    options = {"since": datetime.date(2026, 1, 1), "snr_db": [0.0, float("inf")], "deep": {"x": {3: 4}}}
    assert mistakes({**SMALLEST, "dataset": {"name": "espeak", "options": options}}) == [
        "dataset.options.since: a date is used nowhere in a study; write it as text in quotes",
        "dataset.options.snr_db[1]: should be a finite number, found inf",
        "dataset.options.deep.x: keys are text, found 3",
    ]


def test_endless_nesting_is_a_mistake():
    nested: Any = 1
    for _ in range(200):
        nested = [nested]
    (mistake,) = mistakes({**SMALLEST, "backbones": {"resnet": {"depth": nested}}})
    assert mistake.startswith("backbones.resnet.depth[0]")
    assert mistake.endswith("nested too deeply")


def test_what_only_installed_components_know_is_told_with_the_rest_and_once():
    def check(data: Mapping[str, Any]) -> list[Problem]:
        return [Problem(where="dataset.name", what=f"no dataset named {data['dataset']['name']!r}")]

    with pytest.raises(ConfigError, match="study has 2 mistakes") as caught:
        parse_study({**SMALLEST, "seed": "1"}, source="study", checks=[check, check])
    assert "dataset.name: no dataset named 'espeak'" in str(caught.value)


def test_a_check_can_refuse_a_configuration_that_is_otherwise_right():
    def check(data: Mapping[str, Any]) -> list[Problem]:
        return [Problem(where="", what="no")]

    with pytest.raises(ConfigError, match=r"study has one mistake:\n  no$"):
        parse_study(SMALLEST, source="study", checks=[check])


keys = st.sampled_from([field.name for field in dataclasses.fields(StudyConfig)]) | st.text(max_size=5)
inner_keys = st.sampled_from(["name", "options", "phases", "num_epochs", "meters", "root", "scale", "pue"]) | st.text(
    max_size=5
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400) | st.dates()
values: st.SearchStrategy[Any] = st.deferred(
    lambda: leaves | st.lists(values, max_size=2) | st.dictionaries(inner_keys, values, max_size=2)
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys, values, max_size=5), st.booleans())
def test_any_mapping_gives_a_study_or_a_config_error(data: dict[str, Any], is_complete: bool):
    try:
        config = parse_study({**SMALLEST, **data} if is_complete else data, source="study.toml")
    except ConfigError:
        return
    assert parse_study(json.loads(to_json(config)), source="database") == config


def test_the_stored_text_gives_the_same_study_and_the_same_text_again():
    config = parse_study({**SMALLEST, "recipe": {"phases": [{"crop_s": 2}, {}]}}, source="study.toml")
    text = to_json(config)
    again = parse_study(json.loads(text), source="database")
    assert again == config
    assert to_json(again) == text
    assert differences(json.loads(text), dataclasses.asdict(config)) == []


def test_differences_name_each_value_down_into_lists():
    old = {"name": "a", "recipe": {"batch_size": 64, "phases": [{"num_epochs": 3, "crop_s": 2.0}]}, "seed": 0}
    new = {
        "name": "a",
        "recipe": {"batch_size": 128, "phases": [{"num_epochs": 5, "crop_s": 2}, {"num_epochs": 1}]},
        "device": "gpü",
    }
    assert differences(old, new) == [
        'device: not set → "gpü"',
        "recipe.batch_size: 64 → 128",
        "recipe.phases[0].num_epochs: 3 → 5",
        'recipe.phases[1]: not set → {"num_epochs": 1}',
        "seed: 0 → not set",
    ]


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"x": (1, 2)}, {"x": [1, 2]}, []),
        ({"x": None}, {}, []),
        ({"x": 1}, {"x": 1.0}, []),
        ({"x": 1}, {"x": True}, ["x: 1 → true"]),
        ({"x": [1, 2]}, {"x": 1}, ["x: [1, 2] → 1"]),
        ({"x": {"y": 1}}, {"x": [1]}, ['x: {"y": 1} → [1]']),
        ({"depth": [4, 8]}, {"depth": [4]}, ["depth[1]: 8 → not set"]),
    ],
)
def test_differences_compare_values_not_their_containers(old: dict[str, Any], new: dict[str, Any], lines: list[str]):
    assert differences(old, new) == lines


def test_merging_lays_flags_over_the_file_key_by_key():
    base = {"seed": 1, "dataset": {"name": "kaldi", "root": "/data"}, "energy": {"meters": ["rapl"]}}
    override = {"seed": None, "device": "cpu", "dataset": {"root": "/other"}, "energy": {"meters": ["nvml"]}}
    assert merge(base, override) == {
        "seed": 1,
        "device": "cpu",
        "dataset": {"name": "kaldi", "root": "/other"},
        "energy": {"meters": ["nvml"]},
    }
    assert base["dataset"] == {"name": "kaldi", "root": "/data"}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_relative_data_root_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path, '[dataset]\nroot = "../data"')
    monkeypatch.chdir("/")
    assert read_toml(path)["dataset"]["root"] == str(tmp_path.parent / "data")


def test_relative_folders_of_noise_and_rooms_are_relative_to_the_file_too(tmp_path: Path):
    path = write(tmp_path, '[recipe.augmentation]\nnoise_root = "musan"\nrir_root = "../rirs"')
    augmentation = read_toml(path)["recipe"]["augmentation"]
    assert augmentation == {"noise_root": str(tmp_path / "musan"), "rir_root": str(tmp_path.parent / "rirs")}
    with pytest.raises(ConfigError, match=r"recipe\.augmentation\.rir_root: .* is no usable path"):
        read_toml(write(tmp_path, '[recipe.augmentation]\nrir_root = "a\\u0000b"'))
    assert read_toml(write(tmp_path, "recipe = 3")) == {"recipe": 3}  # a mistake that others report


def test_a_data_root_may_start_at_home_or_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_toml(write(tmp_path, '[dataset]\nroot = "~/data"'))["dataset"]["root"] == str(tmp_path / "data")
    assert read_toml(write(tmp_path, '[dataset]\nroot = "/data"'))["dataset"]["root"] == "/data"


def test_a_folder_stands_for_its_study_toml(tmp_path: Path):
    write(tmp_path, "\ufeffname = 'with byte order mark'")
    assert read_toml(tmp_path) == {"name": "with byte order mark"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = = 3", r"study.toml is no valid TOML: .*line 1"),
        (f"seed = {'9' * 5000}", "study.toml is no valid TOML: "),
        (f"x = {'[' * 5000}", "study.toml is no study: its lists or tables are nested too deeply"),
        (
            '[dataset]\nroot = "~nobody-of-that-name/x"',
            "study.toml: dataset.root: '~nobody-of-that-name/x' is no usable path",
        ),
        ('[dataset]\nroot = "a\\u0000b"', "study.toml: dataset.root: .* is no usable path"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        read_toml(write(tmp_path, text))


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no study file .*nothing.toml; give the path of a study.toml"):
        read_toml(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="no study file"):
        read_toml(tmp_path)
    with pytest.raises(ConfigError, match=r"study.toml/x cannot be read: Not a directory"):
        read_toml(write(tmp_path, "") / "x")
    (tmp_path / "study.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text: .*; save it as UTF-8"):
        read_toml(tmp_path)


def test_a_dataset_that_is_no_table_is_left_for_the_parser_to_report(tmp_path: Path):
    assert read_toml(write(tmp_path, "dataset = 3")) == {"dataset": 3}
