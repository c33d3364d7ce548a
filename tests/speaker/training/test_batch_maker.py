import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from greensv.config import Augmentation, Disturbance, FeatureConfig, Phase, Recipe
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.augmentation import Augmenter
from greensv.speaker.dataset import Utterances
from greensv.speaker.training.batch_maker import Batch, BatchMaker
from greensv.speaker.training.speed import samples_needed

# 24 utterances in batches of 8: 3 steps an epoch.
PLAIN = Phase(num_epochs=2, crop_s=0.2)
FAST_AND_SLOW = Phase(name="speeds", num_epochs=1, crop_s=0.2, speeds=(1.0, 0.9, 1.1))
NOISY = Augmentation(disturbances=tuple(Disturbance(kind=kind, probability=0.4) for kind in ("noise", "speech")))


def make(utterances: Utterances, step: int, *, rows: slice = slice(0, 8), **changes: Any) -> Batch:
    recipe = Recipe(batch_size=8, **changes)
    is_disturbed = bool(recipe.augmentation.disturbances)
    maker = BatchMaker(
        AudioStore(utterances),
        recipe=recipe,
        phases=(PLAIN, FAST_AND_SLOW),
        features=FeatureConfig(),
        seed=5,
        rows=rows,
        augmenter=Augmenter(recipe.augmentation, sample_rate_hz=16_000) if is_disturbed else None,
    )
    with ThreadPoolExecutor(2) as threads:
        return maker.make(step, threads=threads, pin_memory=False)


def test_a_plain_batch_is_crops_and_speakers(tones: Utterances) -> None:
    batch = make(tones, 4)
    assert (batch.step, batch.crop_samples, tuple(batch.waveforms.shape)) == (4, 3200, (8, 3200))
    assert batch.speeds == ()
    assert batch.drawn is None
    assert batch.masks.shape == (5, 8)
    # Each crop is a piece of an utterance of the speaker it is said to be of.
    audio = AudioStore(tones)
    for waveform, speaker in zip(batch.waveforms.numpy(), batch.classes.tolist(), strict=True):
        own = np.flatnonzero(tones.speakers == speaker)
        windows = [np.lib.stride_tricks.sliding_window_view(audio.whole(int(i)), 3200) for i in own]
        assert any((window == waveform).all(axis=1).any() for window in windows)


def test_an_epoch_has_each_utterance_once(tones: Utterances) -> None:
    waveforms = torch.cat([make(tones, step).waveforms for step in (3, 4, 5)])
    assert len(torch.unique(waveforms, dim=0)) == 24


def test_at_another_speed_a_speaker_is_another_class_and_the_crop_is_of_what_the_speed_needs(tones: Utterances) -> None:
    batches = [make(tones, step) for step in (6, 7, 8)]
    seen = []
    for batch in batches:
        assert batch.waveforms.shape[1] == max(samples_needed(3200, speed) for speed, _ in batch.speeds)
        assert torch.equal(torch.cat([rows for _, rows in batch.speeds]).sort().values, torch.arange(8))
        for speed, rows in batch.speeds:
            k = FAST_AND_SLOW.speeds.index(speed)
            seen.append(k)
            assert (batch.classes[rows] // 4 == k).all()
            needed = samples_needed(3200, speed)
            assert not batch.waveforms[rows, needed:].any()
            assert batch.waveforms[rows, needed - 20 : needed].any(dim=1).all()
    assert set(seen) == {0, 1, 2}
    speakers = torch.cat([batch.classes % 4 for batch in batches])
    assert torch.bincount(speakers).tolist() == [6, 6, 6, 6]


@pytest.mark.parametrize("step", [1, 7])
def test_the_shares_of_two_processes_are_the_whole_batch(step: int, tones: Utterances) -> None:
    whole, *shares = (
        make(tones, step, rows=rows, augmentation=NOISY) for rows in (slice(0, 8), slice(0, 4), slice(4, 8))
    )
    for name in ("waveforms", "classes"):
        assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(whole, name))
    assert torch.equal(torch.cat([share.masks for share in shares], dim=1), whole.masks)
    assert whole.drawn is not None
    num_disturbed = [len(share.drawn.disturbed) for share in shares if share.drawn is not None]
    assert sum(num_disturbed) == len(whole.drawn.disturbed) > 0


def test_the_same_step_is_the_same_batch_in_any_order(tones: Utterances) -> None:
    recipe = Recipe(batch_size=8)
    maker = BatchMaker(
        AudioStore(tones), recipe=recipe, phases=(PLAIN,), features=FeatureConfig(), seed=5, rows=slice(0, 8),
        augmenter=None,
    )  # fmt: skip
    with ThreadPoolExecutor(2) as threads:
        found = {step: maker.make(step, threads=threads, pin_memory=False) for step in (5, 0, 3, 2)}
    for step, batch in found.items():
        assert torch.equal(batch.waveforms, make(tones, step).waveforms)


def test_moving_a_batch_keeps_all_of_it(tones: Utterances) -> None:
    batch = make(tones, 7, augmentation=NOISY)
    moved = batch.to(torch.device("cpu"))
    for field in dataclasses.fields(Batch):
        assert type(getattr(moved, field.name)) is type(getattr(batch, field.name))
    assert torch.equal(moved.waveforms, batch.waveforms)
    assert torch.equal(moved.masks, batch.masks)
