"""A network with its head, as one module that returns the loss: what several processes train together."""

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from greensv.speaker.device import Precision, autocast
from greensv.speaker.training.losses import MarginSoftmax


class Objective(nn.Module):
    """Features to loss, the network in `precision`, the head in fp32."""

    def __init__(self, network: nn.Module, head: MarginSoftmax, *, device: torch.device, precision: Precision) -> None:
        super().__init__()
        self.network, self.head = network, head
        self._device, self._precision = device, precision

    def forward(
        self,
        features: Float[Tensor, "batch frames features"],
        classes: Int[Tensor, "batch"],
        *,
        margin: float,
        num_classes: int,
    ) -> Float[Tensor, ""]:
        """Returns the mean loss of the batch; arguments as of `MarginSoftmax.forward`."""
        with autocast(self._device, self._precision):
            embeddings = self.network(features, None)
        return cast(Tensor, self.head(embeddings, classes, margin=margin, num_classes=num_classes))
