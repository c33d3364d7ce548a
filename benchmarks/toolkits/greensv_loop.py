"""One epoch of greensv's own `Training`, on the data directory that `corpus.prepare` wrote."""

import argparse
import json
from pathlib import Path

import torch
from clock import Clock
from recipe_of_paper import augmentation

from greensv.config import Augmentation, FeatureConfig, Phase, Recipe, SpecAugment
from greensv.plugins import load_plugins
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.corpora.kaldi_directory import load_utterances, read_kaldi_directory
from greensv.speaker.training.loop import Training


def main() -> None:
    """Runs the epoch and prints its speed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--params", type=json.loads, required=True)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--crop-s", type=float, default=3.0)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    features = FeatureConfig(use_energy=False)
    utterances = load_utterances(read_kaldi_directory(args.files / "train", root=args.files), sample_rate_hz=16_000)
    clock = Clock(args.batch_size)
    backbone = load_plugins(third_party=False).get("backbone", args.backbone)
    defaults = {name: parameter.default for name, parameter in backbone.space().items()}
    training = Training(
        network=backbone.build({**defaults, **args.params}, features=features),
        utterances=utterances,
        audio=AudioStore(utterances, cache_bytes=0),
        recipe=Recipe(
            batch_size=args.batch_size,
            precision=args.precision,
            spec_augment=SpecAugment(probability=0.6 if args.augment else 0.0),
            augmentation=augmentation(args.files) if args.augment else Augmentation(),
        ),
        phases=(Phase(num_epochs=1, crop_s=args.crop_s),),
        features=features,
        seed=0,
        device=torch.device("cpu"),
    )
    training.run(on_step=lambda report: clock.tick())
    clock.report()


if __name__ == "__main__":
    main()
