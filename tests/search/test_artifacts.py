"""Files that workers share: whole or not at all, on a folder and on an object store."""

import threading
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from greensv.errors import StudyError, TrainingError
from greensv.search.artifacts import ArtifactStore, MissingArtifactError, training_name

NAME = training_name(7, 1)


class SteppingFileSystem(LocalFileSystem):
    """A store that is no object store, as sftp is: here a folder behind a protocol of its own."""

    protocol = "stepping"


fsspec.register_implementation("stepping", SteppingFileSystem, clobber=True)


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    place = str(tmp_path / "shared") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/trainings"
    return ArtifactStore(place)


def put(store: ArtifactStore, content: bytes, name: str = NAME) -> None:
    store.save(name, lambda path: path.write_bytes(content))


def got(store: ArtifactStore, name: str = NAME) -> bytes:
    with store.local(name) as path:
        return path.read_bytes()


def test_names_of_trainings():
    assert training_name(7) == "trial-0007/seed-0/training.pt"
    assert training_name(12345, 2) == "trial-12345/seed-2/training.pt"


def test_what_one_worker_saves_another_finds_replaces_and_deletes(store: ArtifactStore):
    other = ArtifactStore(store.url)
    assert not other.exists(NAME)
    put(store, b"first")
    assert other.exists(NAME)
    assert got(other) == b"first"
    put(other, b"second")
    assert got(store) == b"second"
    other.delete(NAME)
    assert not store.exists(NAME)
    other.delete(NAME)  # twice is no error: another worker may have been faster


def test_a_file_that_is_gone_is_told_apart_from_a_store_that_fails(store: ArtifactStore):
    with pytest.raises(MissingArtifactError, match=r"training\.pt is missing in .*was it deleted"), store.local(NAME):
        pass


def test_a_writer_that_fails_leaves_the_old_file_and_no_other(store: ArtifactStore, tmp_path: Path):
    put(store, b"good")

    def breaks(path: Path) -> None:
        path.write_bytes(b"half")
        raise TrainingError("the weights are not finite")

    with pytest.raises(TrainingError, match="not finite"):
        store.save(NAME, breaks)
    assert got(store) == b"good"
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == (1 if store.host else 0)


def test_a_writer_that_is_killed_leaves_the_old_file(store: ArtifactStore):
    put(store, b"good")

    def killed(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.save(NAME, killed)
    assert got(store) == b"good"


def test_a_store_below_another_is_apart_from_it(store: ArtifactStore):
    below = store.below("one-study")
    put(below, b"its own")
    assert not store.exists(NAME)
    assert store.exists(f"one-study/{NAME}")


def test_a_store_that_writes_step_by_step_is_written_under_another_name_first(tmp_path: Path):
    store = ArtifactStore(f"stepping://{tmp_path}/shared")
    assert store.host is None, "it has an address of its own"
    put(store, b"first")
    put(store, b"second")
    assert got(store) == b"second"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["training.pt"]


def test_deleting_removes_empty_folders_and_what_a_killed_worker_left(tmp_path: Path):
    store = ArtifactStore(str(tmp_path / "shared"))
    put(store, b"x")
    put(store, b"y", training_name(7, 0))
    (tmp_path / "shared" / "trial-0007" / "seed-1" / ".training.pt.0123").write_bytes(b"cut off")
    store.delete(NAME)
    assert not (tmp_path / "shared" / "trial-0007" / "seed-1").exists()
    assert store.exists(training_name(7, 0))
    store.delete(training_name(7, 0))
    assert list((tmp_path / "shared").iterdir()) == []


def test_saving_and_deleting_beside_each_other(tmp_path: Path):
    store, stopped = ArtifactStore(str(tmp_path / "shared")), threading.Event()

    def others() -> None:
        while not stopped.is_set():
            put(store, b"other", training_name(7, 2))
            store.delete(training_name(7, 2))

    thread = threading.Thread(target=others)
    thread.start()
    try:
        for number in range(50):
            put(store, str(number).encode())
            assert got(store) == str(number).encode()
            store.delete(NAME)
    finally:
        stopped.set()
        thread.join()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense://bucket/x", "nonsense://bucket/x cannot be used: Protocol not known: nonsense"),
        ("dropbox://x", "dropbox://x cannot be used: .*dropbox"),  # known to fsspec, its package not installed
    ],
)
def test_a_protocol_that_cannot_be_used_is_told_with_what_to_install(url: str, message: str):
    with pytest.raises(StudyError, match=message) as told:
        ArtifactStore(url)
    assert "install the fsspec package of its protocol" in str(told.value)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    store = ArtifactStore(str(tmp_path / "file"))
    with pytest.raises(StudyError, match=r"training\.pt in .*file cannot be written: .* see that the place"):
        put(store, b"x")


def test_a_full_disk_is_told_and_the_old_file_stays():
    full = ArtifactStore("/dev/shm") if Path("/dev/full").exists() else pytest.skip("this system has no /dev/full")
    name = f"greensv-test-{uuid.uuid4().hex}/training.pt"
    put(full, b"good", name)

    def fills(path: Path) -> None:
        with Path("/dev/full").open("wb") as device:
            device.write(b"x")

    try:
        with pytest.raises(StudyError, match="No space left on device"):
            full.save(name, fills)
        assert got(full, name) == b"good"
    finally:
        full.delete(name)
