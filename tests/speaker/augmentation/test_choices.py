import numpy as np
import pytest

from greensv.config import Augmentation
from greensv.config.study import Disturbance
from greensv.speaker.augmentation.choices import NUM_PARAMETERS, choose, num_columns, pick

KIWANO = Augmentation(
    disturbances=(
        Disturbance(kind="music", probability=0.2, snr_db=(5, 15)),
        Disturbance(kind="speech", probability=0.2, snr_db=(13, 20), num_files=(3, 7)),
        Disturbance(kind="noise", probability=0.2, snr_db=(0, 15)),
        Disturbance(kind="reverb", probability=0.2),
    )
)


def uniform(config: Augmentation, num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((num, num_columns(config)))


def test_each_way_takes_its_share_and_the_rest_stays_as_it_is():
    sounds = choose(KIWANO, uniform(KIWANO, 50_000))
    crops = [set(way.rows.tolist()) for way in sounds]
    assert [len(rows) / 50_000 for rows in crops] == pytest.approx([0.2] * 4, abs=0.01)
    assert len(set.union(*crops)) == sum(map(len, crops))  # no crop is disturbed in two ways


def test_the_first_number_of_a_crop_says_which_way():
    numbers = np.full((6, num_columns(KIWANO)), 0.5)
    numbers[:, 0] = [0.0, 0.19, 0.21, 0.41, 0.79, 0.81]
    assert [sorted(set(way.rows.tolist())) for way in choose(KIWANO, numbers)] == [[0, 1], [2], [3], [4]]


def test_ratios_are_uniform_between_their_bounds():
    ratios = choose(KIWANO, uniform(KIWANO, 50_000))[0].snr_db
    assert ratios.min() == pytest.approx(5, abs=0.01)
    assert ratios.max() == pytest.approx(15, abs=0.01)
    assert np.histogram(ratios, bins=10)[0] / len(ratios) == pytest.approx(np.full(10, 0.1), abs=0.015)


def test_babble_has_three_to_seven_sounds_each_number_as_often_and_no_two_alike():
    babble = choose(KIWANO, uniform(KIWANO, 50_000))[1]
    rows, nums = np.unique(babble.rows, return_counts=True)
    assert np.bincount(nums)[3:] / len(rows) == pytest.approx(np.full(5, 0.2), abs=0.02)
    assert len(np.unique(babble.which)) == len(babble)
    assert len(np.unique(babble.snr_db)) == len(babble)


def test_each_sound_gets_numbers_to_be_made_from():
    config = Augmentation(disturbances=(Disturbance(kind="reverb", probability=1.0),))
    (rooms,) = choose(config, uniform(config, 10))
    assert rooms.rows.tolist() == list(range(10))
    assert rooms.parameters.shape == (10, NUM_PARAMETERS)
    assert len(np.unique(rooms.parameters)) == rooms.parameters.size


def test_a_part_of_the_crops_is_chosen_for_as_in_the_whole():
    numbers = uniform(KIWANO, 40)
    whole, part = choose(KIWANO, numbers), choose(KIWANO, numbers[10:25])
    for one, other in zip(whole, part, strict=True):
        inside = (one.rows >= 10) & (one.rows < 25)
        np.testing.assert_array_equal(one.rows[inside] - 10, other.rows)
        np.testing.assert_array_equal(one.snr_db[inside], other.snr_db)


def test_nothing_is_chosen_where_there_is_no_way():
    assert choose(Augmentation(), uniform(Augmentation(), 5)) == []


def test_probabilities_whose_sum_is_one_leave_no_crop():
    config = Augmentation(disturbances=tuple(Disturbance(kind="noise", probability=0.1) for _ in range(10)))
    sounds = choose(config, uniform(config, 10_000))
    assert sum(map(len, sounds)) == 10_000


def test_picks_are_uniform_and_in_range():
    assert pick(np.array([0.0, 0.33, 0.34, 0.999999, 1.0]), 3).tolist() == [0, 0, 1, 2, 2]
