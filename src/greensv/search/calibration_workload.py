"""The reference workload of `greensv calibrate`: the paper's narrowest ResNet, trained on always the same noise.

It is apart from greensv's own training on purpose: a unit that changed when training became faster would be none. A
change of anything here, or of what `resnet` builds for these parameters, is a new workload with a new name.
"""

from typing import TYPE_CHECKING, Any

from greensv.config import FeatureConfig
from greensv.plugins import Plugins

if TYPE_CHECKING:
    import torch

NAME = "greensv-resnet-1"
SYSTEM = "ResNet-50-W0.25"
"""Blocks 3-4-6-3 of three convolutions each, channels 32-32-64-64, 1.3 million parameters."""
STEPS_PER_UNIT = 10
"""A reference unit is the energy of so many steps, of 160 crops in all."""
BATCH_SIZE = 16
NUM_FRAMES = 200
NUM_CLASSES = 1000
LEARNING_RATE = 0.01
MOMENTUM = 0.9
SEED = 20_250_101


class ReferenceWorkload:
    """Steps of stochastic gradient descent in fp32: forward, cross-entropy over a linear head, backward, update.

    The batch is made once and stays on the device, so that nothing is read and nothing is copied.
    """

    def __init__(self, plugins: Plugins, device: "torch.device") -> None:
        """Makes network and batch; torch's own generators are left as they were.

        Args:
            plugins: with the built-in `resnet`.
            device: computes.
        """
        import torch

        from greensv.speaker.device import forked_generators
        from greensv.speaker.memory import keep_freed_memory

        if device.type == "cpu":
            keep_freed_memory()
        features = FeatureConfig()
        backbone: Any = plugins.get("backbone", "resnet")
        with forked_generators(device):
            torch.manual_seed(SEED)
            network = backbone.build(backbone.systems()[SYSTEM], features=features)
            self._network = network.to(device).train()
            self._head = torch.nn.Linear(network.embedding_dim, NUM_CLASSES).to(device)
            self._batch = torch.randn(BATCH_SIZE, NUM_FRAMES, features.num_features).to(device)
            self._classes = torch.randint(NUM_CLASSES, (BATCH_SIZE,)).to(device)
        weights = [*self._network.parameters(), *self._head.parameters()]
        self._optimizer = torch.optim.SGD(weights, lr=LEARNING_RATE, momentum=MOMENTUM)
        self._device = device

    def step(self) -> "torch.Tensor":
        """Takes one step; returns its loss, still on the device."""
        from torch.nn.functional import cross_entropy

        self._optimizer.zero_grad()
        loss = cross_entropy(self._head(self._network(self._batch, None)), self._classes)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach()

    def wait(self) -> None:
        """Waits until the device has done all steps."""
        from greensv.speaker.device import synchronise

        synchronise(self._device)
