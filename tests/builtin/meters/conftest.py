import ctypes
from pathlib import Path

import pynvml
import pytest

from simulated.nvml import FakeGpus, build_stub


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a `libnvidia-ml.so.1` that tells of simulated GPUs."""
    return build_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def gpus(tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    """GPUs that the real pynvml sees in this process; none yet."""
    gpus = FakeGpus(tmp_path / "gpus")
    monkeypatch.setenv("FAKE_NVML_DIR", str(gpus.folder))
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(pynvml, "CDLL", lambda name: ctypes.CDLL(str(library / name)))
    return gpus
