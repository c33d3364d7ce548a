import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from greensv.config import FeatureConfig
from greensv.errors import DataError, TrainingError
from greensv.speaker import embedding
from greensv.speaker.audio import AudioStore
from greensv.speaker.corpus import select
from greensv.speaker.dataset import Utterances
from greensv.speaker.embedding import embed
from greensv.speaker.features import Fbank, subtract_mean

MakeNetwork = Callable[[], nn.Module]


def embeddings_of(network: nn.Module, utterances: Utterances, **options: Any) -> np.ndarray:
    audio = options.pop("audio", None) or AudioStore(utterances)
    return embed(network, utterances, audio, features=FeatureConfig(), device=torch.device("cpu"), **options)


def test_an_utterance_in_a_batch_is_embedded_as_alone(tones: Utterances, make_network: MakeNetwork) -> None:
    network = make_network().eval()
    together = embeddings_of(network, tones)
    assert together.shape == (24, 12)
    assert together.dtype == np.float32
    assert np.abs(together).max() > 0.1
    audio = AudioStore(tones)
    for index in range(24):
        with torch.no_grad():
            features, _ = Fbank(FeatureConfig())(torch.from_numpy(audio.whole(index))[None])
            alone = network(subtract_mean(features), None)[0]
        assert together[index] == pytest.approx(alone.numpy(), abs=1e-4)


@pytest.mark.parametrize("max_batch_s", [0.01, 1.0, 1000.0])
def test_size_of_the_batches_does_not_show(max_batch_s: float, tones: Utterances, make_network: MakeNetwork) -> None:
    network, done = make_network(), []
    found = embeddings_of(network, tones, max_batch_s=max_batch_s, on_batch=lambda *counts: done.append(counts))
    assert found == pytest.approx(embeddings_of(network, tones), abs=1e-4)
    assert done[-1] == (24, 24)
    assert done == sorted(done)
    assert len(done) == {0.01: 24, 1000.0: 1}.get(max_batch_s, len(done))


def test_each_module_is_left_in_its_own_mode(tones: Utterances, make_network: MakeNetwork) -> None:
    network = make_network().train()
    network.norm.eval()
    statistics = network.norm.running_mean.clone()
    embeddings_of(network, tones)
    assert (network.training, network.norm.training, network.dropout.training) == (True, False, True)
    assert torch.equal(network.norm.running_mean, statistics)
    assert not any(parameter.is_inference() for parameter in network.parameters())


def test_what_on_batch_raises_passes_through_and_the_mode_is_restored(
    tones: Utterances, make_network: MakeNetwork
) -> None:
    network = make_network().train()

    def stop(num_done: int, num_utterances: int) -> None:
        raise InterruptedError(f"{num_done} of {num_utterances}")

    with pytest.raises(InterruptedError, match="1 of 24"):
        embeddings_of(network, tones, max_batch_s=0.01, on_batch=stop)
    assert network.training


def test_embedding_that_is_not_finite_names_the_utterance(tones: Utterances, make_network: MakeNetwork) -> None:
    network = make_network()
    with torch.no_grad():
        network.linear.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"utterance '0-0' is not finite \(so are 24 of 24\)"):
        embeddings_of(network, tones)


def test_utterance_without_a_frame_is_refused(tones: Utterances, make_network: MakeNetwork) -> None:
    short = dataclasses.replace(tones, num_samples=np.where(np.arange(24) == 7, 100, tones.num_samples))
    with pytest.raises(DataError, match=r"1-1\.wav \(utterance '1-1'\) has only 100 samples"):
        embeddings_of(make_network(), short)


def test_only_the_beginning_of_a_very_long_utterance_is_looked_at(
    tones: Utterances, make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network, few = make_network(), select(tones, [0, 1, 2])
    monkeypatch.setattr(embedding, "MAX_UTTERANCE_S", 0.25)
    with caplog.at_level(logging.WARNING):
        cut = embeddings_of(network, few)
    assert "3 utterances are longer than 0.25 s" in caplog.text

    class Beginnings(AudioStore):
        def crop(self, index: int, *, start: int, num_samples: int) -> Any:
            assert (start, num_samples) == (0, 4000)
            return super().crop(index, start=0, num_samples=4000)

    short = dataclasses.replace(few, num_samples=np.full(3, 4000))
    assert cut == pytest.approx(embeddings_of(network, short, audio=Beginnings(few)), abs=1e-6)


def test_bf16_embeddings_are_close_to_float32_ones(tones: Utterances, make_network: MakeNetwork) -> None:
    network = make_network()
    exact, rounded = (embeddings_of(network, tones, precision=precision) for precision in ("fp32", "bf16"))
    assert rounded.dtype == np.float32
    assert not np.array_equal(rounded, exact)
    assert np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()
