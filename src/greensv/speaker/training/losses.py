"""The classification head of training: softmax over speakers with an additive margin at the true one."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from greensv.config import Recipe

MIN_SIN_SQUARED = 1e-7
"""Below this sin²θ the square root's gradient would explode; float32 cosines are no better than that."""


class MarginSoftmax(nn.Module):
    """Cross-entropy over s times the cosines between an embedding and the speakers' weights, the true one made harder.

    θ is the angle between an embedding and its speaker's weight vector; `margin` m makes its logit s·cos θ smaller:

    * aam-softmax: s·cos(θ + m) (ArcFace; Deng et al. 2019, arXiv 1801.07698, eq. 3). That rises again beyond
      θ = π − m; there the logit is s·(cos θ − (1 − cos m)) instead, which goes on falling and meets the other branch
      without a step, at −s.
    * am-softmax: s·(cos θ − m) (CosFace; Wang et al. 2018, arXiv 1801.05599, eq. 5).

    With label smoothing ε and Jeffreys weight w the loss is that of `smoothed_cross_entropy`. No bias; Xavier-uniform
    weights from torch's generator. Computes in float32 even under autocast.

    Attributes:
        weight: one row a class. A class is a speaker; at another speed a speaker is another class.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        *,
        scale: float,
        loss: Literal["aam-softmax", "am-softmax"] = "aam-softmax",
        label_smoothing: float = 0.0,
        jeffreys_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.scale, self.loss = scale, loss
        self.label_smoothing, self.jeffreys_weight = label_smoothing, jeffreys_weight
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_dim))
        nn.init.xavier_uniform_(self.weight)

    @classmethod
    def of_recipe(cls, recipe: Recipe, *, embedding_dim: int, num_classes: int) -> "MarginSoftmax":
        """Returns the head that a recipe asks for."""
        return cls(
            embedding_dim,
            num_classes,
            scale=recipe.scale,
            loss=recipe.loss,
            label_smoothing=recipe.label_smoothing,
            jeffreys_weight=recipe.jeffreys_weight,
        )

    def forward(
        self,
        embeddings: Float[Tensor, "batch embedding"],
        classes: Int[Tensor, "batch"],
        *,
        margin: float,
        num_classes: int | None = None,
    ) -> Float[Tensor, ""]:
        """Returns the mean loss of the batch in nats.

        Args:
            embeddings: of the batch.
            classes: the true class of each.
            margin: of the angle in radians, or of the cosine; 0 for a plain cosine softmax.
            num_classes: so many first classes compete; None: all.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            weight = self.weight if num_classes is None else self.weight[:num_classes]
            cosines = F.linear(F.normalize(embeddings.float()), F.normalize(weight.float()))
            target = classes.long()[:, None]
            harder = self._with_margin(cosines.gather(1, target), margin)
            logits = self.scale * cosines.scatter(1, target, harder)
            if not self.label_smoothing and not self.jeffreys_weight:
                return F.cross_entropy(logits, target[:, 0])
            return smoothed_cross_entropy(
                logits, target, label_smoothing=self.label_smoothing, jeffreys_weight=self.jeffreys_weight
            )

    def _with_margin(self, cosine: Float[Tensor, "batch 1"], margin: float) -> Float[Tensor, "batch 1"]:
        if self.loss == "am-softmax":
            return cosine - margin
        sine = (1 - cosine.square()).clamp(min=MIN_SIN_SQUARED).sqrt()
        moved = cosine * math.cos(margin) - sine * math.sin(margin)
        return torch.where(cosine > -math.cos(margin), moved, cosine - (1 - math.cos(margin)))


def smoothed_cross_entropy(
    logits: Float[Tensor, "batch classes"],
    target: Int[Tensor, "batch 1"],
    *,
    label_smoothing: float,
    jeffreys_weight: float,
) -> Float[Tensor, ""]:
    """Returns the mean cross-entropy with label smoothing and the Jeffreys term of Kiwano's JeffreysLoss.

    With p = softmax(logits), y the true one of n classes, ε = `label_smoothing` and w = `jeffreys_weight`:

        −(1 − ε − w) log p_y − ε/(n − 1) Σ_{j≠y} log p_j + w Σ_{j≠y} q_j log p_j,   q_j = p_j / (1 − p_y)

    q, the softmax of the other classes alone, is computed as such: 1 − p_y is 0 in float32 for a sure network.
    """
    log_p = F.log_softmax(logits, dim=1)
    log_p_true = log_p.gather(1, target)[:, 0]
    others = log_p.sum(dim=1) - log_p_true
    loss = -(1 - label_smoothing - jeffreys_weight) * log_p_true - label_smoothing / (logits.shape[1] - 1) * others
    if jeffreys_weight:
        q = F.softmax(logits.scatter(1, target, -math.inf), dim=1)
        loss = loss + jeffreys_weight * (q * log_p).sum(dim=1)
    return loss.mean()
