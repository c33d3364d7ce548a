"""The tiny plugin: dataset, backbone and meter named `tiny`, told when a trial finished. Imports no torch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from greensv.energy.meter import Availability, CounterSample, Domain, Meter, MeterRequest, MeterSession, Quality
from greensv.errors import MeterError
from greensv.hookspecs import hookimpl
from greensv.speaker.backbone import Backbone
from greensv.speaker.dataset import Corpus, Dataset, Progress, Protocol
from greensv.speaker.space import IntRange, Params, Space
from tiny.work import WORK


class TinyBackbone(Backbone):
    name = "tiny"

    def __init__(self, name: str = "tiny") -> None:
        self.name = name  # type: ignore[misc]

    def space(self) -> Space:
        return {"width": IntRange(low=2, high=16, default=8), "depth": IntRange(low=1, high=3, default=2)}

    def build(self, params: Params, *, features: Any) -> Any:
        from tiny.network import TinyNetwork

        return TinyNetwork(features.num_features, width=int(params["width"]), depth=int(params["depth"]))

    def systems(self) -> dict[str, Params]:
        return {"Tiny-8": {"width": 8, "depth": 2}}


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyOptions:
    num_train_speakers: int = 10
    rejoins: bool = False
    seed: int = 0


class TinyDataset(Dataset):
    name = "tiny"
    options_type = TinyOptions
    needs_root = False

    def __init__(self) -> None:
        self.num_test_loads = 0

    def load(self, root: Path | None, options: TinyOptions, *, cache_dir: Path, progress: Progress) -> Corpus:
        from tiny.voices import render

        train = render(
            cache_dir, part="train", num_speakers=options.num_train_speakers, num_utterances=4, seed=options.seed
        )
        progress("rendering voices", 1, 2)
        corpus = Corpus(
            train=train, dev=self._protocol(cache_dir, "dev", options), dev_rejoins_training=options.rejoins
        )
        progress("rendering voices", 2, 2)
        return corpus

    def load_tests(
        self, root: Path | None, options: TinyOptions, *, cache_dir: Path, progress: Progress
    ) -> tuple[Protocol, ...]:
        self.num_test_loads += 1
        progress("rendering voices", 1, 1)
        return (self._protocol(cache_dir, "test", options),)

    def _protocol(self, cache_dir: Path, part: str, options: TinyOptions) -> Protocol:
        from greensv.speaker.corpora.corpus import make_pairs
        from tiny.voices import render

        utterances = render(cache_dir, part=part, num_speakers=5, num_utterances=4, seed=options.seed)
        pairs = make_pairs(utterances, num_target=30, num_nontarget=60, seed=options.seed)
        return Protocol(name=part, utterances=utterances, pairs=pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyMeterOptions:
    power_w: float = 0.1
    work_j: float = 1.0
    """Joules of a unit of work."""


class TinySession(MeterSession):
    def __init__(self, meter: "TinyMeter", options: TinyMeterOptions) -> None:
        self._meter = meter
        self._options = options
        self._opened_at_s = time.monotonic()
        self._units_before = WORK.units

    def read(self) -> Sequence[CounterSample]:
        if self._meter.failure is not None:
            raise MeterError(self._meter.failure)
        now_s = time.monotonic()
        energy_j = self._options.power_w * (now_s - self._opened_at_s)
        energy_j += self._options.work_j * (WORK.units - self._units_before)
        return [CounterSample(domain=self._meter.domain, taken_at_s=now_s, count=round(energy_j * 1e6), unit_j=1e-6)]


class TinyMeter(Meter):
    """Measures a power that is known, and joules for each unit of work."""

    name = "tiny"
    quality: ClassVar[Quality] = "measured"
    options_type = TinyMeterOptions

    def __init__(self) -> None:
        self.failure: str | None = None
        self.domain = Domain("node")

    def probe(self, request: MeterRequest) -> Availability:
        return Availability(domains=(self.domain,), gain_uncertainty=0.01, max_power_w=1e12)

    def open(self, request: MeterRequest) -> MeterSession:
        return TinySession(self, request.options or TinyMeterOptions())


class TinyPlugin:
    """All of it, fresh for each test."""

    def __init__(self) -> None:
        self.dataset, self.meter = TinyDataset(), TinyMeter()
        self.told: list[tuple[str, dict[str, Any]]] = []

    @hookimpl
    def greensv_backbones(self) -> Sequence[Backbone]:
        return [TinyBackbone(), TinyBackbone("tiny-too")]

    @hookimpl
    def greensv_datasets(self) -> Sequence[Dataset]:
        return [self.dataset]

    @hookimpl
    def greensv_meters(self) -> Sequence[Meter]:
        return [self.meter]

    @hookimpl
    def greensv_trial_finished(self, study_name: str, trial: dict[str, Any]) -> None:
        self.told.append((study_name, trial))


plugin = TinyPlugin()
"""What the entry point of the installed distribution names."""
