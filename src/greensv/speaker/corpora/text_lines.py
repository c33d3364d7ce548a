"""The lines of text files, whole or in blocks, and errors that name the file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from greensv.errors import DataError

_BLOCK_CHARACTERS = 8 << 20


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file.

    Raises:
        DataError: it is missing, unreadable or not UTF-8.
    """
    with _readable(path):
        return path.read_text(encoding="utf-8-sig").splitlines()


def read_blocks(path: Path) -> Iterator[list[str]]:
    """Yields the lines of a text file, some ten thousands at a time, so that millions need little memory.

    Lines keep their ends. Raises as `read_lines` does.
    """
    with _readable(path), path.open(encoding="utf-8-sig") as file:
        while lines := file.readlines(_BLOCK_CHARACTERS):
            yield lines


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"no file {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}; write the file again as UTF-8") from error
