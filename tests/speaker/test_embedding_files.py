"""What is written is read back by readers that greensv did not write, or that know no more than Kaldi's documents."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from greensv.errors import CheckpointError, ConfigError, DataError
from greensv.speaker import embedding_files
from greensv.speaker.embedding_files import writer_for

ROWS = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
IDS = ("anna-1", "audio/bén.wav", "c")


def read_ark(data: bytes) -> dict[str, np.ndarray]:
    """An archive of binary float vectors, byte by byte as kaldi-asr.org/doc/io.html has it."""
    found, place = {}, 0
    while place < len(data):
        end = data.index(b" ", place)
        name = data[place:end].decode()
        assert data[end + 1 : end + 6] == b"\0BFV ", name
        assert data[end + 6] == 4
        (size,) = struct.unpack_from("<i", data, end + 7)
        found[name] = np.array(struct.unpack_from(f"<{size}f", data, end + 11), dtype=np.float32)
        place = end + 11 + 4 * size
    return found


def test_safetensors_hold_rows_names_and_provenance(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    assert writer_for(path)(path, IDS, ROWS, {"checkpoint": "runs/a"}) == (path,)
    with safe_open(path, "np") as file:
        assert list(file.keys()) == ["embeddings"]
        assert np.array_equal(file.get_tensor("embeddings"), ROWS)
        metadata = file.metadata()
    assert tuple(json.loads(metadata["ids"])) == IDS
    assert json.loads(metadata["provenance"]) == {"checkpoint": "runs/a"}


def test_kaldi_archive_and_index_are_those_of_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("e.ark")
    assert writer_for(path)(path, IDS, ROWS, {}) == (path, Path("e.scp"))
    data = path.read_bytes()
    found = read_ark(data)
    assert tuple(found) == IDS
    assert np.array_equal(np.stack(list(found.values())), ROWS)
    for line, row in zip(Path("e.scp").read_text().splitlines(), ROWS, strict=True):
        _, place = line.split()
        ark, offset = place.rsplit(":", 1)
        assert ark == str(tmp_path / "e.ark")
        assert data[int(offset) :].startswith(b"\0BFV \x04" + struct.pack("<i", 5) + row.tobytes())


def test_kaldi_archive_is_read_by_kaldiio(tmp_path: Path) -> None:
    kaldiio = pytest.importorskip("kaldiio", reason="kaldiio, which reads Kaldi's files, is not installed")
    path = tmp_path / "e.ark"
    writer_for(path)(path, IDS, ROWS, {})
    by_place, in_order = kaldiio.load_scp(str(tmp_path / "e.scp")), dict(kaldiio.load_ark(str(path)))
    assert tuple(in_order) == IDS == tuple(by_place)
    for name, row in zip(IDS, ROWS, strict=True):
        assert np.array_equal(by_place[name], row)
        assert np.array_equal(in_order[name], row)


words = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8).filter(lambda w: w.split() == [w])


@settings(max_examples=25, deadline=None)
@given(ids=st.lists(words, unique=True, max_size=12), size=st.integers(1, 4), rows_per_write=st.integers(1, 5))
def test_any_names_and_sizes_are_read_back(
    ids: list[str], size: int, rows_per_write: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.ark"
    rows = np.arange(len(ids) * size, dtype=np.float32).reshape(len(ids), size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding_files, "_ROWS_PER_WRITE", rows_per_write)
        writer_for(path)(path, ids, rows, {})
    found = read_ark(path.read_bytes())
    assert list(found) == ids
    assert all(np.array_equal(found[name], row) for name, row in zip(ids, rows, strict=True))


@pytest.mark.parametrize("name", ["a b.wav", "a\tb", ""])
def test_name_that_kaldi_cannot_hold_is_refused_and_nothing_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has a space in its name.*--list"):
        writer_for(tmp_path / "e.ark")(tmp_path / "e.ark", ("x", name), ROWS[:2], {})
    assert not list(tmp_path.iterdir())


def test_more_names_than_safetensors_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_files, "MAX_HEADER_BYTES", 20)
    with pytest.raises(DataError, match=r"names of 3 utterances .* at most 20 bytes.*e\.ark"):
        writer_for(tmp_path / "e.safetensors")(tmp_path / "e.safetensors", IDS, ROWS, {})


@pytest.mark.parametrize("name", ["e", "e.npy", "e.scp"])
def test_ending_that_names_no_form_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} does not say .* end it in \.safetensors or \.ark"):
        writer_for(Path(name))


@pytest.mark.parametrize("name", ["e.ark", "e.safetensors"])
def test_file_that_cannot_be_written_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / name
    with pytest.raises(CheckpointError, match="cannot be written"):
        writer_for(path)(path, IDS, ROWS, {})
