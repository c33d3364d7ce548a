"""What must be equal for a saved training to be gone on with: all that a step depends on but the data's content."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from greensv.config import FeatureConfig, Phase, Recipe
from greensv.errors import CheckpointError
from greensv.speaker.dataset import Utterances


def training_identity(
    *,
    utterances: Utterances,
    recipe: Recipe,
    phases: tuple[Phase, ...],
    features: FeatureConfig,
    seed: int,
    precision: str,
) -> dict[str, Any]:
    """Returns a training's identity as plain values; `precision` as resolved: "auto" may be another one elsewhere."""
    plain = {key: value for key, value in asdict(recipe).items() if key != "phases"}
    for root in ("noise_root", "rir_root"):  # a folder may move, as that of the audio may
        plain["augmentation"][root] = plain["augmentation"][root] is not None
    return {
        "seed": seed,
        "precision": precision,
        "num_utterances": len(utterances),
        "num_speakers": utterances.num_speakers,
        "phases": [asdict(phase) for phase in phases],
        "recipe": plain,
        "features": asdict(features),
    }


def check_identity(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compares a saved training's identity with this one's.

    Raises:
        CheckpointError: they differ, saying in what.
    """
    differing = [f"{key}: {found.get(key)} → {value}" for key, value in expected.items() if found.get(key) != value]
    if differing:
        raise CheckpointError(
            f"the saved training is not this one ({'; '.join(differing)}); go on where and as it was begun, or start a "
            "new one"
        )
