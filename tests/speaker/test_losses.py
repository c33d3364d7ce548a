import math

import pytest
import torch

from greensv.speaker.losses import AamSoftmax


def head_with(weights: list[list[float]], scale: float = 30.0) -> AamSoftmax:
    head = AamSoftmax(len(weights[0]), len(weights), scale=scale)
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
    embeddings, speakers, head = torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 1]), AamSoftmax(3, 4, scale=20.0)
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
    assert sum(parameter.numel() for parameter in AamSoftmax(256, 5994, scale=30.0).parameters()) == 256 * 5994


def test_computes_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    embeddings, speakers, head = torch.randn(8, 16), torch.arange(8), AamSoftmax(16, 8, scale=30.0)
    expected = head(embeddings, speakers, margin=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(embeddings, speakers, margin=0.2)
    assert found.dtype == torch.float32
    assert found.item() == expected.item()
