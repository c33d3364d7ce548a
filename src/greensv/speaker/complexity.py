"""What a network costs before it runs: parameters, multiply-accumulates, activations, layers; and what it keeps.

Counted without computing, on no device.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from greensv.config import FeatureConfig

NUM_FRAMES = 350
"""Frames at which MACs are stated: 3.5 s, the crop of the paper."""
NUM_SPEAKERS = 5_994
"""Speakers of VoxCeleb2's development part: the rows of the head that published parameter counts include."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complexity:
    """The size of a network; MACs and activations are for one item of `num_frames` frames."""

    num_parameters: int
    """Of the extractor, from features to the embedding."""
    num_parameters_with_head: int
    """With a head of `num_speakers` rows and no bias."""
    macs: int
    """Multiply-accumulates of all matrix products and convolutions of the extractor."""
    activations: int
    """Values that convolutions and linear layers put out."""
    num_layers: int
    """How often a convolution or a linear layer runs: the depth, each run costing time of its own however small."""
    kept_values: int
    """Values that a training step keeps for the gradients, weights not counted: what it needs memory for, and moves."""
    embedding_dim: int
    num_frames: int = NUM_FRAMES
    num_speakers: int = NUM_SPEAKERS


def describe_network(
    build: Callable[[], nn.Module],
    *,
    features: FeatureConfig,
    num_frames: int = NUM_FRAMES,
    num_speakers: int = NUM_SPEAKERS,
) -> Complexity:
    """Returns the complexity of the network `build` returns, which is built without memory for its weights.

    Args:
        build: returns the network; called with the meta device as torch's default.
        features: what the network is built for.
        num_frames: frames of the item that MACs and activations are counted for.
        num_speakers: rows of the head in `num_parameters_with_head`.
    """
    with torch.device("meta"):
        network = build()
    size, embedding_dim = num_parameters(network), int(network.embedding_dim)  # type: ignore[arg-type]
    counts = _count(network, num_features=features.num_features, num_frames=num_frames)
    return Complexity(
        num_parameters=size,
        num_parameters_with_head=size + num_speakers * embedding_dim,
        macs=counts.macs,
        activations=sum(counts.outputs),
        num_layers=len(counts.outputs),
        kept_values=max(counts.kept_values, sum(counts.outputs)),
        embedding_dim=embedding_dim,
        num_frames=num_frames,
        num_speakers=num_speakers,
    )


def num_parameters(network: nn.Module) -> int:
    """Returns the number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, *, num_features: int, num_frames: int = NUM_FRAMES) -> int:
    """Returns the multiply-accumulates of one item in evaluation mode; nothing is computed, on no device.

    Those are half the FLOPs torch counts: convolutions, linear layers and other matrix products. Element-wise
    operations are left out, as everywhere in the field.
    """
    return _count(network, num_features=num_features, num_frames=num_frames).macs


def count_activations(network: nn.Module, *, num_features: int, num_frames: int = NUM_FRAMES) -> int:
    """Returns how many values the network's convolutions and linear layers put out for one item."""
    return sum(_count(network, num_features=num_features, num_frames=num_frames).outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """What one item costs; `outputs` are the values that each layer puts out, in the order they run."""

    macs: int
    outputs: list[int]
    kept_values: int


def _count(network: nn.Module, *, num_features: int, num_frames: int) -> _Counts:
    # The tensors' shapes are enough; meta copies take no memory and leave the network as it is.
    shadows = {name: tensor.detach().to("meta") for name, tensor in network.named_buffers()}
    for name, parameter in network.named_parameters():
        shadows[name] = parameter.detach().to("meta").requires_grad_(parameter.requires_grad)
    item = torch.empty(1, num_frames, num_features, device="meta")
    with (
        _evaluating(network),
        torch.enable_grad(),
        _recording_outputs(network) as sizes,
        _recording_kept(shadows.values()) as kept,
        FlopCounterMode(display=False) as counter,
    ):
        functional_call(network, shadows, (item, None))
    num_kept = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // item.element_size()
    return _Counts(macs=counter.get_total_flops() // 2, outputs=sizes, kept_values=num_kept)


@contextmanager
def _recording_kept(weights: Iterable[Tensor]) -> Iterator[dict[int, Tensor]]:
    """Yields the tensors that autograd saves in the block, by their storage: each counts once, weights do not.

    In evaluation mode the same are saved as in training mode, but for the masks of dropout.
    """
    known = {_storage_id(tensor) for tensor in weights}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage_id(tensor) not in known:
            kept.setdefault(_storage_id(tensor), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def _storage_id(tensor: Tensor) -> int:
    identity: int = tensor.untyped_storage()._cdata
    return identity


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: batch normalisation refuses a single item in training mode."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _recording_outputs(network: nn.Module) -> Iterator[list[int]]:
    sizes: list[int] = []

    def record(module: nn.Module, inputs: object, output: Tensor) -> None:
        sizes.append(output.numel())

    layers = [module for module in network.modules() if isinstance(module, _ConvNd | nn.Linear)]
    handles = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()
