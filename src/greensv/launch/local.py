"""Workers as processes of this machine: one per GPU, or on the CPU with its threads split among them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from greensv.errors import ConfigError, StudyError

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
THREADS_VARIABLE = "OMP_NUM_THREADS"
POLL_S = 0.2
PASSED_ON = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}
"""What workers are told when this process is told something: the terminal's end is a request to stop, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a worker computes."""

    words: str
    environment: Mapping[str, str]
    """What tells the process so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a worker ended."""

    number: int
    exit_code: int
    """As a shell has it: 128 + n where signal n ended the process."""
    result: Mapping[str, Any]
    """What `greensv worker --json` printed; empty where it came to none."""
    last_line: str
    """Of its log."""

    @property
    def words(self) -> str:
        """Returns it for people."""
        if self.exit_code == 0:
            return f"ended: {self.result.get('ended_because', 'no reason given')}"
        if self.exit_code == 130:
            return "ended: interrupted; its training is saved"
        if self.exit_code > 128:
            return (
                f"was killed by {signal.Signals(self.exit_code - 128).name}; another worker goes on with its training"
            )
        return f"failed (exit code {self.exit_code}): {self.last_line}"


def gpu_places(device_count: int, num_workers: int | None, *, visible: str | None) -> tuple[Place, ...]:
    """Returns a GPU for each worker.

    Args:
        device_count: how many GPUs torch finds.
        num_workers: how many workers; None: one per GPU.
        visible: CUDA_VISIBLE_DEVICES of this process; None where it is not set.

    Raises:
        ConfigError: there are fewer GPUs than workers.
    """
    wanted = device_count if num_workers is None else num_workers
    if wanted > device_count:
        raise ConfigError(
            f"{wanted} workers were asked for, and torch finds {device_count} GPUs; a GPU's energy cannot be told "
            "apart by process, so each worker has one of its own: use fewer --workers, or --device cpu"
        )
    names = visible.split(",") if visible else [str(number) for number in range(device_count)]
    return tuple(
        Place(words=f"GPU {name.strip()}", environment={GPUS_VARIABLE: name.strip()}) for name in names[:wanted]
    )


def cpu_places(num_cpus: int, num_workers: int | None) -> tuple[Place, ...]:
    """Returns a share of the CPU's threads for each worker; None: one worker with all of them."""
    wanted = num_workers or 1
    threads = max(1, num_cpus // wanted)
    words = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    return (Place(words=words, environment={THREADS_VARIABLE: str(threads), GPUS_VARIABLE: ""}),) * wanted


def run_local(
    arguments: Sequence[str],
    places: Sequence[Place],
    *,
    environment: Mapping[str, str],
    folder: Path,
    tell: Callable[[str], None],
) -> list[Ended]:
    """Runs `greensv ARGUMENTS` at each place until all have ended; Ctrl-C and SIGTERM are passed on to them.

    A worker that fails is not started again: the others go on with its training, and a failure that is everyone's
    would come again.

    Args:
        arguments: of the command, the same for all.
        places: one per worker.
        environment: what they have beside this process's own.
        folder: `worker-N.log` in it is appended to, `worker-N.json` holds the result.
        tell: given each line of each log as it comes, and how each worker ended.

    Raises:
        StudyError: they cannot be started, or their logs not be written.
    """
    workers: list[_Worker] = []
    ended: dict[int, Ended] = {}
    with _passing_on_signals(workers):
        try:
            for number, place in enumerate(places, start=1):
                workers.append(_Worker(number, place, arguments, environment=environment, folder=folder))
                tell(f"worker {number} ({place.words}): process {workers[-1].process.pid}, log {workers[-1].log_path}")
            while len(ended) < len(workers):
                time.sleep(POLL_S)
                for worker in workers:
                    _follow(worker, ended, tell)
        except OSError as error:
            raise StudyError(
                f"the workers cannot be started or followed: {error}; see that {folder} can be written and has room"
            ) from error
        finally:
            for worker in workers:
                worker.end()
    return [ended[number] for number in sorted(ended)]


def _follow(worker: "_Worker", ended: dict[int, Ended], tell: Callable[[str], None]) -> None:
    code = worker.process.poll()  # before its last lines are read
    for line in worker.new_lines(is_over=code is not None):
        tell(f"{worker.number} | {line}")
    if code is not None and worker.number not in ended:
        ended[worker.number] = worker.ended(code)
        tell(f"worker {worker.number} {ended[worker.number].words}")


class _Worker:
    """A process with its log, which is read while it is written."""

    def __init__(
        self, number: int, place: Place, arguments: Sequence[str], *, environment: Mapping[str, str], folder: Path
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.number = number
        self.log_path, self._result_path = folder / f"worker-{number}.log", folder / f"worker-{number}.json"
        self._rest, self._last_line = b"", ""
        with self.log_path.open("ab") as log, self._result_path.open("wb") as result:
            self._log: BinaryIO = self.log_path.open("rb")
            self._log.seek(0, os.SEEK_END)
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-u", "-m", "greensv", *arguments],
                    env={**os.environ, **environment, **place.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=result,
                    stderr=log,
                    start_new_session=True,  # a terminal's Ctrl-C would reach it twice, and twice means: at once
                )
            except BaseException:
                self._log.close()
                raise

    def new_lines(self, *, is_over: bool) -> Iterator[str]:
        """Yields the lines that have come since; an unfinished one only when no more can come."""
        *lines, self._rest = (self._rest + self._log.read()).split(b"\n")
        if is_over and self._rest:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            self._last_line = text or self._last_line
            yield text

    def ended(self, code: int) -> Ended:
        """Returns how it ended, by the code that Popen has."""
        lines = self._result_path.read_text(encoding="utf-8", errors="replace").splitlines()
        try:
            result = json.loads(lines[-1]) if lines else {}
        except ValueError:
            result = {}
        return Ended(
            number=self.number,
            exit_code=code if code >= 0 else 128 - code,
            result=result,
            last_line=self._last_line,
        )

    def tell(self, number: int) -> None:
        """Sends a signal, if there is somebody to hear it."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def end(self) -> None:
        """Ends it in good order, should it still run."""
        self.tell(signal.SIGTERM)
        self.process.wait()
        self._log.close()


@contextmanager
def _passing_on_signals(workers: Sequence[_Worker]) -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            worker.tell(PASSED_ON[signal.Signals(number)])

    previous = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
