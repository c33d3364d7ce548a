from typing import Any

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from greensv.config import Recipe
from greensv.speaker.training.optimizer import forget, make_optimizer, take_step

NO_SCALING = GradScaler("cpu", enabled=False)


def modules() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Linear(3, 2), nn.Linear(2, 2, bias=False)


def set_gradients(*owners: nn.Module, value: float = 1.0) -> None:
    for owner in owners:
        for parameter in owner.parameters():
            parameter.grad = torch.full_like(parameter, value)


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


@pytest.mark.parametrize(
    ("settings", "oracle", "arguments"),
    [
        ({"momentum": 0.8}, torch.optim.SGD, {"momentum": 0.8}),
        ({"nesterov": True}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ({"momentum": 0.0}, torch.optim.SGD, {}),
        ({"optimizer": "adamw", "betas": (0.8, 0.95)}, torch.optim.AdamW, {"betas": (0.8, 0.95)}),
    ],
)
def test_steps_are_those_of_torchs_plain_optimiser(settings: Any, oracle: type[Any], arguments: Any) -> None:
    network, head = modules()
    recipe = Recipe(weight_decay=0.1, head_weight_decay=0.25, **settings)
    optimizer = make_optimizer(recipe, network=network, head=head)
    set_rate(optimizer, 0.05)
    other_network, other_head = modules()
    groups = [
        {"params": list(other_network.parameters()), "weight_decay": 0.1},
        {"params": list(other_head.parameters()), "weight_decay": 0.025},
    ]
    expected = oracle(groups, lr=0.05, **arguments)
    for value in (1.0, -3.0, 0.5):
        set_gradients(network, head, other_network, other_head, value=value)
        take_step(optimizer, NO_SCALING, [*network.parameters()], max_gradient_norm=0.0)
        expected.step()
    for found, wanted in zip([network, head], [other_network, other_head], strict=True):
        assert torch.allclose(found.weight, wanted.weight, atol=1e-6)


@pytest.mark.parametrize(("max_norm", "length"), [(0.0, 12**0.5), (2.0, 2.0), (100.0, 12**0.5)])
def test_only_gradients_longer_than_the_norm_are_shortened(max_norm: float, length: float) -> None:
    network, head = modules()
    before = [parameter.detach().clone() for parameter in (*network.parameters(), *head.parameters())]
    optimizer = make_optimizer(Recipe(momentum=0.0, weight_decay=0.0), network=network, head=head)
    set_rate(optimizer, 1.0)
    set_gradients(network, head)
    parameters = [*network.parameters(), *head.parameters()]
    take_step(optimizer, NO_SCALING, parameters, max_gradient_norm=max_norm)
    moved = torch.cat([(old - new).flatten() for old, new in zip(before, parameters, strict=True)])
    assert moved.norm().item() == pytest.approx(length, rel=1e-4)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adamw"}, {"max_gradient_norm": 1.0}])
def test_a_step_that_overflowed_is_left_out_and_the_next_is_the_first(settings: Any) -> None:
    network, head = modules()
    recipe = Recipe(weight_decay=0.0, **settings)
    optimizer = make_optimizer(recipe, network=network, head=head)
    set_rate(optimizer, 0.1)
    before = network.weight.detach().clone()
    scaler = GradScaler("cpu", init_scale=8.0)
    parameters = [*network.parameters(), *head.parameters()]
    for value in (float("inf"), 4.0):
        scaler.scale(torch.zeros(()))
        set_gradients(network, head, value=value)
        take_step(optimizer, scaler, parameters, max_gradient_norm=recipe.max_gradient_norm)
        if value > 4:
            assert torch.equal(network.weight, before)
            assert scaler.get_scale() == 4.0
    other_network, other_head = modules()
    other = make_optimizer(recipe, network=other_network, head=other_head)
    set_rate(other, 0.1)
    set_gradients(other_network, other_head, value=1.0)
    others = [*other_network.parameters(), *other_head.parameters()]
    take_step(other, NO_SCALING, others, max_gradient_norm=recipe.max_gradient_norm)
    assert torch.allclose(network.weight, other_network.weight)
    assert not torch.equal(network.weight, before)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_what_is_forgotten_no_longer_moves_the_weights(name: Any) -> None:
    network, head = modules()
    optimizer = make_optimizer(Recipe(optimizer=name, weight_decay=0.0), network=network, head=head)
    set_rate(optimizer, 0.1)
    set_gradients(network, head, value=5.0)
    take_step(optimizer, NO_SCALING, [], max_gradient_norm=0.0)
    forget(optimizer)
    before = network.weight.detach().clone()
    set_gradients(network, head, value=0.0)
    take_step(optimizer, NO_SCALING, [], max_gradient_norm=0.0)
    assert torch.equal(network.weight, before)
