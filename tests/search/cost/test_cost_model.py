import math

import pytest
import torch

from greensv.search.cost import CostModel, Measured, Prediction, Work
from greensv.search.cost.model import MAX_MARGIN, MIN_MARGIN, interval
from greensv.search.cost.priors import CUDA, of_device


def work(gmac: float) -> Work:
    return Work(macs=1e9 * gmac, activations=1e8 * gmac, num_layers=30)


def measured(gmac: float, joules: float, seconds: float = 1.0) -> Measured:
    return Measured(work=work(gmac), joules=joules, seconds=seconds)


def test_costs_are_in_proportion_to_the_speech():
    model = CostModel([measured(2.0, 10.0, seconds=0.5)])
    found = model.predict(work(2.0), speech_s=7.0)
    assert found.energy_j == pytest.approx(70.0, rel=1e-3)
    assert found.duration_s == pytest.approx(3.5, rel=1e-3)


def test_many_predictions_have_each_their_own_speech():
    model = CostModel([measured(2.0, 10.0)])
    model.add(measured(4.0, 21.0))
    works = [work(1.0), work(2.0), work(3.0)]
    assert model.predict_many(works, speech_s=[1.0, 10.0, 100.0]) == [
        model.predict(one, speech_s=speech_s) for one, speech_s in zip(works, (1.0, 10.0, 100.0), strict=True)
    ]


def test_the_upper_bound_lies_two_deviations_above_within_its_limits():
    for model in (
        CostModel([measured(2.0, 10.0)]),
        CostModel([measured(0.1 * n, 0.5 * n) for n in range(1, 200)]),
        CostModel([measured(1.0, 1.0), measured(1.0, 1e6), measured(1.0, 1e-6)]),
    ):
        found = model.predict(work(2.0), speech_s=1.0)
        expected = min(max(math.exp(2 * found.log_std), MIN_MARGIN), MAX_MARGIN)
        assert found.upper_j / found.energy_j == pytest.approx(expected)


def test_the_interval_narrows_as_measurements_agree_and_stays_wide_where_they_scatter():
    agreeing = CostModel([measured(2.0**n, 3.0 * 2.0**n) for n in range(-3, 5)])
    scattered = CostModel([measured(2.0**n, (6.0 if n % 2 else 1.5) * 2.0**n) for n in range(-3, 5)])
    first = CostModel([measured(2.0, 6.0)]).predict(work(1.0), speech_s=1.0)
    assert agreeing.predict(work(1.0), speech_s=1.0).log_std < first.log_std
    assert scattered.predict(work(1.0), speech_s=1.0).log_std > 0.5


def test_other_studies_count_as_measured_but_not_as_the_studys_own():
    model = CostModel()
    model.add_elsewhere(measured(2.0, 10.0), offsets={"study x": 0.1})
    assert model.measured == []
    assert model.num_measured == 1
    assert model.predict(work(2.0), speech_s=1.0).energy_j == pytest.approx(10.0, rel=1e-3)


def test_an_interval_reaches_as_far_to_either_side_as_a_factor():
    low, high = interval(10.0, 0.5)
    assert low * high == pytest.approx(100.0)
    assert high == pytest.approx(10.0 * math.exp(0.98))
    found = Prediction(energy_j=10.0, upper_j=20.0, duration_s=4.0, log_std=0.5)
    assert found.energy_interval_j == pytest.approx((low, high))
    assert found.duration_interval_s == (4.0, 4.0)


def test_a_gpu_starts_from_the_papers_table():
    assert of_device(torch.device("cuda")) is CUDA
    assert of_device(torch.device("cpu")) is not CUDA
    # ResNet-50-D: 50.755 GMACs, 194.4 million kept values and 69 layers a crop of 3.5 s; 51.69 kWh for 42 epochs.
    crop = Work(macs=50.755e9 / 3.5, activations=194.4e6 / 3.5, num_layers=69)
    speech_s = 42 * 1_092_009 * 3.5
    found = CostModel(prior=CUDA, is_prior_absolute=True).joules.predict(crop)[0] * speech_s / 3.6e6
    assert found == pytest.approx(51.69, rel=0.25)
