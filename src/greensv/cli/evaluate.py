"""`greensv evaluate`: error rates and costs of a checkpoint on a trial list, or on the tests of a study."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from greensv.cli.checkpoints import DEVICES, load_network, progress_bars
from greensv.cli.console import console, echo_json, installed_plugins
from greensv.cli.evaluation_job import EvaluationJob, EvaluationOptions
from greensv.cli.metrics import score_options
from greensv.cli.options import json_option
from greensv.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from greensv.plugins import Plugins
    from greensv.speaker.corpora.trial_list import TrialList
    from greensv.speaker.dataset import Progress, Protocol

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint", type=FOLDER)
@click.option("--trial-list", type=FOLDER, help="Pairs, in VoxCeleb's or Kaldi's form.")
@click.option("--study", type=FOLDER, metavar="STUDY.toml", help="Evaluate all test protocols of its dataset instead.")
@click.option("--data-root", type=FOLDER, metavar="DIR", help="Folder of the audio, or of Kaldi data directories.")
@click.option("--scores", type=FOLDER, help="Write `enrolment test score`, a line per pair of the trial list.")
@click.option(
    "--cohort",
    type=FOLDER,
    metavar="DIR",
    help="AS-norm against these speakers: a Kaldi data directory, or a study.toml for its training data.",
)
@click.option(
    "--cohort-utterances", type=click.IntRange(min=1), metavar="N", help="Of each cohort speaker N utterances at most."
)
@click.option(
    "--top-n",
    type=click.IntRange(min=0),
    default=300,
    show_default=True,
    help="Nearest cohort speakers that count; 0 for no AS-norm.",
)
@click.option("--subtract-cohort-mean", is_flag=True, help="Subtract the cohort's mean embedding from all embeddings.")
@click.option("--calibration", type=FOLDER, metavar="FILE", help="Turn scores into likelihood ratios with this.")
@click.option("--fit-calibration", type=FOLDER, metavar="FILE", help="Fit a calibration on these pairs and write it.")
@click.option(
    "--calibration-prior",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Prior at which a calibration is to be best.",
)
@score_options
@click.option("--device", type=DEVICES, default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    *,
    checkpoint: Path,
    device: Literal["auto", "cpu", "cuda"],
    precision: Literal["fp32", "bf16"],
    as_json: bool,
    **flags: Any,
) -> None:
    """EER, minDCF and more of a checkpoint on a trial list; whole utterances, cosine scores.

    CHECKPOINT is the folder of a saved network, or one of its two files. Scores are normalised with --cohort, and
    calibrated with --calibration; --scores writes them as they are then. Intervals are 95 % bootstraps over speakers,
    where the data directories' utt2spk names them.

    \b
    Example:
      greensv evaluate runs/NAME/trial-0003 --trial-list trials.txt --data-root DIR
    """  # noqa: D301 - click wants the character, not the letter
    from greensv.cli.evaluation import (
        Embedder,
        Normalisation,
        check_calibration,
        check_strangers,
        describe_scoring,
        embed_cohort,
        load_cohort,
        weights_sha256,
    )
    from greensv.speaker.device import resolve_device, resolve_precision
    from greensv.speaker.scoring.calibration import Calibration

    options = EvaluationOptions(**flags)
    _check(options)
    chosen_device = resolve_device(device)
    info, network = load_network(ctx, checkpoint)
    calibration = Calibration.load(options.calibration) if options.calibration else None
    plugins = installed_plugins(ctx)
    with progress_bars() as progress:
        embedder = Embedder(
            network=network,
            features=info.features,
            device=chosen_device,
            precision=resolve_precision(precision, chosen_device),
            progress=progress,
        )
        rate = info.features.sample_rate_hz
        protocols = list(_protocols(options, plugins, sample_rate_hz=rate, progress=progress))
        cohort = None
        if options.cohort is not None:
            cohort = load_cohort(
                options.cohort,
                plugins=plugins,
                data_root=options.data_root,
                per_speaker=options.cohort_utterances,
                sample_rate_hz=rate,
                progress=progress,
            )
            for protocol, _ in protocols:  # now, and not when hours have gone into embeddings
                check_strangers(cohort, protocol, name=options.cohort.name)
        scoring = describe_scoring(
            cohort,
            name=options.cohort.name if options.cohort else "",
            per_speaker=options.cohort_utterances,
            top_n=options.top_n,
            is_mean_subtracted=options.subtract_cohort_mean,
            network_sha256=weights_sha256(checkpoint),
        )
        if calibration is not None and options.calibration is not None:
            check_calibration(calibration, scoring, options.calibration)
        normalisation = Normalisation()
        if cohort is not None:
            normalisation = Normalisation(
                cohort=embed_cohort(embedder, cohort),
                top_n=options.top_n,
                is_mean_subtracted=options.subtract_cohort_mean,
            )
        job = EvaluationJob(
            options=options, embedder=embedder, normalisation=normalisation, calibration=calibration, scoring=scoring
        )
        results = [job.evaluate(protocol, trials) for protocol, trials in protocols]
    for record, reason in results:
        if as_json:
            echo_json({"checkpoint": str(checkpoint), **record})
        else:
            _print(record, options, reason=reason)


def _check(options: EvaluationOptions) -> None:
    """Looks before the work begins, not after it."""
    from greensv.report.det_figure import check_det_path

    if (options.trial_list is None) == (options.study is None):
        raise click.UsageError("give the pairs: one of --trial-list and --study")
    if options.trial_list is not None and options.data_root is None:
        raise click.UsageError("--trial-list needs --data-root, the folder of the audio")
    if options.study is not None and (options.scores or options.det or options.fit_calibration):
        raise click.UsageError("--scores, --det and --fit-calibration are for one --trial-list, not for a --study")
    if options.cohort is None and (options.subtract_cohort_mean or options.cohort_utterances):
        raise click.UsageError("--subtract-cohort-mean and --cohort-utterances need a --cohort")
    if options.calibration and options.fit_calibration:
        raise click.UsageError("choose one of --calibration and --fit-calibration")
    for what, path in (("scores", options.scores), ("the calibration", options.fit_calibration)):
        if path is not None and (path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK)):
            reason = "it is a folder" if path.is_dir() else f"the folder {path.parent} is missing or not writable"
            raise ConfigError(f"{what} cannot be written to {path}: {reason}")
    if options.det is not None:
        check_det_path(options.det)


def _protocols(
    options: EvaluationOptions, plugins: "Plugins", *, sample_rate_hz: int, progress: "Progress"
) -> "Iterator[tuple[Protocol, TrialList | None]]":
    """Yields the protocols asked for, with the trial list where there is one."""
    from greensv.cli.evaluation import study_dataset
    from greensv.speaker.corpora.trial_list import read_trial_list, resolve

    if options.study is not None:
        dataset, root, arguments, cache_dir = study_dataset(options.study, plugins=plugins, data_root=options.data_root)
        tests = dataset.load_tests(root, arguments, cache_dir=cache_dir, progress=progress)
        if not tests:
            raise ConfigError(f"the dataset of {options.study} has no test protocols; name some in its options")
        yield from ((protocol, None) for protocol in tests)
        return
    assert options.trial_list is not None
    assert options.data_root is not None
    trials = read_trial_list(options.trial_list)
    yield resolve(trials, options.data_root, sample_rate_hz=sample_rate_hz, progress=progress), trials


def _print(record: "Mapping[str, Any]", options: EvaluationOptions, *, reason: str) -> None:
    from greensv.report.score_tables import condition_table, score_lines

    lines: Sequence[str] = (
        f"{record['trial_list'] or record['protocol']}: {record['num_target'] + record['num_nontarget']:,} pairs "
        f"({record['num_target']:,} target) of {record['num_utterances']:,} utterances",
        *score_lines(record, interval_of=reason or f"{record['num_speakers']} speakers"),
    )
    screen = console()
    for line in lines:
        screen.print(line, markup=False, soft_wrap=True)
    if "conditions" in record:
        screen.print(condition_table(record["conditions"]))
    lines = []
    if options.fit_calibration is not None:
        lines = [f"Calibration, fitted to these very pairs, written to {options.fit_calibration}"]
    lines += [
        f"{what} written to {path}"
        for what, path in (("Scores", options.scores), ("DET curve", options.det))
        if path is not None
    ]
    for line in lines:
        screen.print(line, markup=False, soft_wrap=True)
