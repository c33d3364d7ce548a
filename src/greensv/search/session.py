"""What a search and a retraining open before they start, and how both are stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from greensv.config import StudyConfig
from greensv.energy.books.ledger import Ledger
from greensv.errors import GreensvError, TeamBroken
from greensv.plugins import Plugins
from greensv.search.control import BudgetExhausted, Interrupted, StopRequest, TooDear, stop_on_signals
from greensv.search.crew import Crew
from greensv.search.events import Listener
from greensv.search.metering import Metering, announce_meters, open_metering
from greensv.search.watching import watched_devices
from greensv.search.workbench import Workbench, open_workbench


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A command at work: its processes, its meters, and whether it was asked to stop."""

    config: StudyConfig
    plugins: Plugins
    crew: Crew
    metering: Metering
    stop: StopRequest
    listen: Listener

    def open_workbench(self, *, is_full: bool = False) -> Workbench:
        """Loads the corpus and returns what every training shares. Arguments and errors: `workbench.open_workbench`."""
        return open_workbench(
            self.config,
            self.plugins,
            crew=self.crew,
            metering=self.metering,
            stop=self.stop,
            listen=self.listen,
            is_full=is_full,
        )

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Holds the work. Ctrl-C reaches the processes a dataset started, too; what they say of it is no error.

        Raises:
            Interrupted: the user asked to stop.
        """
        try:
            yield
        except (BudgetExhausted, TooDear, TeamBroken):
            raise
        except GreensvError as error:
            if not self.stop.is_set:
                raise
            raise Interrupted from error


@contextmanager
def open_session(
    config: StudyConfig,
    *,
    plugins: Plugins,
    ledger: Ledger,
    study_id: str,
    account: str,
    crew: Crew,
    listen: Listener,
) -> Iterator[Session]:
    """Opens the meters, charges them to the account, and heeds Ctrl-C until the end.

    Raises:
        MeterError: nothing can measure, or a meter asked for cannot.
        BudgetExhausted: the account has nothing left.
    """
    stop = StopRequest()
    with (
        stop_on_signals(stop),
        open_metering(
            config.energy,
            plugins=plugins,
            ledger=ledger,
            study_id=study_id,
            account=account,
            gpu_uuids=crew.gpu_uuids,
            process_ids=crew.process_ids,
        ) as metering,
        watched_devices(metering, config.energy, plugins=plugins, gpu_uuids=crew.gpu_uuids),
    ):
        announce_meters(metering, listen)
        yield Session(config=config, plugins=plugins, crew=crew, metering=metering, stop=stop, listen=listen)
