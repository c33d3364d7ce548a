"""Measures some steps of a training on synthetic audio: what `greensv predict --probe` asks, without a corpus."""

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from greensv.config import FeatureConfig, Phase, Recipe
from greensv.energy.metering.reading import OpenMeter
from greensv.energy.monitoring import Monitor
from greensv.errors import MeterError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from greensv.speaker.dataset import Utterances
    from greensv.speaker.training.loop import StepReport, Training

WARMUP_STEPS = 2
MIN_STEPS = 4
PROBE_S = 3.0
"""Seconds of measured steps, at least."""
RESOLUTIONS = 20
"""A probe lasts for so many changes of the slowest meter, so that its edges move its energy by 5 % at most."""
MAX_STEP_S = 5.0
"""A step that would take longer is measured with fewer crops: costs are per second of speech."""
FIRST_CROPS = 2
"""Of the step that finds out; batch normalisation wants two."""
NUM_FILES = 32
MAX_UTTERANCES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Steps that were measured; PUE not included."""

    joules: float
    """Per second of training speech."""
    seconds: float
    """Per second of training speech."""
    batch_size: int
    num_steps: int
    peak_bytes: float | None
    """Of a GPU's memory; None on a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is probed."""

    build: Callable[[], "nn.Module"]
    recipe: Recipe
    features: FeatureConfig
    num_speakers: int
    device: "torch.device"

    @property
    def phase(self) -> Phase:
        """The recipe's first phase, long enough for any probe."""
        return replace(self.recipe.phases[0], num_epochs=100_000, num_averaged_epochs=0)


def probe_synthetic(
    subject: Subject, meters: tuple[OpenMeter, ...], *, max_crops: int, on_step: Callable[[int], None]
) -> Probe:
    """Trains on noise for a few seconds, as a search would on speech, and returns what a second of speech costs.

    The energy of the steps is scaled to their median duration: one that was held up is not multiplied.

    Args:
        subject: the network and its recipe.
        meters: opened, with their corrections.
        max_crops: that the memory holds in a step.
        on_step: called after each step with the number of steps done.

    Raises:
        MeterError: the meters saw no energy, or fail.
    """
    from greensv.speaker.device import synchronise

    most = max(FIRST_CROPS, min(subject.recipe.batch_size // subject.recipe.num_micro_batches, max_crops))
    with tempfile.TemporaryDirectory(prefix="greensv-probe-") as folder:
        first = _begin(subject, Path(folder), batch_size=FIRST_CROPS)
        first.run(until_step=1)
        synchronise(subject.device)
        began_s = time.monotonic()
        first.run(until_step=2)
        synchronise(subject.device)
        batch_size = _batch_size(most, crop_step_s=(time.monotonic() - began_s) / FIRST_CROPS)
        training = _begin(subject, Path(folder), batch_size=batch_size)
        return _measured(training, subject, meters, batch_size=batch_size, on_step=on_step)


def _batch_size(most: int, *, crop_step_s: float) -> int:
    """Returns `most`, halved until a step takes no longer than `MAX_STEP_S`."""
    size = most
    while size // 2 >= FIRST_CROPS and size * crop_step_s > MAX_STEP_S:
        size //= 2
    return size


def _begin(subject: Subject, folder: Path, *, batch_size: int) -> "Training":
    from greensv.speaker.audio.store import AudioStore
    from greensv.speaker.training.loop import Training

    utterances = _noise(subject, folder, num=max(4 * batch_size, subject.num_speakers))
    recipe = replace(subject.recipe, batch_size=batch_size, num_micro_batches=1, phases=(subject.phase,))
    return Training(
        network=subject.build(),
        utterances=utterances,
        audio=AudioStore(utterances),
        recipe=recipe,
        phases=recipe.phases,
        features=subject.features,
        seed=0,
        device=subject.device,
    )


def _noise(subject: Subject, folder: Path, *, num: int) -> "Utterances":
    """Returns utterances of noise, of as many speakers as are trained; a few files stand for all of them."""
    import soundfile

    from greensv.speaker.corpora.corpus import build_utterances

    rate_hz = subject.features.sample_rate_hz
    num_samples = round(1.2 * max(subject.phase.speeds) * subject.phase.crop_s * rate_hz)
    paths = [str(folder / f"{number}.wav") for number in range(NUM_FILES)]
    random = np.random.default_rng(0)
    for path in paths:
        if not Path(path).exists():
            soundfile.write(path, random.normal(0, 0.1, num_samples), rate_hz)
    num = min(num, MAX_UTTERANCES)
    return build_utterances(
        ids=[str(number) for number in range(num)],
        paths=[paths[number % NUM_FILES] for number in range(num)],
        speaker_of=[f"{number % max(2, subject.num_speakers):06d}" for number in range(num)],
        num_samples=np.full(num, num_samples),
        sample_rate_hz=rate_hz,
    )


def _measured(
    training: "Training",
    subject: Subject,
    meters: tuple[OpenMeter, ...],
    *,
    batch_size: int,
    on_step: Callable[[int], None],
) -> Probe:
    from greensv.speaker.device import synchronise

    device = subject.device
    on_gpu = device.type == "cuda"
    with Monitor(meters, synchronise=(lambda: synchronise(device)) if on_gpu else None) as monitor:
        training.run(until_step=WARMUP_STEPS, on_step=lambda report: on_step(report.step))
        least_s = max(PROBE_S, RESOLUTIONS * monitor.resolution_s)
        ended_s = [time.monotonic()]

        def look(report: "StepReport") -> None:
            synchronise(device)
            ended_s.append(time.monotonic())
            on_step(report.step)
            if len(ended_s) > MIN_STEPS and ended_s[-1] - ended_s[0] > least_s:
                raise _Done

        with monitor.window("probe") as window, contextlib.suppress(_Done):
            training.run(on_step=look)
        monitor.check()
    durations_s = np.diff(ended_s)
    energy_j = window.result.energy_j
    if energy_j <= 0:
        raise MeterError(
            f"the meters saw no energy in {len(durations_s)} steps of training: their counters change too rarely; use "
            "another meter (`greensv meters` says how often each changes)"
        )
    step_s, speech_s = float(np.median(durations_s)), batch_size * subject.phase.crop_s
    return Probe(
        joules=energy_j / window.result.duration_s * step_s / speech_s,
        seconds=step_s / speech_s,
        batch_size=batch_size,
        num_steps=len(durations_s),
        peak_bytes=_peak_bytes(device),
    )


def _peak_bytes(device: "torch.device") -> float | None:
    if device.type != "cuda":
        return None
    import torch

    return float(torch.cuda.max_memory_allocated(device))


class _Done(Exception):
    pass
