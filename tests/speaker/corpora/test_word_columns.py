from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greensv.errors import DataError
from greensv.speaker.corpora import word_columns
from greensv.speaker.corpora.word_columns import WordIndex, read_word_blocks

WORD = st.text(st.characters(min_codepoint=33, blacklist_categories=("Z", "C")), min_size=1, max_size=20)


def read(path: Path, known: list[str], *, num_columns: int) -> list[tuple[int, list[int], list[str]]]:
    """Line number, numbers of the words and the words themselves of each line."""
    index, rows = WordIndex(known), []
    for block in read_word_blocks(path, nums_columns=(num_columns,), example="words"):
        numbers = np.stack([index.find(block, column) for column in range(num_columns)], axis=1)
        words = [[block.word(row, column) for column in range(num_columns)] for row in range(len(block))]
        rows += zip(block.line_numbers.tolist(), numbers.tolist(), words, strict=True)
    return rows


@given(
    lines=st.lists(st.one_of(st.just(()), st.tuples(WORD, WORD)), max_size=12),
    num_known=st.integers(0, 8),
    block_bytes=st.sampled_from([1, 7, 64, 1 << 20]),
    end=st.sampled_from(["\n", ""]),
)
def test_words_are_those_of_split_and_found_by_all_of_their_bytes(
    lines: list[tuple[str, ...]], num_known: int, block_bytes: int, end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("words") / "file"
    path.write_bytes((" \n".join(" \t".join(line) for line in lines) + end).encode())
    known = sorted({word for line in lines for word in line})[:num_known]
    number_of = {word: number for number, word in enumerate(known)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_columns, "BLOCK_BYTES", block_bytes)
        found = read(path, known or ["?" * 30], num_columns=2)
    assert found == [
        (number, [number_of.get(word, -1) for word in line], list(line))
        for number, line in enumerate(lines, start=1)
        if line
    ]


def test_words_longer_than_any_known_one_or_equal_in_part_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("abcdefgh abcdefghi\nabcdefg abcdefghijklmnopq\n")
    rows = read(tmp_path / "file", ["abcdefgh", "abcdefg"], num_columns=2)
    assert [numbers for _, numbers, _ in rows] == [[0, -1], [1, -1]]


def test_many_words_whose_hashes_share_their_beginning_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        word_columns, "_hashes", lambda words, *, seed: words.sum(axis=1, dtype=np.uint64) & np.uint64(0xFFFFFFFFFFFF)
    )
    words = [f"w{number}" for number in range(500)]
    (tmp_path / "file").write_text("".join(f"{word}\n" for word in [*words, "w-1"]))
    numbers = [numbers[0] for _, numbers, _ in read(tmp_path / "file", words, num_columns=1)]
    assert numbers == [*range(500), -1]


def test_byte_order_mark_and_carriage_returns_are_no_part_of_a_word(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfa b\r\n\r\nc d\r\n")
    assert read(tmp_path / "file", ["a", "d"], num_columns=2) == [(1, [0, -1], ["a", "b"]), (3, [-1, 1], ["c", "d"])]


def test_line_with_another_number_of_words_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_columns, "BLOCK_BYTES", 8)
    (tmp_path / "file").write_text("a b\n\nc d\ne\n")
    with pytest.raises(DataError, match="file:4: found 'e', expected words"):
        read(tmp_path / "file", ["a"], num_columns=2)
    (tmp_path / "file").write_text("\na b c\n")
    with pytest.raises(DataError, match="file:2: found 'a b c', expected words"):
        read(tmp_path / "file", ["a"], num_columns=2)


def test_files_that_are_no_text_or_not_there_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read(tmp_path / "none", ["a"], num_columns=2)
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path, ["a"], num_columns=2)
    (tmp_path / "file").write_bytes(b"a" * 5000 + b" b\n")
    with pytest.raises(DataError, match="a word of 5000 bytes"):
        read(tmp_path / "file", ["a"], num_columns=2)
