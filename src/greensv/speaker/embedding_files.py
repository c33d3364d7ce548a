"""Files of embeddings: safetensors, or Kaldi's archive of binary vectors with its index."""

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from jaxtyping import Float32
from safetensors.numpy import save as save_safetensors

from greensv.errors import ConfigError, DataError
from greensv.speaker.checkpoint import write_whole

MAX_HEADER_BYTES = 90_000_000
"""Of the names in a safetensors file, whose readers refuse a header beyond 100 MB."""

_BINARY_MARK = b"\0B"
_FLOAT_VECTOR = b"FV "
_ROWS_PER_WRITE = 1024


Writer = Callable[
    [Path, Sequence[str], Float32[np.ndarray, "utterances embedding"], Mapping[str, Any]], tuple[Path, ...]
]
"""Writes a file of embeddings: path, a name for each row (none twice), the rows, and what made them as JSON values.

Returns the files written; each is there whole, or as it was before. Raises DataError where the names do not suit the
form, and CheckpointError where a file cannot be written.
"""


def writer_for(path: Path) -> Writer:
    """Returns what writes the form that the ending of `path` names.

    `.safetensors` holds the tensor `embeddings` of shape (utterances, embedding) and, in its metadata, `ids` and
    `provenance` as JSON. `.ark` is a Kaldi archive of binary float vectors, whose names hold no spaces and which has no
    place for a provenance; beside it goes the `.scp` with the place of each vector in it.

    Raises:
        ConfigError: the ending names no form.
    """
    if path.suffix not in _WRITERS:
        known = " or ".join(_WRITERS)
        raise ConfigError(f"{path} does not say by its ending what form to write; end it in {known}")
    return _WRITERS[path.suffix]


def _write_safetensors(
    path: Path,
    ids: Sequence[str],
    embeddings: Float32[np.ndarray, "utterances embedding"],
    provenance: Mapping[str, Any],
) -> tuple[Path, ...]:
    metadata = {"ids": json.dumps(list(ids)), "provenance": json.dumps(dict(provenance), allow_nan=False)}
    num_bytes = len(json.dumps(metadata))
    if num_bytes > MAX_HEADER_BYTES:
        raise DataError(
            f"the names of {len(ids):,} utterances are {num_bytes:,} bytes, and a safetensors file holds at most "
            f"{MAX_HEADER_BYTES:,} bytes of them; write Kaldi's form, {path.with_suffix('.ark')}, or embed in parts"
        )
    data = save_safetensors({"embeddings": np.ascontiguousarray(embeddings)}, metadata=metadata)
    write_whole(path, lambda file: file.write(data))
    return (path,)


def _write_kaldi(
    path: Path,
    ids: Sequence[str],
    embeddings: Float32[np.ndarray, "utterances embedding"],
    provenance: Mapping[str, Any],
) -> tuple[Path, ...]:
    """Kaldi's `WriteToken`s and `Vector<float>::Write`: name, space, mark, type, size of the size, size, values.

    See "Kaldi I/O mechanisms" (kaldi-asr.org/doc/io.html): the index gives the byte behind the name and its space.
    """
    for name in ids:
        if name.split() != [name]:
            raise DataError(
                f"utterance {name!r} has a space in its name, which Kaldi's form cannot hold; write .safetensors, or "
                "give the files names in a wav.scp (--list)"
            )
    names = [f"{name} ".encode() for name in ids]
    head = _BINARY_MARK + _FLOAT_VECTOR + struct.pack("<bi", 4, embeddings.shape[1])
    values = embeddings.astype("<f4", copy=False)
    num_bytes = np.array([len(name) + len(head) + values.shape[1] * 4 for name in names], dtype=np.int64)
    places = np.cumsum(num_bytes) - num_bytes + [len(name) for name in names]
    ark, scp = path.absolute(), path.with_suffix(".scp")

    def parts() -> Iterator[bytes]:
        for start in range(0, len(names), _ROWS_PER_WRITE):
            rows = range(start, min(start + _ROWS_PER_WRITE, len(names)))
            yield b"".join(names[row] + head + values[row].tobytes() for row in rows)

    def write_index(file: IO[bytes]) -> None:
        file.writelines(f"{name} {ark}:{place}\n".encode() for name, place in zip(ids, places.tolist(), strict=True))

    write_whole(path, lambda file: file.writelines(parts()))
    write_whole(scp, write_index)
    return (path, scp)


_WRITERS: Mapping[str, Writer] = MappingProxyType({".safetensors": _write_safetensors, ".ark": _write_kaldi})
