"""Cosine scores of a data directory's trial lists, whole utterances, one at a time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from greensv.speaker.audio.store import AudioStore
from greensv.speaker.corpora.trial_list import read_trial_list, resolve
from greensv.speaker.scoring.pairs import score_pairs

LISTS = ("trials_o", "trials_h")


def score_lists(data: Path, embed: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the scores of each list, in its order."""
    scores = {}
    for name in LISTS:
        protocol = resolve(read_trial_list(data / "eval" / f"{name}.txt"), data)
        audio = AudioStore(protocol.utterances)
        embeddings = [embed(audio.whole(index)) for index in range(len(protocol.utterances))]
        scores[name] = score_pairs(np.stack(embeddings).astype(np.float32), protocol.pairs)
    return scores
