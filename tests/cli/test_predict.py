import json
from pathlib import Path
from typing import Any

import pytest

from greensv.search.cost import probe
from tiny.study import FULL_STEPS

# The study's name of the recipe: 20 steps of 8 crops of 0.3 s.
SPEECH_S = FULL_STEPS * 8 * 0.3


@pytest.fixture(autouse=True)
def _own_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(probe, "PROBE_S", 0.3)


def asked(greensv: Any, *arguments: object) -> dict[str, Any]:
    result = greensv("predict", *arguments, "--json")
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


def test_without_measurements_it_says_so_and_offers_a_probe(greensv: Any) -> None:
    result = greensv("predict", "x-vector:channels=32")
    assert result.code == 0, result.err
    assert "42 epochs of 1,092,009 utterances in 89,544 steps" in result.out
    assert "Nothing has been measured on this hardware yet" in result.out
    assert "--probe" in result.out
    assert "time    not known" in result.out
    found = asked(greensv, "x-vector:channels=32")
    assert found["num_measured"] == 0
    assert found["duration_s"] is None
    assert found["energy_low_kwh"] < found["energy_kwh"] / 5
    assert found["carbon_g"] == pytest.approx(found["energy_kwh"] * found["g_per_kwh"])


def test_a_probe_is_measured_and_kept_and_its_neighbour_predicted(greensv: Any, study_file: Path) -> None:
    probed = asked(greensv, "tiny:width=8,depth=2", study_file, "--probe")
    assert probed["num_steps"] == FULL_STEPS
    assert probed["speech_s"] == pytest.approx(SPEECH_S)
    assert probed["probe"]["batch_size"] == 8
    assert probed["num_measured"] == 1
    # A step of 8 crops uses (81 × 8 + 8 × 8) / 100 units of a joule, and 0.1 W beside.
    step_j = 7.12
    assert probed["energy_kwh"] * 3.6e6 == pytest.approx(FULL_STEPS * step_j, rel=0.3)
    assert probed["energy_low_kwh"] * 3.6e6 < FULL_STEPS * step_j < probed["energy_high_kwh"] * 3.6e6
    assert probed["duration_s"] > 0
    assert probed["track_record"] is None
    again = asked(greensv, "tiny:width=8,depth=2", study_file)
    assert again["probe"] is None
    assert again["num_measured"] == again["num_same_recipe"] == 1
    assert again["energy_kwh"] == pytest.approx(probed["energy_kwh"], rel=0.05)
    # The second probe had been predicted from the first.
    asked(greensv, "tiny:width=16,depth=3", study_file, "--probe")
    track = asked(greensv, "tiny:width=4,depth=1", study_file)["track_record"]
    assert track["num_predictions"] == 1
    result = greensv("predict", "tiny:width=4,depth=1", study_file)
    assert "Based on 2 measurements on this hardware, 2 of them with this recipe." in result.out
    assert "Predictions on this hardware so far: 1" in result.out


def test_the_data_need_not_be_there(greensv: Any, study_file: Path) -> None:
    found = asked(greensv, "tiny:width=8", study_file, "--num-utterances", 800, "--num-speakers", 20)
    assert found["num_steps"] == 4 * 100
    assert found["num_speakers"] == 20


def test_a_trial_is_predicted_from_its_own_short_training(greensv: Any, searched: Path) -> None:
    (record,) = [json.loads(line) for line in greensv("trials", "--json").out.splitlines()][:1]
    found = asked(greensv, "--trial", record["number"])
    assert found["has_own_training"]
    assert found["energy_kwh"] == pytest.approx(record["train_energy_kwh"], rel=0.05)
    result = greensv("predict", "--trial", record["number"])
    assert "Based on its own short training." in result.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name one SYSTEM"),
        (("tiny", "--trial", "1"), "name one SYSTEM"),
        (("--trial", "99"), "has no trial 99; its trials: 0, 1, 2, 3"),
        (("tiny-9",), "did you mean"),
        (("tiny:width=9", "--region", "XYZ"), "XYZ"),
        (("tiny:width=8", "--num-utterances", "100"), "100 utterances are less than a batch of 512"),
    ],
)
def test_mistakes_are_told(greensv: Any, searched: Path, arguments: tuple[str, ...], said: str) -> None:
    result = greensv("predict", *arguments)
    assert result.code in (1, 2)
    assert said in result.err
