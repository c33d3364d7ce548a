import copy

import torch
from torch import nn

from greensv.speaker.training.averaging import WeightAverage


def moved(module: nn.Module, by: int) -> None:
    with torch.no_grad():
        for values in module.state_dict().values():
            values.add_(int(by))


def test_parameters_and_statistics_are_averaged_and_counts_kept() -> None:
    module, average = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), WeightAverage()
    first = copy.deepcopy(module.state_dict())
    for by in (0, 1, 4):
        moved(module, by)
        average.add(module)
    average.put_into(module)
    # 0, 1 and 5 above the first; the count of batches is no weight and stays at the last.
    for name, values in module.state_dict().items():
        expected = first[name] + (5 if name == "1.num_batches_tracked" else 2)
        assert torch.allclose(values, expected), name
    assert average.num_summed == 0


def test_a_sum_is_a_copy_that_training_on_does_not_change() -> None:
    module, average = nn.Linear(3, 2), WeightAverage()
    weight = module.weight.detach().clone()
    average.add(module)
    moved(module, 7)
    average.put_into(module)
    assert torch.equal(module.weight, weight)


def test_an_average_that_was_saved_goes_on() -> None:
    module, whole, first, second = nn.Linear(3, 2), WeightAverage(), WeightAverage(), WeightAverage()
    for average in (whole, first):
        average.add(module)
    state = copy.deepcopy(first.state_dict())
    moved(module, 3)
    second.load_state_dict(state, device=torch.device("cpu"))
    for average in (whole, second):
        average.add(module)
    assert second.num_summed == 2
    found, expected = copy.deepcopy(module), copy.deepcopy(module)
    second.put_into(found)
    whole.put_into(expected)
    assert torch.equal(found.weight, expected.weight)
