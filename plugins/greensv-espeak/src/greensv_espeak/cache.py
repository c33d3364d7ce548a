"""Rendered splits on disk: one folder per split and options, filled batch by batch.

A batch is rendered into a folder of its own, which is renamed when complete: an interrupted run loses a batch at most,
and continues. A lock per batch lets several processes that start together share the work.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from greensv.errors import DataError, PluginError
from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.dataset import Progress, Utterances
from greensv_espeak.options import EspeakOptions, Split
from greensv_espeak.render import MANIFEST, PLUGIN_ERROR_CODE, RENDERER_VERSION, SAMPLE_RATE_HZ, Job

SPEAKERS_PER_BATCH = 8
"""What is lost at most when a run is interrupted. Part of the cache's key: espeak-ng's state runs through a batch."""


def rendered(split: Split, options: EspeakOptions, *, cache_dir: Path, progress: Progress) -> Utterances:
    """Returns the utterances of a split; renders what the cache does not hold, in one process per CPU.

    Raises:
        PluginError: espeak-ng cannot be loaded.
        DataError: espeak-ng crashed or failed, or the cache cannot be written.
    """
    folder = cache_dir.absolute() / "espeak" / f"{split}-{_digest(split, options)}"
    jobs = [
        Job(split=split, first=first, last=last, folder=str(folder / f"batch-{first:05d}"), options=options)
        for first in range(0, options.num_speakers(split), SPEAKERS_PER_BATCH)
        for last in [min(first + SPEAKERS_PER_BATCH, options.num_speakers(split))]
    ]
    try:
        _render_missing([job for job in jobs if not _is_complete(Path(job.folder))], len(jobs), progress)
    except OSError as error:
        raise DataError(
            f"synthesised speech cannot be kept in {folder} ({error.strerror or error}); "
            "choose a cache folder that can be written and has room"
        ) from error
    rows = [(job.folder, *row) for job in jobs for row in _manifest(Path(job.folder))]
    return build_utterances(
        ids=[name for _, name, _, _ in rows],
        paths=[f"{batch}/{name}.flac" for batch, name, _, _ in rows],
        speaker_of=[speaker for _, _, speaker, _ in rows],
        num_samples=np.array([count for _, _, _, count in rows], dtype=np.int64),
        sample_rate_hz=SAMPLE_RATE_HZ,
    )


def _digest(split: Split, options: EspeakOptions) -> str:
    """A key of all that the audio of a split depends on, and of nothing about the other splits."""
    shared = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if not field.name.startswith("num_")
    }
    key = {
        **shared,
        "split": split,
        "num_speakers": options.num_speakers(split),
        "num_utterances": options.num_utterances(split),
        "speakers_per_batch": SPEAKERS_PER_BATCH,
        "renderer": RENDERER_VERSION,
        "espeakng-loader": importlib.metadata.version("espeakng-loader"),
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _render_missing(jobs: list[Job], num_batches: int, progress: Progress) -> None:
    if not jobs:
        return
    what = f"rendering {jobs[0].split} voices"
    done = num_batches - len(jobs)
    progress(what, done, num_batches)
    pool = ThreadPoolExecutor(min(len(jobs), len(os.sched_getaffinity(0))))
    try:
        for future in as_completed([pool.submit(_render_batch, job) for job in jobs]):
            future.result()
            done += 1
            progress(what, done, num_batches)
    finally:
        pool.shutdown(cancel_futures=True)


def _render_batch(job: Job) -> None:
    target = Path(job.folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f"{target.name}.lock")):
        if _is_complete(target):  # another process was faster
            return
        partial = target.with_name(f"{target.name}.partial")
        for leftover in (partial, target):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir()
        _run(dataclasses.replace(job, folder=str(partial)))
        partial.rename(target)


def _run(job: Job) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "greensv_espeak.render", job.to_json()],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C is for the search, which ends between two batches
    )
    if result.returncode == 0:
        return
    reason = (result.stderr.strip() or "no message").splitlines()[-1]
    if result.returncode == PLUGIN_ERROR_CODE:
        raise PluginError(reason)
    if result.returncode < 0:
        reason = f"killed by {signal.Signals(-result.returncode).name}"
    raise DataError(
        f"rendering {job.split} voices {job.first} to {job.last - 1} failed: {reason}; "
        "what is rendered is kept: run the command again to continue"
    )


def _is_complete(batch: Path) -> bool:
    """A batch has its manifest and every file the manifest names: someone may have cleaned up in the cache."""
    try:
        present = set(os.listdir(batch))  # noqa: PTH208 - names alone, of thousands of files
    except FileNotFoundError:
        return False
    return MANIFEST in present and all(f"{name}.flac" in present for name, _, _ in _manifest(batch))


def _manifest(batch: Path) -> list[tuple[str, str, int]]:
    return [(name, speaker, count) for name, speaker, count in json.loads((batch / MANIFEST).read_text("ascii"))]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by a crash
        yield
