"""The energy windows of a job, kept however what they measure ends; a training's with its phases of a step."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sqlalchemy import Connection

from greensv.energy.books.schema import persist, transaction
from greensv.energy.devices.phase_book import DATA_WAIT, PhaseEnergy, record_phases
from greensv.energy.devices.telemetry_book import lowest_power_w
from greensv.energy.meter import Domain
from greensv.energy.monitoring import EnergyWindow, Window
from greensv.errors import GreensvError, MeterError
from greensv.search.attribution import RestPower, attribute
from greensv.search.metering import Metering

if TYPE_CHECKING:
    from greensv.speaker.training.loop import Training
    from greensv.speaker.training.phases import StepTimes

logger = logging.getLogger(__name__)

MIN_RESOLUTIONS = 20
"""An epoch that lasts less than so many changes of the slowest charged meter is too poorly known to be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataWait:
    """What a training lost for want of data; attributed, not measured.

    The seconds for which its device had nothing to do, and what all domains used meanwhile, PUE included.
    """

    duration_s: float
    energy_j: float


class TrainingWindow:
    """The energy of a training, once its window is closed. Made when it opens, the device having been waited for."""

    def __init__(self, window: Window, training: "Training") -> None:
        self._window = window
        self._training = training
        self._before = training.step_times
        self.phases: tuple[PhaseEnergy, ...] = ()
        """By phase and domain, PUE not included."""

    @property
    def result(self) -> EnergyWindow:
        """The window's energy. Raises MeterError as `Window.result` does."""
        return self._window.result

    @property
    def times(self) -> "StepTimes":
        """What the steps since the window opened have spent their time on."""
        return self._training.step_times - self._before

    def data_wait(self, *, pue: float) -> DataWait:
        """Returns what was used while the device waited for data."""
        waiting = [energy for energy in self.phases if energy.phase == DATA_WAIT]
        return DataWait(
            duration_s=max((energy.duration_s for energy in waiting), default=0.0),
            energy_j=pue * sum(energy.energy_j for energy in waiting),
        )


@contextmanager
def training_window(metering: Metering, training: "Training", *, trial_number: int) -> Iterator[TrainingWindow]:
    """Measures the training that runs in the block, and keeps its energy, also by phase of a step.

    What was measured of a training that is stopped is kept, too: it may be gone on with, or be asked about.
    """
    whole: TrainingWindow | None = None
    try:
        with metering.monitor.window("training") as window:
            whole = TrainingWindow(window, training)
            yield whole
    except BaseException:
        if whole is not None:
            _try_to_keep(metering, whole, trial_number=trial_number)
        raise
    _keep(metering, whole, trial_number=trial_number)


@contextmanager
def measured_window(
    metering: Metering, name: str, *, trial_number: int | None = None, min_resolutions: float = 0.0
) -> Iterator[Window]:
    """Measures the block and keeps its energy for reports, however the block ends. Keeping it raises nothing.

    Args:
        metering: of this process.
        name: the window's.
        trial_number: what it is kept under.
        min_resolutions: a window that lasts less than so many changes of its slowest charged meter is not kept.

    Raises:
        MeterError: the block ended well, and the meters cannot tell its energy.
    """
    window: Window | None = None
    try:
        with metering.monitor.window(name) as window:
            yield window
    finally:
        if window is not None:
            _try_to_record(metering, window, trial_number=trial_number, min_resolutions=min_resolutions)


@contextmanager
def noted_window(
    metering: Metering, name: str, *, trial_number: int | None = None, min_resolutions: float = 0.0
) -> Iterator[None]:
    """As `measured_window`, for what no number is taken from: where the meters cannot tell its energy, that is logged.

    What is measured inside has told so already, and work that ended well is not lost for a figure beside it.
    """
    has_ended = False
    try:
        with measured_window(metering, name, trial_number=trial_number, min_resolutions=min_resolutions):
            yield
            has_ended = True
    except (MeterError, RuntimeError) as error:  # torch, asked about a GPU that has failed, raises RuntimeError
        if not has_ended:
            raise
        logger.warning("energy window %r of trial %s is not known: %s", name, trial_number, error)


class EpochWindows:
    """Keeps the energy of each epoch of a training as `epoch N`; a context manager around its steps.

    A training that is stopped inside an epoch and gone on with has a window for either part of it.
    """

    def __init__(self, metering: Metering, training: "Training", *, trial_number: int) -> None:
        self._metering = metering
        self._training = training
        self._trial_number = trial_number
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._enter_epoch(after_step=self._training.step)
        return self

    def after_step(self, step: int) -> None:
        """Ends the epoch whose last step this was, and begins the next one."""
        if step % self._training.steps_per_epoch == 0:
            self._open.close()
            self._enter_epoch(after_step=step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def _enter_epoch(self, *, after_step: int) -> None:
        if after_step < self._training.num_steps:
            epoch = after_step // self._training.steps_per_epoch + 1
            window = noted_window(
                self._metering, f"epoch {epoch}", trial_number=self._trial_number, min_resolutions=MIN_RESOLUTIONS
            )
            self._open.enter_context(window)


def _try_to_record(metering: Metering, window: Window, *, trial_number: int | None, min_resolutions: float) -> None:
    try:
        result = window.result
        if result.duration_s >= min_resolutions * result.resolution_s:
            metering.record(result, trial_number=trial_number)
    except GreensvError as error:
        logger.warning("energy window %r of trial %s is not kept: %s", window.name, trial_number, error)


def _keep(metering: Metering, whole: TrainingWindow, *, trial_number: int) -> None:
    window = whole.result
    metering.record(window, trial_number=trial_number)
    whole.phases = attribute(window, whole.times, rest=_rest_powers(metering, window))

    def record(connection: Connection, is_repeat: bool) -> None:
        record_phases(
            connection,
            metering.study_id,
            metering.account,
            whole.phases,
            pue=metering.pue,
            trial_number=trial_number,
        )

    persist(metering.ledger.engine, record)


def _try_to_keep(metering: Metering, whole: TrainingWindow, *, trial_number: int) -> None:
    try:
        _keep(metering, whole, trial_number=trial_number)
    except (GreensvError, RuntimeError) as error:  # torch, asked about a GPU that has failed, raises RuntimeError
        logger.warning("trial %d: the energy of its training is not kept by phase: %s", trial_number, error)


def _rest_powers(metering: Metering, window: EnergyWindow) -> dict[Domain, RestPower]:
    """What each GPU of a window draws at rest: as measured before the work, else the lowest power seen in the study."""
    found = {}
    for reading in (*window.readings, *window.others):
        domain = reading.domain
        if domain.kind != "gpu" or domain in found:
            continue
        known = metering.idle.power_w([(reading.meter, str(domain))])
        if known is not None:
            found[domain] = RestPower(power_w=known[0], uncertainty_w=known[1])
            continue
        with transaction(metering.ledger.engine) as connection:
            lowest_w = lowest_power_w(connection, metering.study_id, str(domain))
        if lowest_w is not None:
            found[domain] = RestPower(power_w=lowest_w)
    return found
