"""The energy window of a training: kept with what it holds by phase of a step, however the training ends."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from greensv.energy.books.schema import transaction
from greensv.energy.devices.phase_book import DATA_WAIT, PhaseEnergy, record_phases
from greensv.energy.devices.telemetry_book import lowest_power_w
from greensv.energy.meter import Domain
from greensv.energy.monitoring import EnergyWindow, Window
from greensv.errors import GreensvError
from greensv.search.attribution import RestPower, attribute
from greensv.search.metering import Metering

if TYPE_CHECKING:
    from greensv.speaker.training.loop import Training
    from greensv.speaker.training.phases import StepTimes

logger = logging.getLogger(__name__)


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


def _keep(metering: Metering, whole: TrainingWindow, *, trial_number: int) -> None:
    window = whole.result
    metering.record(window, trial_number=trial_number)
    whole.phases = attribute(window, whole.times, rest=_rest_powers(metering, window))
    with transaction(metering.ledger.engine) as connection:
        record_phases(
            connection,
            metering.study_id,
            metering.account,
            whole.phases,
            pue=metering.pue,
            trial_number=trial_number,
        )


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
