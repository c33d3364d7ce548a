"""The classification head of training: softmax over speakers with an additive angular margin."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

MIN_SIN_SQUARED = 1e-7
"""Below this sin²θ the square root's gradient would explode; float32 cosines are no better than that."""


class AamSoftmax(nn.Module):
    """AAM-softmax (ArcFace; Deng et al. 2019, arXiv 1801.07698, eq. 3): cross-entropy of s·cos(θ + m) at the target.

    θ is the angle between an embedding and its speaker's weight vector. cos(θ + m) rises again beyond θ = π − m; there
    the target's logit is s·(cos θ − (1 − cos m)) instead, which goes on falling and meets the other branch without
    a step, at −s. No bias; Xavier-uniform weights from torch's generator. Computes in float32 even under autocast.
    """

    def __init__(self, embedding_dim: int, num_speakers: int, *, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_speakers, embedding_dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(
        self, embeddings: Float[Tensor, "batch embedding"], speakers: Int[Tensor, "batch"], *, margin: float
    ) -> Float[Tensor, ""]:
        """Returns the mean loss of the batch in nats; `margin` is in radians, 0 for a plain cosine softmax."""
        with torch.autocast(embeddings.device.type, enabled=False):
            cosines = F.linear(F.normalize(embeddings.float()), F.normalize(self.weight.float()))
            target = speakers.long()[:, None]
            logits = cosines.scatter(1, target, _with_margin(cosines.gather(1, target), margin))
            return F.cross_entropy(self.scale * logits, target[:, 0])


def _with_margin(cosine: Float[Tensor, "batch 1"], margin: float) -> Float[Tensor, "batch 1"]:
    sine = (1 - cosine.square()).clamp(min=MIN_SIN_SQUARED).sqrt()
    moved = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine > -math.cos(margin), moved, cosine - (1 - math.cos(margin)))
