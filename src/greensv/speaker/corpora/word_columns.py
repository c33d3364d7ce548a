"""Columns of words in large text files, without a Python object per word: bytes cut and compared by the block.

Ten million lines of two utterance names and a number are 20 million words in some 700 MB; as Python strings they would
take twice that again, and most of the time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from greensv.errors import DataError

BLOCK_BYTES = 16 << 20
_LONGEST_WORD = 4096
_BOM = b"\xef\xbb\xbf"
_NEWLINE, _SPACE = 0x0A, 0x20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WordBlock:
    """Some lines of a file, the blank ones left out: word `column` of row i begins at `starts[i, column]`."""

    line_numbers: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    text: NDArray[np.uint8]
    """The lines themselves, and enough zeros behind them that every word can be read `_LONGEST_WORD` bytes wide."""

    def __len__(self) -> int:
        return len(self.line_numbers)

    def words(self, column: int, *, width: int) -> NDArray[np.uint64]:
        """Returns one column as bytes, eight to a number, padded with zeros or cut to `width`, a multiple of eight."""
        starts, lengths = self.starts[:, column], np.minimum(self.lengths[:, column], width)
        # A window on the text at each of its bytes: taking some of them copies `width` bytes at a time.
        windows: NDArray[np.void] = np.ndarray(
            len(self.text) - _LONGEST_WORD, dtype=np.dtype((np.void, width)), buffer=self.text.data, strides=(1,)
        )
        numbers = windows[starts].view(np.uint64).reshape(len(starts), width // 8)
        numbers &= _masks(width)[lengths]
        return numbers

    def floats(self, column: int) -> NDArray[np.float64]:
        """Returns one column as numbers.

        Raises:
            ValueError: a word is none.
        """
        width = _padded(int(self.lengths[:, column].max()))
        values: NDArray[np.float64] = (
            self.words(column, width=width).view(np.dtype((np.bytes_, width))).ravel().astype(np.float64)
        )
        return values

    def word(self, row: int, column: int) -> str:
        """Returns one word."""
        start = self.starts[row, column]
        return self.text[start : start + self.lengths[row, column]].tobytes().decode(errors="replace")


class WordIndex:
    """Finds the numbers of known words: `words[numbers]`; words are told apart by all of their bytes."""

    def __init__(self, words: Sequence[str]) -> None:
        known = [word.encode() for word in words]
        assert len(set(known)) == len(known)
        self.width = _padded(max(map(len, known), default=1))
        flat = np.array(known, dtype=np.dtype((np.bytes_, self.width)))
        self._words = flat.view(np.uint64).reshape(len(known), self.width // 8)
        for seed in range(64):
            hashes = _hashes(self._words, seed=seed)
            self._order = np.argsort(hashes)
            self._sorted = hashes[self._order]
            if not (self._sorted[1:] == self._sorted[:-1]).any():
                break
        self._seed = seed
        # Where each value of the hashes' first bits begins: a bisection of a few instead of all.
        self._shift = np.uint64(64 - max(1, min(24, len(known).bit_length() + 3)))
        self._begins = np.searchsorted(self._sorted >> self._shift, np.arange((1 << (64 - int(self._shift))) + 1))

    def find(self, block: WordBlock, column: int) -> NDArray[np.int64]:
        """Returns the number of each word of a column, -1 for a word that is not known."""
        words = block.words(column, width=self.width)
        hashes = _hashes(words, seed=self._seed)
        prefix = (hashes >> self._shift).astype(np.int64)
        place, end = self._begins[prefix], self._begins[prefix + 1]
        last = len(self._sorted) - 1
        found = np.full(len(words), -1, dtype=np.int64)
        pending = np.flatnonzero(place < end)
        while len(pending):
            here = np.minimum(place[pending], last)
            is_it = self._sorted[here] == hashes[pending]
            found[pending[is_it]] = self._order[here[is_it]]
            place[pending] += 1
            pending = pending[~is_it & (place[pending] < end[pending])]
        matched = np.flatnonzero(found >= 0)
        is_same = (self._words[found[matched]] == words[matched]).all(axis=1)
        is_same &= block.lengths[matched, column] <= self.width
        found[matched[~is_same]] = -1
        return found


def read_word_blocks(path: Path, *, nums_columns: Sequence[int], example: str) -> Iterator[WordBlock]:
    """Yields the lines of a file block by block; all have the same number of words, one of `nums_columns`.

    Words are separated by spaces or tabs. Blank lines are skipped.

    Raises:
        DataError: naming file and line: the file cannot be read, or a line has another number of words.
    """
    num_lines, num_columns = 0, 0
    for text in _whole_lines(path):
        is_space = text <= _SPACE
        is_edge = np.diff(is_space.view(np.int8), prepend=np.int8(1), append=np.int8(1))
        starts, ends = np.flatnonzero(is_edge == -1), np.flatnonzero(is_edge == 1)
        line_ends = np.flatnonzero(text == _NEWLINE)
        counts = np.diff(np.searchsorted(starts, line_ends), prepend=0)
        kept = np.flatnonzero(counts)
        if len(kept):
            num_columns = num_columns or int(counts[kept[0]])
            odd = kept[(counts[kept] != num_columns)] if num_columns in nums_columns else kept
            if len(odd):
                begin = 0 if odd[0] == 0 else line_ends[odd[0] - 1] + 1
                line = text[begin : line_ends[odd[0]]].tobytes().decode(errors="replace").strip()
                raise DataError(f"{path}:{num_lines + odd[0] + 1}: found {line!r}, expected {example}")
            lengths = ends - starts
            if lengths.max() > _LONGEST_WORD:
                raise DataError(f"{path} has a word of {lengths.max()} bytes; it is no file of lines such as {example}")
            yield WordBlock(
                line_numbers=kept + num_lines + 1,
                starts=starts.reshape(-1, num_columns),
                lengths=lengths.reshape(-1, num_columns),
                text=np.concatenate([text, np.zeros(_LONGEST_WORD, dtype=np.uint8)]),
            )
        num_lines += len(line_ends)


def _whole_lines(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yields the bytes of a file, cut after line ends; the last line gets one if it has none."""
    try:
        with path.open("rb") as file:
            rest = file.read(len(_BOM)).removeprefix(_BOM)
            while block := file.read(BLOCK_BYTES):
                head, newline, tail = block.rpartition(b"\n")
                if newline:
                    yield np.frombuffer(rest + head + newline, dtype=np.uint8)
                    rest = tail
                else:
                    rest += tail
            if rest:
                yield np.frombuffer(rest.removesuffix(b"\n") + b"\n", dtype=np.uint8)
    except FileNotFoundError:
        raise DataError(f"no file {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _padded(num_bytes: int) -> int:
    return max(8, -(-num_bytes // 8) * 8)


def _masks(width: int) -> NDArray[np.uint64]:
    """Returns by length the mask that keeps so many bytes."""
    kept = np.arange(width) < np.arange(width + 1)[:, None]
    return np.where(kept, np.uint8(255), np.uint8(0)).view(np.uint64)


def _hashes(words: NDArray[np.uint64], *, seed: int) -> NDArray[np.uint64]:
    """Returns 64 bits for each row, by multiply, xor and shift as splitmix64 mixes them; rows that differ may agree."""
    mixed = np.full(len(words), 0x9E3779B97F4A7C15 * (2 * seed + 1) % 2**64, dtype=np.uint64)
    for column in words.T:
        mixed ^= column
        mixed ^= mixed >> np.uint64(30)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
        mixed *= np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed
