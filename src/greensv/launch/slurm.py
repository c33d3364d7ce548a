"""Workers as a SLURM job array, through submitit: each array task runs `greensv worker`.

Ninety seconds before a job's time is over SLURM sends SIGUSR2. The worker is then told to end: it saves its training,
and submitit puts the job back into the queue, to go on later with what is left. What ends a job otherwise (scancel,
preemption) sends SIGTERM, which the worker itself obeys.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from greensv.errors import ConfigError, StudyError

DEFAULT_TIME = "24:00:00"
MAX_TIMEOUTS = 1000
"""So often a job whose time is over is put back: the budget ends a search, not the clock."""
INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedJobs:
    """What was submitted."""

    array_id: str
    job_ids: tuple[str, ...]
    logs: tuple[Path, ...]


class WorkerJob:
    """What a job runs: a worker in a process of its own, so that submitit's signals and the worker's do not mix."""

    def __init__(self, arguments: Sequence[str], *, environment: Mapping[str, str]) -> None:
        """Makes a job.

        Args:
            arguments: of `greensv`.
            environment: what the worker has beside the job's own.
        """
        self._arguments = tuple(arguments)
        self._environment = dict(environment)
        self._process_id: int | None = None

    def __call__(self) -> int:
        """Runs the worker to its end; returns 0, or 130 where it was asked to end.

        Raises:
            StudyError: it failed; its log says why.
        """
        # SLURM sends SIGUSR2 to every process of the job; a worker that does not know it would die of it.
        before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        try:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "greensv", *self._arguments], env={**os.environ, **self._environment}
            )
        finally:
            signal.signal(signal.SIGUSR2, before)
        self._process_id = process.pid
        self._wait()
        code = process.wait()
        if code not in (0, INTERRUPTED):
            raise StudyError(f"the worker failed (exit code {code}); its log says why")
        return code

    def checkpoint(self) -> Any:
        """Ends the worker, which saves its training, and returns what submitit is to put back into the queue.

        submitit calls it in the handler of SIGUSR2, which interrupts `__call__`.
        """
        if self._process_id is not None:
            os.kill(self._process_id, signal.SIGTERM)
            self._wait()
        return _submitit().helpers.DelayedSubmission(WorkerJob(self._arguments, environment=self._environment))

    def _wait(self) -> None:
        """Waits without a lock, and leaves the process to be waited for: handler and handled may both be here."""
        assert self._process_id is not None
        os.waitid(os.P_PID, self._process_id, os.WEXITED | os.WNOWAIT)


def submit(
    arguments: Sequence[str],
    num_workers: int,
    *,
    environment: Mapping[str, str],
    options: Mapping[str, str],
    folder: Path,
    name: str,
) -> SubmittedJobs:
    """Submits a job array of workers.

    Args:
        arguments: of `greensv`, the same for all.
        num_workers: how many.
        environment: what they have beside the environment that SLURM hands on.
        options: of sbatch, by their long names.
        folder: for logs and what submitit keeps; on a file system that the nodes share.
        name: of the jobs.

    Raises:
        ConfigError: submitit or SLURM is not installed, or an option is not like SLURM's.
        StudyError: SLURM refuses the jobs.
    """
    submitit = _submitit()
    if missing := [command for command in ("sbatch", "srun", "scontrol") if shutil.which(command) is None]:
        raise ConfigError(
            f"SLURM's commands are not here (no {', '.join(missing)}); run this on a login node of the cluster, or use "
            "--backend local"
        )
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # what submitit keeps there holds the environment, and with it the database's password
    known, others = _parameters({"time": DEFAULT_TIME, **options})
    try:
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=MAX_TIMEOUTS)
        executor.update_parameters(job_name=name, stderr_to_stdout=True, **known, additional_parameters=others)
        work = [WorkerJob(arguments, environment=environment) for _ in range(num_workers)]
        with executor.batch():
            jobs = [executor.submit(one) for one in work]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        raise StudyError(f"SLURM refuses the jobs: {_refusal(error)}; mend it with --slurm-option KEY=VALUE") from error
    return SubmittedJobs(
        array_id=jobs[0].job_id.split("_")[0],
        job_ids=tuple(job.job_id for job in jobs),
        logs=tuple(job.paths.stdout for job in jobs),
    )


def slurm_options(settings: Sequence[str]) -> dict[str, str]:
    """Returns `KEY=VALUE` settings as options of sbatch by their long names; a KEY alone is a switch.

    Raises:
        ConfigError: a setting has no key, or is one that the launch decides.
    """
    options = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        if not key:
            raise ConfigError(f"--slurm-option {setting!r} is not like gpus-per-node=1")
        if key in ("array", "ntasks", "nodes", "output", "error", "signal"):
            raise ConfigError(f"--slurm-option {setting!r}: {key} is decided by --workers; leave it out")
        options[key] = value
    return options


def minutes(text: str) -> int:
    """Returns a time limit as sbatch takes it, in whole minutes: `M`, `H:M:S`, `M:S`, `D-H`, `D-H:M`, `D-H:M:S`.

    Raises:
        ConfigError: it is none of these.
    """
    days, dash, clock = text.rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
        day_minutes = 24 * 60 * int(days) if dash else 0
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3:
        raise ConfigError(f"--slurm-option time={text} is no time limit; write minutes, 12:00:00 or 2-00:00:00")
    if dash:
        hours, mins, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, mins, seconds = parts
    else:
        hours, (mins, seconds) = 0, [*parts, 0][:2]
    return max(1, day_minutes + 60 * hours + mins + (1 if seconds else 0))


def _parameters(options: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits options of sbatch into those that submitit itself looks at, and others."""
    known: dict[str, Any] = {"time": minutes(options["time"])}
    # submitit would write these into its script and into the call of srun; sbatch alone understands them all.
    others = {key: value or True for key, value in options.items() if key not in known}
    return known, others


def _refusal(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "sbatch: error" in line]
    return " ".join(line.removeprefix("sbatch: error: ") for line in lines) or str(error).splitlines()[-1]


def _submitit() -> ModuleType:
    try:
        import submitit  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ConfigError(
            f"workers are submitted to SLURM through submitit, which is not installed ({error}); "
            f"{shlex.join(['pip', 'install', 'greensv[slurm]'])}"
        ) from error
    return submitit  # type: ignore[no-any-return,unused-ignore]
