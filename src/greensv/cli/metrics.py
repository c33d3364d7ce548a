"""`greensv metrics`: error rates and costs of any toolkit's score file."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from greensv.cli.console import console, echo_json
from greensv.cli.options import json_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from greensv.speaker.corpora.trial_list import TrialList

F = TypeVar("F", bound=Callable[..., Any])

RESAMPLED_PAIRS = 1_000_000_000
"""Resamples × pairs of the intervals at the most, beyond 200 resamples: some seconds."""


def score_options(function: F) -> F:
    """Adds --p-target and --det."""
    p_target = click.option(
        "--p-target",
        "p_targets",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        multiple=True,
        default=(0.01,),
        show_default=True,
        help="Prior probability of a same-speaker pair, for minDCF and actDCF (repeatable).",
    )
    det = click.option(
        "--det",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the DET curve: a figure (.png, .svg, .pdf) or its points (.csv, .json).",
    )
    return p_target(det(function))


@click.command()
@click.argument("scores", type=click.Path(path_type=Path))
@click.option(
    "--trial-list", type=click.Path(path_type=Path), required=True, help="Pairs, in VoxCeleb's or Kaldi's form."
)
@click.option(
    "--speakers",
    type=click.Path(path_type=Path),
    metavar="UTT2SPK",
    help="Speakers of the utterances, for intervals; not needed for names as VoxCeleb and CN-Celeb have them.",
)
@score_options
@json_option
def metrics(
    *,
    scores: Path,
    trial_list: Path,
    speakers: Path | None,
    p_targets: tuple[float, ...],
    det: Path | None,
    as_json: bool,
) -> None:
    """EER, minDCF, actDCF, Cllr and minCllr of a score file of any toolkit.

    SCORES holds `enrolment test score` on each line, in any order; a fourth word, `target` or `nontarget`, is compared
    with the list's. Every pair of the trial list must have a score, and every score belong to a pair. For actDCF and
    Cllr scores are natural-log likelihood ratios. Intervals are 95 % bootstraps over speakers.

    \b
    Example:
      greensv metrics scores.txt --trial-list veri_test2.txt --p-target 0.01 --det det.png
    """  # noqa: D301 - click wants the character, not the letter
    from greensv.report.det_figure import check_det_path, write_det
    from greensv.report.score_tables import score_lines, score_record
    from greensv.speaker.corpora.trial_list import read_trial_list
    from greensv.speaker.scoring.bootstrap import bootstrap
    from greensv.speaker.scoring.det import det_curve
    from greensv.speaker.scoring.metrics import measure_scores
    from greensv.speaker.scoring.score_file import read_scores
    from greensv.speaker.scoring.sorted_scores import sort_scores

    if det is not None:
        check_det_path(det)
    trials = read_trial_list(trial_list)
    speaker_of, reason = _speakers(trials, speakers)
    values = read_scores(scores, trials)
    ordered = sort_scores(values, trials.is_target)
    found = measure_scores(ordered, p_targets=p_targets)
    intervals = None
    if speaker_of is not None:
        intervals = bootstrap(
            values,
            trials.is_target,
            (speaker_of[trials.enrolment], speaker_of[trials.test]),
            p_targets=p_targets,
            num_resamples=num_resamples(len(trials)),
        )
    if det is not None:
        write_det(det, det_curve(ordered), eer=found.eer, title=scores.name)
    record = {
        "scores": str(scores),
        "trial_list": str(trial_list),
        **score_record(found, intervals),
        "num_duplicates": trials.num_duplicates,
        "num_contradictory": trials.num_contradictory,
        "num_speakers": len(set(speaker_of.tolist())) if speaker_of is not None else None,
    }
    if as_json:
        echo_json(record)
        return
    lines = [
        f"{scores}: {len(trials):,} pairs ({found.num_target:,} target) of {len(trials.names):,} utterances",
        *score_lines(record, interval_of=f"{record['num_speakers']} speakers" if intervals else reason),
    ]
    if trials.num_duplicates or trials.num_contradictory:
        lines.append(
            f"{trials.num_duplicates:,} pairs are listed again and {trials.num_contradictory:,} with both labels; "
            "all of them count"
        )
    if ordered.target[0] == ordered.target[-1] == ordered.nontarget[0] == ordered.nontarget[-1]:
        lines.append("All scores are equal: they tell nothing.")
    if det is not None:
        lines.append(f"DET curve written to {det}")
    for line in lines:
        console().print(line, markup=False, soft_wrap=True)


def num_resamples(num_pairs: int) -> int:
    """Returns how many resamples an interval takes: 1000, and fewer of very many pairs."""
    return min(1000, max(200, RESAMPLED_PAIRS // num_pairs))


def _speakers(trials: "TrialList", path: Path | None) -> tuple["NDArray[np.int32] | None", str]:
    """Returns the speaker of each name of a list; or None, and why there is no telling."""
    import numpy as np

    from greensv.speaker.scoring.speaker_names import read_speakers, speakers_of_names

    found = speakers_of_names(trials.names) if path is None else read_speakers(path, trials.names)
    if found is None:
        return None, "the names do not tell the speakers, give --speakers"
    is_same = found[trials.enrolment] == found[trials.test]
    num_wrong = int(np.count_nonzero(is_same != trials.is_target))
    if num_wrong > trials.num_contradictory:
        return None, f"{num_wrong} labels of the list contradict the speakers"
    return found, ""
