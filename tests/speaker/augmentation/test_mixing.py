import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from greensv.speaker.augmentation.mixing import add_at_ratio, power


def ratio_db(signal: torch.Tensor, noise: torch.Tensor) -> float:
    return float(10 * (signal.square().mean() / noise.square().mean()).log10())


@given(
    snr_db=st.floats(-20, 40),
    loudness=st.floats(1e-4, 1.0),
    noise_loudness=st.floats(1e-4, 1.0),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_the_ratio_is_the_one_asked_for(snr_db: float, loudness: float, noise_loudness: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    clean = loudness * torch.randn(1, 4000, generator=generator)
    noise = noise_loudness * torch.randn(1, 4000, generator=generator)
    disturbed = clean.double().clone()
    add_at_ratio(
        disturbed, power(clean.double()), noise.double(), rows=torch.tensor([0]), snr_db=torch.tensor([snr_db])
    )
    assert ratio_db(clean[0].double(), disturbed[0] - clean[0]) == pytest.approx(snr_db, abs=1e-3)


def test_it_equals_torchaudio_add_noise():
    clean, noise = torch.randn(5, 3000), 0.3 * torch.randn(5, 3000)
    snr_db = torch.tensor([0.0, 5.0, -3.0, 20.0, 12.5])
    disturbed = clean.clone()
    add_at_ratio(disturbed, power(clean), noise, rows=torch.arange(5), snr_db=snr_db)
    torch.testing.assert_close(disturbed, torchaudio.functional.add_noise(clean, noise, snr_db))


def test_only_the_rows_named_are_changed():
    clean = torch.randn(4, 100)
    disturbed = clean.clone()
    add_at_ratio(disturbed, power(clean), torch.randn(1, 100), rows=torch.tensor([2]), snr_db=torch.tensor([3.0]))
    assert [bool((a != b).any()) for a, b in zip(clean, disturbed, strict=True)] == [False, False, True, False]


def test_each_of_several_sounds_has_its_ratio_to_the_clean_crop():
    clean, sounds = torch.randn(1, 4000), torch.randn(3, 4000)
    snr_db = torch.tensor([3.0, 10.0, 20.0])
    together = torch.zeros(1, 4000)
    add_at_ratio(together, power(clean), sounds, rows=torch.tensor([0, 0, 0]), snr_db=snr_db)
    alone = torch.zeros(3, 1, 4000)
    for i in range(3):
        add_at_ratio(alone[i], power(clean), sounds[i : i + 1], rows=torch.tensor([0]), snr_db=snr_db[i : i + 1])
        assert ratio_db(clean[0], alone[i, 0]) == pytest.approx(snr_db[i].item(), abs=1e-3)
    torch.testing.assert_close(together, alone.sum(0))


def test_silence_is_left_alone_and_adds_nothing():
    clean = torch.stack([torch.zeros(500), torch.randn(500)])
    disturbed = clean.clone()
    sounds = torch.stack([torch.randn(500), torch.zeros(500)])
    add_at_ratio(disturbed, power(clean), sounds, rows=torch.tensor([0, 1]), snr_db=torch.tensor([0.0, 0.0]))
    assert torch.equal(disturbed, clean)
