import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from greensv.builtin.backbones.ecapa_tdnn import EcapaTdnn
from greensv.builtin.backbones.resnet import ResNet
from greensv.builtin.backbones.x_vector import XVector
from greensv.config import FeatureConfig
from greensv.errors import DataError, TrainingError
from greensv.speaker import embedding, space
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.corpora.corpus import select
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


def test_padding_is_told_of_where_there_is_some_and_nowhere_else(tones: Utterances, make_network: MakeNetwork) -> None:
    seen: list[Any] = []
    network = make_network()
    network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    embeddings_of(network, tones, max_batch_s=0.01)
    assert seen == [None] * 24
    seen.clear()
    embeddings_of(network, tones, max_batch_s=1000)
    assert sorted(seen[0].tolist(), reverse=True) == seen[0].tolist()


class CountingStore(AudioStore):
    def __init__(self, utterances: Utterances, bad: tuple[int, ...] = ()) -> None:
        super().__init__(utterances)
        self.read: list[int] = []
        self.bad = bad

    def crop(self, index: int, *, start: int, num_samples: int) -> Any:
        self.read.append(index)
        if index in self.bad:
            raise DataError(f"{self.utterances.paths[index]} is damaged")
        return super().crop(index, start=start, num_samples=num_samples)


def test_file_of_several_utterances_is_computed_once(tones: Utterances, make_network: MakeNetwork) -> None:
    order = [3, 5, 3, 7, 5, 3]
    repeated = dataclasses.replace(
        select(tones, order), ids=tuple("abcdef"), num_samples=tones.num_samples[np.array(order)]
    )
    store, done = CountingStore(repeated), []
    network = make_network()
    found = embeddings_of(network, repeated, audio=store, max_batch_s=0.01, on_batch=lambda *n: done.append(n))
    assert sorted(store.read) == [0, 1, 3]
    assert found == pytest.approx(embeddings_of(network, tones)[order], abs=1e-4)
    assert np.array_equal(found[0], found[2])
    assert done[-1] == (6, 6)


def test_unreadable_utterance_stops_everything_unless_somebody_takes_it(
    tones: Utterances, make_network: MakeNetwork
) -> None:
    network = make_network()
    short = dataclasses.replace(tones, num_samples=np.where(np.arange(24) == 7, 159, tones.num_samples))
    with pytest.raises(DataError, match=r"1-2\.wav is damaged"):
        embeddings_of(network, tones, audio=CountingStore(tones, bad=(8,)))
    taken: dict[int, str] = {}
    found = embeddings_of(
        network,
        short,
        audio=CountingStore(short, bad=(8, 20)),
        on_unreadable=lambda index, error: taken.update({index: str(error)}),
    )
    assert sorted(taken) == [7, 8, 20]
    assert "has only 159 samples, fewer than the 160 of a frame" in taken[7]
    assert "1-2.wav is damaged" in taken[8]
    good = np.setdiff1d(np.arange(24), [7, 8, 20])
    assert np.isnan(found[[7, 8, 20]]).all()
    assert found[good] == pytest.approx(embeddings_of(network, tones)[good], abs=1e-4)


def test_batch_of_which_nothing_can_be_read_is_no_batch(tones: Utterances, make_network: MakeNetwork) -> None:
    store, taken = CountingStore(tones, bad=tuple(range(24))), []
    found = embeddings_of(make_network(), tones, audio=store, on_unreadable=lambda index, _: taken.append(index))
    assert sorted(taken) == list(range(24))
    assert np.isnan(found).all()


def test_silent_files_are_embedded_and_named(
    tones: Utterances, make_network: MakeNetwork, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "offset.wav", np.full(5_000, 0.25), 16_000)
    two = dataclasses.replace(
        select(tones, [0, 1]),
        paths=(tones.paths[0], str(tmp_path / "offset.wav")),
        num_samples=np.array([4_800, 5_000]),
    )
    with caplog.at_level(logging.WARNING):
        found = embeddings_of(make_network(), two)
    assert np.isfinite(found).all()
    assert f"1 files are silent, and their embeddings tell nothing: {tmp_path / 'offset.wav'}" in caplog.text


REAL = [(ResNet(), {"block": "basic-2"}), (ResNet(), {"block": "bottleneck"}), (EcapaTdnn(), {}), (XVector(), {})]


@pytest.mark.parametrize(("backbone", "changes"), REAL, ids=["resnet", "bottleneck", "ecapa-tdnn", "x-vector"])
def test_real_networks_embed_alike_in_a_batch_and_alone(backbone: Any, changes: Any, tones: Utterances) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = backbone.build({**space.lowest(backbone.space()), **changes}, features=FeatureConfig())
        with torch.no_grad():  # statistics of training, other than those of a new network
            network.train()(torch.randn(8, 60, 81), None)
    few = select(tones, range(0, 24, 3))
    together, alone = (embeddings_of(network, few, max_batch_s=size) for size in (1000.0, 0.01))
    assert np.abs(alone).max() > 0.01
    assert np.abs(together - alone).max() < 1e-4


def test_bf16_embeddings_are_close_to_float32_ones(tones: Utterances, make_network: MakeNetwork) -> None:
    network = make_network()
    exact, rounded = (embeddings_of(network, tones, precision=precision) for precision in ("fp32", "bf16"))
    assert rounded.dtype == np.float32
    assert not np.array_equal(rounded, exact)
    assert np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()
