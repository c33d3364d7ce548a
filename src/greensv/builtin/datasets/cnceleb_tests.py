"""CN-Celeb's evaluation as protocols: enrolment with concatenated audio, or with the mean of several embeddings.

The lists name audio as `.wav`, also where it comes as `.flac`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from greensv.errors import DataError
from greensv.speaker.audio.suffixes import find_audio_file
from greensv.speaker.corpora.protocol import Measuring, conditions_of, make_protocol, measured_utterances
from greensv.speaker.corpora.text_lines import read_lines
from greensv.speaker.corpora.trial_list import TrialList
from greensv.speaker.dataset import Pairs, Protocol


def concatenated(trials: TrialList, evaluation: Path, measuring: Measuring) -> Protocol:
    """Returns the protocol in which a speaker is enrolled with one long file, named by `enroll.lst`.

    Args:
        trials: `eval/lists/trials.lst`.
        evaluation: the folder `eval`.
        measuring: what the audio must be.

    Raises:
        DataError: naming list and line: a speaker who is not enrolled, a file that is missing or cannot be used.
    """
    enrolments = _read_enrolments(evaluation / "lists/enroll.lst", trials)
    paths = []
    for number, name in enumerate(trials.names):
        enrolment = enrolments.get(name)
        file = name if enrolment is None else enrolment.files[0]
        path = find_audio_file(str(evaluation / file))
        if path is None:
            raise _missing(evaluation / file, trials.where(number) if enrolment is None else enrolment.where)
        paths.append(path)
    return make_protocol(
        trials,
        paths=paths,
        speakers=[_speaker(name) for name in trials.names],
        measuring=measuring,
        name="CN-Celeb-concat",
        condition_of=_genre,
    )


def averaged(trials: TrialList, evaluation: Path, measuring: Measuring) -> Protocol:
    """Returns the protocol in which a speaker's model is the mean embedding of the utterances in `enroll.map`.

    Those are files below `data`, beside `eval`. Arguments and errors as for `concatenated`.
    """
    enrolments = _read_enrolments(evaluation / "lists/enroll.map", trials)
    enrolled, tested = np.unique(trials.enrolment), np.unique(trials.test)
    paths: list[str] = []
    places: list[str | int] = []  # where an utterance is listed; of the test's a number, since finding that takes long
    number_of: dict[str, int] = {}
    models = []
    for name in (trials.names[number] for number in enrolled.tolist()):
        for file in enrolments[name].files:
            if file not in number_of:
                number_of[file] = len(paths)
                paths.append(_found(evaluation.parent / "data" / file, enrolments[name].where))
                places.append(enrolments[name].where)
        models.append(np.array([number_of[file] for file in enrolments[name].files], dtype=np.int32))
    num_enrolling = len(paths)
    for number in tested.tolist():
        path = find_audio_file(str(evaluation / trials.names[number]))
        if path is None:
            raise _missing(evaluation / trials.names[number], trials.where(number))
        paths.append(path)
        places.append(number)
    ids = [*number_of, *(trials.names[number] for number in tested.tolist())]
    utterances = measured_utterances(
        ids=ids,
        paths=paths,
        speaker_of=[_speaker(name) for name in ids],
        where=lambda index: place if isinstance(place := places[index], str) else trials.where(place),
        measuring=measuring,
    )
    codes, genres = conditions_of(trials, _genre)
    pairs = Pairs(
        enrolment=np.searchsorted(enrolled, trials.enrolment).astype(np.int32),
        test=(np.searchsorted(tested, trials.test) + num_enrolling).astype(np.int32),
        is_target=trials.is_target,
        conditions=codes,
    )
    return Protocol(
        name="CN-Celeb-average", utterances=utterances, pairs=pairs, models=tuple(models), condition_names=genres
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Enrolment:
    files: Sequence[str]
    where: str


def _read_enrolments(path: Path, trials: TrialList) -> Mapping[str, _Enrolment]:
    """Returns the files by the name of the enrolment, and checks that all of the trial list's are there."""
    enrolments: dict[str, _Enrolment] = {}
    for line, text in enumerate(read_lines(path), start=1):
        match text.split():
            case []:
                continue
            case [name, *files] if files:
                if name in enrolments:
                    raise DataError(
                        f"{path}:{line}: {name!r} is listed twice, first in {enrolments[name].where}; remove one"
                    )
                enrolments[name] = _Enrolment(files=files, where=f"{path}:{line}")
            case _:
                raise DataError(f"{path}:{line}: found {text!r}, expected an enrolment and its audio")
    for number in np.unique(trials.enrolment).tolist():
        if trials.names[number] not in enrolments:
            raise DataError(
                f"{trials.where(number)}: {trials.names[number]!r} is not in {path}; unpack the archive again"
            )
    return enrolments


def _found(path: Path, where: str) -> str:
    found = find_audio_file(str(path))
    if found is None:
        raise _missing(path, where)
    return found


def _missing(path: Path, where: str) -> DataError:
    return DataError(f"{where}: no audio file {path}, with this or another audio suffix; unpack the archive again")


def _speaker(name: str) -> str:
    """Of `id00800-enroll`, `test/id00800-singing-01-005.wav` and `id00800/singing-01-001.wav`: id00800."""
    return name.removeprefix("test/").split("/", 1)[0].split("-", 1)[0]


def _genre(name: str) -> str:
    """Of `test/id00800-singing-01-005.wav`: singing."""
    fields = name.rsplit("/", 1)[-1].split("-")
    return fields[1] if len(fields) == 4 else "unknown"
