"""One evaluation from embeddings to a record: scores, calibration, measures, intervals, and the files asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greensv.cli.metrics import num_resamples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from greensv.cli.evaluation import Embedder, Normalisation, Scored
    from greensv.speaker.corpora.trial_list import TrialList
    from greensv.speaker.dataset import Protocol
    from greensv.speaker.scoring.bootstrap import Intervals
    from greensv.speaker.scoring.calibration import Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What the command line asks for, where it matters below the top."""

    trial_list: Path | None
    study: Path | None
    data_root: Path | None
    scores: Path | None
    cohort: Path | None
    cohort_utterances: int | None
    top_n: int
    subtract_cohort_mean: bool
    calibration: Path | None
    fit_calibration: Path | None
    calibration_prior: float
    p_targets: tuple[float, ...]
    det: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationJob:
    """One evaluation, protocol by protocol."""

    options: EvaluationOptions
    embedder: "Embedder"
    normalisation: "Normalisation"
    calibration: "Calibration | None"
    scoring: dict[str, Any]
    """How the scores come about; see `describe_scoring`."""

    def evaluate(self, protocol: "Protocol", trials: "TrialList | None") -> tuple[dict[str, Any], str]:
        """Returns the record of a protocol, and why it has no interval where it has none."""
        from greensv.cli.evaluation import score_protocol
        from greensv.report.det_figure import write_det
        from greensv.report.score_tables import condition_records, score_record
        from greensv.speaker.scoring.det import det_curve
        from greensv.speaker.scoring.metrics import measure_conditions, measure_scores
        from greensv.speaker.scoring.sorted_scores import sort_scores

        options = self.options
        scored = score_protocol(self.embedder, protocol, self.normalisation)
        scores = self._calibrated(scored, protocol)
        ordered = sort_scores(scores, protocol.pairs.is_target)
        metrics = measure_scores(ordered, p_targets=options.p_targets)
        intervals, reason = _intervals(scores, protocol, options.p_targets)
        if options.scores is not None and trials is not None:
            _write_scores(options.scores, trials, scores)
        if options.det is not None:
            write_det(options.det, det_curve(ordered), eer=metrics.eer, title=protocol.name)
        record = {
            "trial_list": str(options.trial_list) if options.trial_list else None,
            "protocol": protocol.name,
            **score_record(metrics, intervals),
            "num_utterances": len(protocol.utterances),
            "num_speakers": protocol.utterances.num_speakers if intervals else None,
            "scoring": self.scoring,
            "calibration": str(path) if (path := options.calibration or options.fit_calibration) else None,
        }
        if protocol.pairs.conditions is not None:
            conditions = measure_conditions(
                scores, protocol.pairs, protocol.condition_names, p_targets=options.p_targets
            )
            record["conditions"] = condition_records(conditions)
        return record, reason

    def _calibrated(self, scored: "Scored", protocol: "Protocol") -> "NDArray[np.floating]":
        from greensv.speaker.scoring.calibration import fit_calibration

        calibration, path = self.calibration, self.options.fit_calibration
        if path is not None:
            is_target = protocol.pairs.is_target
            calibration = fit_calibration(
                scored.scores,
                is_target,
                scored.qualities,
                prior=self.options.calibration_prior,
                scoring=self.scoring,
                trained_on={
                    "protocol": protocol.name,
                    "num_target": int(is_target.sum()),
                    "num_nontarget": int((~is_target).sum()),
                },
            )
            calibration.save(path)
        return scored.scores if calibration is None else calibration.apply(scored.scores, scored.qualities)


def _intervals(
    scores: "NDArray[np.floating]", protocol: "Protocol", p_targets: tuple[float, ...]
) -> "tuple[Intervals | None, str]":
    """Returns the intervals; None where a speaker has no name, so that one person may count as several, and why."""
    from greensv.speaker.corpora.trial_list import UNKNOWN_SPEAKER
    from greensv.speaker.scoring.bootstrap import bootstrap, protocol_speakers

    if any(name.startswith(UNKNOWN_SPEAKER) for name in protocol.utterances.speaker_names):
        return None, "some speakers are not named, add their utt2spk"
    found = bootstrap(
        scores,
        protocol.pairs.is_target,
        protocol_speakers(protocol),
        p_targets=p_targets,
        num_resamples=num_resamples(len(scores)),
    )
    return found, ""


def _write_scores(path: Path, trials: "TrialList", scores: "NDArray[np.floating]") -> None:
    from greensv.speaker.checkpoint import write_whole

    lines = zip(trials.enrolments, trials.tests, scores.tolist(), strict=True)
    write_whole(path, lambda file: file.writelines(f"{a} {b} {score:.6f}\n".encode() for a, b, score in lines))
