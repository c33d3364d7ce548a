"""Trains a narrow ResNet with greensv for some minutes and scores trial lists with it."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from recipe_of_paper import augmentation
from scoring import score_lists

from greensv.config import FeatureConfig, Phase, Recipe
from greensv.plugins import load_plugins
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.corpora.kaldi_directory import load_utterances, read_kaldi_directory
from greensv.speaker.features import Fbank, subtract_mean
from greensv.speaker.training.loop import StepReport, Training

NUM_TIMED, NUM_WARMUP = 25, 5
PARAMS = {"channels": "paper", "block": "basic-3", "depth": 4, "width_log2": -3.0}
"""Stage channels 16-16-32-32, one block each."""
FEATURES = FeatureConfig(use_energy=False)


def main() -> None:
    """Trains, scores, writes the scores."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    utterances = load_utterances(read_kaldi_directory(args.files / "train", root=args.files), sample_rate_hz=16_000)
    audio = AudioStore(utterances)
    audio.fill()
    backbone = load_plugins(third_party=False).get("backbone", "resnet")
    shares = dict.fromkeys(("share_1", "share_2", "share_3", "share_4"), 1.0)

    def training(num_epochs: int) -> Training:
        torch.manual_seed(args.seed)
        return Training(
            network=backbone.build({**PARAMS, **shares}, features=FEATURES),
            utterances=utterances,
            audio=audio,
            recipe=Recipe(batch_size=32, augmentation=augmentation(args.files)),
            phases=(Phase(num_epochs=num_epochs, crop_s=3.0, learning_rate=0.1, final_learning_rate=5e-4),),
            features=FEATURES,
            seed=args.seed,
            device=torch.device("cpu"),
        )

    timed = training(1)
    ended_s: list[float] = []

    def tick(report: StepReport) -> None:
        ended_s.append(time.perf_counter())

    timed.run(until_step=NUM_TIMED, on_step=tick)
    seconds_per_step = float(np.median(np.diff(ended_s)[NUM_WARMUP:]))
    num_epochs = max(1, int(60 * args.minutes / seconds_per_step / timed.steps_per_epoch))
    full = training(num_epochs)
    began_s = time.perf_counter()
    full.run()
    minutes = (time.perf_counter() - began_s) / 60
    network, fbank = full.network.eval(), Fbank(FEATURES)

    def embed(waveform: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            embedding: np.ndarray = network(subtract_mean(fbank(torch.from_numpy(waveform)[None])[0]), None)[0].numpy()
            return embedding

    np.savez(args.scores, **score_lists(args.data, embed))
    print(f"greensv, seed {args.seed}: {num_epochs} epochs in {minutes:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
