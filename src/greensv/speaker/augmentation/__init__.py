"""Disturbs training crops: noise, music and speech at a signal-to-noise ratio, and rooms. Recorded or built in."""

from greensv.speaker.augmentation.augmenter import Augmenter, CropReader
from greensv.speaker.augmentation.drawn import Drawn

__all__ = ["Augmenter", "CropReader", "Drawn"]
