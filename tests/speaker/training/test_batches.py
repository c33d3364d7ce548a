import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greensv.config import FeatureConfig
from greensv.errors import DataError
from greensv.speaker.dataset import Utterances
from greensv.speaker.training.batches import check_sample_rate, plan_epoch, steps_per_epoch

LENGTHS = np.array([50, 100, 101, 150, 1000, 100_000, 99], dtype=np.int64)


@given(
    lengths=st.lists(st.integers(1, 10_000), min_size=2, max_size=60),
    batch_size=st.integers(2, 20),
    crop_samples=st.integers(1, 5_000),
    seed=st.integers(0, 2**63),
)
def test_every_crop_lies_inside_its_utterance_and_no_utterance_comes_twice(
    lengths: list[int], batch_size: int, crop_samples: int, seed: int
) -> None:
    batch_size = min(batch_size, len(lengths))
    num_samples = np.array(lengths, dtype=np.int64)
    plan = plan_epoch(num_samples, batch_size=batch_size, crop_samples=(crop_samples,), seed=seed, epoch=3)
    assert plan.utterances.shape == plan.starts.shape == (len(lengths) // batch_size, batch_size)
    assert len(np.unique(plan.utterances)) == plan.utterances.size
    assert (plan.starts >= 0).all()
    assert (plan.starts + crop_samples <= np.maximum(num_samples[plan.utterances], crop_samples)).all()


def test_plan_is_a_function_of_seed_and_epoch() -> None:
    def plan(seed: int, epoch: int) -> list[int]:
        made = plan_epoch(LENGTHS, batch_size=3, crop_samples=(20,), seed=seed, epoch=epoch)
        return [*made.utterances.ravel().tolist(), *made.starts.ravel().tolist()]

    assert plan(1, 2) == plan(1, 2)
    assert len({tuple(plan(*key)) for key in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]}) == 5


def test_crops_start_anywhere_with_equal_probability() -> None:
    lengths = np.full(40_000, 104, dtype=np.int64)
    starts = plan_epoch(lengths, batch_size=100, crop_samples=(100,), seed=0, epoch=0).starts.ravel()
    counts = np.bincount(starts)
    assert len(counts) == 5
    assert np.abs(counts - 8_000).max() < 4 * np.sqrt(8_000)


def test_utterances_left_out_differ_from_epoch_to_epoch() -> None:
    plans = [plan_epoch(LENGTHS, batch_size=4, crop_samples=(10,), seed=0, epoch=epoch) for epoch in range(20)]
    assert {int(i) for plan in plans for i in plan.utterances.ravel()} == set(range(7))


def test_steps_are_whole_batches() -> None:
    assert steps_per_epoch(7, batch_size=3) == 2
    assert steps_per_epoch(3, batch_size=3) == 1


def test_fewer_utterances_than_a_batch_say_what_to_lower() -> None:
    with pytest.raises(DataError, match=r"7 utterances, fewer than one batch of 8; lower recipe.batch_size to 7"):
        plan_epoch(LENGTHS, batch_size=8, crop_samples=(10,), seed=0, epoch=0)


def test_a_crop_has_room_for_what_its_speed_needs_and_all_speeds_are_as_likely() -> None:
    lengths = np.full(30_000, 110, dtype=np.int64)
    plan = plan_epoch(lengths, batch_size=100, crop_samples=(100, 90, 110), seed=0, epoch=0)
    counts = np.bincount(plan.speeds.ravel())
    assert np.abs(counts - 10_000).max() < 4 * np.sqrt(30_000 * 2 / 9)
    for speed, needed in enumerate((100, 90, 110)):
        starts = plan.starts[plan.speeds == speed]
        assert (starts.min(), starts.max()) == (0, 110 - needed)


def test_with_one_speed_the_crops_are_those_of_a_recipe_without_speeds() -> None:
    one = plan_epoch(LENGTHS, batch_size=3, crop_samples=(20,), seed=0, epoch=0)
    several = plan_epoch(LENGTHS, batch_size=3, crop_samples=(20, 20), seed=0, epoch=0)
    assert not one.speeds.any()
    assert np.array_equal(one.utterances, several.utterances)
    assert np.array_equal(one.starts, several.starts)


def test_another_sample_rate_than_the_features_is_refused(tones: Utterances) -> None:
    check_sample_rate(tones, FeatureConfig())
    with pytest.raises(DataError, match="16000 Hz, the features are for 8000 Hz"):
        check_sample_rate(tones, FeatureConfig(sample_rate_hz=8000))
