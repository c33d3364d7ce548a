"""What trainings cost on this hardware, kept between studies: `$XDG_DATA_HOME/greensv/costs`, a file per hardware.

Another study on the same hardware starts from them. Each point is joules and seconds per second of training speech,
with the network's work. What else such a figure depends on (crop, batch, disturbances) is not in the file's name, since
it moves the scale more than the ratios: points of one study share a scale of their own, and a study whose recipe is the
same is trusted more than one whose recipe is another.
"""

import fcntl
import hashlib
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from greensv.config import FeatureConfig, Phase, Recipe
from greensv.config.validation import validate
from greensv.energy.baseline.gains import data_folder, write_json
from greensv.errors import MeterError
from greensv.search.cost.model import CostModel, Measured, Prediction
from greensv.search.cost.work import Work

logger = logging.getLogger(__name__)

FORMAT = "greensv-costs"
FORMAT_VERSION = 1
MAX_POINTS = 400
"""The newest are kept."""
SAME_RECIPE_LOG_STD, OTHER_RECIPE_LOG_STD = 0.06, 0.2
"""How far the scale of another study may be off, with the same recipe or with another one: all such studies alike, and
once more each by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedCost:
    """A measured training or probe, and what had been predicted of it before."""

    macs: float
    activations: float
    num_layers: float
    joules: float
    """Per second of training speech, PUE not included."""
    seconds: float
    """Per second of training speech."""
    recipe: str
    """Digest of what else such a figure depends on."""
    group: str
    """The study or command that measured it, in one run on one machine."""
    num_steps: int = 0
    """That were measured; 0: not known."""
    at: str = ""
    """ISO 8601, UTC."""
    predicted_joules: float | None = None
    """Predicted before it was measured, per second of training speech; None: nothing was."""
    predicted_log_std: float | None = None
    peak_bytes: float | None = None
    """Peak of a step's memory; None: not measured."""
    reckoned_bytes: float | None = None
    """What it had been reckoned as."""

    @property
    def work(self) -> Work:
        """The network's work."""
        return Work(macs=self.macs, activations=self.activations, num_layers=self.num_layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What figures of cost are good for: machines of this kind, computing and measuring in this way."""

    device: str
    """The product's name of the processor or GPU."""
    precision: str
    num_threads: int
    """Of torch on a CPU; 0 on a GPU."""
    num_processes: int
    meters: Mapping[str, str]
    """Meter and quality of each kind of domain; correction included."""
    settings: str = ""
    """What was set about the meters, as `calibration.meter_settings` tells it."""

    @property
    def key(self) -> str:
        """Names the file: readable, and told apart by all of it."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]
        slug = re.sub(r"[^a-z0-9]+", "-", self.device.lower()).strip("-")[:40]
        return f"{slug}-{self.precision}-{digest}"


def hardware_of(environment: Mapping[str, str], *, num_threads: int, settings: str = "") -> Hardware:
    """Returns the hardware of a study's environment, as `workbench.environment` tells it.

    The machine's name and its GPUs' numbers are left out: machines of one kind learn from each other.
    """
    prefix = "meter of "
    meters = {key.removeprefix(prefix): words for key, words in environment.items() if key.startswith(prefix)}
    return Hardware(
        device=environment["device"],
        precision=environment["precision"],
        num_threads=0 if not environment["device"].startswith("CPU") else num_threads,
        num_processes=int(environment.get("processes", 1)),
        meters={domain.partition(":")[0]: words for domain, words in sorted(meters.items())},
        settings=settings,
    )


def recipe_digest(recipe: Recipe, phase: Phase, features: FeatureConfig, *, num_classes: int) -> str:
    """Returns a digest of what the cost of a second of training speech depends on beside network and hardware."""
    about = {
        "batch": [recipe.batch_size, recipe.num_micro_batches],
        "crop": [phase.crop_s, phase.speeds],
        "optimizer": [recipe.optimizer, recipe.max_gradient_norm > 0],
        "disturbances": [[way.kind, way.probability, way.num_files] for way in recipe.augmentation.disturbances],
        "dither": recipe.dither > 0,
        "features": [features.sample_rate_hz, features.num_features, features.frame_shift_ms],
        "classes": round(math.log2(max(num_classes, 1))),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:10]


def load_costs(hardware: Hardware, folder: Path | None = None) -> list[SavedCost]:
    """Returns what is kept of this hardware, the oldest first; none where nothing is.

    A file that cannot be read is passed over with a note in the log: it only makes predictions better.
    """
    path = _path(hardware, folder)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT or data["version"] != FORMAT_VERSION:
            raise ValueError(f"found {data['format']!r} version {data['version']}, know {FORMAT!r} {FORMAT_VERSION}")
        return [_point(item) for item in data["points"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("the costs kept in %s are passed over: %s; the file will be written anew", path, error)
        return []


def keep_costs(hardware: Hardware, points: Iterable[SavedCost], folder: Path | None = None) -> None:
    """Adds points to what is kept of this hardware. One that cannot be kept is a note in the log, and no more."""
    path = _path(hardware, folder)
    try:
        with _alone(path):
            kept = list(dict.fromkeys([*load_costs(hardware, folder), *points]))[-MAX_POINTS:]
            data = {
                "format": FORMAT,
                "version": FORMAT_VERSION,
                "hardware": asdict(hardware),
                "points": [asdict(point) for point in kept],
            }
            write_json(path, data)
    except (OSError, MeterError) as error:
        logger.warning("what was measured is not kept for later predictions: %s", error)


def teach(model: CostModel, points: Sequence[SavedCost], *, recipe: str, group: str, pue: float = 1.0) -> int:
    """Lets a model start from saved points; returns how many it was taught.

    Args:
        model: of a study.
        points: as `load_costs` returned them.
        recipe: the study's own, as `recipe_digest` tells it.
        group: the study's own, whose points it learns from its trials.
        pue: of the study, whose energies include it.
    """
    others = [point for point in points if point.group != group]
    for point in others:
        about = "recipe" if point.recipe == recipe else "other recipes"
        log_std = SAME_RECIPE_LOG_STD if point.recipe == recipe else OTHER_RECIPE_LOG_STD
        model.add_elsewhere(
            Measured(work=point.work, joules=pue * point.joules, seconds=point.seconds),
            offsets={about: log_std, f"study {point.group}": log_std},
        )
    return len(others)


def saved_cost(
    measured: Measured, *, predicted: Prediction | None, speech_s: float, pue: float, **about: Any
) -> SavedCost:
    """Returns a measurement as it is kept.

    Args:
        measured: joules, PUE included, and seconds per second of training speech.
        predicted: before it was measured, for `speech_s` seconds of speech; None: nothing was.
        speech_s: that the prediction was for.
        pue: of the study.
        about: `recipe`, `group`, and what else `SavedCost` holds.
    """
    point = SavedCost(
        macs=measured.work.macs,
        activations=measured.work.activations,
        num_layers=measured.work.num_layers,
        joules=measured.joules / pue,
        seconds=measured.seconds,
        **about,
    )
    if predicted is None:
        return point
    return replace(point, predicted_joules=predicted.energy_j / speech_s / pue, predicted_log_std=predicted.log_std)


def _point(item: Any) -> SavedCost:
    point, problems = validate(SavedCost, item)
    if point is None:
        raise ValueError("; ".join(map(str, problems)))
    figures = (point.joules, point.seconds, point.macs, point.activations)
    if not all(math.isfinite(value) and value > 0 for value in figures):
        raise ValueError(f"figures of {figures}")
    return point


def _path(hardware: Hardware, folder: Path | None) -> Path:
    return (folder or data_folder() / "costs") / f"{hardware.key}.json"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Lets one process at a time add to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
