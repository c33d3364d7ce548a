"""The average of weights at the ends of several epochs (Izmailov et al. 2018, arXiv 1803.05407, without its cycles)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """A running sum of all numbers of a module: parameters, and buffers such as BatchNorm's statistics.

    The statistics are averaged too, as WeSpeaker does, rather than gathered anew in another pass over the data.

    Attributes:
        num_summed: how many times the module was added.
    """

    def __init__(self) -> None:
        self.num_summed = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, module: nn.Module) -> None:
        """Adds the module as it is now."""
        for name, values in _numbers(module).items():
            if name in self._sums:
                self._sums[name] += values
            else:
                self._sums[name] = values.clone()
        self.num_summed += 1

    def put_into(self, module: nn.Module) -> None:
        """Writes the average into the module, and forgets the sum. Whole numbers (counts) stay as they are."""
        for name, values in _numbers(module).items():
            values.copy_(self._sums[name] / self.num_summed)
        self.num_summed, self._sums = 0, {}

    def state_dict(self) -> dict[str, Any]:
        """Returns the sum; its tensors are the live ones."""
        return {"num_summed": self.num_summed, "sums": dict(self._sums)}

    def load_state_dict(self, state: Mapping[str, Any], *, device: torch.device) -> None:
        """Puts back what `state_dict` returned."""
        self.num_summed = int(state["num_summed"])
        self._sums = {name: values.to(device, copy=True) for name, values in state["sums"].items()}


def _numbers(module: nn.Module) -> dict[str, Tensor]:
    """The live tensors; a state dict's are detached already."""
    return {name: values for name, values in module.state_dict().items() if values.is_floating_point()}
