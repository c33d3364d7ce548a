"""What `greensv predict` says: as one JSON object, and as lines for people."""

from typing import TYPE_CHECKING, Any

from greensv.search.cost.model import interval
from greensv.units import carbon_g, format_duration, format_energy, kwh_from_j

if TYPE_CHECKING:
    from greensv.search.cost.full_recipe import Answer


def answer_as_json(name: str, answer: "Answer") -> dict[str, Any]:
    """Returns the answer as plain values; intervals are of 95 %, and what is not known is None."""
    task, machine, cost = answer.task, answer.machine, answer.cost
    low_j, high_j = cost.energy_interval_j
    durations = (cost.duration_s, *cost.duration_interval_s) if answer.is_duration_known else (None, None, None)
    carbon = answer.carbon
    grams = [None if carbon is None else carbon_g(j, carbon.g_per_kwh) for j in (cost.energy_j, low_j, high_j)]
    return {
        "system": name,
        "backbone": task.backbone.name,
        "params": dict(task.params),
        "num_parameters": answer.work.num_parameters,
        "macs": answer.work.macs,
        "device": machine.device_words,
        "precision": machine.precision,
        "meters": dict(machine.hardware.meters),
        "num_utterances": task.num_utterances,
        "num_speakers": task.num_speakers,
        "num_steps": task.num_steps,
        "speech_s": task.speech_s,
        "energy_kwh": kwh_from_j(cost.energy_j),
        "energy_low_kwh": kwh_from_j(low_j),
        "energy_high_kwh": kwh_from_j(high_j),
        "duration_s": durations[0],
        "duration_low_s": durations[1],
        "duration_high_s": durations[2],
        "memory_bytes": answer.needed_bytes,
        "available_memory_bytes": answer.available_bytes,
        "fits_memory": None if answer.available_bytes is None else answer.needed_bytes <= answer.available_bytes,
        "carbon_g": grams[0],
        "carbon_low_g": grams[1],
        "carbon_high_g": grams[2],
        "g_per_kwh": None if carbon is None else carbon.g_per_kwh,
        "region": None if carbon is None else carbon.region,
        "pue": task.energy.pue,
        "num_measured": answer.num_measured,
        "num_same_recipe": answer.num_same_recipe,
        "has_own_training": answer.has_own_training,
        "probe": None
        if answer.probe is None
        else {"batch_size": answer.probe.batch_size, "num_steps": answer.probe.num_steps},
        "track_record": None
        if answer.track is None
        else {
            "num_predictions": answer.track.num_predictions,
            "median_error": answer.track.median_error,
            "share_inside": answer.track.share_inside,
        },
        "notes": list(answer.notes),
    }


def answer_lines(name: str, answer: "Answer") -> list[str]:
    """Returns the answer in words."""
    task, machine, cost = answer.task, answer.machine, answer.cost
    low_j, high_j = cost.energy_interval_j
    epochs = sum(phase.num_epochs for phase in task.recipe.phases)
    lines = [
        f"{name}: {answer.work.num_parameters / 1e6:,.3g} M parameters, {answer.work.macs / 1e9:,.3g} GMACs a crop of "
        "350 frames",
        f"{epochs} epochs of {task.num_utterances:,} utterances in {task.num_steps:,} steps on {machine.device_words}, "
        f"{machine.precision}",
        f"  energy  {format_energy(cost.energy_j)}  (95 %: {format_energy(low_j)} to {format_energy(high_j)})",
        f"  time    {_duration(answer)}",
        f"  memory  {_memory(answer)}",
        f"  carbon  {_carbon(answer)}",
        _based_on(answer),
    ]
    if (track := answer.track) is not None:
        lines.append(
            f"Predictions on this hardware so far: {track.num_predictions}, off by {100 * track.median_error:.2g} % in "
            f"the median, {track.share_inside:.0%} of them inside their interval."
        )
    return [*lines, *(f"note: {note}" for note in answer.notes)]


def _duration(answer: "Answer") -> str:
    if not answer.is_duration_known:
        return "not known before anything is measured on this hardware"
    low_s, high_s = answer.cost.duration_interval_s
    found, low, high = map(format_duration, (answer.cost.duration_s, low_s, high_s))
    return f"{found}  (95 %: {low} to {high})"


def _memory(answer: "Answer") -> str:
    needed = f"about {answer.needed_bytes / 1e9:.3g} GB"
    if answer.available_bytes is None:
        return needed
    free = f"{answer.available_bytes / 1e9:.3g} GB are free"
    if answer.needed_bytes <= answer.available_bytes:
        return f"{needed}; {free}"
    return f"{needed}, but {free}: it does not fit. More recipe.num_micro_batches need less"


def _carbon(answer: "Answer") -> str:
    carbon = answer.carbon
    if carbon is None:
        return "not known, see below"
    found, low, high = (
        _mass(carbon_g(energy_j, carbon.g_per_kwh))
        for energy_j in (answer.cost.energy_j, *interval(answer.cost.energy_j, answer.cost.log_std))
    )
    return f"{found}  (95 %: {low} to {high}), {carbon.g_per_kwh:.3g} g/kWh in {carbon.region} now"


def _mass(mass_g: float) -> str:
    return f"{mass_g:.3g} g" if mass_g < 1000 else f"{mass_g / 1000:,.4g} kg"


def _based_on(answer: "Answer") -> str:
    if answer.num_measured == 0:
        elsewhere = "the paper's V100" if answer.machine.device.type == "cuda" else "another processor"
        return (
            f"Nothing has been measured on this hardware yet: {elsewhere} stands for it, which may be off by a factor "
            "of ten or more. --probe measures some steps now."
        )
    sources = []
    if answer.has_own_training:
        sources.append("its own short training")
    if answer.probe is not None:
        sources.append(f"a probe of {answer.probe.num_steps} steps made now")
    others = answer.num_measured - len(sources)
    if others:
        sources.append(f"{others} measurements on this hardware, {answer.num_same_recipe} of them with this recipe")
    return f"Based on {' and '.join(sources)}."
