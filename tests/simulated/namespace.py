"""Runs a command in a mount namespace of its own, where /sys/class/powercap is a simulated tree."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

MOUNT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /sys/class
mkdir /sys/class/powercap
mount --bind "$1" /sys/class/powercap
shift
exec "$@"
"""


def run_with_powercap(tree: Path, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs `command` with `tree` mounted on /sys/class/powercap; skips where that is not permitted."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare to mount a simulated powercap tree with")
    namespaces = "-m" if os.geteuid() == 0 else "-rm"
    prefix = ["unshare", namespaces, "bash", "-c", MOUNT, "bash", str(tree)]
    trial = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if trial.returncode != 0:
        pytest.skip(f"mounting in a namespace is not permitted here: {trial.stderr.strip()}")
    return subprocess.run([*prefix, *command], capture_output=True, text=True, check=False, timeout=120)


def socket_ids() -> list[int]:
    """Returns this machine's sockets: pyRAPL wants a zone for each."""
    topology = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/physical_package_id")
    found = sorted({int(path.read_text()) for path in topology})
    return found or pytest.skip("this machine does not tell its sockets")
