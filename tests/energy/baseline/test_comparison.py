"""Our meters and an external one, reading a power that is known; the other clock, scale and noise are chosen."""

from collections.abc import Callable

import numpy as np
import pytest

from greensv.energy.baseline.comparison import Trace, check_factor, compare
from greensv.energy.baseline.external import ExternalReadings
from greensv.errors import MeterError

START = 1_795_262_400.0


def work(at_s: np.ndarray) -> np.ndarray:
    """A machine at rest for 30 s, then at work in bursts, in watts."""
    seconds = at_s - START
    return np.where(seconds < 30, 60.0, 180.0 + 40.0 * np.sign(np.sin(seconds / 4)))


def trace_of(power_w: Callable[[np.ndarray], np.ndarray] = work, *, duration_s: float = 120.0) -> Trace:
    fine = np.arange(START, START + duration_s + 1e-6, 0.01)
    energy_j = np.concatenate([[0.0], np.cumsum(power_w(fine)[:-1] * 0.01)])
    at_s = np.arange(START, START + duration_s + 1e-6, 1.0)
    return Trace(at_s=tuple(at_s), energy_j={("rapl", "cpu:0"): tuple(np.interp(at_s, fine, energy_j))})


def external_of(
    power_w: Callable[[np.ndarray], np.ndarray] = work,
    *,
    scale: float = 1.0,
    constant_w: float = 0.0,
    offset_s: float = 0.0,
    noise_w: float = 0.0,
    before_s: float = 15.0,
    after_s: float = 15.0,
    **changes,
) -> ExternalReadings:
    true_s = np.arange(START - before_s, START + 120 + after_s, 0.5)
    fine = np.arange(true_s[0], true_s[-1] + 1e-6, 0.01)
    noise = np.random.default_rng(0).normal(0, noise_w, len(fine))
    joules = np.concatenate([[0.0], np.cumsum((scale * power_w(fine) + constant_w + noise)[:-1] * 0.01)])
    fields = {"at_s": true_s + offset_s, "energy_j": np.interp(true_s, fine, joules), "name": "wall.csv"}
    return ExternalReadings(**{**fields, **changes})


@pytest.mark.parametrize("scale", [1.0, 0.93, 1.12])
@pytest.mark.parametrize("offset_s", [0.0, 3.4, -7.3])
def test_the_scale_is_found_whatever_the_clock_says(scale: float, offset_s: float):
    found = compare(trace_of(), external_of(scale=scale, offset_s=offset_s), accuracy=0.01)
    assert found.ratio == pytest.approx(scale, rel=2e-3)
    assert found.offset_s == pytest.approx(offset_s, abs=0.15)
    assert found.correlation == pytest.approx(1.0, abs=0.01)
    assert abs(found.ratio - scale) < 2 * found.uncertainty * scale
    assert 0.01 <= found.uncertainty < 0.012
    assert found.slope == pytest.approx(scale, rel=0.01)
    assert found.constant_w == pytest.approx(0.0, abs=2.0)


def test_a_constant_beside_the_scale_is_told_apart():
    found = compare(trace_of(), external_of(constant_w=30.0), accuracy=0.0)
    assert found.constant_w == pytest.approx(30.0, abs=1.0)
    assert found.slope == pytest.approx(1.0, abs=0.01)
    # The ratio depends on the load then, and is less certain.
    assert found.uncertainty > 0.01


def test_the_steps_of_a_coarse_counter_widen_the_uncertainty():
    found = compare(trace_of(), external_of(quantum_j=3600.0), accuracy=0.0)
    assert found.uncertainty >= 3600 / np.sqrt(6) / found.external_j


def test_noise_averages_out():
    found = compare(trace_of(), external_of(scale=1.05, noise_w=100.0), accuracy=0.01)
    assert found.ratio == pytest.approx(1.05, rel=0.01)


def test_a_constant_power_tells_no_offset_and_needs_none():
    def constant(at_s: np.ndarray) -> np.ndarray:
        return np.full_like(at_s, 200.0)

    found = compare(trace_of(constant), external_of(constant, scale=1.08), accuracy=0.01)
    assert (found.offset_s, found.correlation) == (None, None)
    assert found.ratio == pytest.approx(1.08)
    assert found.slope == pytest.approx(1.08)


def test_several_domains_are_compared_by_their_sum():
    trace = trace_of()
    half = {("rapl", f"cpu:{i}"): tuple(0.5 * e for e in trace.energy_j["rapl", "cpu:0"]) for i in range(2)}
    found = compare(Trace(at_s=trace.at_s, energy_j=half), external_of(scale=1.02), accuracy=0.01)
    assert found.ratio == pytest.approx(1.02, rel=2e-3)


@pytest.mark.parametrize(
    ("external", "message"),
    [
        (external_of(offset_s=7200.0), "covers 0% of the run: the run was from 2026-11-21T12:00:00"),
        (external_of(before_s=-60.0), "wall.csv covers"),
        (external_of(offset_s=10.0), "differs from this machine's by 10 s or more; set both by NTP"),
        (external_of(gaps=((START + 40, START + 52),)), "no readings for 12 s within the run"),
        (external_of(lambda at_s: 100 + 50 * np.sin(at_s * 1.7)), "does not follow our meters"),
        (external_of(scale=0.0), "does not follow our meters"),
    ],
)
def test_what_cannot_be_compared_is_told(external: ExternalReadings, message: str):
    with pytest.raises(MeterError) as caught:
        compare(trace_of(), external, accuracy=0.01)
    assert message in str(caught.value)


def test_a_run_that_is_too_short_is_told():
    with pytest.raises(MeterError, match="a run of 20 s at least"):
        compare(trace_of(duration_s=15.0), external_of(), accuracy=0.01)


def test_a_ratio_that_is_no_scale_is_refused():
    check_factor(compare(trace_of(), external_of(scale=1.5), accuracy=0.01))
    with pytest.raises(MeterError, match="3 times what ours did, which is no wrong scale"):
        check_factor(compare(trace_of(), external_of(scale=3.0), accuracy=0.01))
