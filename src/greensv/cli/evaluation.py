"""What `greensv evaluate` computes: embeddings, a cohort, and the scores of a protocol with what tells their worth."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greensv.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from greensv.config import FeatureConfig
    from greensv.plugins import Plugins
    from greensv.speaker.dataset import Corpus, Progress, Protocol, Utterances
    from greensv.speaker.device import Precision
    from greensv.speaker.scoring.calibration import Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedder:
    """A network and all that turns utterances into embeddings with it."""

    network: "nn.Module"
    features: "FeatureConfig"
    device: "torch.device"
    precision: "Precision"
    progress: "Progress"

    def embed(self, utterances: "Utterances", what: str) -> "NDArray[np.float32]":
        """Returns the embeddings of utterances; the progress is called `what`."""
        from greensv.speaker.audio.store import AudioStore
        from greensv.speaker.embedding import embed

        return embed(
            self.network,
            utterances,
            # Each utterance is read once: nothing is worth keeping in memory.
            AudioStore(utterances, cache_bytes=0),
            features=self.features,
            device=self.device,
            precision=self.precision,
            on_batch=lambda done, total: self.progress(what, done, total),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cohort:
    """Speakers to normalise scores with: the mean embedding of each, and the mean of all utterances' embeddings."""

    means: "NDArray[np.float32]"
    overall_mean: "NDArray[np.float32]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """How scores are made of embeddings: plain cosines without a cohort; `top_n` 0 for no AS-norm."""

    cohort: Cohort | None = None
    top_n: int = 0
    is_mean_subtracted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """The scores of a protocol, and the quality measures of its pairs."""

    scores: "NDArray[np.float32]"
    qualities: "Mapping[str, NDArray[np.float64]]"


def describe_scoring(
    cohort: "Utterances | None",
    *,
    name: str,
    per_speaker: int | None,
    top_n: int,
    is_mean_subtracted: bool,
    network_sha256: str,
) -> dict[str, Any]:
    """Returns how scores come about, in JSON values: what a calibration of them must know.

    A cohort's name does not tell it from others, so `cohort_digest` does: the first 16 hexadecimal digits of the
    SHA-256 of the sorted names of the utterances that are used, each ended by a newline.
    """
    if cohort is None:
        return {"method": "cosine", "network_sha256": network_sha256}
    return {
        "method": "as-norm" if top_n else "cosine",
        "cohort": name,
        "cohort_digest": hashlib.sha256("".join(f"{name}\n" for name in sorted(cohort.ids)).encode()).hexdigest()[:16],
        "num_cohort_speakers": cohort.num_speakers,
        "cohort_utterances": per_speaker,
        "top_n": top_n,
        "is_mean_subtracted": is_mean_subtracted,
        "network_sha256": network_sha256,
    }


def score_protocol(embedder: Embedder, protocol: "Protocol", normalisation: Normalisation) -> Scored:
    """Returns a protocol's cosines, normalised against the cohort where one is given."""
    from greensv.speaker.embedding import MAX_UTTERANCE_S
    from greensv.speaker.scoring.normalisation import cohort_statistics, normalise_scores
    from greensv.speaker.scoring.pairs import enrolment_embeddings, score_protocol_pairs
    from greensv.speaker.scoring.quality import protocol_qualities

    embeddings = embedder.embed(protocol.utterances, f"embedding {protocol.name}")
    cohort, pairs = normalisation.cohort, protocol.pairs
    if cohort is None:
        scores = score_protocol_pairs(embeddings, protocol)
        return Scored(scores=scores, qualities=protocol_qualities(protocol, embeddings, max_duration_s=MAX_UTTERANCE_S))
    means = cohort.means
    if normalisation.is_mean_subtracted:
        embeddings, means = embeddings - cohort.overall_mean, means - cohort.overall_mean
    scores = score_protocol_pairs(embeddings, protocol)
    statistics = None
    if normalisation.top_n:
        enrolled = enrolment_embeddings(embeddings, protocol)
        statistics = (
            cohort_statistics(enrolled, means, used=pairs.enrolment, top_n=normalisation.top_n),
            cohort_statistics(embeddings, means, used=pairs.test, top_n=normalisation.top_n),
        )
        scores = normalise_scores(scores, pairs, enrolment=statistics[0], test=statistics[1])
    qualities = protocol_qualities(protocol, embeddings, max_duration_s=MAX_UTTERANCE_S, cohort=statistics)
    return Scored(scores=scores, qualities=qualities)


def embed_cohort(embedder: Embedder, utterances: "Utterances") -> Cohort:
    """Returns the cohort that some utterances make; their speakers must be in no pair, see `check_strangers`."""
    import numpy as np

    from greensv.speaker.scoring.normalisation import speaker_means

    embeddings = embedder.embed(utterances, "embedding the cohort")
    return Cohort(
        means=speaker_means(embeddings, utterances.speakers),
        overall_mean=embeddings.mean(axis=0, dtype=np.float64).astype(np.float32),
    )


def load_cohort(
    path: Path,
    *,
    plugins: "Plugins",
    data_root: Path | None,
    per_speaker: int | None,
    sample_rate_hz: int,
    progress: "Progress",
) -> "Utterances":
    """Returns a cohort's utterances: of a Kaldi data directory, or the training utterances of a study's dataset.

    Args:
        path: the data directory, or the study.
        plugins: what is installed.
        data_root: where relative paths of the data directory start; None for the folder above it.
        per_speaker: of each speaker so many utterances at the most, in the corpus's order; None for all.
        sample_rate_hz: the rate the audio must have.
        progress: called as files are looked at.

    Raises:
        ConfigError: the path is neither.
        DataError: the data cannot be used.
    """
    from greensv.speaker.corpora.kaldi_directory import load_utterances, read_kaldi_directory

    utterances: Utterances
    if (path / "wav.scp").is_file():
        directory = read_kaldi_directory(path, root=data_root or path.parent)
        utterances = load_utterances(directory, sample_rate_hz=sample_rate_hz, progress=progress)
    elif path.suffix == ".toml" or (path / "study.toml").is_file():
        dataset, root, options, cache_dir = study_dataset(path, plugins=plugins, data_root=None)
        corpus: Corpus = dataset.load(root, options, cache_dir=cache_dir, progress=progress)
        utterances = corpus.train
    else:
        raise ConfigError(
            f"{path} is no cohort: give a Kaldi data directory (wav.scp, utt2spk) or a study.toml, "
            "whose dataset's training utterances are taken"
        )
    return utterances if per_speaker is None else _first_of_each_speaker(utterances, per_speaker)


def _first_of_each_speaker(utterances: "Utterances", per_speaker: int) -> "Utterances":
    import numpy as np

    from greensv.speaker.corpora.corpus import select

    order = np.argsort(utterances.speakers, kind="stable")
    begins = np.searchsorted(utterances.speakers[order], np.arange(utterances.num_speakers))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - begins[utterances.speakers[order]]
    return select(utterances, np.flatnonzero(rank < per_speaker))


def study_dataset(study: Path, *, plugins: "Plugins", data_root: Path | None) -> tuple[Any, Path | None, Any, Path]:
    """Returns a study's dataset, its folder, its options, and where it may keep things.

    Raises:
        ConfigError: the study has mistakes, or its dataset has no folder.
    """
    from greensv.cli.search import absolute_folder
    from greensv.config.load import merge, read_toml
    from greensv.search.configure import configure
    from greensv.search.workbench import cache_folder, dataset_arguments

    data = read_toml(study)
    if data_root is not None:
        data = merge(data, {"dataset": {"root": absolute_folder(data_root)}})
    dataset, root, options = dataset_arguments(configure(data, source=str(study), plugins=plugins), plugins)
    return dataset, root, options, cache_folder() / dataset.name


def check_calibration(calibration: "Calibration", scoring: Mapping[str, Any], path: Path) -> None:
    """Refuses a calibration of scores that were made in another way, or by another network.

    Raises:
        ConfigError: naming what differs.
    """
    keys = sorted(calibration.scoring.keys() | scoring.keys())
    differing = [
        f"{key} {calibration.scoring.get(key)!r}, here {scoring.get(key)!r}"
        for key in keys
        if calibration.scoring.get(key) != scoring.get(key)
    ]
    if differing:
        cohorts = calibration.scoring.get("cohort_digest"), scoring.get("cohort_digest")
        other = "scores with another cohort" if None not in cohorts and cohorts[0] != cohorts[1] else "other scores"
        raise ConfigError(
            f"calibration {path} was fitted to {other} ({'; '.join(differing)}); "
            "score as it was fitted, or fit one with --fit-calibration"
        )


def weights_sha256(checkpoint: Path) -> str:
    """Returns the SHA-256 of a checkpoint's weights, which tells networks apart."""
    from greensv.speaker.checkpoint import WEIGHTS_FILE

    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    return hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()


def check_strangers(cohort: "Utterances", protocol: "Protocol", *, name: str) -> None:
    """Refuses a cohort, called `name`, that shares a speaker or a file with the pairs.

    Raises:
        DataError: naming some of what they share.
    """
    from greensv.speaker.corpora.corpus import check_disjoint

    try:
        check_disjoint(cohort, protocol.utterances, first_name=f"cohort {name}", second_name=protocol.name)
    except DataError as error:
        raise DataError(f"a cohort is made of other speakers than those compared: {error}") from error
