"""One epoch of SpeechBrain's own VoxCeleb recipe: its script's brain and data pipeline, its hyperparameter file.

Left as published but for the batch size, the stage channels where given, the number of speakers, and the folders.
Nothing is downloaded: the noise and the rooms are files written by `corpus.write_noise`.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from clock import Clock
from speechbrain_recipe import load_recipe


def main() -> None:
    """Runs the epoch and prints its speed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--recipe", choices=["train_resnet", "train_ecapa_tdnn"], required=True)
    parser.add_argument("--channels", type=int, nargs="*")
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--num-speakers", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    overrides: dict[str, Any] = {
        "out_n_neurons": args.num_speakers,
        "batch_size": args.batch_size,
        "num_workers": args.num_workers,
        "number_of_epochs": 1,
    }
    if args.channels:
        overrides["embedding_model"] = {"channels": args.channels}
    with tempfile.TemporaryDirectory() as output:
        loaded = load_recipe(args.checkout, args.recipe, files=args.files, output=Path(output), overrides=overrides)
        hparams = loaded.hparams
        if not args.augment:
            del hparams["wav_augment"]
        clock = Clock(args.batch_size)

        class TimedBrain(loaded.script.SpeakerBrain):
            def on_fit_batch_end(self, batch, outputs, loss, should_step):
                clock.tick()

        brain = TimedBrain(
            modules=hparams["modules"], opt_class=hparams["opt_class"], hparams=hparams, run_opts={"device": "cpu"}
        )
        loader = hparams["dataloader_options"]
        brain.fit(hparams["epoch_counter"], loaded.train, train_loader_kwargs=loader, progressbar=False)
        clock.report()


if __name__ == "__main__":
    main()
