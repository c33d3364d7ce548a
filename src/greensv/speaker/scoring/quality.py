"""Quality measures of pairs: what besides the score tells how much a score is worth.

The measures of WeSpeaker's recipe, after Thienpondt et al. 2021, "The IDLab VoxCeleb speaker recognition challenge 2020
system description": how long the speech is, how long the embedding (its norm grows with the network's confidence), and
how near the cohort. Each is symmetric: the smaller and the larger of both sides' values.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from greensv.speaker.dataset import Protocol
from greensv.speaker.scoring.normalisation import CohortStatistics
from greensv.speaker.scoring.pairs import enrolment_embeddings

Array = NDArray[np.float64]


def protocol_qualities(
    protocol: Protocol,
    embeddings: Float32[np.ndarray, "utterances embedding"],
    *,
    max_duration_s: float,
    cohort: tuple[CohortStatistics, CohortStatistics] | None = None,
) -> dict[str, Array]:
    """Returns the measures of each pair by name, for `fit_calibration` and `Calibration.apply`.

    They are `log_duration_min` and `_max` (natural log of seconds; a model's are those of its utterances together),
    `log_magnitude_min` and `_max`, and with a cohort `cohort_mean_min` and `_max`.

    Args:
        protocol: the pairs.
        embeddings: of its utterances, not normalised.
        max_duration_s: what of an utterance was embedded at the most.
        cohort: statistics of the enrolment side and of the test side.
    """
    durations_s = np.minimum(protocol.utterances.num_samples / protocol.utterances.sample_rate_hz, max_duration_s)
    enrolment = {
        "log_duration": np.log(_sums(durations_s, protocol.models)),
        "log_magnitude": np.log(np.linalg.norm(enrolment_embeddings(embeddings, protocol), axis=1)),
    }
    test = {"log_duration": np.log(durations_s), "log_magnitude": np.log(np.linalg.norm(embeddings, axis=1))}
    if cohort is not None:
        enrolment["cohort_mean"], test["cohort_mean"] = cohort[0].mean, cohort[1].mean
    pairs = protocol.pairs
    return pair_qualities(
        {name: values[pairs.enrolment] for name, values in enrolment.items()},
        {name: values[pairs.test] for name, values in test.items()},
    )


def pair_qualities(
    enrolment: Mapping[str, NDArray[np.floating]], test: Mapping[str, NDArray[np.floating]]
) -> dict[str, Array]:
    """Returns `NAME_min` and `NAME_max` of each measure of both sides of the pairs."""
    found: dict[str, Array] = {}
    for name, values in enrolment.items():
        found[f"{name}_min"] = np.minimum(values, test[name]).astype(np.float64)
        found[f"{name}_max"] = np.maximum(values, test[name]).astype(np.float64)
    return found


def _sums(durations_s: Array, models: Sequence[NDArray[np.int32]]) -> Array:
    return np.array([durations_s[model].sum() for model in models]) if models else durations_s
