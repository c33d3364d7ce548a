import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from greensv.config import FeatureConfig, Phase, Recipe
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.dataset import Utterances
from greensv.speaker.training.loop import StepReport, Training
from greensv.speaker.training.phases import STEP_PHASES, HostMark, PhaseTimer
from simulated.stream import SimulatedStream

MakeNetwork = Callable[[], nn.Module]
RECIPE = Recipe(batch_size=8, scale=10.0, precision="fp32")
PHASES = (Phase(num_epochs=3, crop_s=0.3, learning_rate=0.1),)
"""9 steps: 24 utterances in batches of 8, three times."""


def make_training(network: nn.Module, utterances: Utterances, **changes: Any) -> Training:
    settings = {
        "network": network,
        "utterances": utterances,
        "audio": AudioStore(utterances),
        "recipe": RECIPE,
        "phases": PHASES,
        "features": FeatureConfig(),
        "seed": 3,
        "device": torch.device("cpu"),
    }
    return Training(**{**settings, **changes})


def run_step(stream: SimulatedStream, timer: PhaseTimer, *, wait_s: float, num_parts: int = 1) -> None:
    """A step whose host waits for `wait_s`, starts kernels in no time, and whose device works for 1 + 2 + 4 + 8 s."""
    timer.begin()
    stream.host_works(wait_s)
    timer.mark("data-wait")
    stream.launch(1.0)
    timer.mark("host-to-device")
    for _ in range(num_parts):
        stream.launch(2.0 / num_parts)
        timer.mark("forward")
        stream.launch(4.0 / num_parts)
        timer.mark("backward")
    stream.launch(8.0)
    timer.mark("optimiser")
    timer.end()


@pytest.fixture
def stream() -> SimulatedStream:
    return SimulatedStream()


@pytest.fixture
def timer(stream: SimulatedStream) -> PhaseTimer:
    return PhaseTimer(stream.event)


def test_each_phase_is_timed_on_the_devices_own_time_line(stream: SimulatedStream, timer: PhaseTimer):
    run_step(stream, timer, wait_s=3.0)
    stream.host_works(20.0)
    expected = {"data-wait": 3.0, "host-to-device": 1.0, "forward": 2.0, "backward": 4.0, "optimiser": 8.0}
    assert dict(timer.times.seconds) == pytest.approx(expected)
    assert timer.times.num_steps == 1


def test_a_wait_while_the_device_still_works_costs_nothing(stream: SimulatedStream, timer: PhaseTimer):
    run_step(stream, timer, wait_s=0.0)
    run_step(stream, timer, wait_s=14.0)  # the step before takes 15 s
    stream.host_works(100.0)
    assert timer.times.seconds["data-wait"] == 0.0


def test_of_a_longer_wait_only_what_the_device_was_idle_for_is_counted(stream: SimulatedStream, timer: PhaseTimer):
    run_step(stream, timer, wait_s=0.0)
    run_step(stream, timer, wait_s=17.5)
    stream.host_works(100.0)
    assert timer.times.seconds["data-wait"] == pytest.approx(2.5)


def test_micro_batches_add_up(stream: SimulatedStream, timer: PhaseTimer):
    run_step(stream, timer, wait_s=0.0, num_parts=4)
    stream.host_works(20.0)
    assert timer.times.seconds["forward"] == pytest.approx(2.0)
    assert timer.times.seconds["backward"] == pytest.approx(4.0)


def test_steps_the_device_has_not_done_are_not_counted_and_never_waited_for(stream: SimulatedStream, timer: PhaseTimer):
    for _ in range(3):
        run_step(stream, timer, wait_s=0.0)  # events that are not there yet fail when they are read
    assert timer.times.num_steps == 0
    stream.host_works(31.0)
    assert timer.times.num_steps == 2
    stream.host_works(31.0)
    assert timer.times.num_steps == 3


def test_events_are_used_again(stream: SimulatedStream, timer: PhaseTimer):
    for _ in range(100):
        run_step(stream, timer, wait_s=0.0)
        stream.host_works(16.0)
    assert stream.num_events == 2 * 6, "one step is harvested while the next one is begun"
    assert timer.times.num_steps == 100


def test_a_step_that_was_not_ended_counts_for_nothing(stream: SimulatedStream, timer: PhaseTimer):
    timer.begin()
    stream.host_works(5.0)
    timer.mark("data-wait")
    stream.launch(7.0)
    timer.mark("host-to-device")
    run_step(stream, timer, wait_s=0.0)
    stream.host_works(100.0)
    assert timer.times.num_steps == 1
    assert timer.times.seconds["host-to-device"] == pytest.approx(1.0)


def test_times_are_subtracted_phase_by_phase(stream: SimulatedStream, timer: PhaseTimer):
    run_step(stream, timer, wait_s=1.0)
    stream.host_works(20.0)
    before = timer.times
    run_step(stream, timer, wait_s=2.0)
    stream.host_works(20.0)
    later = timer.times - before
    assert later.num_steps == 1
    assert later.seconds["data-wait"] == pytest.approx(2.0)
    assert later.seconds["optimiser"] == pytest.approx(8.0)
    assert later.host_wait_s >= 0.0


class Ticks:
    """Marks that lie one second after the other."""

    def __init__(self) -> None:
        self._now_s = itertools.count()

    def __call__(self) -> HostMark:
        ticks = self._now_s

        class Tick(HostMark):
            def record(self) -> None:
                self.at_s = float(next(ticks))

        return Tick()


@pytest.mark.parametrize("num_parts", [1, 2])
def test_a_training_marks_each_phase_of_each_step(tones: Utterances, make_network: MakeNetwork, num_parts: int):
    recipe = Recipe(batch_size=8, num_micro_batches=num_parts, scale=10.0, precision="fp32")
    training = make_training(make_network(), tones, recipe=recipe, phases=(Phase(num_epochs=2, crop_s=0.3),))
    training._timer = PhaseTimer(Ticks())
    training.run()
    times = training.step_times
    assert times.num_steps == 6
    expected = {"data-wait": 1, "host-to-device": 1, "forward": num_parts, "backward": num_parts, "optimiser": 1}
    assert dict(times.seconds) == {phase: 6.0 * count for phase, count in expected.items()}


def test_a_training_on_a_cpu_spends_time_in_each_phase(tones: Utterances, make_network: MakeNetwork):
    training = make_training(make_network(), tones)
    training.run()
    times = training.step_times
    assert set(times.seconds) == set(STEP_PHASES)
    assert times.seconds["forward"] > 0
    assert times.seconds["backward"] > 0
    assert min(times.seconds.values()) >= 0
    assert times.host_wait_s >= 0


class NoTimer(PhaseTimer):
    def begin(self) -> None:
        pass

    def mark(self, phase: object) -> None:
        pass

    def end(self) -> None:
        pass


def test_timing_changes_no_bit(tones: Utterances, make_network: MakeNetwork):
    timed, untimed = (make_training(make_network(), tones) for _ in range(2))
    untimed._timer = NoTimer()
    for training in (timed, untimed):
        training.run()
    assert timed.step_times.num_steps == 9
    assert untimed.step_times.num_steps == 0
    weights = untimed.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in timed.network.state_dict().items())


def test_a_resumed_training_counts_its_own_steps(tones: Utterances, make_network: MakeNetwork):
    first = make_training(make_network(), tones)

    def stop(report: StepReport) -> None:
        if report.step == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        first.run(on_step=stop)
    assert first.step_times.num_steps == 4
    assert "times" not in " ".join(first.state_dict())
    second = make_training(make_network(), tones)
    second.load_state_dict(first.state_dict())
    second.run()
    assert second.step_times.num_steps == 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_a_training_on_a_gpu_is_timed_by_its_events(tones: Utterances, make_network: MakeNetwork):
    device = torch.device("cuda", 0)
    training = make_training(make_network(), tones, device=device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    training.run()
    end.record()
    torch.cuda.synchronize(device)
    times = training.step_times
    assert times.num_steps == training.num_steps
    assert min(times.seconds.values()) >= 0
    assert 0 < sum(times.seconds.values()) <= start.elapsed_time(end) * 1e-3
