"""The forms of trial lists: which column is the label, told by what stands in it.

A list is read as three columns of numbers, so that millions of lines take little memory.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from greensv.errors import DataError
from greensv.speaker.corpora.text_lines import read_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """In which column, from 0 on, the label and the two names stand, and what the labels mean."""

    label: int
    enrolment: int
    test: int
    is_target_of: Mapping[str, bool]
    example: str


FORMS = (
    Form(label=0, enrolment=1, test=2, is_target_of={"1": True, "0": False}, example="1 enrolment test"),
    Form(
        label=2,
        enrolment=0,
        test=1,
        is_target_of={"target": True, "nontarget": False},
        example="enrolment test target",
    ),
    Form(label=2, enrolment=0, test=1, is_target_of={"1": True, "0": False}, example="enrolment test 1"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WordTable:
    """All words of a list as numbers, three a row: `words[codes[row, column]]`."""

    words: Sequence[str]
    codes: NDArray[np.int32]
    line_numbers: NDArray[np.int64]

    def row(self, index: int) -> str:
        """Returns a row as it was written, but for the spaces."""
        return " ".join(self.words[code] for code in self.codes[index])

    def has_word(self, column: int, words: Iterable[str]) -> NDArray[np.bool_]:
        """Returns for each row whether one of `words` stands in that column."""
        wanted = set(words)
        is_one = np.zeros(len(self.words), dtype=np.bool_)
        is_one[[code for code, word in enumerate(self.words) if word in wanted]] = True
        return is_one[self.codes[:, column]]


def read_words(path: Path) -> WordTable:
    """Returns the words of a list, three a line; blank lines are skipped.

    Raises:
        DataError: naming file and line: the list cannot be read, or a line has not three words.
    """
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__  # a new word gets the next number, without a step of Python
    codes, line_numbers = [], []
    num_lines = 0
    for lines in read_blocks(path):
        rows = [line.split() for line in lines]
        kept = np.arange(len(rows))
        if set(map(len, rows)) != {3}:
            kept = np.array(_rows_of_three(path, rows, num_lines=num_lines), dtype=np.int64)
            rows = list(filter(None, rows))
        words = itertools.chain.from_iterable(rows)
        codes.append(np.fromiter(map(numbers.__getitem__, words), dtype=np.int32, count=3 * len(rows)))
        line_numbers.append(kept + num_lines + 1)
        num_lines += len(lines)
    return WordTable(
        words=tuple(numbers),
        codes=np.concatenate([np.empty(0, dtype=np.int32), *codes]).reshape(-1, 3),
        line_numbers=np.concatenate([np.empty(0, dtype=np.int64), *line_numbers]),
    )


def _rows_of_three(path: Path, rows: Sequence[Sequence[str]], *, num_lines: int) -> list[int]:
    """Returns the indices of the rows that are not blank, and refuses any that has not three words."""
    for index, row in enumerate(rows):
        if len(row) not in (0, 3):
            raise DataError(
                f"{path}:{num_lines + index + 1}: found {' '.join(row)!r}, expected three words, "
                f"such as `{FORMS[0].example}`"
            )
    return [index for index, row in enumerate(rows) if row]


def recognise(path: Path, table: WordTable) -> Form:
    """Returns the one form that all rows have.

    Raises:
        DataError: naming the first line that has no form, or another one than those before; or all lines have two.
    """
    num_fitting = {form.example: _num_rows_before_misfit(table, form) for form in FORMS}
    fitting = [form for form in FORMS if num_fitting[form.example] == len(table.codes)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(
            f"trial list {path} can be read both as `{fitting[0].example}` and as `{fitting[1].example}`; "
            f"write its labels as `{FORMS[1].example}` and `enrolment test nontarget`"
        )
    example, misfit = max(num_fitting.items(), key=lambda item: item[1])
    found = f"{path}:{table.line_numbers[misfit]}: found {table.row(misfit)!r}"
    if misfit == 0:
        forms = "`, `".join(form.example for form in FORMS)
        raise DataError(f"{found}, expected a line of one of the forms `{forms}`")
    raise DataError(f"{found}, the lines before it have the form `{example}`")


def _num_rows_before_misfit(table: WordTable, form: Form) -> int:
    misfits = ~table.has_word(form.label, form.is_target_of)
    return int(np.argmax(misfits)) if misfits.any() else len(misfits)
