import copy
import dataclasses
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from greensv.config import FeatureConfig, Phase, Recipe, SpecAugment
from greensv.errors import CheckpointError, DataError, TrainingError
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.checkpoint import load_training_state, save_training_state
from greensv.speaker.dataset import Utterances
from greensv.speaker.training import schedule
from greensv.speaker.training.loop import StepReport, Training

MakeNetwork = Callable[[], nn.Module]
CPU = torch.device("cpu")
RECIPE = Recipe(batch_size=8, scale=10.0, precision="fp32", weight_decay=1e-2)
# 24 utterances in batches of 8: 3 steps an epoch, 9 in all.
PHASES = (
    Phase(name="short", num_epochs=2, crop_s=0.3, learning_rate=0.1),
    Phase(name="long", num_epochs=1, crop_s=0.5, learning_rate=0.01, margin=0.4, margin_start_fraction=0.0),
)


def make_training(network: nn.Module, utterances: Utterances, **changes: Any) -> Training:
    settings = {
        "network": network,
        "utterances": utterances,
        "audio": AudioStore(utterances),
        "recipe": RECIPE,
        "phases": PHASES,
        "features": FeatureConfig(),
        "seed": 3,
        "device": CPU,
    }
    return Training(**{**settings, **changes})


def reports_of(training: Training, **arguments: Any) -> list[StepReport]:
    reports: list[StepReport] = []
    training.run(on_step=reports.append, **arguments)
    return reports


def flat(state: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(state, Mapping):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{prefix}.{key}").items()}
    return {prefix: state}


def assert_same_bits(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        same = torch.equal(found[key], value) if isinstance(value, torch.Tensor) else found[key] == value
        assert same, key


class Stop(Exception):
    pass


def test_reports_say_where_the_training_is(tones: Utterances, make_network: MakeNetwork) -> None:
    training = make_training(make_network(), tones)
    assert (training.steps_per_epoch, training.num_steps, training.step) == (3, 9, 0)
    reports = reports_of(training)
    assert [report.step for report in reports] == list(range(1, 10))
    assert [report.epoch for report in reports] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [report.phase for report in reports] == ["short"] * 6 + ["long"] * 3
    assert [training.phase_at(step).name for step in (0, 5, 6, 8)] == ["short", "short", "long", "long"]
    assert [report.learning_rate for report in reports[:6]] == [
        schedule.learning_rate(step, num_steps=6, phase=PHASES[0]) for step in range(6)
    ]
    assert [report.margin for report in reports[6:]] == [
        schedule.margin(step, num_steps=3, phase=PHASES[1]) for step in range(3)
    ]
    assert all(report.num_steps == 9 and not report.loss.requires_grad for report in reports)
    assert training.step == 9


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(tones: Utterances, make_network: MakeNetwork) -> None:
    def losses(seed: int, epochs: int = 1) -> list[float]:
        training = make_training(make_network(), tones, seed=seed, phases=(Phase(num_epochs=epochs, crop_s=0.3),))
        return [report.loss.item() for report in reports_of(training)]

    assert losses(3) == losses(3)
    assert losses(3) != losses(4)


@pytest.mark.parametrize("stop_after", [1, 3, 4, 6, 8])
def test_interrupted_at_any_step_and_resumed_is_bit_identical(
    stop_after: int, tones: Utterances, make_network: MakeNetwork, tmp_path: Path
) -> None:
    whole = make_training(make_network(), tones)
    expected = [report.loss.item() for report in reports_of(whole)]

    def stop(report: StepReport) -> None:
        losses.append(report.loss.item())
        if report.step == stop_after:
            raise Stop

    losses: list[float] = []
    first = make_training(make_network(), tones)
    with pytest.raises(Stop):
        first.run(on_step=stop)
    assert first.step == stop_after
    save_training_state(tmp_path / "training.pt", first, {})
    torch.manual_seed(999)
    second = make_training(make_network(), tones, audio=AudioStore(tones, cache_bytes=0))
    second.load_state_dict(load_training_state(tmp_path / "training.pt")[0])
    losses += [report.loss.item() for report in reports_of(second)]
    assert losses == expected
    assert_same_bits(second.state_dict(), whole.state_dict())


def test_going_on_after_a_stop_needs_no_saving(tones: Utterances, make_network: MakeNetwork) -> None:
    whole, parts = (make_training(make_network(), tones) for _ in range(2))
    whole.run()
    parts.run(until_step=2)
    assert parts.step == 2
    parts.run(until_step=2)
    parts.run(until_step=7)
    parts.run()
    assert_same_bits(parts.state_dict(), whole.state_dict())


def test_training_learns_to_tell_the_speakers(tones: Utterances, make_network: MakeNetwork) -> None:
    phase = Phase(num_epochs=20, crop_s=0.3, learning_rate=0.02, margin=0.1)
    losses = [report.loss.item() for report in reports_of(make_training(make_network(), tones, phases=(phase,)))]
    assert np.mean(losses[-3:]) < 0.3 * np.mean(losses[:3])


def test_weight_decay_pulls_the_network_and_not_the_head(tones: Utterances, make_network: MakeNetwork) -> None:
    initial = copy.deepcopy(make_network().state_dict())
    runs = []
    for weight_decay in (0.0, 0.5):
        training = make_training(
            make_network(), tones, recipe=dataclasses.replace(RECIPE, weight_decay=weight_decay, momentum=0.0)
        )
        (report,) = reports_of(training, until_step=1)
        runs.append(training)
    assert torch.equal(runs[0].head.weight, runs[1].head.weight)
    for name in ("conv.weight", "linear.weight"):
        pull = runs[0].network.state_dict()[name] - runs[1].network.state_dict()[name]
        assert torch.allclose(pull, report.learning_rate * 0.5 * initial[name], atol=1e-7)


def test_head_is_drawn_from_the_seed_and_torchs_generator_is_left_alone(
    tones: Utterances, make_network: MakeNetwork
) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    training = make_training(make_network(), tones)
    training.run(until_step=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    assert not torch.equal(make_training(make_network(), tones, seed=4).head.weight, training.head.weight)
    fresh = make_training(make_network(), tones)
    assert torch.equal(make_training(make_network(), tones).head.weight, fresh.head.weight)


def test_loss_that_is_not_finite_names_its_step(tones: Utterances, make_network: MakeNetwork) -> None:
    phase = Phase(num_epochs=10, crop_s=0.3, warmup_fraction=0.0)
    training = make_training(make_network(), tones, phases=(phase,))

    def poison(report: StepReport) -> None:
        if report.step == 4:
            with torch.no_grad():
                training.network.linear.weight.fill_(float("nan"))

    with pytest.raises(
        TrainingError, match=r"the loss of step 5 of 30 is nan: .* lower the learning rate of phase 'main'"
    ):
        training.run(on_step=poison)
    assert training.step == 20
    with pytest.raises(TrainingError, match="step 5 of 30"):
        training.state_dict()


def test_loss_is_looked_at_when_a_short_run_ends(tones: Utterances, make_network: MakeNetwork) -> None:
    training = make_training(make_network(), tones)
    with torch.no_grad():
        training.network.linear.weight.fill_(float("inf"))
    with pytest.raises(TrainingError, match="the loss of step 1 of 9"):
        training.run(until_step=2)


def test_training_interrupted_inside_a_step_cannot_be_saved_or_continued(
    tones: Utterances, make_network: MakeNetwork
) -> None:
    training = make_training(make_network(), tones)
    training.run(until_step=2)
    saved = copy.deepcopy(training.state_dict())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = training.network.linear.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        training.run()
    handle.remove()
    for use in (training.state_dict, training.run):
        with pytest.raises(TrainingError, match="interrupted inside step 3"):
            use()
    training.load_state_dict(saved)
    training.run()
    whole = make_training(make_network(), tones)
    whole.run()
    assert_same_bits(training.state_dict(), whole.state_dict())


def with_broken(utterances: Utterances, num: int, tmp_path: Path) -> Utterances:
    broken = [str(tmp_path / f"broken{i}.wav") for i in range(num)]
    for path in broken:
        Path(path).write_bytes(b"no audio")
    return dataclasses.replace(utterances, paths=(*broken, *utterances.paths[num:]))


def test_training_goes_on_past_unreadable_audio_and_remembers_it(
    tones: Utterances, make_network: MakeNetwork, tmp_path: Path
) -> None:
    utterances = with_broken(tones, 2, tmp_path)
    training = make_training(make_network(), utterances)
    training.run()
    assert sorted(Path(path).name for path in training.skipped) == ["broken0.wav", "broken1.wav"]
    assert all("no audio file that libsndfile reads" in reason for reason in training.skipped.values())
    resumed = make_training(make_network(), utterances)
    resumed.load_state_dict(training.state_dict())
    assert resumed.skipped == training.skipped


def test_too_much_unreadable_audio_stops_the_training_between_two_steps(
    tones: Utterances, make_network: MakeNetwork, tmp_path: Path
) -> None:
    training = make_training(make_network(), with_broken(tones, 11, tmp_path))
    with pytest.raises(DataError, match=r"11 of 24 training utterances cannot be read, such as .*broken\d+\.wav"):
        training.run()
    assert training.state_dict()["step"] == training.step < 3


@pytest.mark.parametrize("until_step", [4, None])
def test_no_thread_outlives_a_run(until_step: int | None, tones: Utterances, make_network: MakeNetwork) -> None:
    def stop(report: StepReport) -> None:
        if report.step == 5:
            raise Stop

    training = make_training(make_network(), tones)
    if until_step is None:
        with pytest.raises(Stop):
            training.run(on_step=stop)
    else:
        training.run(until_step=until_step)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("greensv-")]


def test_batches_are_not_read_beyond_the_last_step(tones: Utterances, make_network: MakeNetwork) -> None:
    class Counting(AudioStore):
        num_crops = 0

        def crop(self, index: int, *, start: int, num_samples: int) -> Any:
            self.num_crops += 1
            return super().crop(index, start=start, num_samples=num_samples)

    audio = Counting(tones)
    make_training(make_network(), tones, audio=audio).run(until_step=2)
    assert audio.num_crops == 16


def test_bf16_trains_in_autocast_with_float32_weights(tones: Utterances, make_network: MakeNetwork) -> None:
    training = make_training(make_network(), tones, recipe=dataclasses.replace(RECIPE, precision="bf16"))
    seen = []
    training.network.conv.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    (report,) = reports_of(training, until_step=1)
    assert seen == [torch.bfloat16]
    assert report.loss.dtype == training.network.conv.weight.dtype == torch.float32


def test_spec_augment_changes_what_is_learnt(tones: Utterances, make_network: MakeNetwork) -> None:
    losses = []
    for probability in (0.0, 1.0):
        recipe = dataclasses.replace(RECIPE, spec_augment=SpecAugment(probability=probability))
        losses.append(reports_of(make_training(make_network(), tones, recipe=recipe), until_step=1)[0].loss.item())
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 4}, "seed: 3 → 4"),
        ({"phases": PHASES[:1]}, "phases: "),
        ({"recipe": dataclasses.replace(RECIPE, batch_size=6)}, "recipe: "),
        ({"features": FeatureConfig(low_freq_hz=30.0)}, "features: "),
    ],
)
def test_state_of_another_training_is_refused(
    changes: Mapping[str, Any], named: str, tones: Utterances, make_network: MakeNetwork
) -> None:
    state = make_training(make_network(), tones).state_dict()
    other = make_training(make_network(), tones, **changes)
    with pytest.raises(CheckpointError, match=f"not this one .*{named}"):
        other.load_state_dict(state)


def test_state_of_another_precision_is_refused_however_it_was_chosen(
    tones: Utterances, make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPE, precision="auto")
    states = []
    for has_bf16 in (True, False):
        monkeypatch.setattr("greensv.speaker.device._has_bf16", lambda device, found=has_bf16: found)
        states.append(make_training(make_network(), tones, recipe=recipe))
    with pytest.raises(CheckpointError, match="precision: bf16 → fp32"):
        states[1].load_state_dict(states[0].state_dict())


def test_state_of_another_network_is_refused(tones: Utterances, make_network: MakeNetwork) -> None:
    state = dict(make_training(make_network(), tones).state_dict())
    state["network"] = {"other": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="does not fit this network"):
        make_training(make_network(), tones).load_state_dict(state)


def test_a_batch_larger_than_the_corpus_or_a_single_speaker_is_refused(
    tones: Utterances, make_network: MakeNetwork
) -> None:
    with pytest.raises(DataError, match=r"lower recipe\.batch_size to 24"):
        make_training(make_network(), tones, recipe=Recipe(batch_size=25))
    alone = dataclasses.replace(tones, speakers=np.zeros(24, dtype=np.int32), speaker_names=("anna",))
    with pytest.raises(DataError, match="two speakers at least, found 1"):
        make_training(make_network(), alone)
