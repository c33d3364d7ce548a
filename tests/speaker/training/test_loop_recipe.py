"""What a recipe may ask of a training beyond the plain: each part of it, and all of it interrupted and resumed."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from greensv.config import Augmentation, Disturbance, FeatureConfig, Phase, Recipe, SpecAugment
from greensv.errors import CheckpointError, ConfigError, DataError, TrainingError
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.checkpoint import load_training_state, save_training_state
from greensv.speaker.dataset import Utterances
from greensv.speaker.distributed import Team
from greensv.speaker.training.loop import StepReport, Training

MakeNetwork = Callable[[], nn.Module]
CPU = torch.device("cpu")
DISTURBED = Augmentation(
    disturbances=(
        Disturbance(kind="noise", probability=0.3),
        Disturbance(kind="speech", probability=0.3, num_files=(1, 2)),
        Disturbance(kind="reverb", probability=0.3),
    )
)
# 24 utterances in batches of 8: 3 steps an epoch. Two phases, the first with all that has a state.
EVERYTHING = Recipe(
    batch_size=8,
    num_micro_batches=2,
    nesterov=True,
    head_weight_decay=0.5,
    max_gradient_norm=1.0,
    loss="am-softmax",
    scale=10.0,
    label_smoothing=0.1,
    jeffreys_weight=0.025,
    precision="fp32",
    dither=1.0,
    augmentation=DISTURBED,
    phases=(
        Phase(num_epochs=3, crop_s=0.3, learning_rate=0.05, schedule="cosine", speeds=(1.0, 0.9, 1.1),
              margin_rise="exponential", num_averaged_epochs=2),
        Phase(name="long", num_epochs=1, crop_s=0.5, learning_rate=0.01, schedule="multistep",
              warmup_fraction=0.0, milestones=(0.5,)),
    ),
)  # fmt: skip


class Plain(nn.Module):
    """Features to embeddings without anything that depends on how a batch is cut into parts."""

    embedding_dim = 12

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * 81, self.embedding_dim)

    def forward(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        return self.linear(torch.cat((features.mean(dim=1), features.std(dim=1)), dim=1))


def plain() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Plain()


def make_training(network: nn.Module, utterances: Utterances, recipe: Recipe, **changes: Any) -> Training:
    settings: dict[str, Any] = {
        "network": network,
        "utterances": utterances,
        "audio": AudioStore(utterances),
        "recipe": recipe,
        "phases": recipe.phases,
        "features": FeatureConfig(),
        "seed": 3,
        "device": CPU,
    }
    return Training(**{**settings, **changes})


def recipe_of(*phases: Phase, **settings: Any) -> Recipe:
    phases = phases or (Phase(num_epochs=1, crop_s=0.3, learning_rate=0.05),)
    return Recipe(**{"batch_size": 8, "scale": 10.0, "precision": "fp32", "phases": phases, **settings})


def losses_of(training: Training, **arguments: Any) -> list[float]:
    reports: list[StepReport] = []
    training.run(on_step=reports.append, **arguments)
    return [report.loss.item() for report in reports]


def flat(state: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(state, Mapping):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{prefix}.{key}").items()}
    return {prefix: state}


def assert_same_bits(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        same = torch.equal(found[key], value) if isinstance(value, Tensor) else found[key] == value
        assert same, key


@pytest.fixture(scope="session")
def whole_run(tones: Utterances) -> Callable[[MakeNetwork], tuple[list[float], dict[str, Any]]]:
    """The losses and last state of the training that the others are compared with; run once."""
    found: list[tuple[list[float], dict[str, Any]]] = []

    def run(make_network: MakeNetwork) -> tuple[list[float], dict[str, Any]]:
        if not found:
            training = make_training(make_network(), tones, EVERYTHING)
            losses = losses_of(training)
            found.append((losses, training.state_dict()))
        return found[0]

    return run


@pytest.mark.parametrize("stop_after", range(1, 12))
def test_everything_at_once_interrupted_at_any_step_and_resumed_is_bit_identical(
    stop_after: int, whole_run: Any, tones: Utterances, make_network: MakeNetwork, tmp_path: Path
) -> None:
    losses, state = whole_run(make_network)
    first = make_training(make_network(), tones, EVERYTHING)
    found = losses_of(first, until_step=stop_after)
    save_training_state(tmp_path / "training.pt", first, {})
    torch.manual_seed(999)
    second = make_training(make_network(), tones, EVERYTHING, audio=AudioStore(tones, cache_bytes=0))
    second.load_state_dict(load_training_state(tmp_path / "training.pt")[0])
    found += losses_of(second)
    assert found == losses
    assert_same_bits(second.state_dict(), state)


def test_the_state_differs_where_any_part_of_it_matters(
    whole_run: Any, tones: Utterances, make_network: MakeNetwork
) -> None:
    # In the middle of the averaging: without the sum, or without the momentum, the training is another.
    _, state = whole_run(make_network)
    first = make_training(make_network(), tones, EVERYTHING)
    first.run(until_step=7)
    for part in ("average", "optimizer"):
        second = make_training(make_network(), tones, EVERYTHING)
        torn = copy.deepcopy(first.state_dict())
        torn[part] = make_training(make_network(), tones, EVERYTHING).state_dict()[part]
        second.load_state_dict(torn)
        second.run()
        assert not torch.equal(second.head.weight, state["head"]["weight"]), part


@pytest.mark.parametrize(
    "settings",
    [
        {"augmentation": DISTURBED, "dither": 1.0, "label_smoothing": 0.1, "jeffreys_weight": 0.1},
        {"optimizer": "adamw", "max_gradient_norm": 0.5, "spec_augment": SpecAugment(probability=1.0)},
    ],
)
def test_micro_batches_give_the_same_weights(settings: Any, tones: Utterances) -> None:
    phase = Phase(num_epochs=2, crop_s=0.3, learning_rate=0.01, speeds=(1.0, 1.1))
    trainings = [
        make_training(plain(), tones, recipe_of(phase, num_micro_batches=parts, **settings)) for parts in (1, 2, 4)
    ]
    losses = [losses_of(training) for training in trainings]
    for training, found in zip(trainings[1:], losses[1:], strict=True):
        assert found == pytest.approx(losses[0], abs=1e-4)
        assert torch.allclose(training.head.weight, trainings[0].head.weight, atol=1e-4)
        for name, values in training.network.state_dict().items():
            assert torch.allclose(values, trainings[0].network.state_dict()[name], atol=1e-4), name


def test_training_interrupted_between_two_micro_batches_goes_on_from_the_last_whole_step_only(
    tones: Utterances,
) -> None:
    recipe = recipe_of(Phase(num_epochs=1, crop_s=0.3, learning_rate=0.05), num_micro_batches=2)
    training, whole = (make_training(plain(), tones, recipe) for _ in range(2))
    training.run(until_step=1)
    saved = copy.deepcopy(training.state_dict())
    calls = []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    handle = training.network.linear.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        training.run()
    handle.remove()
    with pytest.raises(TrainingError, match="interrupted inside step 2"):
        training.state_dict()
    training.load_state_dict(saved)
    training.run()
    whole.run()
    assert_same_bits(training.state_dict(), whole.state_dict())


def test_at_speeds_the_head_has_a_set_of_speakers_each_and_a_phase_of_one_speed_leaves_the_others(
    tones: Utterances,
) -> None:
    fast = Phase(num_epochs=2, crop_s=0.3, learning_rate=0.05, speeds=(1.0, 0.9, 1.1))
    one = Phase(name="one", num_epochs=1, crop_s=0.3, learning_rate=0.05)
    training = make_training(plain(), tones, recipe_of(fast, one, momentum=0.0, weight_decay=0.0))
    assert training.head.weight.shape == (12, 12)
    start = training.head.weight.detach().clone()
    training.run(until_step=6)
    assert ((training.head.weight - start).abs().max(dim=1).values > 0).all()
    middle = training.head.weight.detach().clone()
    training.run()
    assert torch.equal(training.head.weight[4:], middle[4:])
    assert not torch.equal(training.head.weight[:4], middle[:4])


def test_at_its_end_a_phase_has_the_average_of_the_ends_of_its_last_epochs(
    tones: Utterances, make_network: MakeNetwork
) -> None:
    phase = Phase(num_epochs=4, crop_s=0.3, learning_rate=0.05)
    averaged = Phase(num_epochs=4, crop_s=0.3, learning_rate=0.05, num_averaged_epochs=3)
    plainly = make_training(make_network(), tones, recipe_of(phase))
    ends = []
    for step in (3, 6, 9, 12):
        plainly.run(until_step=step)
        ends.append(copy.deepcopy({**plainly.network.state_dict(), "head": plainly.head.weight.detach()}))
    training = make_training(make_network(), tones, recipe_of(averaged))
    training.run(until_step=11)
    training.run()
    found = {**training.network.state_dict(), "head": training.head.weight.detach()}
    assert int(found["norm.num_batches_tracked"]) == 12
    for name, values in found.items():
        if values.is_floating_point():
            expected = sum(end[name].double() for end in ends[1:]) / 3
            assert torch.allclose(values.double(), expected, atol=1e-6), name
    assert not torch.allclose(found["head"], ends[-1]["head"])


def test_the_phase_after_an_average_starts_without_the_momentum_of_other_weights(tones: Utterances) -> None:
    first = Phase(num_epochs=2, crop_s=0.3, learning_rate=0.05, num_averaged_epochs=2)
    second = Phase(name="second", num_epochs=1, crop_s=0.3, learning_rate=0.05)
    training = make_training(plain(), tones, recipe_of(first, second))
    training.run(until_step=6)
    buffers = [state["momentum_buffer"] for state in training.state_dict()["optimizer"]["state"].values()]
    assert len(buffers) == 3
    assert not any(buffer.any() for buffer in buffers)


def test_fp16_trains_in_autocast_with_a_scaled_loss_and_resumes_to_the_same_bits(
    tones: Utterances, make_network: MakeNetwork
) -> None:
    recipe = recipe_of(Phase(num_epochs=2, crop_s=0.3, learning_rate=0.02), precision="fp16")
    whole = make_training(make_network(), tones, recipe)
    assert whole.precision == "fp16"
    seen = []
    whole.network.conv.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    losses = losses_of(whole)
    assert set(seen) == {torch.float16}
    assert whole.network.conv.weight.dtype == torch.float32
    assert np.isfinite(losses).all()
    assert whole.network.conv.weight.isfinite().all()
    first, second = (make_training(make_network(), tones, recipe) for _ in range(2))
    found = losses_of(first, until_step=2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.state_dict()["scaler"]["scale"] == first.state_dict()["scaler"]["scale"] > 1
    assert found + losses_of(second) == losses
    assert_same_bits(second.state_dict(), whole.state_dict())


def test_fp16_learns_what_fp32_learns(tones: Utterances, make_network: MakeNetwork) -> None:
    phase = Phase(num_epochs=3, crop_s=0.3, learning_rate=0.02, margin=0.1)
    fp16, fp32 = (
        make_training(make_network(), tones, recipe_of(phase, precision=precision)) for precision in ("fp16", "fp32")
    )
    # The usual first scale overflows, and steps left out are not those of fp32.
    state = fp16.state_dict()
    state["scaler"]["scale"] = 256.0
    fp16.load_state_dict(state)
    assert losses_of(fp16) == pytest.approx(losses_of(fp32), rel=0.05)
    assert fp16.state_dict()["scaler"]["scale"] == 256.0


def test_adamw_learns_too(tones: Utterances, make_network: MakeNetwork) -> None:
    phase = Phase(num_epochs=8, crop_s=0.3, learning_rate=0.01, final_learning_rate=0.001, margin=0.1)
    losses = losses_of(make_training(make_network(), tones, recipe_of(phase, optimizer="adamw")))
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])


@pytest.mark.parametrize(
    "settings",
    [
        {"augmentation": DISTURBED},
        {"dither": 100.0},
        {"label_smoothing": 0.1},
        {"jeffreys_weight": 0.1},
        {"loss": "am-softmax"},
        {"nesterov": True},
        {"head_weight_decay": 1.0, "weight_decay": 0.1},
        {"max_gradient_norm": 0.01},
        {"optimizer": "adamw"},
    ],
)
def test_each_key_of_the_recipe_changes_what_is_learnt(settings: Any, tones: Utterances) -> None:
    phase = Phase(num_epochs=1, crop_s=0.3, learning_rate=0.05, margin_start_fraction=0.0)
    losses = [losses_of(make_training(plain(), tones, recipe_of(phase, **changes))) for changes in ({}, settings)]
    assert losses[0] != losses[1]


def test_folders_of_noise_may_move_between_two_runs_and_their_being_there_may_not(tones: Utterances) -> None:
    # No disturbance is likely, so no folder is looked into.
    ways = (Disturbance(kind="noise", probability=0.0),)
    here, there, nowhere = (
        make_training(plain(), tones, recipe_of(augmentation=Augmentation(noise_root=root, disturbances=ways)))
        for root in ("/here", "/there", None)
    )
    there.load_state_dict(here.state_dict())
    with pytest.raises(CheckpointError, match=r"not this one .*recipe: "):
        nowhere.load_state_dict(here.state_dict())


def test_a_missing_folder_of_noise_is_told_before_any_step(tones: Utterances, tmp_path: Path) -> None:
    augmentation = Augmentation(
        noise_root=str(tmp_path / "musan"), disturbances=(Disturbance(kind="noise", probability=0.5),)
    )
    with pytest.raises(DataError, match="musan"):
        make_training(plain(), tones, recipe_of(augmentation=augmentation))


@pytest.mark.parametrize(("batch_size", "num_parts", "size"), [(8, 1, 3), (10, 2, 2), (8, 2, 4)])
def test_a_batch_that_cannot_be_shared_is_refused(
    batch_size: int, num_parts: int, size: int, tones: Utterances
) -> None:
    recipe = recipe_of(batch_size=batch_size, num_micro_batches=num_parts)
    with pytest.raises(ConfigError, match=rf"cannot be shared by {size} processes .*a multiple of {num_parts * size},"):
        make_training(plain(), tones, recipe, team=Team(rank=0, size=size))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gpu_computes_what_the_cpu_computes(precision: Any, tones: Utterances) -> None:
    # Built-in sounds are drawn on the device that makes them, so that they differ; all else is drawn on the CPU.
    phase = Phase(num_epochs=2, crop_s=0.3, learning_rate=0.01, speeds=(1.0, 0.9), num_averaged_epochs=2)
    cpu, gpu = (
        make_training(
            plain(),
            tones,
            recipe_of(phase, num_micro_batches=2, max_gradient_norm=1.0, precision=precision),
            device=torch.device(name),
        )
        for name in ("cpu", "cuda")
    )
    for training in (cpu, gpu):
        state = training.state_dict()
        if precision == "fp16":
            state["scaler"]["scale"] = 256.0
        training.load_state_dict(state)
    assert losses_of(gpu) == pytest.approx(losses_of(cpu), rel=0.02)
    assert torch.allclose(gpu.head.weight.cpu(), cpu.head.weight, atol=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_everything_at_once_runs_on_a_gpu(tones: Utterances, make_network: MakeNetwork) -> None:
    assert np.isfinite(losses_of(make_training(make_network(), tones, EVERYTHING, device=torch.device("cuda")))).all()
