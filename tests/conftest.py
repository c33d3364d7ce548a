"""Fixtures that tests of several folders share."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes test at once: each would otherwise start as many threads as there are cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import soundfile

import postgresql

SPEECHOCEAN762_VARIABLE = "GREENSV_SPEECHOCEAN762"


@pytest.fixture(scope="session", autouse=True)
def no_calibrations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps calibrations and corrections of the machine that runs the tests out of their figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def speechocean762() -> Path:
    """The folder of the speechocean762 subset, which is not part of the project."""
    default = Path(__file__).parents[1] / "../shared/data/speechocean762"
    path = Path(os.environ.get(SPEECHOCEAN762_VARIABLE, default)).resolve()
    if not (path / "train" / "wav.scp").is_file():
        pytest.skip(f"no speechocean762 data in {path}; set {SPEECHOCEAN762_VARIABLE} to its folder")
    return path


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    """A PostgreSQL server started for these tests, which they may stop and start again."""
    with postgresql.running_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_url(request: pytest.FixtureRequest) -> str:
    """A PostgreSQL server's URL: of the one an environment variable names, else of one started for these tests.

    Tests make their own database there: `postgresql.new_database`.
    """
    given = os.environ.get(postgresql.VARIABLE)
    return given or request.getfixturevalue("postgresql_server").url


WriteKaldiTree = Callable[[Path, Mapping[str, Mapping[str, int]]], Path]


@pytest.fixture(scope="session")
def write_kaldi_tree() -> WriteKaldiTree:
    """Writes Kaldi data directories with real audio: `{"train": {"anna": 3}}` is 3 utterances of anna in `train`."""

    def write(root: Path, parts: Mapping[str, Mapping[str, int]]) -> Path:
        rng = np.random.default_rng(0)
        for part, speakers in parts.items():
            rows = [
                (f"{name}-{i}", f"audio/{name}/{i}.flac", name) for name, num in speakers.items() for i in range(num)
            ]
            folder = root / part
            folder.mkdir(parents=True)
            (folder / "wav.scp").write_text("".join(f"{utterance} {path}\n" for utterance, path, _ in rows))
            (folder / "utt2spk").write_text("".join(f"{utterance} {speaker}\n" for utterance, _, speaker in rows))
            for _, path, _ in rows:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                samples = rng.uniform(-0.5, 0.5, size=int(rng.integers(3_000, 6_000)))
                soundfile.write(root / path, samples, 16_000)
        return root

    return write
