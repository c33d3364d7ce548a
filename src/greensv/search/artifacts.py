"""The files that workers of one study share: trainings on their way. A folder, or any store that fsspec knows."""

import os
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from greensv.errors import GreensvError, StudyError

WHOLE_PUT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "memory"})
"""Protocols of object stores, where a file appears when the last byte has arrived. Others write it step by step."""


class MissingArtifactError(StudyError):
    """A file that was saved is not there any more."""


class ArtifactStore:
    """Named files below a folder or a URL such as `s3://bucket/studies/mine`. A file is there whole or not at all."""

    def __init__(self, url: str) -> None:
        """Opens the store.

        Raises:
            StudyError: fsspec does not know the protocol, lacks the package for it, or that package refuses.
        """
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except Exception as error:
            raise StudyError(
                f"the artefacts' place {url} cannot be used: {_reason(error)}; give a folder, or install the fsspec "
                "package of its protocol (s3fs, gcsfs, adlfs, …)"
            ) from error
        self._is_local = type(self._fs) is LocalFileSystem
        self.url = self._root if self._is_local else url

    def below(self, name: str) -> "ArtifactStore":
        """Returns the store of the files whose names begin with `name/`."""
        return ArtifactStore(f"{self.url.rstrip('/')}/{name}")

    @property
    def host(self) -> str | None:
        """The machine whose folder it is; None for a store that has an address of its own."""
        return socket.gethostname() if self._is_local else None

    def save(self, name: str, write: Callable[[Path], object]) -> None:
        """Keeps what `write` writes into the path it is given; what was there under this name is replaced at once.

        Args:
            name: of the file, such as `trial-0007/seed-0/training.pt`.
            write: given a path of this machine where there is no file yet.

        Raises:
            StudyError: it cannot be kept.
            GreensvError: what `write` says of its own trouble.
        """
        with self._failing("written", name):
            if self._is_local:
                _save_beside(Path(self._root, name), write)
            else:
                with tempfile.TemporaryDirectory(prefix="greensv-") as folder:
                    path = Path(folder, PurePosixPath(name).name)
                    write(path)
                    self._put(path, self._at(name))

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Yields a path of this machine with the file's content; to be read only.

        Raises:
            MissingArtifactError: it is not there.
            StudyError: it cannot be read.
        """
        if self._is_local:
            path = Path(self._root, name)
            with self._failing("read", name), self._found(name), path.open("rb"):
                pass
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="greensv-") as folder:
            path = Path(folder, PurePosixPath(name).name)
            with self._failing("read", name), self._found(name):
                self._fs.invalidate_cache()
                self._fs.get_file(self._at(name), str(path))
            yield path

    def exists(self, name: str) -> bool:
        """Says whether there is a file of that name.

        Raises:
            StudyError: the store cannot be reached.
        """
        with self._failing("looked for", name):
            self._fs.invalidate_cache()  # other workers write here, too
            return bool(self._fs.exists(self._at(name)))

    def delete(self, name: str) -> None:
        """Removes a file, if it is there, and its folder, if that is empty then.

        Raises:
            StudyError: it cannot be removed.
        """
        with self._failing("deleted", name):
            if self._is_local:
                path = Path(self._root, name)
                path.unlink(missing_ok=True)
                for unfinished in path.parent.glob(f".{path.name}.*"):  # of workers that were killed while they wrote
                    unfinished.unlink(missing_ok=True)
                _remove_if_empty(path.parent, up_to=Path(self._root))
                return
            self._fs.invalidate_cache()
            try:
                self._fs.rm_file(self._at(name))
            except FileNotFoundError:
                return

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _put(self, path: Path, target: str) -> None:
        if WHOLE_PUT & set(_protocols(self._fs)):  # no folders there, and to make one would make a misspelt bucket
            self._fs.put_file(str(path), target)
            return
        folder, _, name = target.rpartition("/")
        self._fs.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex}"
        try:
            self._fs.put_file(str(path), temporary)
            self._fs.mv(temporary, target)
        except BaseException:
            if self._fs.exists(temporary):
                self._fs.rm_file(temporary)
            raise

    @contextmanager
    def _found(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise MissingArtifactError(
                f"{name} is missing in {self.url}; was it deleted, or is this the folder of another machine?"
            ) from error

    @contextmanager
    def _failing(self, done: str, name: str) -> Iterator[None]:
        try:
            yield
        except GreensvError:
            raise
        except Exception as error:  # packages of object stores raise what they like
            raise StudyError(
                f"{name} in {self.url} cannot be {done}: {_reason(error)}; see that the place can be reached, can be "
                "written and has room, then run the same command again"
            ) from error


def training_name(trial_number: int, repetition: int = 0) -> str:
    """Returns the name of a training's saved state."""
    return f"trial-{trial_number:04d}/seed-{repetition}/training.pt"


def _save_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file under another name in its folder, then puts it in place."""
    _make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Makes a folder, also while another worker removes the empty one above it."""
    for _ in range(9):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            continue
        return
    folder.mkdir(parents=True, exist_ok=True)


def _remove_if_empty(folder: Path, *, up_to: Path) -> None:
    while folder != up_to and up_to in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
