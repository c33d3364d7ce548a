"""Where VoxCeleb lies on disk: the layouts of its archives and of the field's toolkits, and the published test lists.

Speakers tell the two corpora apart, also where one folder holds both: VoxCeleb1's are id10001 to id11251, VoxCeleb2's
begin with id0.
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from greensv.builtin.datasets.development import normal
from greensv.errors import DataError

Part = Literal["voxceleb2", "voxceleb1-dev"]
Test = Literal["O", "E", "H"]

META = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/"
WHERE_TO_GET = (
    "VoxCeleb is described at https://www.robots.ox.ac.uk/~vgg/data/voxceleb/, which says how to ask for the audio; "
    f"the test lists are {META}veri_test2.txt, list_test_all2.txt and list_test_hard2.txt; "
    "docs/how-to/corpora.md shows the folders"
)

_SPEAKERS = {"voxceleb1": re.compile(r"id1\d{4}"), "voxceleb2": re.compile(r"id0\d{4}")}
_PLACES = {
    "voxceleb1": ("wav", "flac", "dev/wav", "test/wav", "dev/flac", "test/flac", "dev", "test", "."),
    "voxceleb2": ("dev/wav", "dev/flac", "dev/aac", "dev/m4a", "dev", "wav", "flac", "aac", "m4a", "."),
}
"""Below the corpus's own folder; `test` of VoxCeleb2 is left alone. From the cheapest audio to the dearest."""
_TEST = re.compile(r"(?<![a-z])test")
"""In a folder's name: `vox2_test_aac`, but not `vox2_latest`."""
_NAMES = {"voxceleb1": ("voxceleb1", "vox1"), "voxceleb2": ("voxceleb2", "vox2")}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedList:
    """A cleaned test list of VoxCeleb1, as published."""

    file_name: str
    md5: str
    num_target: int
    num_nontarget: int


PUBLISHED_LISTS: Mapping[Test, PublishedList] = MappingProxyType(
    {
        "O": PublishedList(
            file_name="veri_test2.txt",
            md5="b73110731c9223c1461fe49cb48dddfc",
            num_target=18_802,
            num_nontarget=18_809,
        ),
        "E": PublishedList(
            file_name="list_test_all2.txt",
            md5="a53e059deb562ffcfc092bf5d90d9f3a",
            num_target=289_921,
            num_nontarget=289_897,
        ),
        "H": PublishedList(
            file_name="list_test_hard2.txt",
            md5="857790e09d579a68eb2e339a090343c8",
            num_target=275_488,
            num_nontarget=275_406,
        ),
    }
)

PUBLISHED_SIZES: Mapping[Part, tuple[int, int]] = MappingProxyType(
    {"voxceleb2": (5_994, 1_092_009), "voxceleb1-dev": (1_211, 148_642)}
)
"""Speakers and utterances of the training parts."""

VOXCELEB1_TEST_SPEAKERS = frozenset(f"id{number}" for number in range(10_270, 10_310))
"""The 40 speakers of VoxCeleb1's test part, those whose names begin with E; all of list O."""


def speaker_folders(root: Path, corpus: Literal["voxceleb1", "voxceleb2"], *, given: str | None) -> dict[str, str]:
    """Returns for each speaker found the folder that holds the speaker's own: `folders[s]/s/video/utterance.wav`.

    Args:
        root: the data root.
        corpus: which of the two.
        given: the folder, relative to the root; None looks where the archives and the toolkits put it. Where a speaker
            lies in several of these places, the one with the cheapest audio is taken.

    Raises:
        DataError: there is no speaker; says where it looked and where to get the corpus.
    """
    places = [normal(root / given)] if given is not None else list(_places(root, corpus))
    found: dict[str, str] = {}
    for place in places:
        for speaker in _speakers_in(place, _SPEAKERS[corpus]):
            found.setdefault(speaker, str(place))
    if not found:
        option = f"`{corpus} = {given!r}`" if given is not None else f"{', '.join(_PLACES[corpus])} of it"
        pattern = "id10001" if corpus == "voxceleb1" else "id00012"
        raise DataError(
            f"no speaker of {corpus} (folders such as {pattern}) below {root}; looked in {option}, and in those of its "
            f"folders whose names begin with {' or '.join(_NAMES[corpus])}; {WHERE_TO_GET}"
        )
    return found


def find_list(root: Path, test: Test, *, given: str | None) -> Path:
    """Returns the file of a test list, by its official name.

    Raises:
        DataError: there is none; says where it looked and where to get it.
    """
    name = PUBLISHED_LISTS[test].file_name
    if given is not None:
        folders = [root / given]
    else:
        tops = [root, *_tops(root, "voxceleb1")]
        folders = [top / place for top in tops for place in (".", "meta", "lists", "trials")]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    looked = ", ".join(os.path.normpath(folder) for folder in folders)
    raise DataError(
        f"no list {name} of VoxCeleb1-{test}; looked in {looked}; get {META}{name}, or leave {test!r} out of `tests`"
    )


def check_list(path: Path, test: Test) -> str | None:
    """Says how a list differs from the published one by its MD5; None where it is the same."""
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    published = PUBLISHED_LISTS[test]
    if found == published.md5:
        return None
    return f"{path} is not the published list of VoxCeleb1-{test}: its MD5 is {found}, the published {published.md5}"


def _places(root: Path, corpus: Literal["voxceleb1", "voxceleb2"]) -> Iterator[Path]:
    for top in [*_tops(root, corpus), root]:
        for place in _PLACES[corpus]:
            yield top / place


def _tops(root: Path, corpus: Literal["voxceleb1", "voxceleb2"]) -> list[Path]:
    """Returns the folders named after the corpus, those of compressed audio last, of VoxCeleb2 without the test's."""
    named = [path for path in root.iterdir() if path.name.lower().startswith(_NAMES[corpus]) and path.is_dir()]
    if corpus == "voxceleb2":
        named = [path for path in named if not _TEST.search(path.name.lower())]
    return sorted(named, key=lambda path: (any(word in path.name.lower() for word in ("m4a", "aac")), path.name))


def _speakers_in(folder: Path, pattern: re.Pattern[str]) -> Collection[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if pattern.fullmatch(entry.name) and entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return ()
