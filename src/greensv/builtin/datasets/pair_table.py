"""Pairs in a table whose columns and labels the user names.

CommonBench's format is published nowhere, and may change.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from greensv.errors import DataError, did_you_mean
from greensv.speaker.corpora.text_lines import read_blocks
from greensv.speaker.corpora.trial_list import TrialList, trial_list_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PairColumns:
    """How a table of pairs is read. A column is its name in the first line, or its number, from 1 on."""

    enrolment: str | int
    test: str | int
    label: str | int
    delimiter: str
    target_labels: Sequence[str]
    nontarget_labels: Sequence[str]

    @property
    def has_header(self) -> bool:
        """Whether the first line names the columns."""
        return any(isinstance(column, str) for column in (self.enrolment, self.test, self.label))


def sha256_of(path: Path, *, pinned: str | None) -> str:
    """Returns the SHA-256 of a list, in hexadecimal.

    Raises:
        DataError: it is missing, or not the one that is `pinned`.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"pair list {path} cannot be read: {error.strerror}; give its path as `pairs`") from error
    if pinned is not None and not found.startswith(pinned.lower().removeprefix("sha256:")):
        raise DataError(
            f"pair list {path} has SHA-256 {found}, `sha256` asks for {pinned}: the list has changed, and its results "
            "do not compare; get the other one, or change `sha256`"
        )
    return found


def read_pair_table(path: Path, columns: PairColumns) -> TrialList:
    """Returns the pairs of a table; blank lines are skipped, quoted fields are read as CSV has them.

    Raises:
        DataError: naming file and line: a column is missing, a label is unknown; or all pairs are of one kind.
    """
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__  # a new name gets the next number, without a step of Python
    label_of = dict.fromkeys(columns.nontarget_labels, False) | dict.fromkeys(columns.target_labels, True)
    codes, labels, line_numbers = [], [], []
    places: tuple[int, int, int] | None = None
    num_lines = 0
    for lines in read_blocks(path):
        rows = _split(lines, columns.delimiter)
        kept = [index for index, row in enumerate(rows) if row]
        if places is None and kept:
            places = _places(path, rows[kept[0]], columns)
            kept = kept[1:] if columns.has_header else kept
        block = _read_block([rows[index] for index in kept], places or (0, 0, 0), label_of)
        if isinstance(block, int):
            line = num_lines + kept[block] + 1
            raise DataError(f"{path}:{line}: found {lines[kept[block]].strip()!r}, {_expected(columns, label_of)}")
        words, is_target = block
        codes.append(np.fromiter(map(numbers.__getitem__, words), dtype=np.int32, count=len(words)))
        labels.append(is_target)
        line_numbers.append(np.array(kept, dtype=np.int64) + num_lines + 1)
        num_lines += len(lines)
    if not sum(map(len, codes)):
        raise DataError(f"pair list {path} has no pairs; give another one as `pairs`")
    table = np.concatenate(codes).reshape(-1, 2)
    return trial_list_of(
        path,
        words=tuple(numbers),
        enrolment=table[:, 0],
        test=table[:, 1],
        is_target=np.concatenate(labels),
        line_numbers=np.concatenate(line_numbers),
    )


def _split(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    if delimiter == " ":
        return [line.split() for line in lines]
    return list(csv.reader(lines, delimiter=delimiter))


def _read_block(
    rows: Sequence[Sequence[str]], places: tuple[int, int, int], label_of: Mapping[str, bool]
) -> tuple[list[str], NDArray[np.bool_]] | int:
    """Returns the names in the order of the rows, and the labels; or the index of the first row that is none."""
    enrolment, test, label = places
    try:
        is_target = np.array([label_of[row[label].strip()] for row in rows], dtype=np.bool_)
        words = [row[place].strip() for row in rows for place in (enrolment, test)]
    except (IndexError, KeyError):
        return next(
            index for index, row in enumerate(rows) if len(row) <= max(places) or row[label].strip() not in label_of
        )
    if all(words):
        return words, is_target
    return words.index("") // 2


def _places(path: Path, first: Sequence[str], columns: PairColumns) -> tuple[int, int, int]:
    header = [name.strip() for name in first]

    def place(column: str | int) -> int:
        if isinstance(column, int):
            return column - 1
        if column not in header:
            raise DataError(
                f"{path} has no column {column!r}{did_you_mean(column, header)} (found: {', '.join(header)})"
            )
        return header.index(column)

    return place(columns.enrolment), place(columns.test), place(columns.label)


def _expected(columns: PairColumns, labels: Iterable[str]) -> str:
    return (
        f"expected two utterances in the columns {columns.enrolment!r} and {columns.test!r} and one of the labels "
        f"{', '.join(map(repr, labels))} in {columns.label!r}, separated by {columns.delimiter!r}; "
        "correct these options of the dataset, or the list"
    )
