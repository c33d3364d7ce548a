"""What training one network with a full recipe will cost on this machine, before it runs: `greensv predict`."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from greensv.config import EnergyConfig, FeatureConfig, Recipe
from greensv.energy.baseline.gains import load_gains, with_gains
from greensv.energy.carbon import CarbonFactor
from greensv.energy.metering.selection import open_meters
from greensv.errors import CarbonError, ConfigError
from greensv.plugins import Plugins
from greensv.search.carbon import study_source
from greensv.search.cost import priors
from greensv.search.cost.fitting import reckoned_bytes
from greensv.search.cost.machine import Machine
from greensv.search.cost.memory import DeviceMemory, MemoryModel, longest_phase
from greensv.search.cost.model import CostModel, Measured, Prediction
from greensv.search.cost.probe import Probe, Subject, probe_synthetic
from greensv.search.cost.saved import (
    SavedCost,
    keep_costs,
    load_costs,
    recipe_digest,
    saved_cost,
    teach,
)
from greensv.search.cost.track_record import TrackRecord, track_record
from greensv.search.workbench import NetworkWork, network_work
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import Params

PAPER_UTTERANCES, PAPER_SPEAKERS = 1_092_009, 5_994
"""VoxCeleb2's development part, which the paper trains on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A network, the recipe to train it with, and how much data there is."""

    backbone: Backbone
    params: Params
    recipe: Recipe
    features: FeatureConfig
    energy: EnergyConfig
    num_utterances: int
    num_speakers: int

    @property
    def num_steps(self) -> int:
        """Steps of all phases."""
        per_epoch = self.num_utterances // self.recipe.batch_size
        return per_epoch * sum(phase.num_epochs for phase in self.recipe.phases)

    @property
    def speech_s(self) -> float:
        """Seconds of speech in all steps."""
        per_epoch = self.num_utterances // self.recipe.batch_size * self.recipe.batch_size
        return sum(per_epoch * phase.num_epochs * phase.crop_s for phase in self.recipe.phases)

    @property
    def digest(self) -> str:
        """What else a cost depends on; see `recipe_digest`."""
        return recipe_digest(self.recipe, self.recipe.phases[0], self.features, num_classes=self.num_speakers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The cost of a task, and what it is based on. Energies in joules, PUE included."""

    task: Task
    machine: Machine
    work: NetworkWork
    cost: Prediction
    is_duration_known: bool
    needed_bytes: float
    available_bytes: float | None
    carbon: CarbonFactor | None
    num_measured: int
    """Trainings and probes on this hardware that it is based on."""
    num_same_recipe: int
    probe: Probe | None
    has_own_training: bool
    """A short training of this very network is among them."""
    track: TrackRecord | None
    notes: tuple[str, ...]


def predict_task(
    task: Task,
    machine: Machine,
    plugins: Plugins,
    *,
    own: Measured | None = None,
    is_probed: bool = False,
    on_step: Callable[[int], None] = lambda step: None,
) -> Answer:
    """Returns what the task will cost.

    Args:
        task: the training.
        machine: it would run on.
        plugins: with the carbon source.
        own: what a short training of this network was measured to cost, PUE included; None: there was none.
        is_probed: a few of its steps are measured now, on noise, and kept for later predictions.
        on_step: called after each step of the probe.

    Raises:
        MeterError: the probe cannot be measured.
        ConfigError: the data is less than a batch, or the parameters make no network.
    """
    if not task.num_steps:
        raise ConfigError(
            f"{task.num_utterances} utterances are less than a batch of {task.recipe.batch_size}; lower "
            "recipe.batch_size or name more utterances"
        )
    work = network_work(task.backbone, task.params, features=task.features)
    points = load_costs(machine.hardware)
    model = CostModel(prior=priors.of_device(machine.device), is_prior_absolute=True)
    num_saved = teach(model, points, recipe=task.digest, group="", pue=task.energy.pue)
    if own is not None:
        model.add(own)
    probe = None
    memory, notes = _Memory(task, machine, work, points), []
    if is_probed:
        probe = _probe(task, machine, max_crops=memory.max_crops, on_step=on_step)
        reckoned = memory.reckoned_bytes(probe.batch_size, crop_s=task.recipe.phases[0].crop_s)
        measured = Measured(work=work.per_second, joules=task.energy.pue * probe.joules, seconds=probe.seconds)
        predicted = model.predict(work.per_second, speech_s=1.0) if num_saved else None
        _keep_probe(task, machine, measured, probe, predicted=predicted, reckoned_bytes=reckoned)
        model.add(measured)
        notes += _probe_notes(task, probe)
    is_duration_known = model.num_measured > 0
    cost = _predict(model, work, speech_s=task.speech_s, is_duration_known=is_duration_known)
    carbon, problem = _carbon_factor(task.energy, plugins)
    return Answer(
        task=task,
        machine=machine,
        work=work,
        cost=cost,
        is_duration_known=is_duration_known,
        needed_bytes=memory.needed_bytes,
        available_bytes=memory.available_bytes,
        carbon=carbon,
        num_measured=model.num_measured,
        num_same_recipe=sum(point.recipe == task.digest for point in points),
        probe=probe,
        has_own_training=own is not None,
        track=track_record(points),
        notes=(*notes, *problem),
    )


def _predict(model: CostModel, work: NetworkWork, *, speech_s: float, is_duration_known: bool) -> Prediction:
    if is_duration_known:
        return model.predict(work.per_second, speech_s=speech_s)
    joules, log_std = model.joules.predict(work.per_second)
    upper_j = joules * speech_s * math.exp(2 * log_std)
    return Prediction(energy_j=joules * speech_s, upper_j=upper_j, duration_s=math.nan, log_std=log_std)


class _Memory:
    """What the task's largest step needs of the device, as far as it can be told."""

    def __init__(self, task: Task, machine: Machine, work: NetworkWork, points: list[SavedCost]) -> None:
        model = MemoryModel()
        for point in points:
            if point.peak_bytes and point.reckoned_bytes:
                model.add(point.reckoned_bytes, point.peak_bytes)
        self._model = model
        self._reckoned = partial(_reckoned, task, machine, work)
        self.needed_bytes = model.needed_bytes(self._reckoned(task.recipe))
        self.available_bytes = DeviceMemory(machine.device).available_bytes()
        self._batch_size = task.recipe.batch_size // task.recipe.num_micro_batches
        self._recipe = task.recipe

    @property
    def max_crops(self) -> int:
        """Crops that fit at once, from the recipe's own number down by halves."""
        size, longest_s = self._batch_size, longest_phase(self._recipe).crop_s
        while size > 2 and self.available_bytes is not None:
            if self._model.needed_bytes(self.reckoned_bytes(size, crop_s=longest_s)) <= self.available_bytes:
                break
            size //= 2
        return max(2, size)

    def reckoned_bytes(self, num_crops: int, *, crop_s: float) -> float:
        """Returns what a step of so many crops at once is reckoned to hold."""
        return self._reckoned(replace(self._recipe, batch_size=num_crops, num_micro_batches=1), crop_s=crop_s)


def _reckoned(task: Task, machine: Machine, work: NetworkWork, recipe: Recipe, *, crop_s: float | None = None) -> float:
    return reckoned_bytes(
        work,
        recipe=recipe,
        features=task.features,
        num_speakers=task.num_speakers,
        precision=machine.precision,
        crop_s=crop_s,
    )


def _probe(task: Task, machine: Machine, *, max_crops: int, on_step: Callable[[int], None]) -> Probe:
    subject = Subject(
        build=lambda: task.backbone.build(task.params, features=task.features),
        recipe=task.recipe,
        features=task.features,
        num_speakers=task.num_speakers,
        device=machine.device,
    )
    meters = with_gains(open_meters(machine.choices), load_gains())
    return probe_synthetic(subject, meters, max_crops=max_crops, on_step=on_step)


def _keep_probe(
    task: Task,
    machine: Machine,
    measured: Measured,
    probe: Probe,
    *,
    predicted: Prediction | None,
    reckoned_bytes: float,
) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    point = saved_cost(
        measured,
        predicted=predicted,
        speech_s=1.0,
        pue=task.energy.pue,
        recipe=task.digest,
        group="probe " + hashlib.sha256(f"{at} {measured}".encode()).hexdigest()[:8],
        num_steps=probe.num_steps,
        at=at,
        peak_bytes=probe.peak_bytes,
        reckoned_bytes=reckoned_bytes,
    )
    keep_costs(machine.hardware, [point])


def _probe_notes(task: Task, probe: Probe) -> list[str]:
    at_once = task.recipe.batch_size // task.recipe.num_micro_batches
    if probe.batch_size == at_once:
        return []
    return [
        f"the probe's steps had {probe.batch_size} crops, not {at_once}: larger ones would have taken too long or too "
        "much memory; a second of speech may cost somewhat less in large steps"
    ]


def _carbon_factor(energy: EnergyConfig, plugins: Plugins) -> tuple[CarbonFactor | None, list[str]]:
    try:
        return study_source(energy, plugins).factor(energy.region, datetime.now(UTC)), []
    except CarbonError as error:
        return None, [f"the carbon is not known: {error}"]
