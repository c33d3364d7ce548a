import pytest
import torch
from torch import Tensor

from greensv.speaker.pooling import (
    at_least_float32,
    mean_and_deviation,
    mean_over_time,
    weighted_mean_and_deviation,
)

LENGTHS = (7, 4, 1)
PADDING = torch.arange(7)[None, None, :] >= torch.tensor(LENGTHS)[:, None, None]


@pytest.fixture
def sequence() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 + torch.randn(3, 5, 7, dtype=torch.float64, generator=generator)


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def padded(sequence: Tensor) -> Tensor:
    return sequence.masked_fill(PADDING, torch.nan)


def test_mean_is_that_of_the_valid_frames(sequence: Tensor) -> None:
    expected = torch.stack([item[:, :length].mean(dim=1) for item, length in zip(sequence, LENGTHS, strict=True)])
    torch.testing.assert_close(mean_over_time(padded(sequence), PADDING), expected)
    torch.testing.assert_close(mean_over_time(sequence, None), sequence.mean(dim=2))


def test_deviation_is_the_root_of_the_unbiased_variance_of_the_valid_frames(sequence: Tensor) -> None:
    mean, deviation = mean_and_deviation(sequence, None)
    torch.testing.assert_close(mean, sequence.mean(dim=2))
    torch.testing.assert_close(deviation, (sequence.var(dim=2) + 1e-7).sqrt())
    means, deviations = mean_and_deviation(padded(sequence), PADDING)
    for item, length in enumerate(LENGTHS):
        alone = mean_and_deviation(sequence[item : item + 1, :, :length], None)
        torch.testing.assert_close((means[item], deviations[item]), (alone[0][0], alone[1][0]))


def test_one_frame_deviates_by_next_to_nothing(sequence: Tensor) -> None:
    mean, deviation = mean_and_deviation(sequence[:, :, :1], None)
    assert torch.equal(mean, sequence[:, :, 0])
    torch.testing.assert_close(deviation, torch.full((3, 5), 1e-7**0.5, dtype=torch.float64))


def test_weights_are_the_softmax_over_the_valid_frames(sequence: Tensor, logits: Tensor) -> None:
    means, deviations = weighted_mean_and_deviation(padded(sequence), padded(logits), PADDING)
    for item, length in enumerate(LENGTHS):
        values, weights = sequence[item, :, :length], logits[item, :, :length].softmax(dim=1)
        mean = (weights * values).sum(dim=1)
        variance = (weights * values.square()).sum(dim=1) - mean.square()
        torch.testing.assert_close(means[item], mean)
        torch.testing.assert_close(deviations[item], variance.clamp(min=1e-7).sqrt())


def test_even_weights_give_the_biased_variance(sequence: Tensor) -> None:
    mean, deviation = weighted_mean_and_deviation(sequence, torch.zeros_like(sequence), None)
    torch.testing.assert_close(mean, sequence.mean(dim=2))
    torch.testing.assert_close(deviation, sequence.std(dim=2, correction=0))


@pytest.mark.parametrize("padding", [None, PADDING[:2]], ids=["whole", "padded"])
def test_gradients_are_those_of_finite_differences(sequence: Tensor, logits: Tensor, padding: Tensor | None) -> None:
    """No gradient flows through the mean inside a variance, since none has to."""
    inputs = (sequence[:2].requires_grad_(), logits[:2].requires_grad_())
    assert torch.autograd.gradcheck(lambda x, y: weighted_mean_and_deviation(x, y, padding), inputs)
    assert torch.autograd.gradcheck(lambda x: mean_and_deviation(x, padding), inputs[:1])


def test_half_precision_is_pooled_in_single(sequence: Tensor, logits: Tensor) -> None:
    half = sequence.to(torch.bfloat16)
    for statistic in (*mean_and_deviation(half, None), *weighted_mean_and_deviation(half, logits.bfloat16(), None)):
        assert statistic.dtype == torch.float32
    assert at_least_float32(sequence) is sequence
