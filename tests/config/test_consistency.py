"""Values that are right alone and wrong together."""

from collections.abc import Mapping
from typing import Any

import pytest

from greensv.config import Phase
from greensv.config.load import parse_study
from greensv.errors import ConfigError

SMALLEST: Mapping[str, Any] = {"name": "small", "dataset": {"name": "espeak"}, "backbones": {"resnet": {}}}
STEPS = {"schedule": "multistep", "milestones": [0.5, 0.7]}


def way(**settings: Any) -> dict[str, Any]:
    return {"kind": "noise", "probability": 0.5, **settings}


def disturbed(*ways: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    return {"augmentation": {"disturbances": list(ways), **settings}}


@pytest.mark.parametrize(
    ("recipe", "mistake"),
    [
        (
            disturbed(way(probability=0.6), way(probability=0.5)),
            "recipe.augmentation: the probabilities of disturbances add up to 1.1, but a crop is disturbed in one way "
            "at the most; lower them to 1 in all",
        ),
        (
            disturbed(way(snr_db=[15, 5])),
            "recipe.augmentation.disturbances[0]: snr_db should be a low and a high value, found 15 and 5",
        ),
        (
            disturbed(way(), way(num_files=[3, 2])),
            "recipe.augmentation.disturbances[1]: num_files should be a low and a high value, found 3 and 2",
        ),
        (
            disturbed(way(kind="reverb", snr_db=[5, 15])),
            "recipe.augmentation.disturbances[0]: snr_db would be ignored, because reverb is not added, it convolves; "
            "leave it out",
        ),
        (
            disturbed(way(folders=["noise"]), way(kind="reverb", folders=["small"]), noise_root="/musan"),
            "recipe.augmentation: disturbances name folders below rir_root, not given; give --rir-root DIR, or leave "
            "folders out for the built-in sounds",
        ),
        (
            {"batch_size": 10, "num_micro_batches": 4},
            "recipe: batch_size 10 cannot be computed in 4 micro-batches: num_micro_batches should divide it, and "
            "leave two crops or more in each",
        ),
        (
            {"batch_size": 4, "num_micro_batches": 4},
            "recipe: batch_size 4 cannot be computed in 4 micro-batches: num_micro_batches should divide it, and "
            "leave two crops or more in each",
        ),
        (
            {"optimizer": "adamw", "nesterov": True, "momentum": 0.8},
            "recipe: momentum and nesterov would be ignored, because adamw has betas instead; leave them out",
        ),
        ({"optimizer": "adamw", "betas": [0.9, 1.0]}, "recipe: betas are below 1, found [0.9, 1.0]"),
        ({"betas": [0.8, 0.9]}, "recipe: betas would be ignored, because sgd has momentum instead; leave it out"),
        (
            {"nesterov": True, "momentum": 0.0},
            "recipe: nesterov needs momentum, which is 0; raise momentum or leave out nesterov",
        ),
        (
            {"label_smoothing": 0.5, "jeffreys_weight": 0.5},
            "recipe: label_smoothing 0.5 and jeffreys_weight 0.5 leave the true speaker no share of the target; lower "
            "them to less than 1 in all",
        ),
    ],
)
def test_values_of_a_recipe_that_do_not_go_together_are_a_mistake(recipe: Mapping[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_study({**SMALLEST, "recipe": recipe}, source="study.toml")
    assert str(caught.value) == f"study.toml has one mistake:\n  {mistake}"


@pytest.mark.parametrize(
    ("phase", "mistake"),
    [
        (
            {"margin_start_fraction": 0.6},
            "margin_start_fraction, margin_full_fraction should be a low and a high value, found 0.6 and 0.5",
        ),
        (
            {"final_learning_rate": 0.3},
            "final_learning_rate, learning_rate should be a low and a high value, found 0.3 and 0.2",
        ),
        (
            {"schedule": "multistep"},
            "multistep needs milestones: the shares of the steps after which the learning rate falls",
        ),
        (
            {**STEPS, "milestones": [0.7, 0.5]},
            "milestones should ascend, none inside the warm-up of 0.1, found [0.7, 0.5]",
        ),
        (
            {**STEPS, "milestones": [0.5, 0.5]},
            "milestones should ascend, none inside the warm-up of 0.1, found [0.5, 0.5]",
        ),
        (
            {**STEPS, "milestones": [0.05, 0.5]},
            "milestones should ascend, none inside the warm-up of 0.1, found [0.05, 0.5]",
        ),
        (
            {**STEPS, "final_learning_rate": 0.01},
            "final_learning_rate would be ignored, because multistep falls by gamma at each milestone; leave it out",
        ),
        (
            {"milestones": [0.5], "gamma": 0.1},
            "milestones and gamma would be ignored, because exponential does not fall in steps; leave them out",
        ),
        (
            {"speeds": [1.0, 0.9, 1.0]},
            "a speed comes twice in speeds [1.0, 0.9, 1.0]; each makes speakers of its own",
        ),
        (
            {"num_epochs": 3, "num_averaged_epochs": 4},
            "num_averaged_epochs is 4, more than the 3 epochs of the phase; lower it",
        ),
    ],
)
def test_values_of_a_phase_that_do_not_go_together_are_a_mistake(phase: Mapping[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_study({**SMALLEST, "recipe": {"phases": [{}, phase]}}, source="study.toml")
    assert str(caught.value) == f"study.toml has one mistake:\n  recipe.phases[1]: {mistake}"


def test_what_goes_together_is_accepted() -> None:
    recipe = {
        **disturbed(*(way(probability=0.1) for _ in range(10))),
        "batch_size": 8,
        "num_micro_batches": 4,
        "optimizer": "adamw",
        "betas": [0.9, 0.98],
        "phases": [STEPS, {"schedule": "cosine", "final_learning_rate": 0.2, "num_averaged_epochs": 42}],
    }
    config = parse_study({**SMALLEST, "recipe": recipe}, source="study.toml")
    assert config.recipe.phases[0].milestones == (0.5, 0.7)


def test_a_shortened_phase_averages_as_large_a_share_of_its_epochs() -> None:
    phase = Phase(num_epochs=150, num_averaged_epochs=10, crop_s=2.0)
    assert phase.shortened(30) == Phase(num_epochs=30, num_averaged_epochs=2, crop_s=2.0)
    assert phase.shortened(1).num_averaged_epochs == 0
    assert Phase(num_epochs=2, num_averaged_epochs=2).shortened(1).num_averaged_epochs == 1
