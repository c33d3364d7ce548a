"""Trainings that several processes run in step; `torchrun … lockstep.py FOLDER` runs them, and the tests alone."""

import pickle
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from greensv.config import Augmentation, Disturbance, FeatureConfig, Phase, Recipe, SpecAugment
from greensv.errors import DataError
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.dataset import Utterances
from greensv.speaker.distributed import Team, TeamStopped
from greensv.speaker.training.loop import StepReport, Training

# 24 utterances in batches of 8: 3 steps an epoch, 9 in all.
PLAIN = Recipe(
    batch_size=8,
    scale=10.0,
    precision="fp32",
    weight_decay=1e-2,
    spec_augment=SpecAugment(probability=0.0),
    phases=(
        Phase(name="short", num_epochs=2, crop_s=0.3, learning_rate=0.1),
        Phase(name="long", num_epochs=1, crop_s=0.5, learning_rate=0.01, margin=0.4, margin_start_fraction=0.0),
    ),
)
DISTURBED = replace(
    PLAIN,
    num_micro_batches=2,
    max_gradient_norm=1.0,
    dither=1.0,
    spec_augment=SpecAugment(probability=0.8),
    augmentation=Augmentation(
        disturbances=tuple(Disturbance(kind=kind, probability=0.25) for kind in ("noise", "music", "speech", "reverb"))
    ),
    phases=(Phase(num_epochs=3, crop_s=0.3, learning_rate=0.05, speeds=(1.0, 0.9, 1.1), num_averaged_epochs=2),),
)
RECIPES: Mapping[str, Recipe] = {"plain": PLAIN, "disturbed": DISTURBED}
STOP_AFTER = 5
MISSING = 3
"""The utterance whose file is gone, in the training with one missing."""


class FrozenNorm(nn.BatchNorm2d):
    """Normalises by statistics that no batch changes, so that a batch's parts can be computed apart."""

    def train(self, mode: bool = True) -> "FrozenNorm":
        return super().train(False)


class FrozenNetwork(nn.Module):
    embedding_dim = 12

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        self.norm = FrozenNorm(8)
        self.linear = nn.Linear(8 * 41, self.embedding_dim)
        self.norm.running_var.fill_(4.0)

    def forward(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        return self.linear(torch.relu(self.norm(self.conv(features[:, None]))).mean(2).flatten(1))


def make_training(utterances: Utterances, recipe: Recipe, team: Team | None = None) -> Training:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = FrozenNetwork()
    return Training(
        network=network,
        utterances=utterances,
        audio=AudioStore(utterances),
        recipe=recipe,
        phases=recipe.phases,
        features=FeatureConfig(),
        seed=3,
        device=torch.device("cpu"),
        team=team,
    )


def with_one_missing(utterances: Utterances) -> Utterances:
    paths = list(utterances.paths)
    paths[MISSING] += ".gone"
    return replace(utterances, paths=tuple(paths))


def run(training: Training, *, stop_after: int | None = None) -> list[float]:
    """Runs a training, to its end or until the leader has had enough; returns the losses that were told."""
    losses: list[float] = []

    def on_step(report: StepReport) -> None:
        losses.append(report.loss.item())
        if report.step == stop_after:
            raise KeyboardInterrupt

    try:
        training.run(on_step=on_step)
    except (KeyboardInterrupt, TeamStopped) as error:
        losses.append(float("nan") if isinstance(error, TeamStopped) else float("inf"))
    return losses


def _interrupt(num_ready: int) -> None:
    raise KeyboardInterrupt


def _work(team: Team, utterances: Utterances) -> dict[str, Any]:
    """What one of the processes has to tell."""
    found: dict[str, Any] = {"rank": team.rank}
    for name, recipe in RECIPES.items():
        training = make_training(utterances, recipe, team)
        found[name] = {"losses": run(training), "state": training.state_dict()}
        stopped = make_training(utterances, recipe, team)
        losses = run(stopped, stop_after=STOP_AFTER)
        found[f"{name} stopped"] = {"losses": losses, "state": stopped.state_dict()}
    training = make_training(with_one_missing(utterances), PLAIN, team)
    found["missing"] = {"losses": run(training), "state": training.state_dict()}
    found["told"] = team.broadcast(("told", team.rank))
    found["gathered"] = team.gather(team.rank)
    found["news"] = team.agree(news=[team.rank, team.rank])
    try:
        team.agree(DataError("no such file") if team.rank == 1 else None)
    except (DataError, TeamStopped) as error:
        found["failure"] = type(error).__name__, str(error)
    try:
        with team.failing_together():
            if team.rank == 0:
                raise DataError("nothing here")
            team.agree()
    except (DataError, TeamStopped) as error:
        found["leader's failure"] = type(error).__name__, str(error)
    found["looks"], late = [], iter([False, False] * team.rank)
    team.wait_for_all(lambda: next(late, True), found["looks"].append)
    try:
        team.wait_for_all(lambda: team.rank == 0, _interrupt)
    except (KeyboardInterrupt, TeamStopped) as error:
        found["waiting"] = type(error).__name__
    found["is_broken"] = team.is_broken
    return found


def main(folder: Path) -> None:
    from greensv.search.crew import num_launched, torchrun_rank
    from greensv.speaker.distributed import joined_team

    torch.set_num_threads(1)
    utterances = pickle.loads((folder / "utterances.pickle").read_bytes())
    with joined_team(rank=torchrun_rank(), size=num_launched()) as team:
        team.place("cpu")
        torch.save(_work(team, utterances), folder / f"found-{team.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
