"""Draws how the crops of a step are disturbed, reads the files that takes, and disturbs the whole batch at once."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from greensv.config import Augmentation, Disturbance
from greensv.errors import DataError
from greensv.speaker.augmentation.choices import Sounds, choose, num_columns, pick
from greensv.speaker.augmentation.drawn import Drawn, Part
from greensv.speaker.augmentation.folders import check_folders, folders_of
from greensv.speaker.augmentation.mixing import add_at_ratio, power
from greensv.speaker.augmentation.rooms import MAX_ROOM_S, make_rooms, reverberate
from greensv.speaker.augmentation.sounds import make_music, make_noise
from greensv.speaker.augmentation.sources import Recordings, open_recordings
from greensv.speaker.dataset import Progress, ignore_progress

CropReader = Callable[[int], Float32[np.ndarray, " samples"]]
"""Returns the undisturbed crop of a row of the global batch, whichever process disturbs that row."""

_MOST_READERS = 16
_ROOM_CACHE_BYTES = 256 << 20


class Augmenter:
    """Disturbs crops as a configuration says; what happens to a crop depends on the seed and its row alone.

    Example:
        >>> augmenter = Augmenter(recipe.augmentation, sample_rate_hz=16_000)
        >>> drawn = augmenter.draw(num_crops=8, crop_samples=48_000, seed=np.random.SeedSequence(3), rows=slice(0, 8))
        >>> augmenter.apply(waveforms, drawn).shape
        torch.Size([8, 48000])

    Attributes:
        needs_crops: whether `draw` must be given `read_crop`: built-in speech is other crops of the batch.
    """

    def __init__(
        self,
        config: Augmentation,
        *,
        sample_rate_hz: int,
        cache_dir: Path | None = None,
        progress: Progress = ignore_progress,
    ) -> None:
        """Lists the files and reads their headers.

        Args:
            config: the disturbances, and where their sounds lie.
            sample_rate_hz: rate of the crops; files of other rates are resampled as they are read.
            cache_dir: where the lengths of the files are kept between runs; None: nowhere.
            progress: called as the headers are read.

        Raises:
            DataError: a folder is missing, holds no audio, or more of it than a tenth cannot be used.
        """
        check_folders(config)
        self._config, self._rate = config, sample_rate_hz
        self.needs_crops = any(_is_other_crops(way, config) for way in config.disturbances)
        self._recordings = [
            open_recordings(
                way,
                config,
                sample_rate_hz=sample_rate_hz,
                cache_bytes=_ROOM_CACHE_BYTES if way.kind == "reverb" else 0,
                cache_dir=cache_dir,
                progress=progress,
            )
            if folders_of(way, config)
            else None
            for way in config.disturbances
        ]
        # Its threads end when the augmenter does.
        self._readers = ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1), "greensv-augmentation")

    @property
    def skipped(self) -> Mapping[str, str]:
        """The files that could not be read so far, by path, and why; their crops stayed without them."""
        return {path: why for recordings in self._recordings if recordings for path, why in recordings.skipped.items()}

    def draw(
        self,
        *,
        num_crops: int,
        crop_samples: int,
        seed: np.random.SeedSequence,
        rows: slice,
        read_crop: CropReader | None = None,
    ) -> Drawn:
        """Draws for all crops of a step, and reads the files that those in `rows` take.

        Args:
            num_crops: crops in the global batch.
            crop_samples: samples of a crop.
            seed: the same seed draws the same, whatever `rows` is.
            rows: which crops of the global batch are at hand, as consecutive rows; `Drawn` counts from their first.
            read_crop: gives other crops, of any length; needed where `needs_crops`.

        Returns:
            What `apply` needs. A file that cannot be read is left out and remembered in `skipped`.

        Raises:
            DataError: too many files of one way of disturbing cannot be read: see `Recordings.refuse_too_many`.
        """
        assert read_crop is not None or not self.needs_crops, "built-in speech is other crops: give read_crop"
        uniform = np.random.default_rng(seed).random((num_crops, num_columns(self._config)))
        start, stop, step = rows.indices(num_crops)
        assert step == 1, f"rows are consecutive, found {rows}"
        gathered: dict[str, list[Part]] = {name: [] for name in _PARTS}
        disturbed = []
        for way, recordings, sounds in zip(
            self._config.disturbances, self._recordings, choose(self._config, uniform[start:stop]), strict=True
        ):
            disturbed.append(sounds.rows)
            if recordings is not None:
                name = "impulse_responses" if way.kind == "reverb" else "recorded"
                values = self._read(recordings, sounds, crop_samples=crop_samples, is_room=way.kind == "reverb")
            elif way.kind == "speech":
                assert read_crop is not None
                name = "recorded"
                values = _other_crops(sounds, read_crop, first=start, num_crops=num_crops, crop_samples=crop_samples)
            else:
                name, values = _BUILT_IN[way.kind], sounds.parameters
            gathered[name].append(Part.of(sounds.rows, values, sounds.snr_db))
        return Drawn(
            disturbed=torch.from_numpy(np.unique(np.concatenate([*disturbed, np.zeros(0, dtype=np.int64)]))),
            **{name: Part.joined(parts) for name, parts in gathered.items()},
        )

    def apply(self, waveforms: Float[Tensor, "crops samples"], drawn: Drawn) -> Float[Tensor, "crops samples"]:
        """Returns the crops, disturbed as drawn, in float32 on their device; those left alone are not touched.

        A disturbed crop is clipped to [-1, 1]. A silent crop stays silent, and a silent sound changes nothing.

        Args:
            waveforms: the crops of `rows`, in their order.
            drawn: what `draw` returned for them.
        """
        if not len(drawn.disturbed):
            return waveforms
        num_samples, rate = waveforms.shape[1], self._rate
        with torch.no_grad(), torch.autocast(waveforms.device.type, enabled=False):
            drawn = drawn.to(waveforms.device)
            result = waveforms.to(torch.float32, copy=True)
            clean_power = power(result)
            if len(part := drawn.recorded):
                add_at_ratio(result, clean_power, part.values, rows=part.rows, snr_db=part.snr_db)
            if len(part := drawn.noise):
                noise = make_noise(part.values, num_samples=num_samples, sample_rate_hz=rate)
                add_at_ratio(result, clean_power, noise, rows=part.rows, snr_db=part.snr_db)
            if len(part := drawn.music):
                music = make_music(part.values, num_samples=num_samples, sample_rate_hz=rate)
                add_at_ratio(result, clean_power, music, rows=part.rows, snr_db=part.snr_db)
            # A crop is disturbed in one way alone, so the crops that get a room are clean still.
            if len(part := drawn.impulse_responses):
                result[part.rows] = reverberate(result[part.rows], part.values)
            if len(part := drawn.rooms):
                result[part.rows] = reverberate(result[part.rows], make_rooms(part.values, sample_rate_hz=rate))
            full_scale = torch.full((len(result), 1), torch.inf, device=result.device)
            full_scale.index_fill_(0, drawn.disturbed, 1.0)
            result.clamp_(min=-full_scale, max=full_scale)
        return result

    def _read(
        self, recordings: Recordings, sounds: Sounds, *, crop_samples: int, is_room: bool
    ) -> Float32[np.ndarray, "sounds samples"]:
        """Reads the files of `sounds`, several at once; one that cannot be read is silence, too many are an error."""
        num_samples = round(MAX_ROOM_S * self._rate) if is_room else crop_samples
        numbers = pick(sounds.which, len(recordings))
        samples = np.zeros((len(sounds), num_samples), dtype=np.float32)

        def read(i: int) -> None:
            number = int(numbers[i])
            try:
                if is_room:
                    samples[i] = recordings.beginning(number, num_samples=num_samples)
                else:
                    samples[i] = recordings.part(number, where=float(sounds.where[i]), num_samples=num_samples)
            except DataError as error:
                recordings.skipped.setdefault(recordings.path(number), str(error))

        list(self._readers.map(read, range(len(sounds))))
        recordings.refuse_too_many()
        return samples


_PARTS = ("recorded", "noise", "music", "impulse_responses", "rooms")
_BUILT_IN = {"noise": "noise", "music": "music", "reverb": "rooms"}


def _is_other_crops(way: Disturbance, config: Augmentation) -> bool:
    return way.kind == "speech" and config.noise_root is None and way.probability > 0


def _other_crops(
    sounds: Sounds, read_crop: CropReader, *, first: int, num_crops: int, crop_samples: int
) -> Float32[np.ndarray, "sounds samples"]:
    """Another crop of the global batch for each sound, from a random sample of it on; silence where there is no other.

    Which crop depends on the global row, so that each process finds the same, whichever rows it holds.
    """
    samples = np.zeros((len(sounds), crop_samples), dtype=np.float32)
    if num_crops < 2:
        return samples
    others = (first + sounds.rows + 1 + pick(sounds.which, num_crops - 1)) % num_crops
    for i, other in enumerate(others):
        crop = read_crop(int(other))
        samples[i] = np.resize(np.roll(crop, -int(sounds.where[i] * len(crop))), crop_samples)
    return samples
