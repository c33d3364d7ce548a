from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from greensv.config import Augmentation
from greensv.config.study import Disturbance
from greensv.errors import DataError
from greensv.speaker.augmentation import Augmenter, Drawn

RATE, CROP = 16_000, 8_000
BUILT_IN = Augmentation(
    disturbances=(
        Disturbance(kind="music", probability=0.2, snr_db=(5, 15)),
        Disturbance(kind="speech", probability=0.2, snr_db=(13, 20), num_files=(1, 3)),
        Disturbance(kind="noise", probability=0.2, snr_db=(0, 15)),
        Disturbance(kind="reverb", probability=0.2),
    )
)


def crops(num: int = 40, *, loudness: float = 0.05) -> torch.Tensor:
    return loudness * torch.randn(num, CROP, generator=torch.Generator().manual_seed(num))


def draw(augmenter: Augmenter, waveforms: torch.Tensor, *, seed: int = 1, rows: slice = slice(None)) -> Drawn:
    return augmenter.draw(
        num_crops=len(waveforms),
        crop_samples=waveforms.shape[1],
        seed=np.random.SeedSequence(seed),
        rows=rows,
        read_crop=lambda row: waveforms[row].numpy(),
    )


def augment(augmenter: Augmenter, waveforms: torch.Tensor, **arguments: Any) -> torch.Tensor:
    rows = arguments.get("rows", slice(None))
    return augmenter.apply(waveforms[rows], draw(augmenter, waveforms, **arguments))


def one_way(kind: Any, *, noise_root: Path | None = None, rir_root: Path | None = None, **keys: Any) -> Augmenter:
    config = Augmentation(
        noise_root=str(noise_root) if noise_root else None,
        rir_root=str(rir_root) if rir_root else None,
        disturbances=(Disturbance(kind=kind, **{"probability": 1.0, **keys}),),
    )
    return Augmenter(config, sample_rate_hz=RATE)


def write_noises(folder: Path, num: int) -> None:
    for number in range(num):
        soundfile.write(folder / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, 2 * CROP), RATE)


@pytest.fixture
def recorded(noise_root: Path, rir_root: Path) -> Augmentation:
    ways = {"music": ("music",), "speech": ("noise",), "noise": (), "reverb": ("simulated_rirs",)}
    return Augmentation(
        noise_root=str(noise_root),
        rir_root=str(rir_root),
        disturbances=tuple(
            Disturbance(kind=kind, probability=0.2, folders=folders)  # type: ignore[arg-type]
            for kind, folders in ways.items()
        ),
    )


@pytest.mark.parametrize("is_built_in", [True, False])
def test_a_crop_is_disturbed_alike_whichever_part_of_the_batch_is_at_hand(recorded: Augmentation, is_built_in: bool):
    augmenter = Augmenter(BUILT_IN if is_built_in else recorded, sample_rate_hz=RATE)
    waveforms = crops()
    whole = augment(augmenter, waveforms)
    parts = [augment(augmenter, waveforms, rows=slice(start, start + 10)) for start in range(0, 40, 10)]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=1e-5)
    assert (whole != waveforms).any(1).float().mean() == pytest.approx(0.8, abs=0.15)


@pytest.mark.parametrize("is_built_in", [True, False])
def test_the_same_seed_disturbs_alike_and_another_differently(recorded: Augmentation, is_built_in: bool):
    config = BUILT_IN if is_built_in else recorded
    first, again = (augment(Augmenter(config, sample_rate_hz=RATE), crops()) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(Augmenter(config, sample_rate_hz=RATE), crops(), seed=2))


def test_crops_left_alone_keep_their_bits_and_the_given_waveforms_are_not_changed():
    waveforms = 3 * crops()  # beyond full scale here and there, as float files can be
    before = waveforms.clone()
    augmenter = Augmenter(BUILT_IN, sample_rate_hz=RATE)
    drawn = draw(augmenter, waveforms)
    result = augmenter.apply(waveforms, drawn)
    alone = sorted(set(range(len(waveforms))) - set(drawn.disturbed.tolist()))
    assert alone
    assert torch.equal(result[alone], waveforms[alone])
    assert torch.equal(waveforms, before)


def test_disturbed_crops_are_clipped_to_full_scale():
    result = augment(one_way("noise", snr_db=(-20.0, -20.0)), crops(loudness=0.3))
    assert result.abs().max() == 1.0


def test_without_disturbances_the_same_waveforms_come_back():
    waveforms = crops()
    augmenter = Augmenter(Augmentation(), sample_rate_hz=RATE)
    assert augmenter.apply(waveforms, draw(augmenter, waveforms)) is waveforms


def test_disturbed_in_float32_under_autocast_too():
    augmenter = Augmenter(BUILT_IN, sample_rate_hz=RATE)
    expected = augment(augmenter, crops())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = augment(augmenter, crops())
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["noise", "music"])
@pytest.mark.parametrize("is_built_in", [True, False])
def test_noise_and_music_are_added_at_the_ratio_drawn(kind: str, is_built_in: bool, noise_root: Path):
    augmenter = one_way(kind, noise_root=None if is_built_in else noise_root, snr_db=(10.0, 25.0))
    waveforms = crops(12)
    drawn = draw(augmenter, waveforms)
    part = next(part for part in (drawn.recorded, drawn.noise, drawn.music) if len(part))
    added = (augmenter.apply(waveforms, drawn) - waveforms)[part.rows]
    found_db = 10 * (waveforms[part.rows].square().mean(1) / added.square().mean(1)).log10()
    assert len(part) == 12
    torch.testing.assert_close(found_db, part.snr_db, atol=0.01, rtol=0.0)
    assert part.snr_db.min() >= 10
    assert part.snr_db.max() <= 25


def test_what_is_added_lies_in_the_file(noise_root: Path):
    augmenter = one_way("music", noise_root=noise_root, folders=("music",))
    tune = soundfile.read(noise_root / "music" / "tune.wav", dtype="float32")[0]
    beginnings = np.lib.stride_tricks.sliding_window_view(tune, 100)
    starts = set()
    for values in draw(augmenter, crops(5)).recorded.values.numpy():
        found = np.flatnonzero((beginnings == values[:100]).all(1))
        starts.update(int(start) for start in found if np.array_equal(values, tune[start : start + CROP]))
    assert len(starts) == 5


def test_short_noise_is_repeated(noise_root: Path, tmp_path: Path):
    (tmp_path / "only").mkdir()
    short = soundfile.read(noise_root / "noise" / "short.flac", dtype="float32")[0]
    soundfile.write(tmp_path / "only" / "short.wav", short, RATE)
    values = draw(one_way("noise", noise_root=tmp_path), crops(3)).recorded.values
    assert not torch.equal(values[0], values[1])  # each begins elsewhere
    assert torch.equal(values[:, : -len(short)], values[:, len(short) :])


def test_noise_of_another_rate_is_resampled(tmp_path: Path):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)
    soundfile.write(tmp_path / "tone.wav", tone, 44_100)
    values = draw(one_way("noise", noise_root=tmp_path), crops(1)).recorded.values[0]
    assert len(values) == CROP
    assert np.argmax(np.abs(np.fft.rfft(values))) == 440 * CROP / RATE


def test_silent_noise_and_silent_crops_stay_clean(tmp_path: Path):
    soundfile.write(tmp_path / "nothing.wav", np.zeros(2 * CROP), RATE)
    waveforms = crops(4)
    assert torch.equal(augment(one_way("noise", noise_root=tmp_path), waveforms), waveforms)
    silent = torch.zeros(40, CROP)
    assert torch.equal(augment(Augmenter(BUILT_IN, sample_rate_hz=RATE), silent), silent)


def test_recorded_rooms_are_heard_without_delay_and_as_loud(rir_root: Path):
    waveforms = crops(12)
    result = augment(one_way("reverb", rir_root=rir_root), waveforms)
    torch.testing.assert_close(result.square().mean(1), waveforms.square().mean(1), atol=0.0, rtol=1e-3)
    likeness = [float(np.corrcoef(one, other)[0, 1]) for one, other in zip(result, waveforms, strict=True)]
    assert 0.5 < min(likeness) < max(likeness) < 0.999


def test_of_a_long_room_the_first_second_is_used(rir_root: Path):
    drawn = draw(one_way("reverb", rir_root=rir_root), crops(12))
    assert drawn.impulse_responses.values.shape == (12, RATE)
    longest = soundfile.read(rir_root / "simulated_rirs" / "room-1.5.wav", dtype="float32")[0][:RATE]
    assert any(np.array_equal(longest, taps) for taps in drawn.impulse_responses.values.numpy())


def test_built_in_speech_is_other_crops_of_the_batch_moved_round():
    waveforms = crops(6)
    augmenter = one_way("speech", num_files=(2, 2))
    part = draw(augmenter, waveforms).recorded
    assert augmenter.needs_crops
    assert part.rows.tolist() == [row for row in range(6) for _ in range(2)]
    spectra = np.abs(np.fft.rfft(waveforms.numpy()))
    for row, values in zip(part.rows.tolist(), part.values.numpy(), strict=True):
        # Moving round changes phases only.
        distance = np.abs(spectra - np.abs(np.fft.rfft(values))).max(1)
        assert distance.argmin() != row
        assert distance.min() < 1e-3
        assert not np.array_equal(values, waveforms[distance.argmin()])


def test_crops_of_other_lengths_are_cut_or_repeated_as_speech():
    augmenter = one_way("speech")
    arguments: dict[str, Any] = {"num_crops": 2, "seed": np.random.SeedSequence(1), "rows": slice(0, 1)}
    other = np.arange(1, 8, dtype=np.float32)
    for length in (3, 20):
        part = augmenter.draw(crop_samples=length, read_crop=lambda row: other * row, **arguments).recorded
        assert part.values.shape == (1, length)
        steps = np.diff(np.append(part.values[0].numpy(), 0))[:-1]
        assert set(steps) <= {1.0, -6.0}


def test_a_batch_of_one_crop_has_no_other_to_add():
    waveforms = crops(1)
    assert torch.equal(augment(one_way("speech"), waveforms), waveforms)


def test_a_file_that_cannot_be_read_any_more_is_left_out_and_remembered(tmp_path: Path):
    write_noises(tmp_path, 2)
    augmenter = one_way("noise", noise_root=tmp_path)
    assert not augmenter.skipped
    (tmp_path / "0.wav").unlink()
    waveforms = crops(20)
    clean = (augment(augmenter, waveforms) == waveforms).all(1)
    assert 0 < clean.sum() < 20
    assert list(augmenter.skipped) == [str(tmp_path / "0.wav")]
    assert "no audio file" in augmenter.skipped[str(tmp_path / "0.wav")]


@pytest.mark.parametrize("kind", ["noise", "reverb"])
def test_a_small_folder_of_which_nothing_can_be_read_any_more_ends_the_training(tmp_path: Path, kind: str):
    write_noises(tmp_path, 3)
    augmenter = one_way(kind, noise_root=tmp_path, rir_root=tmp_path)
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    with pytest.raises(DataError, match=rf"3 of 3 files of {kind} below .* cannot be read, .*3 times: no audio file"):
        draw(augmenter, crops(40))


@pytest.mark.parametrize(("num_files", "num_allowed"), [(30, 10), (120, 12)])
def test_ten_files_or_a_tenth_may_be_unreadable_and_no_more(tmp_path: Path, num_files: int, num_allowed: int):
    write_noises(tmp_path, num_files)
    (tmp_path / "0.wav").write_bytes(b"RIFFdamaged")
    augmenter = one_way("noise", noise_root=tmp_path)
    assert len(augmenter.skipped) == 1  # one that is damaged at first counts too
    for number in range(1, num_allowed):
        (tmp_path / f"{number}.wav").unlink()
    waveforms = crops(10 * num_files)[:, :16]
    draw(augmenter, waveforms)
    assert len(augmenter.skipped) == num_allowed
    (tmp_path / f"{num_allowed}.wav").write_bytes(b"")
    with pytest.raises(
        DataError,
        match=rf"{num_allowed + 1} of {num_files} files of noise .*\({num_allowed - 1} times: no audio file the file",
    ):
        draw(augmenter, waveforms)


def test_a_few_damaged_files_are_left_out_at_once_and_many_refused(tmp_path: Path):
    for number in range(20):
        soundfile.write(tmp_path / f"{number}.wav", np.full(CROP, 0.1), RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFFdamaged")
    augmenter = one_way("noise", noise_root=tmp_path)
    assert list(augmenter.skipped) == [str(tmp_path / "broken.wav")]
    for number in range(5):
        (tmp_path / f"{number}.wav").write_bytes(b"")
    with pytest.raises(DataError, match="6 of 21 files cannot be used"):
        one_way("noise", noise_root=tmp_path)


def test_folders_that_are_missing_or_hold_no_audio_say_where_to_get_some(tmp_path: Path):
    with pytest.raises(DataError, match=r"noise_root: there is no folder .*openslr\.org/17"):
        one_way("noise", noise_root=tmp_path / "musan")
    with pytest.raises(DataError, match=r"rir_root: there is no folder .*openslr\.org/28"):
        one_way("reverb", rir_root=tmp_path / "rirs")
    with pytest.raises(DataError, match=r"disturbances\[0\].folders: there is no folder .*/musik"):
        one_way("music", noise_root=tmp_path, folders=("musik",))
    with pytest.raises(DataError, match=r"no audio files .*openslr\.org/17"):
        one_way("noise", noise_root=tmp_path)


def test_a_way_of_probability_zero_needs_no_folder(tmp_path: Path):
    augmenter = one_way("music", noise_root=tmp_path, folders=("none",), probability=0.0)
    assert not augmenter.needs_crops
    assert not len(draw(augmenter, crops()).disturbed)


def test_a_gpu_disturbs_as_the_cpu_does():
    if not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use")
    augmenter, waveforms = Augmenter(BUILT_IN, sample_rate_hz=RATE), crops()
    drawn = draw(augmenter, waveforms).pin_memory()
    found = augmenter.apply(waveforms.cuda(), drawn).cpu()
    torch.testing.assert_close(found, augment(augmenter, waveforms), atol=2e-4, rtol=1e-3)
