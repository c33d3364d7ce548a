"""Score files as toolkits write them, matched with the pairs of a trial list by name.

A line is `enrolment test score` (Kaldi, Kiwano, SpeechBrain, `greensv evaluate --scores`) or `enrolment test score
label` (WeSpeaker), in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from greensv.errors import DataError
from greensv.speaker.corpora.trial_list import TrialList
from greensv.speaker.corpora.word_columns import WordBlock, WordIndex, read_word_blocks

EXAMPLE = "`enrolment test score`, or `enrolment test score target|nontarget`, on each line"
_LABELS = {"nontarget": False, "target": True, "0": False, "1": True}
_NUM_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """The lines of a score file: `pairs` as enrolment · number of names + test, -1 where a name is not in the list."""

    pairs: NDArray[np.int64]
    scores: NDArray[np.float64]
    labels: NDArray[np.bool_] | None
    line_numbers: NDArray[np.int64]


def read_scores(path: Path, trials: TrialList) -> NDArray[np.float64]:
    """Returns the score of each pair of a trial list, in the list's order; a pair listed twice has its score twice.

    Where the lines are the list's pairs in the list's order, each pair has the score of its line.

    Raises:
        DataError: naming file and line: it cannot be read, a line has another form, a score is no finite number, a pair
            has two different scores, or a label is not the list's; or a pair has no score, or a score belongs to no
            pair of the list.
    """
    rows = _read(path, trials)
    wanted = trials.enrolment.astype(np.int64) * len(trials.names) + trials.test
    if np.array_equal(rows.pairs, wanted):
        _check_labels(path, rows, trials.is_target, np.zeros(0, dtype=np.int64))
        return rows.scores
    order = np.argsort(rows.pairs, kind="stable")
    pairs, scores = rows.pairs[order], rows.scores[order]
    again = np.flatnonzero((pairs[1:] == pairs[:-1]) & (scores[1:] != scores[:-1]) & (pairs[1:] >= 0))
    if len(again):
        lines = rows.line_numbers[order[again[0] : again[0] + 2]]
        raise DataError(
            f"{path}: lines {lines[0]} and {lines[1]} give one pair different scores "
            f"({scores[again[0]]:g} and {scores[again[0] + 1]:g}; so do {len(again)} lines); keep one of them"
        )
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    is_missing = pairs[place] != wanted
    sorted_wanted = np.sort(wanted)
    nearest = np.minimum(np.searchsorted(sorted_wanted, rows.pairs), len(wanted) - 1)
    is_extra = sorted_wanted[nearest] != rows.pairs
    if is_missing.any() or is_extra.any():
        raise _mismatch(path, trials, rows, np.flatnonzero(is_missing), np.flatnonzero(is_extra))
    if rows.labels is not None:
        _check_labels_by_pair(path, rows, wanted, trials.is_target)
    return scores[place]


def _read(path: Path, trials: TrialList) -> _Rows:
    names, labels = WordIndex(trials.names), WordIndex(tuple(_LABELS))
    is_target_of = np.array([*_LABELS.values()], dtype=np.bool_)
    found: list[_Rows] = []
    for block in read_word_blocks(path, nums_columns=(3, 4), example=EXAMPLE):
        enrolment, test = names.find(block, 0), names.find(block, 1)
        is_target = None
        if block.starts.shape[1] == 4:
            label = labels.find(block, 3)
            bad = np.flatnonzero(label < 0)
            if len(bad):
                raise DataError(
                    f"{path}:{block.line_numbers[bad[0]]}: found {block.word(int(bad[0]), 3)!r} as a fourth word, "
                    f"expected {EXAMPLE}; cut other columns off"
                )
            is_target = is_target_of[label]
        found.append(
            _Rows(
                pairs=np.where((enrolment < 0) | (test < 0), -1, enrolment * len(trials.names) + test),
                scores=_finite(path, block),
                labels=is_target,
                line_numbers=block.line_numbers,
            )
        )
    if not found:
        raise DataError(f"score file {path} is empty; expected {EXAMPLE}")
    columns = [rows.labels for rows in found if rows.labels is not None]
    return _Rows(
        pairs=np.concatenate([rows.pairs for rows in found]),
        scores=np.concatenate([rows.scores for rows in found]),
        labels=np.concatenate(columns) if columns else None,
        line_numbers=np.concatenate([rows.line_numbers for rows in found]),
    )


def _finite(path: Path, block: WordBlock) -> NDArray[np.float64]:
    try:
        scores = block.floats(2)
    except ValueError:
        for row in range(len(block)):
            if not _is_number(block.word(row, 2)):
                break
        raise DataError(
            f"{path}:{block.line_numbers[row]}: score {block.word(row, 2)!r} is no number; expected {EXAMPLE}"
        ) from None
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise DataError(
            f"{path}:{block.line_numbers[bad[0]]}: the score is {block.word(int(bad[0]), 2)}, not a finite number; "
            "find out why the toolkit wrote it (an utterance without speech, a network that has diverged)"
        )
    return scores


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _check_labels(path: Path, rows: _Rows, expected: NDArray[np.bool_], contradictory: NDArray[np.int64]) -> None:
    """Compares the file's own labels with the list's; pairs listed with both labels are left out."""
    if rows.labels is None:
        return
    wrong = np.flatnonzero((rows.labels != expected) & ~np.isin(rows.pairs, contradictory))
    if len(wrong):
        found = "target" if rows.labels[wrong[0]] else "nontarget"
        raise DataError(
            f"{path}:{rows.line_numbers[wrong[0]]}: labelled {found}, the trial list says otherwise "
            f"(so of {len(wrong)} of {len(rows.labels)} lines); is it the list these scores were computed for?"
        )


def _check_labels_by_pair(path: Path, rows: _Rows, wanted: NDArray[np.int64], is_target: NDArray[np.bool_]) -> None:
    pairs, first = np.unique(wanted, return_index=True)
    targets, nontargets = np.unique(wanted[is_target]), np.unique(wanted[~is_target])
    expected = is_target[first][np.searchsorted(pairs, rows.pairs)]
    _check_labels(path, rows, expected, np.intersect1d(targets, nontargets))


def _mismatch(
    path: Path, trials: TrialList, rows: _Rows, missing: NDArray[np.intp], extra: NDArray[np.intp]
) -> DataError:
    parts = []
    if len(missing):
        shown = [
            f"`{trials.names[trials.enrolment[i]]} {trials.names[trials.test[i]]}` (line {trials.line_numbers[i]})"
            for i in missing[:_NUM_EXAMPLES].tolist()
        ]
        what = f"{len(missing)} of {len(trials)} pairs of {trials.path} have no score in {path}"
        parts.append(f"{what}: {_some(shown, missing)}")
    lines = _lines(path, rows.line_numbers[extra[:_NUM_EXAMPLES]].tolist())
    if len(extra):
        what = f"{len(extra)} of {len(rows.scores)} scores of {path} belong to no pair of {trials.path}"
        parts.append(f"{what}: {_some(lines, extra)}")
    return DataError("; ".join([*parts, _hint(trials, rows, lines, extra)]))


def _some(shown: Sequence[str], all_of_them: NDArray[np.intp]) -> str:
    return ", ".join(shown) + (", …" if len(all_of_them) > len(shown) else "")


def _lines(path: Path, numbers: Sequence[int]) -> list[str]:
    """Returns the first two words of some lines, for a message."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        wanted, found, done = sorted(numbers), [], 0
        for number in wanted:
            line = next(islice(file, number - done - 1, None))
            found.append(f"`{' '.join(line.split()[:2])}` (line {number})")
            done = number
    return found


def _hint(trials: TrialList, rows: _Rows, lines: Sequence[str], extra: NDArray[np.intp]) -> str:
    num_names = len(trials.names)
    known = rows.pairs[extra] >= 0
    if known.any():
        swapped = (rows.pairs[extra][known] % num_names) * num_names + rows.pairs[extra][known] // num_names
        wanted = trials.enrolment.astype(np.int64) * num_names + trials.test
        if np.isin(swapped, wanted).any():
            return "some have their two names the other way round: write the enrolment first, as the list does"
    written = {_bare(name): name for name in trials.names}
    for line in lines:
        for name in line.strip("`").split("`")[0].split():
            meant = written.get(_bare(name))
            if meant not in (None, name):
                return f"names are written differently: {name!r} in the score file, {meant!r} in the list"
    return "give the list that these scores were computed for"


def _bare(name: str) -> str:
    """Returns a name without what toolkits change in it: suffix, slashes, leading folders of lists."""
    path = PurePosixPath(name)
    bare = str(path.with_suffix("")) if path.suffix[1:].isalnum() and path.suffix[1:].isascii() else name
    return bare.removeprefix("./").replace("/", "_").replace("-", "_")
