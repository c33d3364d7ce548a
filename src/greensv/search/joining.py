"""What a worker must have in common with the study it joins: versions, data, and the place of the trainings.

Each is looked at before energy is used for a candidate, and what differs is named on both sides.
"""

import json
import logging
import socket
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from greensv import __version__
from greensv.config import StudyConfig
from greensv.config.load import differences
from greensv.errors import DataError, StudyError
from greensv.plugins import Plugins
from greensv.search.artifacts import ArtifactStore, MissingArtifactError
from greensv.search.study import VERSION_ATTRIBUTE, OpenStudy
from greensv.search.trial_book import component_versions
from greensv.speaker.dataset import Corpus

DATA_ATTRIBUTE = "greensv:data"
"""User attribute of a study: what its corpus is, as far as names, speakers and lengths tell."""
PLACE_ATTRIBUTE = "greensv:artifacts"
"""User attribute of a study: where its trainings are kept, and on which machine if that is a folder."""
MARKER = "study.json"
"""A file beside the trainings that says whose they are."""

logger = logging.getLogger(__name__)


def here(
    config: StudyConfig,
    *,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    data_root: str | None = None,
    noise_root: str | None = None,
    rir_root: str | None = None,
) -> StudyConfig:
    """Returns a study's configuration with this machine's own device and folders; None leaves the study's."""
    augmentation = config.recipe.augmentation
    augmentation = replace(
        augmentation, noise_root=noise_root or augmentation.noise_root, rir_root=rir_root or augmentation.rir_root
    )
    return replace(
        config,
        device=device or config.device,
        dataset=replace(config.dataset, root=data_root or config.dataset.root),
        recipe=replace(config.recipe, augmentation=augmentation),
    )


def check_versions(study: OpenStudy, plugins: Plugins) -> None:
    """Compares greensv and the study's components with those that it was begun with.

    Raises:
        StudyError: naming both versions of each that differs.
        PluginError: a component is not installed.
    """
    stored = study.optuna.user_attrs.get(VERSION_ATTRIBUTE, {})
    installed = {"greensv": __version__, **component_versions(study.config, plugins)}
    differing = [
        f"  {what}: {stored[what]} in the study, {version} here"
        for what, version in installed.items()
        if what in stored and stored[what] != version
    ]
    if differing:
        listing = "\n".join(differing)
        raise StudyError(
            f"study {study.config.name!r} was begun with other versions than are installed here:\n{listing}\n"
            "Its results would not compare: install the study's versions here, or start a new study with --study-name."
        )


def check_data(study: OpenStudy, corpus: Corpus) -> None:
    """Stores what the corpus is, or compares it with what other workers have loaded, perhaps from other folders.

    Names, speakers and lengths are compared, not samples: those would have to be read and decoded.

    Raises:
        DataError: naming each difference.
    """
    found = _facts(corpus)
    stored = study.optuna.user_attrs.get(DATA_ATTRIBUTE)
    if stored is None or (stored != found and not _has_begun(study)):
        study.optuna.set_user_attr(DATA_ATTRIBUTE, found)
        return
    if changes := differences(stored, found):
        listing = "\n".join(f"  {line}" for line in changes)
        raise DataError(
            f"the data here are not those that study {study.config.name!r} was begun on:\n{listing}\n"
            "Give the folder of the same corpus with --data-root, or start a new study with --study-name."
        )


def known_place(study: OpenStudy) -> str | None:
    """Returns where the study's workers keep trainings; None where none has begun."""
    stored: Mapping[str, Any] = study.optuna.user_attrs.get(PLACE_ATTRIBUTE, {})
    return stored.get("url")


def shared_store(study: OpenStudy, store: ArtifactStore) -> ArtifactStore:
    """Returns the study's own part of a store, once it is known to be writable and the one its other workers use.

    A marker with the study's id lies there. Where it is missing although the study has a place, that place has been
    emptied, or it is a folder of the same name on another machine.

    Raises:
        StudyError: it cannot be written, or is another place than that of the study's other workers.
    """
    own = store.below(study.study_id)
    place = {"url": store.url, "host": store.host}
    stored = study.optuna.user_attrs.get(PLACE_ATTRIBUTE)
    if stored is not None and not _is_marked(own):
        if stored != place:
            on = f" on {stored['host']}" if stored["host"] else ""
            raise StudyError(
                f"the trainings of study {study.config.name!r} are in {stored['url']}{on}, and {store.url}"
                f"{f' on {socket.gethostname()}' if store.host else ''} does not hold them; give --artifacts a place "
                "that all its workers reach (a shared folder, or a store such as s3://bucket/path), and move them there"
            )
        logger.warning("%s has been emptied: trainings that were on their way are gone", store.url)
    text = json.dumps({"study": study.config.name, "study_id": study.study_id})
    own.save(
        MARKER, lambda path: path.write_text(text + "\n", encoding="utf-8")
    )  # also tries whether it can be written
    if stored != place:
        study.optuna.set_user_attr(PLACE_ATTRIBUTE, place)
    return own


def _is_marked(store: ArtifactStore) -> bool:
    try:
        with store.local(MARKER):
            return True
    except MissingArtifactError:
        return False


def _facts(corpus: Corpus) -> dict[str, Any]:
    """JSON values."""
    from greensv.search.trainer import corpus_fingerprint  # with it comes torch

    train, dev = corpus.train, corpus.dev
    pairs = b"".join(column.tobytes() for column in (dev.pairs.enrolment, dev.pairs.test, dev.pairs.is_target))
    return {
        "training utterances": len(train),
        "training speakers": train.num_speakers,
        "training seconds": round(train.duration_s, 3),
        "development utterances": len(dev.utterances),
        "development pairs": len(dev.pairs),
        "checksum of names, speakers and lengths": f"{corpus_fingerprint(corpus):08x}",
        "checksum of pairs": f"{zlib.crc32(pairs):08x}",
    }


def _has_begun(study: OpenStudy) -> bool:
    return any(record.state not in ("waiting", "refused") for record in study.records())
