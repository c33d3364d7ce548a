"""Builds the stand-in for libnvidia-ml, writes the state of its GPUs, and runs Python with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STUB = Path(__file__).with_name("nvml_stub.c")
UUIDS = ("GPU-11111111-2222-3333-4444-555555555555", "GPU-66666666-7777-8888-9999-aaaaaaaaaaaa")


def build_stub(folder: Path) -> Path:
    """Returns the folder to put into LD_LIBRARY_PATH; skips where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for libnvidia-ml")
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([compiler, *flags, "-o", folder / "libnvidia-ml.so.1", STUB], check=True)
    return folder


class FakeGpus:
    """The state of the simulated GPUs, as files that the stand-in reads at each call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def add(self, index: int, **state: object) -> None:
        """Adds a GPU with the files uuid and name, and those given."""
        (self.folder / str(index)).mkdir()
        self.set(index, uuid=UUIDS[index], name=f"Simulated GPU {index}", **state)

    def set(self, index: int, **state: object) -> None:
        """Writes the files of a GPU; None removes one, an `E15` makes its calls fail with NVML's error 15."""
        for what, value in state.items():
            path = self.folder / str(index) / what
            if value is None:
                path.unlink()
            else:
                path.write_text(f"{value}\n")


def run_python(
    code: str, *, library: Path, gpus: FakeGpus, arguments: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process whose libnvidia-ml is the stand-in: LD_LIBRARY_PATH is read at its start."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "FAKE_NVML_DIR": str(gpus.folder)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
