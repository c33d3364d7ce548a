import math

import pytest
import torch

from greensv.config import Recipe
from greensv.speaker.training.losses import MarginSoftmax, smoothed_cross_entropy


def head_with(weights: list[list[float]], scale: float = 30.0) -> MarginSoftmax:
    head = MarginSoftmax(len(weights[0]), len(weights), scale=scale)
    with torch.no_grad():
        head.weight.copy_(torch.tensor(weights))
    return head


def at_angle(angle: float, length: float = 1.0) -> torch.Tensor:
    return torch.tensor([[length * math.cos(angle), length * math.sin(angle)]])


TARGET = torch.tensor([0])


@pytest.mark.parametrize("angle", [0.1, 0.7, 1.5, 2.5])
def test_loss_is_cross_entropy_of_the_moved_angle(angle: float) -> None:
    head = head_with([[2.0, 0.0], [0.0, 0.5]], scale=8.0)
    loss = head(at_angle(angle, length=3.0), TARGET, margin=0.3)
    target, other = 8 * math.cos(angle + 0.3), 8 * math.cos(math.pi / 2 - angle)
    assert loss.item() == pytest.approx(math.log1p(math.exp(other - target)), rel=1e-4, abs=1e-5)


def test_without_margin_it_is_a_cosine_softmax() -> None:
    torch.manual_seed(0)
    embeddings, speakers, head = torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 1]), MarginSoftmax(3, 4, scale=20.0)
    cosines = torch.cosine_similarity(embeddings[:, None], head.weight[None], dim=2)
    expected = torch.nn.functional.cross_entropy(20.0 * cosines, speakers)
    assert head(embeddings, speakers, margin=0.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_target_logit_goes_on_falling_beyond_pi_minus_margin_without_a_step() -> None:
    head, margin = head_with([[1.0, 0.0], [0.0, 0.0]], scale=1.0), 0.4
    # The other speaker's zero weights give logit 0, so the loss tells the target's logit: loss = log(1 + e^-logit).
    angles = [math.pi - margin + step for step in (-0.2, -0.1, -1e-3, 1e-3, 0.1, 0.2, 0.39)]
    logits = [-math.log(math.expm1(head(at_angle(angle), TARGET, margin=margin).item())) for angle in angles]
    assert logits == sorted(logits, reverse=True)
    assert logits[2] == pytest.approx(-1.0, abs=2e-3)
    assert logits[3] == pytest.approx(-1.0, abs=2e-3)
    assert logits[5] == pytest.approx(math.cos(angles[5]) - (1 - math.cos(margin)), abs=1e-4)


@pytest.mark.parametrize("angle", [0.0, math.pi])
def test_gradient_is_finite_where_the_sine_vanishes(angle: float) -> None:
    head, embedding = head_with([[1.0, 0.0], [0.0, 1.0]]), at_angle(angle).requires_grad_()
    head(embedding, TARGET, margin=0.2).backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()


def test_margin_makes_the_loss_larger() -> None:
    head = head_with([[1.0, 0.0], [0.0, 1.0]])
    assert head(at_angle(0.7), TARGET, margin=0.2) > head(at_angle(0.7), TARGET, margin=0.0)


def test_head_has_one_weight_per_speaker_and_dimension_and_no_bias() -> None:
    assert sum(parameter.numel() for parameter in MarginSoftmax(256, 5994, scale=30.0).parameters()) == 256 * 5994


def test_computes_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    embeddings, speakers, head = torch.randn(8, 16), torch.arange(8), MarginSoftmax(16, 8, scale=30.0)
    expected = head(embeddings, speakers, margin=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(embeddings, speakers, margin=0.2)
    assert found.dtype == torch.float32
    assert found.item() == expected.item()


@pytest.mark.parametrize("angle", [0.1, 1.5, 3.0])
def test_am_softmax_takes_the_margin_from_the_cosine(angle: float) -> None:
    head = MarginSoftmax(2, 2, scale=8.0, loss="am-softmax")
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
    loss = head(at_angle(angle), TARGET, margin=0.3)
    target, other = 8 * (math.cos(angle) - 0.3), 8 * math.cos(math.pi / 2 - angle)
    assert loss.item() == pytest.approx(math.log1p(math.exp(other - target)), rel=1e-4, abs=1e-5)


def test_only_the_first_classes_compete_where_told() -> None:
    torch.manual_seed(0)
    embeddings, speakers = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    head, small = MarginSoftmax(3, 6, scale=20.0), MarginSoftmax(3, 2, scale=20.0)
    with torch.no_grad():
        small.weight.copy_(head.weight[:2])
    loss = head(embeddings, speakers, margin=0.2, num_classes=2)
    assert loss.item() == small(embeddings, speakers, margin=0.2).item()
    loss.backward()
    assert head.weight.grad is not None
    assert head.weight.grad[:2].abs().min() > 0
    assert not head.weight.grad[2:].any()


@pytest.mark.parametrize(("smoothing", "jeffreys"), [(0.1, 0.025), (0.1, 0.0), (0.0, 0.3)])
def test_smoothing_and_jeffreys_term_are_those_of_the_formula(smoothing: float, jeffreys: float) -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.4]], dtype=torch.float64)
    total = 0.0
    for row, true in zip(logits.tolist(), (0, 1), strict=True):
        p = [math.exp(value) / sum(map(math.exp, row)) for value in row]
        others = [j for j in range(3) if j != true]
        total -= (1 - smoothing - jeffreys) * math.log(p[true])
        total -= smoothing / 2 * sum(math.log(p[j]) for j in others)
        total += jeffreys * sum(p[j] * math.log(p[j]) for j in others) / (1 - p[true])
    found = smoothed_cross_entropy(
        logits, torch.tensor([[0], [1]]), label_smoothing=smoothing, jeffreys_weight=jeffreys
    )
    assert found.item() == pytest.approx(total / 2)


def test_jeffreys_term_of_a_sure_network_is_finite_and_has_a_gradient() -> None:
    logits = torch.full((1, 4), -1.0)
    logits[0, 2] = 300.0
    logits.requires_grad_()
    loss = smoothed_cross_entropy(logits, torch.tensor([[2]]), label_smoothing=0.0, jeffreys_weight=0.1)
    loss.backward()
    # All the others are alike, so each has a third of what is left, and a log-probability of -301.
    assert loss.item() == pytest.approx(-30.1)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_head_of_a_recipe_is_as_the_recipe_says() -> None:
    recipe = Recipe(scale=20.0, loss="am-softmax", label_smoothing=0.1, jeffreys_weight=0.025)
    head = MarginSoftmax.of_recipe(recipe, embedding_dim=3, num_classes=6)
    assert head.weight.shape == (6, 3)
    assert (head.scale, head.loss, head.label_smoothing, head.jeffreys_weight) == (20.0, "am-softmax", 0.1, 0.025)
    cosine = torch.cosine_similarity(torch.ones(1, 3), head.weight) - torch.tensor([0.2, 0, 0, 0, 0, 0])
    expected = smoothed_cross_entropy(
        20.0 * cosine[None], torch.tensor([[0]]), label_smoothing=0.1, jeffreys_weight=0.025
    )
    assert head(torch.ones(1, 3), TARGET, margin=0.2).item() == pytest.approx(expected.item(), rel=1e-5)
