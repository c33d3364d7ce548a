"""Keeps a study's telemetry while a session is open: what its GPUs, its CPUs and this process are doing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from greensv.config import EnergyConfig
from greensv.energy.devices.device_state import DeviceReader
from greensv.energy.devices.host_state import HostReader
from greensv.energy.devices.telemetry import Telemetry
from greensv.energy.meter import MeterRequest
from greensv.plugins import Plugins
from greensv.search.metering import Metering

logger = logging.getLogger(__name__)


@contextmanager
def watched_devices(
    metering: Metering, energy: EnergyConfig, *, plugins: Plugins, gpu_uuids: tuple[str, ...]
) -> Iterator[None]:
    """Writes down the state of the devices every `energy.telemetry_interval_s` seconds; 0: never.

    GPUs are read by whichever installed meter knows them, also where another one, or none, measures their energy.
    """
    if not energy.telemetry_interval_s:
        yield
        return
    with Telemetry(
        [HostReader(), *_device_readers(plugins, gpu_uuids)],
        metering.ledger.engine,
        study_id=metering.study_id,
        account=metering.account,
        use=lambda: metering.charger.use,
        interval_s=energy.telemetry_interval_s,
    ):
        yield


def _device_readers(plugins: Plugins, gpu_uuids: tuple[str, ...]) -> Iterator[DeviceReader]:
    request = MeterRequest(gpu_uuids=gpu_uuids)
    for meter in plugins.all("meter"):
        try:
            reader = meter.open_device_reader(request)
        except Exception:
            logger.exception("the devices of meter %r are not watched", meter.name)
            continue
        if reader is not None:
            yield reader
