"""A process that measures files, for `test_manifest`: `manifest_worker.py CACHE FILES_PER_SEGMENT KILL_AFTER PATHS…`.

It kills itself, as a machine does that loses power, when `KILL_AFTER` files have been opened; 0: never.
"""

import os
import signal
import sys
from pathlib import Path

from greensv.speaker.audio.store import AudioInfo
from greensv.speaker.corpora import manifest


def main() -> None:
    cache_dir, files_per_segment, kill_after, *paths = sys.argv[1:]
    manifest.FILES_PER_SEGMENT = int(files_per_segment)
    manifest._FILES_PER_TASK = 2
    manifest.NUM_THREADS = 1
    opened = 0
    probe = manifest.probe_audio

    def counted(path: str) -> AudioInfo:
        nonlocal opened
        opened += 1
        if opened == int(kill_after):
            os.kill(os.getpid(), signal.SIGKILL)
        return probe(path)

    manifest.probe_audio = counted
    measured = manifest.measure(paths, sample_rate_hz=16_000, cache_dir=Path(cache_dir))
    print(opened, int(measured.num_samples.sum()))


if __name__ == "__main__":
    main()
