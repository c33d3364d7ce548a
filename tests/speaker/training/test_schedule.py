import itertools
import math

import pytest

from greensv.config import Phase
from greensv.speaker.training.schedule import learning_rate, margin, place_of

PHASE = Phase(learning_rate=0.2, final_learning_rate=0.002, warmup_fraction=0.2, margin=0.3)


def rates(num_steps: int, phase: Phase = PHASE) -> list[float]:
    return [learning_rate(step, num_steps=num_steps, phase=phase) for step in range(num_steps)]


def test_learning_rate_rises_linearly_then_falls_exponentially() -> None:
    # Step s of 10 is read at progress (s + 1/2) / 10; warm-up ends at 0.2, the fall spans the other 0.8.
    assert rates(10)[:2] == pytest.approx([0.2 * 0.05 / 0.2, 0.2 * 0.15 / 0.2])
    assert rates(10)[2:] == pytest.approx([0.2 * 0.01 ** ((s + 0.5 - 2) / 8) for s in range(2, 10)])


def test_learning_rate_falls_by_the_same_factor_each_step_and_ends_near_the_final_one() -> None:
    falling = rates(1000)[200:]
    factors = [after / before for before, after in itertools.pairwise(falling)]
    assert max(factors) == pytest.approx(min(factors))
    assert falling[-1] == pytest.approx(0.002, rel=0.01)
    assert max(rates(1000)) <= 0.2


def test_no_step_has_a_learning_rate_of_zero() -> None:
    assert min(rates(7)) > 0
    assert rates(1, Phase(warmup_fraction=1.0, learning_rate=0.2)) == [0.1]


def test_learning_rate_without_warm_up_starts_to_fall_at_once() -> None:
    phase = Phase(learning_rate=1.0, final_learning_rate=0.01, warmup_fraction=0.0)
    assert rates(2, phase) == pytest.approx([0.01**0.25, 0.01**0.75])


def test_margin_is_zero_then_rises_linearly_then_stays() -> None:
    phase = Phase(margin=0.2, margin_start_fraction=0.1, margin_full_fraction=0.5)
    found = [margin(step, num_steps=10, phase=phase) for step in range(10)]
    assert found == pytest.approx([0, 0.025, 0.075, 0.125, 0.175, 0.2, 0.2, 0.2, 0.2, 0.2])


def test_margin_whose_rise_has_no_length_is_a_step() -> None:
    phase = Phase(margin=0.2, margin_start_fraction=0.5, margin_full_fraction=0.5)
    assert [margin(step, num_steps=4, phase=phase) for step in range(4)] == [0, 0, 0.2, 0.2]


def test_schedule_of_fewer_epochs_is_the_same_schedule_compressed() -> None:
    long, short = rates(300), rates(100)
    assert short == pytest.approx(long[1::3])


def test_place_counts_epochs_through_all_phases_and_steps_within_each() -> None:
    phases = (Phase(name="first", num_epochs=2), Phase(name="second", num_epochs=1))
    places = [place_of(step, phases=phases, steps_per_epoch=3) for step in range(9)]
    assert [place.phase.name for place in places] == ["first"] * 6 + ["second"] * 3
    assert [place.step for place in places] == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert [place.num_steps for place in places] == [6] * 6 + [3] * 3
    assert [place.epoch for place in places] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    with pytest.raises(IndexError, match="behind the 9 steps"):
        place_of(9, phases=phases, steps_per_epoch=3)


def test_cosine_falls_as_half_a_cosine_to_the_final_rate() -> None:
    phase = Phase(schedule="cosine", learning_rate=1.0, final_learning_rate=0.2, warmup_fraction=0.5)
    expected = [0.25, 0.75, 0.6 + 0.4 * math.cos(math.pi / 4), 0.6 + 0.4 * math.cos(3 * math.pi / 4)]
    assert rates(4, phase) == pytest.approx(expected)


def test_multistep_has_kiwanos_rates_from_the_end_of_the_warm_up_on() -> None:
    phase = Phase(
        schedule="multistep", num_epochs=42, learning_rate=0.2, gamma=0.2,
        milestones=(21 / 42, 31 / 42, 41 / 42), warmup_fraction=6 / 42,
    )  # fmt: skip
    # 42 epochs of 7 steps; the rates of Kiwano's epochs from 6 on, as its WarmupPlateauScheduler gives them.
    epochs = [0.2] * 15 + [0.04] * 10 + [0.008] * 10 + [0.0016]
    found = rates(42 * 7, phase)
    assert found[6 * 7 :] == pytest.approx([rate for rate in epochs for _ in range(7)])
    assert found[: 6 * 7] == sorted(found[: 6 * 7])
    assert found[6 * 7 - 1] == pytest.approx(0.2, rel=0.02)


def test_margin_may_rise_exponentially() -> None:
    phase = Phase(margin=0.2, margin_start_fraction=0.0, margin_full_fraction=1.0, margin_rise="exponential")
    found = [margin(step, num_steps=5, phase=phase) for step in range(5)]
    assert found == pytest.approx([0.2 * (1 - 0.001**x) for x in (0.1, 0.3, 0.5, 0.7, 0.9)])
    assert found[0] == pytest.approx(0.2 * 0.4988, rel=1e-3)
