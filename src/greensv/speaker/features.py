"""Kaldi-compatible log-mel filterbanks, batched and on any device, and mean normalisation.

Equal to `torchaudio.compliance.kaldi.fbank` with `snip_edges=False, dither=0, energy_floor=1e-10` and the same window,
for every item of a padded batch.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from greensv.config import FeatureConfig
from greensv.errors import ConfigError, DataError
from greensv.speaker.masking import padding_mask

PREEMPHASIS = 0.97
CPU_GROUP_VALUES = 2**19
"""Frame values worked on at once on a CPU: few enough for its caches, several times as fast as a batch of 64 crops."""
FLOOR = torch.finfo(torch.float32).eps
"""Kaldi's floor of energies and filterbank values before the logarithm; above Kiwano's energy floor of 1e-10."""


class Fbank(nn.Module):
    """Waveforms in [-1, 1] to log energy (where asked for, first) and log-mel filterbanks.

    Frames are centred as Kaldi's with `--snip-edges=false`: a waveform is mirrored at both its ends. Per frame: the
    mean is removed, the raw log energy taken, pre-emphasis, window, power spectrum, triangular mel filters, log.

    Raises:
        ConfigError: the configuration makes no filterbank.
    """

    window: Tensor
    mel: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        # In this order of operations Kaldi's and torchaudio's sizes result for rates such as 22,050 Hz too.
        self.frame_length = int(config.sample_rate_hz * config.frame_length_ms * 0.001)
        self.frame_shift = int(config.sample_rate_hz * config.frame_shift_ms * 0.001)
        _check(config, frame_length=self.frame_length, frame_shift=self.frame_shift)
        self.fft_size = 2 ** (self.frame_length - 1).bit_length()
        self.register_buffer("window", window(config.window, length=self.frame_length), persistent=False)
        self.register_buffer("mel", mel_filters(config, fft_size=self.fft_size).double(), persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """Returns the number of frames of so many samples."""
        return (num_samples + self.frame_shift // 2) // self.frame_shift

    def forward(
        self, waveforms: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None
    ) -> tuple[Float[Tensor, "batch frames features"], Int[Tensor, " batch"]]:
        """Returns the features and the number of frames of each item; frames behind an item's end are 0.

        Computed in float32 (float64 for float64 waveforms), under autocast too.

        Args:
            waveforms: samples, padded behind their end with anything.
            lengths: samples of each item, at least 1; None when all are whole. An item shorter than half a frame shift
                has no frame.

        Raises:
            DataError: the whole batch is too short for one frame.
        """
        num_samples = waveforms.shape[1]
        if self.num_frames(num_samples) == 0:
            raise DataError(f"{num_samples} samples make no frame; an utterance must have {self.frame_shift} or more")
        dtype = torch.float64 if waveforms.dtype == torch.float64 else torch.float32
        all_lengths = waveforms.new_full((waveforms.shape[0],), num_samples, dtype=torch.int64)
        if lengths is not None:
            all_lengths = lengths
        size = self._group_size(waveforms)
        with torch.autocast(device_type=waveforms.device.type, enabled=False):
            groups = [
                self._log_mel(self._frames(group.to(dtype), None if lengths is None else group_lengths))
                for group, group_lengths in zip(
                    torch.split(waveforms, size), torch.split(all_lengths, size), strict=True
                )
            ]
            features = torch.cat(groups)
        frame_lengths = (all_lengths + self.frame_shift // 2) // self.frame_shift
        if lengths is None:
            return features, frame_lengths
        padding = padding_mask(frame_lengths, features.shape[1])
        return features.masked_fill(padding[:, :, None], 0.0), frame_lengths

    def _frames(
        self, waveforms: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch frames length"]:
        """Returns overlapping views of the waveforms, mirrored at their ends."""
        num_samples = waveforms.shape[1]
        num_before = self.frame_length // 2 - self.frame_shift // 2
        num_behind = self.frame_length - self.frame_length // 2
        if lengths is None and num_samples >= max(num_before, num_behind):
            head, tail = waveforms[:, :num_before].flip(1), waveforms[:, num_samples - num_behind :].flip(1)
            padded = torch.cat((head, waveforms, tail), dim=1)
        else:
            whole = waveforms.new_full((waveforms.shape[0],), num_samples, dtype=torch.int64)
            padded = self._mirror(waveforms, whole if lengths is None else lengths)
        return padded.unfold(1, self.frame_length, self.frame_shift)[:, : self.num_frames(num_samples)]

    def _group_size(self, waveforms: Float[Tensor, "batch samples"]) -> int:
        if waveforms.device.type != "cpu":
            return max(1, waveforms.shape[0])
        return max(1, CPU_GROUP_VALUES // (self.num_frames(waveforms.shape[1]) * self.frame_length))

    def _mirror(self, waveforms: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"]) -> Tensor:
        """Writes behind each item's own end, and before its start, the samples mirrored there."""
        num_before = self.frame_length // 2 - self.frame_shift // 2
        num_behind = self.frame_length - self.frame_length // 2
        last = lengths[:, None]
        before = torch.arange(-num_before, 0, device=waveforms.device)
        behind = last + torch.arange(num_behind, device=waveforms.device)
        head = waveforms.gather(1, _mirrored(before, last))
        tail = waveforms.gather(1, _mirrored(behind, last))
        padded = torch.cat((head, waveforms, waveforms.new_zeros(waveforms.shape[0], num_behind)), dim=1)
        return padded.scatter(1, behind + num_before, tail)

    def _log_mel(self, frames: Float[Tensor, "batch frames samples"]) -> Float[Tensor, "batch frames features"]:
        frames = frames - frames.mean(dim=2, keepdim=True)
        # The first sample has none before it and is emphasised with itself.
        emphasised = frames.clone()
        emphasised[..., 1:].sub_(frames[..., :-1], alpha=PREEMPHASIS)
        emphasised[..., 0].mul_(1 - PREEMPHASIS)
        spectrum = torch.fft.rfft(emphasised.mul_(self.window.to(frames.dtype)), n=self.fft_size)
        power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)
        mel = (power @ self.mel.to(frames.dtype)).clamp(min=FLOOR).log()
        if not self.config.use_energy:
            return mel
        energy = torch.linalg.vecdot(frames, frames)[..., None].clamp(min=FLOOR).log()
        return torch.cat((energy, mel), dim=2)


def subtract_mean(
    features: Float[Tensor, "batch frames features"], lengths: Int[Tensor, " batch"] | None = None
) -> Float[Tensor, "batch frames features"]:
    """Returns the features less each item's mean over its valid frames; padding is 0.

    Args:
        features: features of a padded batch.
        lengths: valid frames of each item; None when all frames are valid.
    """
    if lengths is None:
        return features - features.mean(dim=1, keepdim=True)
    padding = padding_mask(lengths, features.shape[1])[:, :, None]
    total = features.masked_fill(padding, 0.0).sum(dim=1, keepdim=True)
    mean = total / lengths.clamp(min=1)[:, None, None]
    return (features - mean).masked_fill(padding, 0.0)


def window(name: Literal["povey", "hamming"], *, length: int) -> Float[Tensor, " samples"]:
    """Returns Kaldi's window of that name in float64: Hann's to the power of 0.85, or Hamming's."""
    if name == "hamming":
        return torch.hamming_window(length, periodic=False, alpha=0.54, beta=0.46, dtype=torch.float64)
    return torch.hann_window(length, periodic=False, dtype=torch.float64).pow(0.85)


def mel_filters(config: FeatureConfig, *, fft_size: int) -> Float[Tensor, "frequencies bins"]:
    """Returns Kaldi's triangular filters, equally wide in mel(f) = 1127 ln(1 + f / 700), over the FFT's frequencies.

    Computed in float32 as torchaudio does: in float64 the filters differ from Kaldi's by more than 1e-6.
    """
    low, high = _mel(config.low_freq_hz), _mel(_high_freq_hz(config))
    spacing = (high - low) / (config.num_mel_bins + 1)
    left = low + torch.arange(config.num_mel_bins) * spacing
    centre = low + (torch.arange(config.num_mel_bins) + 1.0) * spacing
    right = low + (torch.arange(config.num_mel_bins) + 2.0) * spacing
    frequencies = config.sample_rate_hz / fft_size * torch.arange(fft_size // 2, dtype=torch.float32)
    mel = (1127.0 * (1.0 + frequencies / 700.0).log())[:, None]
    filters = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp(min=0.0)
    return F.pad(filters, (0, 0, 0, 1))  # Kaldi leaves out half the sample rate itself


def _mirrored(positions: Int[Tensor, "... points"], length: Int[Tensor, "batch 1"]) -> Int[Tensor, "batch points"]:
    """Positions outside an item, folded back into it as often as needed: -1 is 0, `length` is `length - 1`."""
    folded = positions % (2 * length)
    return torch.minimum(folded, 2 * length - 1 - folded)


def _mel(freq_hz: float) -> float:
    return 1127.0 * math.log(1.0 + freq_hz / 700.0)


def _high_freq_hz(config: FeatureConfig) -> float:
    half_rate = config.sample_rate_hz / 2
    return config.high_freq_hz if config.high_freq_hz > 0 else half_rate + config.high_freq_hz


def _check(config: FeatureConfig, *, frame_length: int, frame_shift: int) -> None:
    if not 1 <= frame_shift <= frame_length or frame_length < 2:
        raise ConfigError(
            f"frames of {config.frame_length_ms} ms every {config.frame_shift_ms} ms at {config.sample_rate_hz} Hz are "
            f"{frame_length} samples every {frame_shift}; the shift must be at least one sample and at most the length"
        )
    high, half_rate = _high_freq_hz(config), config.sample_rate_hz / 2
    if not config.low_freq_hz < high <= half_rate:
        raise ConfigError(
            f"filters from {config.low_freq_hz} Hz to {high} Hz do not fit below half the sample rate of "
            f"{config.sample_rate_hz} Hz; set low_freq_hz < high_freq_hz <= {half_rate:g}"
        )
