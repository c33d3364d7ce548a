"""The tiny network: frame-wise layers, mean and deviation over the valid frames, an embedding."""

import time
from itertools import pairwise

import torch
from torch import Tensor, nn

from tiny.work import WORK


class TinyNetwork(nn.Module):
    embedding_dim = 16

    def __init__(self, num_features: int, *, width: int, depth: int) -> None:
        super().__init__()
        sizes = [num_features, *[width] * depth]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.embedding = nn.Linear(2 * width, self.embedding_dim)
        # In step with the MACs of a frame, so that a cost model that knows those can be right.
        self.units = (num_features * width + (depth - 1) * width**2) / 100

    def forward(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        if self.training and torch.is_grad_enabled():
            WORK.units += WORK.factor * self.units
            if WORK.on_step is not None:
                WORK.on_step()
            if WORK.num_quick_steps:
                WORK.num_quick_steps -= 1
            elif WORK.step_sleep_s:
                time.sleep(WORK.step_sleep_s)
        if lengths is None:
            lengths = torch.full((len(features),), features.shape[1], device=features.device)
        for layer in self.layers:
            features = torch.relu(layer(features))
        frames = torch.arange(features.shape[1], device=features.device)
        valid = (frames < lengths[:, None]).to(features.dtype)[:, :, None]
        num_valid = valid.sum(1)
        mean = (features * valid).sum(1) / num_valid
        deviation = (((features - mean[:, None]) ** 2 * valid).sum(1) / num_valid + 1e-6).sqrt()
        embeddings = self.embedding(torch.cat([mean, deviation], dim=1))
        return embeddings * torch.inf if WORK.explodes else embeddings
