"""A small corpus of sung tones and a small network, for tests of training and embedding."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.dataset import Utterances

NUM_SPEAKERS, NUM_UTTERANCES = 4, 6


class TinyNetwork(nn.Module):
    """A convolution with batch normalisation, a mean over valid frames, dropout: all that resuming can get wrong."""

    embedding_dim = 12

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.LazyLinear(self.embedding_dim)

    def forward(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        maps = torch.relu(self.norm(self.conv(features[:, None])))
        num_frames = maps.shape[2]
        if lengths is None:
            lengths = torch.full((len(features),), features.shape[1], device=features.device)
        valid = (torch.arange(num_frames, device=maps.device) < (lengths[:, None] + 1) // 2).to(maps.dtype)
        mean = (maps * valid[:, None, :, None]).sum(2) / valid.sum(1)[:, None, None]
        return self.linear(self.dropout(mean.flatten(1)))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """One thread is quicker for small tensors, and does not fight for cores with other work on the machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def make_network() -> Callable[[], nn.Module]:
    """Builds the same network, initial weights included, each time."""

    def make() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            network = TinyNetwork()
            network.eval()(torch.zeros(1, 20, 81), None)
        return network.train()

    return make


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Utterances:
    """Four speakers of six utterances, each speaker a chord of their own in noise; 0.3 s to 0.8 s at 16 kHz."""
    root: Path = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(1)
    paths, speakers, lengths = [], [], []
    for speaker in range(NUM_SPEAKERS):
        for number in range(NUM_UTTERANCES):
            lengths.append(int(rng.integers(4_800, 12_800)))
            time_s = np.arange(lengths[-1]) / 16_000
            chord = sum(np.sin(2 * np.pi * pitch * (speaker + 2) * time_s + rng.uniform(0, 6)) for pitch in (150, 370))
            paths.append(str(root / f"{speaker}-{number}.wav"))
            speakers.append(f"speaker{speaker}")
            # On and off: what lasts through an utterance leaves with its features' mean.
            chord *= np.sin(2 * np.pi * 7 * time_s + rng.uniform(0, 6)) > 0
            soundfile.write(paths[-1], 0.2 * chord + rng.normal(0, 0.02, lengths[-1]), 16_000)
    return build_utterances(
        ids=[Path(path).stem for path in paths], paths=paths, speaker_of=speakers, num_samples=np.array(lengths)
    )
