"""A study's configuration: frozen records (`study`), read from TOML and validated once (`load`)."""

from greensv.config.study import (
    DatasetConfig,
    EnergyConfig,
    FeatureConfig,
    Phase,
    Recipe,
    SearchConfig,
    SpecAugment,
    StudyConfig,
)

__all__ = [
    "DatasetConfig",
    "EnergyConfig",
    "FeatureConfig",
    "Phase",
    "Recipe",
    "SearchConfig",
    "SpecAugment",
    "StudyConfig",
]
