"""Forms the team of a study's processes: this one alone, or those that torchrun started beside it.

The leader is the ordinary command. The others follow it in silence; see `greensv.search.following`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from greensv.config import StudyConfig
from greensv.errors import ConfigError
from greensv.search.orders import Enlist, Leave

if TYPE_CHECKING:
    import torch

    from greensv.speaker.distributed import Team


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The processes that run a study, seen from their leader.

    Attributes:
        team: of all processes.
        device: the leader's own.
        gpu_uuids: of the GPUs in use, of all processes.
        process_ids: of the other processes.
    """

    team: "Team"
    device: "torch.device"
    gpu_uuids: tuple[str, ...]
    process_ids: tuple[int, ...]


def num_launched() -> int:
    """Returns how many processes torchrun started together with this one, itself counted; 1 without torchrun."""
    return _of_torchrun("WORLD_SIZE") or 1


def torchrun_rank() -> int:
    """Returns which of them this process is, counted from 0; 0 leads."""
    return _of_torchrun("RANK") or 0


def is_follower() -> bool:
    """Whether torchrun started this process to follow another one."""
    return torchrun_rank() > 0


def check_one_machine() -> None:
    """Refuses processes on several machines.

    Raises:
        ConfigError: torchrun was told of more than one.
    """
    if (here := _of_torchrun("LOCAL_WORLD_SIZE")) is not None and here != num_launched():
        raise ConfigError(
            f"torchrun started {num_launched()} processes, {here} of them on this machine; greensv measures the energy "
            "of one machine only: use --standalone --nproc-per-node N"
        )


@contextmanager
def assembled(config: StudyConfig) -> Iterator[Crew]:
    """Yields the crew of a study that this process leads; the others are let go at the end.

    Raises:
        ConfigError: the device cannot be used, there are fewer GPUs than processes, or several machines.
    """
    from greensv.speaker.distributed import Team, joined_team

    if num_launched() == 1:
        yield _enlisted(Team.alone(), config)
        return
    check_one_machine()
    with joined_team(rank=0, size=num_launched()) as team:
        try:
            team.broadcast(Enlist(config=config))
            yield _enlisted(team, config)
        finally:
            if not team.is_broken:
                team.broadcast(Leave())


def enlist(team: "Team", config: StudyConfig) -> tuple["torch.device", list[tuple[str, ...]]]:
    """Gives this process its device and threads; returns the device, and the GPUs of each process.

    Raises:
        ConfigError: the device cannot be used, or there are fewer GPUs than processes.
    """
    import torch

    from greensv.speaker.device import gpu_uuids, wake

    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    device = team.place(config.device)
    wake(device)  # in each process, before the leader measures what the GPUs draw at rest
    return device, team.gather(gpu_uuids(device))


def _enlisted(team: "Team", config: StudyConfig) -> Crew:
    device, uuids = enlist(team, config)
    return Crew(
        team=team,
        device=device,
        gpu_uuids=tuple(uuid for some in uuids for uuid in some),
        process_ids=tuple(pid for pid in team.process_ids if pid != os.getpid()),
    )


def _of_torchrun(variable: str) -> int | None:
    """Other launchers set such variables too; of torchrun alone is known what it does when a process dies."""
    return int(os.environ[variable]) if "TORCHELASTIC_RUN_ID" in os.environ else None
