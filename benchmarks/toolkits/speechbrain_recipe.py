"""SpeechBrain's VoxCeleb recipe as its checkout publishes it: script, hyperparameters, data pipeline."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from hyperpyyaml import load_hyperpyyaml


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRecipe:
    """The recipe's script, its loaded hyperparameters, and its training data."""

    script: ModuleType
    hparams: dict[str, Any]
    train: Any


def load_recipe(checkout: Path, name: str, *, files: Path, output: Path, overrides: Mapping[str, Any]) -> LoadedRecipe:
    """Loads `hparams/NAME.yaml` with folders and lists of `corpus.prepare`; nothing else is changed but `overrides`."""
    folder = checkout / "recipes" / "VoxCeleb" / "SpeakerRec"
    sys.path.insert(0, str(folder))
    script = importlib.import_module("train_speaker_embeddings")
    local = {
        "data_folder": str(files),
        "output_folder": str(output),
        "train_annotation": str(files / "train.csv"),
        "valid_annotation": str(files / "train.csv"),
        "noise_annotation": str(files / "noise.csv"),
        "rir_annotation": str(files / "rir.csv"),
    }
    with (folder / "hparams" / f"{name}.yaml").open() as file:
        hparams = load_hyperpyyaml(file, {**local, **overrides})
    hparams["dataloader_options"]["drop_last"] = True
    Path(hparams["save_folder"]).mkdir(parents=True, exist_ok=True)
    train, _, _ = script.dataio_prep(hparams)
    return LoadedRecipe(script=script, hparams=hparams, train=train)
