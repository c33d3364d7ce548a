"""A study's configuration: frozen records (`study`), read from TOML and validated once (`load`)."""

from greensv.config.study import (
    Augmentation,
    DatasetConfig,
    Disturbance,
    EnergyConfig,
    FeatureConfig,
    Phase,
    Recipe,
    SearchConfig,
    SpecAugment,
    StudyConfig,
)

__all__ = [
    "Augmentation",
    "DatasetConfig",
    "Disturbance",
    "EnergyConfig",
    "FeatureConfig",
    "Phase",
    "Recipe",
    "SearchConfig",
    "SpecAugment",
    "StudyConfig",
]
