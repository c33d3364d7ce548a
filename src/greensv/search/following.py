"""The processes that torchrun starts beside the leader: they train what it trains, step by step, and say nothing."""

import logging
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from greensv.config import StudyConfig
from greensv.plugins import Plugins
from greensv.search.candidate import build_space
from greensv.search.crew import check_one_machine, enlist, num_launched, torchrun_rank
from greensv.search.orders import Enlist, Leave, LoadCorpus, Order, RunTraining, TrainingOrder

if TYPE_CHECKING:
    import torch

    from greensv.search.trainer import Trainer
    from greensv.speaker.dataset import Progress
    from greensv.speaker.distributed import Team
    from greensv.speaker.training.loop import Training

LOOK_INTERVAL_S = 1.0
"""How often a follower looks whether its leader is still there."""


def follow(plugins: Plugins) -> int:
    """Follows the leader until it lets this process go; returns the exit code.

    Ctrl-C and SIGTERM are the leader's to heed, which stops all at the same step. When the leader dies, this process
    ends.

    Raises:
        TeamBroken: another process has died.
        ConfigError: the processes are on several machines.
        Exception: what went wrong here alone, in the middle of a step; the leader cannot go on either.
    """
    from greensv.speaker.distributed import joined_team

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    check_one_machine()
    logging.getLogger("greensv").setLevel(logging.ERROR)
    with joined_team(rank=torchrun_rank(), size=num_launched()) as team:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Thread(target=_end_without_leader, args=(team,), daemon=True).start()
        follower = _Follower(team, plugins)
        while not isinstance(order := team.broadcast(), Leave):
            follower.obey(order)
    return 0


class _Follower:
    def __init__(self, team: "Team", plugins: Plugins) -> None:
        self._team, self._plugins = team, plugins
        self._config: StudyConfig | None = None
        self._device: torch.device | None = None
        self._trainer: Trainer | None = None
        self._training: Training | None = None

    def obey(self, order: Order) -> None:
        """Does what the leader does. What goes wrong in all processes, or was agreed on, is the leader's to tell."""
        from greensv.speaker.distributed import TeamStopped

        try:
            self._obey(order)
        except TeamStopped:
            pass
        except Exception:
            if self._team.is_broken:
                raise

    def _obey(self, order: Order) -> None:
        match order:
            case Enlist():
                self._config = order.config
                self._device, _ = enlist(self._team, order.config)
            case LoadCorpus():
                self._load(is_full=order.is_full)
            case TrainingOrder():
                assert self._trainer is not None
                self._training = None
                self._training = self._trainer.begin(order)
            case RunTraining():
                assert self._training is not None
                self._training.run(until_step=order.until_step)

    def _load(self, *, is_full: bool) -> None:
        from greensv.search.trainer import compare_corpus

        is_stopped = threading.Event()

        def progress(what: str, done: int, total: int) -> None:
            if is_stopped.is_set():
                raise _StoppedLoading

        # In a thread of its own, so that this process can hear meanwhile that the leader has been stopped.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="greensv-load") as pool:
            loading = pool.submit(self._make_trainer, progress, is_full=is_full)
            try:
                self._team.wait_for_all(loading.done)
            except BaseException:
                is_stopped.set()
                raise
            with self._team.failing_together():
                self._trainer = loading.result()
                compare_corpus(self._team, self._trainer.corpus)

    def _make_trainer(self, progress: "Progress", *, is_full: bool) -> "Trainer":
        from greensv.search.trainer import Trainer, load_corpus

        config, device = self._config, self._device
        assert config is not None
        assert device is not None
        return Trainer(
            config,
            load_corpus(config, self._plugins, progress),
            space=build_space(config.backbones, self._plugins),
            team=self._team,
            device=device,
            progress=progress,
            is_full=is_full,
        )


class _StoppedLoading(Exception):
    """The leader was stopped while this process loaded the corpus."""


def _end_without_leader(team: "Team") -> None:
    """Ends this process when the leader has: NCCL would have it wait for a long time."""
    while 0 not in team.lost():
        time.sleep(LOOK_INTERVAL_S)
    os._exit(1)
