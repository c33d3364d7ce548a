"""The optimiser of a recipe, its step, and forgetting what it remembers."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD, AdamW, Optimizer

from greensv.config import Recipe


def make_optimizer(recipe: Recipe, *, network: nn.Module, head: nn.Module) -> Optimizer:
    """Returns the recipe's optimiser: biases and normalisations decay as all else does, the head with its own share.

    The learning rate is to be set before each step.
    """
    groups = [
        {"params": list(network.parameters()), "weight_decay": recipe.weight_decay},
        {"params": list(head.parameters()), "weight_decay": recipe.weight_decay * recipe.head_weight_decay},
    ]
    if recipe.optimizer == "adamw":
        return AdamW(groups, lr=0.0, betas=recipe.betas, fused=True)
    optimizer = SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)
    forget(optimizer)
    return optimizer


def forget(optimizer: Optimizer) -> None:
    """Drops the averages of past gradients, for weights that they are not of.

    Momentum starts from zeros that are written down: where the first step is left out because fp16 overflowed, the
    fused SGD of torch 2.11 would go on from memory that nothing was written to.
    """
    optimizer.state.clear()
    for group in optimizer.param_groups if isinstance(optimizer, SGD) else ():
        for parameter in group["params"] if group["momentum"] else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def take_step(
    optimizer: Optimizer, scaler: GradScaler, parameters: Iterable[nn.Parameter], *, max_gradient_norm: float
) -> None:
    """Moves the weights by their gradients, shortened to `max_gradient_norm` all together; 0: as they are.

    A step whose gradients overflowed in fp16 is left out, and the next losses are scaled by less. Nothing here waits
    for the device.
    """
    if max_gradient_norm:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, max_gradient_norm)
    scaler.step(optimizer)
    scaler.update()
