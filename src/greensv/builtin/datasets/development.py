"""What the datasets share: the root they are given, and development pairs among held-out training speakers."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from greensv.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from greensv.speaker.dataset import Corpus, Protocol, Skipped, Utterances


@dataclass(frozen=True, slots=True, kw_only=True)
class DevelopmentOptions:
    """How development pairs are made."""

    num_dev_speakers: Annotated[int, Ge(2)] = 20
    """How many training speakers to hold out for development; they return for the full recipe."""
    num_dev_target_pairs: Annotated[int, Ge(1)] = 5_000
    """The most same-speaker pairs to draw for development; all where there are fewer."""
    num_dev_nontarget_pairs: Annotated[int, Ge(1)] = 20_000
    """The most different-speaker pairs to draw for development."""
    seed: Annotated[int, Ge(0)] = 0
    """Chooses the held-out speakers and the development pairs."""


def existing_root(root: Path | None, *, dataset: str, where_to_get: str = "") -> Path:
    """Returns the absolute data root.

    Raises:
        DataError: it is not given, missing, no folder or empty; says where to get the data.
    """
    get = f"; {where_to_get}" if where_to_get else ""
    if root is None:
        raise DataError(
            f"dataset {dataset!r} needs the folder of its data; give it as `--data-root` or `dataset.root`{get}"
        )
    if not root.is_dir():
        found = "it is a file" if root.exists() else "it does not exist"
        raise DataError(f"the data root {root} cannot be read: {found}; give the folder that holds the data{get}")
    if not any(root.iterdir()):
        raise DataError(f"the data root {root} is empty; give the folder that holds the data{get}")
    return normal(root)


def normal(path: Path) -> Path:
    """Returns the path absolute and without `..`, so that paths can be compared as text; links are not followed."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute leaves `..`, Path.resolve follows links


def check_list_there(path: Path) -> None:
    """Refuses a test list that is missing before anything is trained; its pairs are not looked at."""
    if not path.is_file():
        raise DataError(f"no trial list {path}; correct `tests` in [dataset.options], relative to the data root")


def drawn_pairs(utterances: "Utterances", options: DevelopmentOptions) -> "Protocol":
    """Returns the protocol `dev`, pairs drawn among development utterances."""
    from greensv.speaker.corpora.corpus import make_pairs
    from greensv.speaker.dataset import Protocol

    pairs = make_pairs(
        utterances,
        num_target=options.num_dev_target_pairs,
        num_nontarget=options.num_dev_nontarget_pairs,
        seed=options.seed,
    )
    return Protocol(name="dev", utterances=utterances, pairs=pairs)


def held_out_corpus(
    utterances: "Utterances", options: DevelopmentOptions, *, skipped: "Sequence[Skipped]" = ()
) -> "Corpus":
    """Returns the corpus of some training utterances, a few of whose speakers are held out for development."""
    from greensv.speaker.corpora.corpus import hold_out_speakers
    from greensv.speaker.dataset import Corpus

    train, dev = hold_out_speakers(utterances, num_speakers=options.num_dev_speakers, seed=options.seed)
    return Corpus(train=train, dev=drawn_pairs(dev, options), dev_rejoins_training=True, skipped=tuple(skipped))
