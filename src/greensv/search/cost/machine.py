"""The machine that a training would run on, as far as its cost depends on it: device, precision, meters."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from greensv.config import EnergyConfig, Recipe
from greensv.energy.baseline.gains import load_gains, source_words
from greensv.energy.metering.selection import Choice, choose_meters
from greensv.plugins import Plugins
from greensv.search.calibration import meter_settings
from greensv.search.cost.saved import Hardware, hardware_of

if TYPE_CHECKING:
    import torch

    from greensv.speaker.device import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What would compute and measure."""

    device: "torch.device"
    device_words: str
    precision: "Precision"
    choices: tuple[Choice, ...]
    hardware: Hardware


def this_machine(energy: EnergyConfig, recipe: Recipe, plugins: Plugins, *, device_name: str) -> Machine:
    """Chooses device and meters as a search would; opens nothing.

    Raises:
        MeterError: nothing can measure, or a meter asked for cannot.
        ConfigError: the device, or an option of a meter, cannot be used.
    """
    import torch

    from greensv.speaker.device import device_name as words_of
    from greensv.speaker.device import gpu_uuids, processor_name, resolve_device, resolve_precision

    device = resolve_device(device_name)  # type: ignore[arg-type]
    choices = choose_meters(plugins.all("meter"), energy.meters, gpu_uuids=gpu_uuids(device), options=energy.options)
    gains = load_gains()
    precision = resolve_precision(recipe.precision, device)
    environment = {
        "device": processor_name(device),
        "precision": precision,
        **{
            f"meter of {domain}": source_words(choice.meter, domain, gains)
            for choice in choices
            for domain, role in choice.roles.items()
            if role != "beside"
        },
    }
    hardware = hardware_of(environment, num_threads=torch.get_num_threads(), settings=meter_settings(choices))
    return Machine(
        device=device, device_words=words_of(device), precision=precision, choices=choices, hardware=hardware
    )
