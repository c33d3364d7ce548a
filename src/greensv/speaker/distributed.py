"""The processes that train one network together: what they agree on, tell each other, and average.

Everything said is small and goes through a group of its own (gloo, on the CPU), so that no word makes a GPU wait; the
gradients go through another (NCCL between GPUs).
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from greensv import errors
from greensv.errors import ConfigError, TeamBroken
from greensv.speaker.device import resolve_device

News = TypeVar("News")

PATIENCE = timedelta(days=30)
"""How long a process waits for a word: others wait while the leader scores pairs. One that died is noticed at once."""
EXCHANGE_PATIENCE = timedelta(minutes=30)
"""How long a process waits for gradients; all have their batch when the exchange begins."""
LOOK_S = 0.2
"""How long processes that wait for others sleep between two looks."""
DEATH_S = 1.0
"""A connection is closed a moment before its process is gone."""

_GO_ON, _STOP = 0, 1


class TeamStopped(Exception):
    """The leader, or another process, stopped what the team was doing. The state is that after the last whole step."""


class Team:
    """The processes of one machine that train one network together, seen from one of them.

    Attributes:
        rank: which of them this is; 0 leads.
        size: how many there are.
        process_ids: of all of them, by rank.
        is_broken: an exchange was cut short, so that the processes are at different places; nothing can be said or
            trained any more.
    """

    def __init__(self, *, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.is_broken = False
        self.process_ids: tuple[int, ...] = (os.getpid(),)
        self._num_agreements = 0
        self._exchange: dist.ProcessGroup | None = None

    @classmethod
    def alone(cls) -> Self:
        """Returns the team of this process alone."""
        return cls()

    @property
    def is_leader(self) -> bool:
        """Whether this is the process that the others follow."""
        return self.rank == 0

    def rows(self, batch_size: int) -> slice:
        """Returns which rows of the global batch are this process's; its size divides the batch."""
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def place(self, name: Literal["auto", "cpu", "cuda"]) -> torch.device:
        """Returns the device of this process: each has a GPU of its own. Called by all, before any training.

        Raises:
            ConfigError: there are fewer GPUs than processes, or none where one is asked for.
        """
        if self.size > 1 and name != "cpu" and torch.cuda.is_available():
            num_gpus = torch.cuda.device_count()
            if num_gpus < self.size:
                raise ConfigError(
                    f"torchrun started {self.size} processes, each of which needs a GPU of its own, and torch finds "
                    f"{num_gpus}; use --nproc-per-node {num_gpus}, or --device cpu"
                )
            torch.cuda.set_device(self.rank)
        device = resolve_device(name)
        if self.size > 1:
            with self._together():
                backend = "nccl" if device.type == "cuda" else "gloo"
                self._exchange = dist.new_group(backend=backend, timeout=EXCHANGE_PATIENCE)
        return device

    def prepare(self, module: nn.Module) -> nn.Module:
        """Returns the module that averages gradients over the team; the module itself when alone.

        On GPUs, batch normalisation takes its statistics over the whole team's batch: the module's own layers are
        exchanged for such ones. torch has none for CPUs; there each process normalises by its own share, and the
        running statistics are the leader's.

        Raises:
            TeamStopped: another process could not make the module.
        """
        if self.size == 1:
            return module
        self.agree()
        with self._together():
            if next(module.parameters()).device.type == "cuda":
                module = nn.SyncBatchNorm.convert_sync_batchnorm(  # type: ignore[no-untyped-call]
                    module, self._exchange
                )
            return DistributedDataParallel(module, process_group=self._exchange, broadcast_buffers=False)

    @contextmanager
    def without_sync(self, module: nn.Module) -> Iterator[None]:
        """Leaves gradients unaveraged inside: more are to be added to them."""
        if self.size == 1:
            yield
            return
        with cast(DistributedDataParallel, module).no_sync():
            yield

    def mean(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Returns the mean of the team's values, without waiting for the device."""
        if self.size == 1:
            return value
        total = value.detach() / self.size
        dist.all_reduce(total, group=self._exchange)
        return total

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Holds what all processes compute together: what is raised inside leaves them at different places.

        Raises:
            TeamBroken: it failed because another process has died.
        """
        if self.size == 1:
            yield
            return
        with self._together():
            yield

    def relay(self, call: Callable[[], None]) -> None:
        """Calls it on the leader; what it raises stops every process.

        Raises:
            TeamStopped: in the other processes.
        """
        if self.is_leader:
            try:
                call()
            except BaseException:
                self._tell(_STOP)
                raise
        if self._tell(_GO_ON) == _STOP:
            raise TeamStopped

    def agree(self, error: Exception | None = None, news: Sequence[News] = ()) -> tuple[News, ...]:
        """Waits for all processes; returns what they have to tell, by rank, when none has failed.

        Args:
            error: what went wrong here.
            news: what the others should know; costs time only where there is some.

        Raises:
            Exception: `error`; on the leader without one, that of another process.
            TeamStopped: another process failed, and this is not the leader.
        """
        self._num_agreements += 1
        if self.size == 1:
            if error is not None:
                raise error
            return tuple(news)
        told: list[Any] = [None] * self.size
        with self._together():
            is_anything = torch.tensor([int(error is not None or len(news) > 0)])
            dist.all_reduce(is_anything, op=dist.ReduceOp.MAX)
            if not is_anything.item():
                return ()
            dist.all_gather_object(told, (_as_told(error), tuple(news)))
        if error is not None:
            raise error
        for rank, (failure, _) in enumerate(told):
            if failure is not None:
                raise self._failure_of(rank, *failure) if self.is_leader else TeamStopped
        return tuple(item for _, items in told for item in items)

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Holds what each process does by itself until all agree; what is raised before that stops all of them."""
        num_before = self._num_agreements
        try:
            yield
        except Exception as error:
            if self._num_agreements == num_before and self.size > 1:
                self.agree(error)
            raise

    def broadcast(self, thing: Any = None) -> Any:
        """Returns what the leader has given, in all processes; they wait for it. Anything that can be pickled."""
        if self.size == 1:
            return thing
        things = [thing]
        with self._together():
            dist.broadcast_object_list(things, src=0)
        return things[0]

    def gather(self, thing: Any) -> list[Any]:
        """Returns what each process has given, by rank, in all of them."""
        if self.size == 1:
            return [thing]
        things: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(things, thing)
        return things

    def barrier(self) -> None:
        """Waits until all processes are here."""
        self.agree()

    def wait_for_all(self, is_ready: Callable[[], bool], look: Callable[[int], None] = lambda num_ready: None) -> None:
        """Waits until all processes are ready.

        Args:
            is_ready: whether this one is.
            look: called on the leader now and then with the number of those that are; what it raises stops all.

        Raises:
            TeamStopped: in the other processes.
        """
        while (num_ready := sum(self.gather(is_ready()))) < self.size:
            self.relay(partial(look, num_ready))
            time.sleep(LOOK_S)

    def lost(self) -> tuple[int, ...]:
        """Returns the ranks of the processes that have ended."""
        return tuple(rank for rank, pid in enumerate(self.process_ids) if not _is_running(pid))

    def _tell(self, word: int) -> int:
        if self.size == 1:
            return word
        said = torch.tensor([word])
        with self._together():
            dist.broadcast(said, src=0)
        return int(said.item())

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.is_broken = True
            if isinstance(error, RuntimeError) and (lost := self._wait_for_lost()):
                who = ", ".join(map(str, lost))
                raise TeamBroken(
                    f"process {who} of {self.size} (counted from 0) has died, and its work with it; see what it said "
                    "above, then run the same command again"
                ) from error
            raise

    def _wait_for_lost(self) -> tuple[int, ...]:
        until_s = time.monotonic() + DEATH_S
        while not (lost := self.lost()) and time.monotonic() < until_s:
            time.sleep(0.02)
        return lost

    def _failure_of(self, rank: int, kind: str, text: str) -> Exception:
        cls = getattr(errors, kind, RuntimeError)
        return cast(Exception, cls(f"process {rank} of {self.size} (counted from 0): {text}"))


@contextmanager
def joined_team(*, rank: int, size: int) -> Iterator[Team]:
    """Yields the team of the processes that torchrun started on this machine, from the environment that it set."""
    # On one machine nothing has to leave it; gloo would look up the machine's name, which may have no address.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", rank=rank, world_size=size, timeout=PATIENCE)
    team = Team(rank=rank, size=size)
    team.process_ids = tuple(team.gather(os.getpid()))
    try:
        yield team
    finally:
        # Where the team is broken, NCCL would wait for exchanges that nobody ends.
        if not team.is_broken:
            dist.destroy_process_group()


def _as_told(error: Exception | None) -> tuple[str, str] | None:
    return None if error is None else (type(error).__name__, str(error) or type(error).__name__)


def _is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
