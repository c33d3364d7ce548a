"""One epoch of WeSpeaker's own loop: its `run_epoch`, dataset and network, with the values of examples/voxceleb/v2.

Its train.py runs on CUDA alone, so what it does before `run_epoch` is done here on the CPU: no DistributedDataParallel,
no GradScaler. torchaudio 2.11 loads audio through torchcodec and has no sox effects: files are read with soundfile, and
speed perturbation is off.
"""

import argparse
import logging
import sys
import types
from pathlib import Path

import soundfile
import torch
import torchaudio
from clock import Clock
from torch.utils.data import DataLoader

BATCHES_PER_EPOCH_OF_SCHEDULES = 1000


def main() -> None:
    """Runs the epoch and prints its speed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--model", default="ResNet34")
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--num-speakers", type=int, required=True)
    parser.add_argument("--num-utterances", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    _import_without_its_command_line(args.checkout)
    torchaudio.load = _load
    from wespeaker.dataset.dataset import Dataset
    from wespeaker.models import resnet
    from wespeaker.models.projections import get_projection
    from wespeaker.utils import schedulers
    from wespeaker.utils.executor import run_epoch

    speakers = sorted({line.split()[1] for line in (args.files / "train" / "utt2spk").read_text().splitlines()})
    dataset_args = {
        "shuffle": True,
        "shuffle_args": {"shuffle_size": 2500},
        "filter": True,
        "filter_args": {"min_num_frames": 100, "max_num_frames": 800},
        "resample_rate": 16000,
        "speed_perturb": False,
        "num_frms": 200,
        "aug_prob": 0.0,
        "fbank_args": {"num_mel_bins": 80, "frame_shift": 10, "frame_length": 25, "dither": 1.0},
        "spec_aug": False,
    }
    numbers = {name: number for number, name in enumerate(speakers)}
    dataset = Dataset("raw", str(args.files / "raw.list"), dataset_args, numbers)
    loader = DataLoader(
        dataset, batch_size=args.batch_size, num_workers=args.num_workers, prefetch_factor=8, drop_last=True
    )
    model = getattr(resnet, args.model)(feat_dim=80, embed_dim=256, pooling_func="TSTP", two_emb_layer=False)
    projection = {"project_type": "arc_margin", "scale": 32.0, "easy_margin": False}
    model.add_module("projection", get_projection({**projection, "embed_dim": 256, "num_class": len(speakers)}))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    epochs = {"num_epochs": 150, "epoch_iter": BATCHES_PER_EPOCH_OF_SCHEDULES}
    clock = Clock(args.batch_size)
    run_epoch(
        loader,
        args.num_utterances // args.batch_size,
        _Wrapped(model),
        torch.nn.CrossEntropyLoss(),
        _timed(optimizer, clock),
        schedulers.ExponentialDecrease(
            optimizer, initial_lr=0.1, final_lr=5e-5, warm_up_epoch=6, scale_ratio=1.0, warm_from_zero=True, **epochs
        ),
        schedulers.MarginScheduler(
            model=model,
            epoch_iter=BATCHES_PER_EPOCH_OF_SCHEDULES,
            increase_start_epoch=20,
            fix_start_epoch=40,
            initial_margin=0.0,
            final_margin=0.2,
            update_margin=True,
            increase_type="exp",
        ),
        1,
        logging.getLogger("wespeaker"),
        torch.amp.GradScaler("cpu", enabled=False),
        device=torch.device("cpu"),
        configs={"dataset_args": dataset_args, "enable_amp": False, "log_batch_interval": 100},
    )
    clock.report()


class _Wrapped(torch.nn.Module):
    """Has the network as `module`, as DistributedDataParallel does."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: torch.Tensor) -> object:
        return self.module(features)


def _timed(optimizer: torch.optim.Optimizer, clock: Clock) -> torch.optim.Optimizer:
    optimizer.register_step_post_hook(lambda *_: clock.tick())
    return optimizer


def _import_without_its_command_line(checkout: Path) -> None:
    """Lets `wespeaker.…` be imported without the own __init__ of the package, which wants its command line whole."""
    package = types.ModuleType("wespeaker")
    package.__path__ = [str(checkout / "wespeaker")]  # type: ignore[attr-defined]
    sys.modules["wespeaker"] = package
    sys.modules["visdom"] = types.ModuleType("visdom")  # torchnet imports it, for plots that are not drawn


def _load(path: str) -> tuple[torch.Tensor, int]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T), rate


if __name__ == "__main__":
    main()
