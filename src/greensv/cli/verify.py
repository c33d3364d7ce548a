"""`greensv verify`: do two recordings hold the same voice?"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from greensv.cli.checkpoints import DEVICES, load_network
from greensv.cli.console import console, echo_json
from greensv.cli.options import json_option
from greensv.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from greensv.config import FeatureConfig
    from greensv.speaker.checkpoint import CheckpointInfo
    from greensv.speaker.dataset import Protocol
    from greensv.speaker.scoring.calibration import Calibration

CALIBRATION_FILE = "calibration.json"
KNOWN_QUALITIES = ("log_duration_min", "log_duration_max", "log_magnitude_min", "log_magnitude_max")
"""What `protocol_qualities` tells of two recordings without a cohort."""


@click.command(epilog="Example: greensv verify runs/NAME/trial-0003 monday.wav tuesday.wav")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--calibration",
    "calibration_path",
    type=click.Path(path_type=Path),
    help=f"Turns the score into a probability; {CALIBRATION_FILE} in the checkpoint's folder if left out.",
)
@click.option("--threshold", type=float, help="The score from which on it is the same speaker.")
@click.option(
    "--p-target",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="How probable the same speaker is before hearing the recordings; used with a calibration.",
)
@click.option("--resample", is_flag=True, help="Resample files of other sample rates than the network's.")
@click.option("--device", type=DEVICES, default="auto", show_default=True)
@json_option
@click.pass_context
def verify(  # noqa: PLR0913 - one per option
    ctx: click.Context,
    *,
    checkpoint: Path,
    first: Path,
    second: Path,
    calibration_path: Path | None,
    threshold: float | None,
    p_target: float,
    resample: bool,
    device: Literal["auto", "cpu", "cuda"],
    as_json: bool,
) -> None:
    """Say whether recordings A and B are of the same speaker.

    CHECKPOINT is the folder of a saved network. The score is the cosine of both embeddings. What decides is, in this
    order: --threshold; the calibration, at the prior --p-target and equal costs of both errors; the threshold of equal
    error rates on the development pairs, where the checkpoint holds one. Without any of them nothing is decided.
    """
    from greensv.speaker.device import resolve_device

    chosen_device = resolve_device(device)
    info, network = load_network(ctx, checkpoint)
    if calibration_path is None:
        calibration_path, calibration = _find_calibration(checkpoint)
    else:
        calibration = _load_calibration(calibration_path, checkpoint)
    protocol = _pair(first, second, sample_rate_hz=info.features.sample_rate_hz, is_resampled=resample)
    score, qualities = _score(network, protocol, features=info.features, device=chosen_device)
    llr = None if calibration is None else float(calibration.apply([score], qualities)[0])
    rule = _rule(info, score=score, threshold=threshold, llr=llr, p_target=p_target)
    record = {
        "checkpoint": str(checkpoint),
        "first": str(first),
        "second": str(second),
        "score": score,
        "llr": llr,
        "probability": None if llr is None else _probability(llr, p_target),
        "p_target": None if llr is None else p_target,
        "calibration": None if calibration_path is None else str(calibration_path),
        "threshold": None if rule is None else rule.threshold,
        "threshold_on": None if rule is None else rule.on,
        "threshold_from": None if rule is None else rule.source,
        "is_same_speaker": None if rule is None else rule.accepts,
    }
    if as_json:
        echo_json(record)
    else:
        _print(record)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """What decides: the value of the pair `on` a scale, a threshold on it, and where that comes from."""

    on: Literal["score", "llr"]
    value: float
    threshold: float
    source: Literal["option", "calibration", "checkpoint"]

    @property
    def accepts(self) -> bool:
        return self.value >= self.threshold


def _rule(
    info: "CheckpointInfo", *, score: float, threshold: float | None, llr: float | None, p_target: float
) -> _Rule | None:
    from greensv.speaker.scoring.metrics import bayes_threshold

    if threshold is not None:
        return _Rule(on="score", value=score, threshold=threshold, source="option")
    if llr is not None:
        return _Rule(on="llr", value=llr, threshold=bayes_threshold(p_target), source="calibration")
    if info.dev is not None:
        return _Rule(on="score", value=score, threshold=info.dev.eer_threshold, source="checkpoint")
    return None


def _find_calibration(checkpoint: Path) -> "tuple[Path, Calibration] | tuple[None, None]":
    """Returns the calibration beside the checkpoint, with a warning instead where it does not suit."""
    from greensv.speaker.checkpoint import checkpoint_folder

    path = checkpoint_folder(checkpoint) / CALIBRATION_FILE
    if not path.exists():
        return None, None
    try:
        return path, _load_calibration(path, checkpoint)
    except (ConfigError, DataError) as error:
        # Nobody asked for this file: it may lie there for `greensv evaluate`.
        warning = click.style("warning:", fg="yellow")
        click.echo(f"{warning} going on without the calibration beside the checkpoint: {error}", err=True)
        return None, None


def _load_calibration(path: Path, checkpoint: Path) -> "Calibration":
    """Returns a calibration that suits the cosine of two recordings with this network.

    Raises:
        ConfigError: it is of another network's scores, or of scores that need a cohort.
        DataError: it cannot be read, or needs measures that two recordings do not have.
    """
    from greensv.cli.evaluation import weights_sha256
    from greensv.speaker.scoring.calibration import Calibration

    calibration = Calibration.load(path)
    fitted_on = calibration.scoring.get("network_sha256")
    if fitted_on is not None and fitted_on != weights_sha256(checkpoint):
        raise ConfigError(
            f"{path} was fitted on the scores of another network than {checkpoint}; fit one for this network with "
            "`greensv evaluate --fit-calibration`"
        )
    method = calibration.scoring.get("method", "cosine")
    if method != "cosine" or calibration.scoring.get("is_mean_subtracted"):
        how = f"{method} less the cohort's mean" if calibration.scoring.get("is_mean_subtracted") else method
        raise ConfigError(
            f"{path} calibrates scores by {how}, which need a cohort; two recordings have the cosine alone: fit a "
            "calibration without a cohort"
        )
    unknown = [name for name in calibration.qualities if name not in KNOWN_QUALITIES]
    if unknown:
        raise DataError(
            f"{path} needs {', '.join(unknown)} of each pair, two recordings have {', '.join(KNOWN_QUALITIES)}; fit a "
            "calibration without a cohort"
        )
    return calibration


def _pair(first: Path, second: Path, *, sample_rate_hz: int, is_resampled: bool) -> "Protocol":
    """Returns the protocol of the one pair, whose label nobody knows and nothing here reads."""
    import numpy as np

    from greensv.speaker.dataset import Pairs, Protocol, Utterances

    utterances = Utterances(
        ids=("A", "B"),
        paths=(str(first), str(second)),
        speakers=np.zeros(2, dtype=np.int32),
        speaker_names=("unknown",),
        num_samples=np.array(
            [_num_samples(path, sample_rate_hz=sample_rate_hz, is_resampled=is_resampled) for path in (first, second)],
            dtype=np.int64,
        ),
        sample_rate_hz=sample_rate_hz,
        is_resampled=is_resampled,
    )
    pairs = Pairs(
        enrolment=np.zeros(1, dtype=np.int32), test=np.ones(1, dtype=np.int32), is_target=np.zeros(1, dtype=np.bool_)
    )
    return Protocol(name="verify", utterances=utterances, pairs=pairs)


def _num_samples(path: Path, *, sample_rate_hz: int, is_resampled: bool) -> int:
    from greensv.speaker.audio.resampling import resampled_length
    from greensv.speaker.audio.store import probe_audio

    found = probe_audio(path)
    if found.sample_rate_hz != sample_rate_hz and not is_resampled:
        raise DataError(
            f"{path} has a sample rate of {found.sample_rate_hz} Hz, the network needs {sample_rate_hz} Hz; "
            "--resample resamples it"
        )
    return resampled_length(found.num_samples, from_hz=found.sample_rate_hz, to_hz=sample_rate_hz)


def _score(
    network: "nn.Module", protocol: "Protocol", *, features: "FeatureConfig", device: "torch.device"
) -> tuple[float, dict[str, Any]]:
    """Returns the cosine of the pair, and its quality measures for a calibration."""
    import numpy as np

    from greensv.speaker.audio.store import AudioStore
    from greensv.speaker.embedding import MAX_UTTERANCE_S, embed
    from greensv.speaker.scoring.pairs import score_pairs
    from greensv.speaker.scoring.quality import protocol_qualities

    audio = AudioStore(protocol.utterances)
    for index, path in enumerate(protocol.utterances.paths):
        if np.ptp(audio.whole(index)) == 0:
            raise DataError(f"{path} is silent: there is no voice in it to compare; record it again")
    embeddings = embed(network, protocol.utterances, audio, features=features, device=device)
    score = float(score_pairs(embeddings, protocol.pairs)[0])
    return score, dict(protocol_qualities(protocol, embeddings, max_duration_s=MAX_UTTERANCE_S))


def _probability(llr: float, p_target: float) -> float:
    from greensv.speaker.scoring.calibration import probability

    return float(probability([llr], prior=p_target)[0])


def _print(record: dict[str, Any]) -> None:
    screen = console()

    def say(text: str) -> None:
        screen.print(text, markup=False, soft_wrap=True)

    say(f"Score        {record['score']:.4f}  (cosine, from -1 to 1)")
    if record["probability"] is None:
        say("Probability  unknown: no calibration is given, none beside the checkpoint suits")
    else:
        say(
            f"Probability  {record['probability']:.1%} that it is the same speaker (likelihood ratio "
            f"e^{record['llr']:.2f}, {record['p_target']:g} before hearing; calibration {record['calibration']})"
        )
    if record["threshold_from"] is None:
        say(
            "Decision     none: no threshold is known; give --threshold, or a calibration "
            "(greensv evaluate --fit-calibration writes one)"
        )
        return
    source = {
        "option": "score, as given",
        "calibration": f"natural-log likelihood ratio, Bayes at p_target {record['p_target']}",
        "checkpoint": "score, of equal error rates on the checkpoint's development pairs",
    }[record["threshold_from"]]
    decision = "the same speaker" if record["is_same_speaker"] else "different speakers"
    say(f"Threshold    {record['threshold']:.4f}  ({source})")
    say(f"Decision     {decision}")
