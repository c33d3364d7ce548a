"""`greensv evaluate`: EER and minDCF of a checkpoint on a trial list."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from greensv.cli.console import console, echo_json, installed_plugins
from greensv.cli.options import json_option
from greensv.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from greensv.config import FeatureConfig
    from greensv.speaker.dataset import Protocol
    from greensv.speaker.trial_list import TrialList

RESAMPLED_PAIRS = 100_000_000
"""Resamples × pairs of the interval at the most, beyond 200 resamples: about half a minute."""


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--trial-list", type=click.Path(path_type=Path), required=True, help="Pairs, in VoxCeleb's or Kaldi's form."
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder of the audio, or of Kaldi data directories.",
)
@click.option("--scores", type=click.Path(path_type=Path), help="Write `enrolment test score`, a line per pair.")
@click.option(
    "--p-target",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Prior probability of a same-speaker pair, for minDCF.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    *,
    checkpoint: Path,
    trial_list: Path,
    data_root: Path,
    scores: Path | None,
    p_target: float,
    device: Literal["auto", "cpu", "cuda"],
    as_json: bool,
) -> None:
    """EER and minDCF of a checkpoint on a trial list; whole utterances, cosine scores.

    CHECKPOINT is the folder of a saved network, or one of its two files. The interval of the EER is a 95 % bootstrap
    over speakers, where the data directories' utt2spk names them.
    """
    from greensv.speaker.checkpoint import build_network, read_checkpoint
    from greensv.speaker.device import resolve_device
    from greensv.speaker.metrics import verify_scores
    from greensv.speaker.trial_list import read_trial_list, resolve

    _check_writable(scores)
    chosen_device = resolve_device(device)
    info, state = read_checkpoint(checkpoint)
    network = build_network(installed_plugins(ctx).get("backbone", info.backbone), info, state)
    trials = read_trial_list(trial_list)
    protocol = resolve(trials, data_root, sample_rate_hz=info.features.sample_rate_hz)
    pair_scores = _score(network, protocol, features=info.features, device=chosen_device)
    verification = verify_scores(pair_scores, protocol.pairs.is_target, p_target=p_target)
    interval = _interval(pair_scores, protocol)
    if scores is not None:
        _write_scores(scores, trials, pair_scores)
    record = {
        "checkpoint": str(checkpoint),
        "trial_list": str(trial_list),
        **asdict(verification),
        "eer_low": interval[0] if interval else None,
        "eer_high": interval[1] if interval else None,
        "num_utterances": len(protocol.utterances),
        "num_speakers": protocol.utterances.num_speakers if interval else None,
    }
    if as_json:
        echo_json(record)
    else:
        _print(record, scores)


def _check_writable(scores: Path | None) -> None:
    """Looks before the work begins, not after it."""
    if scores is None:
        return
    if scores.is_dir() or not scores.parent.is_dir() or not os.access(scores.parent, os.W_OK):
        reason = "it is a folder" if scores.is_dir() else f"the folder {scores.parent} is missing or not writable"
        raise ConfigError(f"scores cannot be written to {scores}: {reason}")


def _score(
    network: "nn.Module", protocol: "Protocol", *, features: "FeatureConfig", device: "torch.device"
) -> "NDArray[np.float32]":
    from rich.console import Console
    from rich.progress import Progress

    from greensv.speaker.audio import AudioStore
    from greensv.speaker.embedding import embed
    from greensv.speaker.scoring import score_pairs

    utterances = protocol.utterances
    # Each utterance is read once: nothing is worth keeping in memory.
    audio = AudioStore(utterances, cache_bytes=0)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("embedding", total=len(utterances))
        embeddings = embed(
            network,
            utterances,
            audio,
            features=features,
            device=device,
            on_batch=lambda num_done, _: progress.update(task, completed=num_done),
        )
    return score_pairs(embeddings, protocol.pairs)


def _interval(scores: "NDArray[np.float32]", protocol: "Protocol") -> tuple[float, float] | None:
    """The interval of the EER; None where a speaker has no name, so that one person may count as several."""
    from greensv.speaker.metrics import bootstrap_eer

    if any(name.startswith("unknown:") for name in protocol.utterances.speaker_names):
        return None
    num_resamples = min(1000, max(200, RESAMPLED_PAIRS // len(scores)))
    return bootstrap_eer(scores, protocol.pairs, protocol.utterances.speakers, num_resamples=num_resamples)


def _write_scores(path: Path, trials: "TrialList", scores: "NDArray[np.float32]") -> None:
    from greensv.speaker.checkpoint import write_whole

    lines = zip(trials.enrolments, trials.tests, scores.tolist(), strict=True)
    write_whole(path, lambda file: file.writelines(f"{a} {b} {score:.6f}\n".encode() for a, b, score in lines))


def _print(record: dict[str, Any], scores: Path | None) -> None:
    if record["eer_low"] is None:
        interval = "no interval: some speakers are not named, add their utt2spk"
    else:
        interval = f"95 % over {record['num_speakers']} speakers: {record['eer_low']:.2%} to {record['eer_high']:.2%}"
    screen = console()
    screen.print(
        f"{record['trial_list']}: {record['num_target'] + record['num_nontarget']:,} pairs "
        f"({record['num_target']:,} target) of {record['num_utterances']:,} utterances",
        markup=False,
        soft_wrap=True,
    )
    screen.print(f"EER     {record['eer']:.2%}  ({interval}; threshold {record['eer_threshold']:.4f})", markup=False)
    screen.print(f"minDCF  {record['min_dcf']:.4f}  (p_target {record['p_target']:g})", markup=False)
    if scores is not None:
        screen.print(f"Scores written to {scores}", markup=False, soft_wrap=True)
