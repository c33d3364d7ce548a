"""Trains a narrow ResNet with SpeechBrain's recipe for some minutes and scores trial lists with it.

The recipe as published but for: the network's width and depth, the augmentation (greensv's, so that both sides learn
from crops disturbed alike), the number of epochs that fits the time, and the period of its cyclic learning rate, one
rise and fall over the run (the published 65,000 steps would end this one while still warming up).
"""

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from recipe_of_paper import augmentation
from scoring import score_lists
from speechbrain_recipe import load_recipe

from greensv.speaker.augmentation import Augmenter

NUM_TIMED, NUM_WARMUP = 25, 5


def main() -> None:
    """Trains, scores, writes the scores."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--num-utterances", type=int, required=True)
    parser.add_argument("--num-speakers", type=int, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    budget_s = 60 * args.minutes
    steps_per_epoch = args.num_utterances // 32
    with tempfile.TemporaryDirectory() as output:
        _, _, seconds_per_step = train(args, Path(output) / "timed", num_epochs=1, num_steps=NUM_TIMED)
        num_epochs = max(1, int(budget_s / seconds_per_step / steps_per_epoch))
        began_s = time.perf_counter()
        brain, hparams, _ = train(args, Path(output) / "full", num_epochs=num_epochs, num_steps=None)
        minutes = (time.perf_counter() - began_s) / 60
        brain.modules.eval()

        def embed(waveform: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                features = hparams["compute_features"](torch.from_numpy(waveform)[None])
                features = hparams["mean_var_norm"](features, torch.ones(1))
                return hparams["embedding_model"](features).reshape(-1).numpy()

        np.savez(args.scores, **score_lists(args.data, embed))
    print(f"SpeechBrain, seed {args.seed}: {num_epochs} epochs in {minutes:.1f} minutes", flush=True)


class _Stop(Exception):
    pass


def train(args: argparse.Namespace, output: Path, *, num_epochs: int, num_steps: int | None):
    """Runs the recipe; returns its brain, its hyperparameters, and the median seconds of a step."""
    overrides = {
        "seed": args.seed + 1986,
        "out_n_neurons": args.num_speakers,
        "num_workers": 0,
        "number_of_epochs": num_epochs,
        "step_size": max(1, num_epochs * (args.num_utterances // 32) // 2),
        "embedding_model": {"channels": [16, 16, 32, 32], "block_sizes": [1, 1, 1, 1]},
    }
    loaded = load_recipe(args.checkout, "train_resnet", files=args.files, output=output, overrides=overrides)
    hparams = loaded.hparams
    hparams["wav_augment"] = _GreensvAugmentation(args.files, seed=args.seed)
    ended_s: list[float] = []

    class Brain(loaded.script.SpeakerBrain):
        def on_fit_batch_end(self, batch, outputs, loss, should_step):
            ended_s.append(time.perf_counter())
            if num_steps is not None and len(ended_s) >= num_steps:
                raise _Stop

    brain = Brain(
        modules=hparams["modules"], opt_class=hparams["opt_class"], hparams=hparams, run_opts={"device": "cpu"}
    )
    loader = hparams["dataloader_options"]
    with contextlib.suppress(_Stop):
        brain.fit(hparams["epoch_counter"], loaded.train, train_loader_kwargs=loader, progressbar=False)
    return brain, hparams, float(np.median(np.diff(ended_s)[NUM_WARMUP:]))


class _GreensvAugmentation:
    """Has the two methods that the recipe's brain calls on its own augmenter."""

    def __init__(self, files: Path, *, seed: int) -> None:
        self._augmenter = Augmenter(augmentation(files), sample_rate_hz=16_000)
        self._seed, self._step = seed, 0

    def __call__(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        num, num_samples = waveforms.shape
        seed = np.random.SeedSequence(self._seed, spawn_key=(9, self._step))
        self._step += 1
        drawn = self._augmenter.draw(num_crops=num, crop_samples=num_samples, seed=seed, rows=slice(0, num))
        return self._augmenter.apply(waveforms, drawn), lengths

    def replicate_labels(self, labels: torch.Tensor) -> torch.Tensor:
        return labels


if __name__ == "__main__":
    main()
