"""What every training of a study shares: its configuration, corpus, audio, device and metering."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greensv.config import FeatureConfig, StudyConfig
from greensv.config.load import Problem, validate
from greensv.errors import ConfigError
from greensv.plugins import Plugins
from greensv.search.candidate import Candidate, SearchSpace, build_space
from greensv.search.control import StopRequest
from greensv.search.cost import Work
from greensv.search.crew import Crew
from greensv.search.events import Listener, Noted, Progressed
from greensv.search.metering import Metering
from greensv.search.skips import told_skipped
from greensv.speaker.backbone import Backbone
from greensv.speaker.dataset import Corpus, Dataset, Progress
from greensv.speaker.space import Params
from greensv.units import format_duration

if TYPE_CHECKING:
    import torch

    from greensv.search.trainer import Trainer
    from greensv.speaker.audio.store import AudioStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """Everything a training needs beside the candidate itself."""

    config: StudyConfig
    plugins: Plugins
    space: SearchSpace
    corpus: Corpus
    dev_audio: "AudioStore"
    trainer: "Trainer"
    crew: Crew
    metering: Metering
    stop: StopRequest
    listen: Listener
    _counted: dict[tuple[Any, ...], "NetworkWork"] = field(default_factory=dict)

    @property
    def device(self) -> "torch.device":
        """What computes; in a team, this process's own."""
        return self.crew.device

    @property
    def device_words(self) -> str:
        """The devices of all processes in words: `2 × NVIDIA H100 80GB HBM3`, or `CPU, 8 threads`."""
        from greensv.speaker.device import device_name

        size = self.crew.team.size
        return (f"{size} × " if size > 1 else "") + device_name(self.device)

    def work(self, candidate: Candidate) -> "NetworkWork":
        """Returns what the candidate's network is, counted without running it."""
        key = (candidate.backbone, *sorted(candidate.params.items()))
        if key not in self._counted:
            backbone = self.space.backbones[candidate.backbone]
            self._counted[key] = network_work(backbone, candidate.params, features=self.config.features)
        return self._counted[key]

    def is_counted(self, candidate: Candidate) -> bool:
        """Whether `work` remembers the candidate, so that it answers at once."""
        return (candidate.backbone, *sorted(candidate.params.items())) in self._counted


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkWork:
    """A network's size, its MACs at the field's usual 350 frames, and its work per second of speech."""

    num_parameters: int
    macs: int
    embedding_dim: int
    per_second: Work


def network_work(backbone: Backbone, params: Params, *, features: FeatureConfig) -> NetworkWork:
    """Returns what a network is, counted without running it."""
    from greensv.speaker.complexity import describe_network

    counted = describe_network(lambda: backbone.build(params, features=features), features=features)
    seconds = counted.num_frames * features.frame_shift_ms / 1e3
    return NetworkWork(
        num_parameters=counted.num_parameters,
        macs=counted.macs,
        embedding_dim=counted.embedding_dim,
        per_second=Work(
            macs=counted.macs / seconds,
            activations=counted.kept_values / seconds,
            num_layers=counted.num_layers,
        ),
    )


def open_workbench(
    config: StudyConfig,
    plugins: Plugins,
    *,
    crew: Crew,
    metering: Metering,
    stop: StopRequest,
    listen: Listener,
    is_full: bool = False,
) -> Workbench:
    """Loads the corpus, in all processes, and returns what every training of the study shares.

    The audio that a search needs is decoded before any training, or, where `is_full`, that which the full recipe trains
    on: development pairs are then scored once per network at the most, and their audio is read as it is needed.

    Raises:
        DataError: the corpus or the noise cannot be used.
        Interrupted, BudgetExhausted: while it was being prepared.
    """
    from greensv.search.trainer import Trainer, load_corpus, share_corpus
    from greensv.speaker.audio.store import AudioStore

    progress = watched_progress(listen, stop, metering)
    space = build_space(config.backbones, plugins)
    with metering.purpose("preparation"):
        corpus = load_corpus(config, plugins, progress)
        trainer = Trainer(
            config, corpus, space=space, team=crew.team, device=crew.device, progress=progress, is_full=is_full
        )
        dev_audio = AudioStore(corpus.dev.utterances)
        if not is_full and not dev_audio.fill(progress):
            # A file of a pair that cannot be read would end the search after its first training.
            dev_audio.try_all(progress)
        share_corpus(crew.team, corpus, is_full=is_full, progress=progress)
    train, dev = corpus.train, corpus.dev
    listen(
        Noted(
            text=f"{config.dataset.name}: {train.num_speakers} training speakers, {len(train):,} utterances, "
            f"{format_duration(train.duration_s)}; development: {dev.utterances.num_speakers} other speakers, "
            f"{len(dev.pairs):,} pairs"
        )
    )
    if corpus.skipped:
        listen(Noted(text=told_skipped(corpus.skipped, what="training files left out")))
    return Workbench(
        config=config,
        plugins=plugins,
        space=space,
        corpus=corpus,
        dev_audio=dev_audio,
        trainer=trainer,
        crew=crew,
        metering=metering,
        stop=stop,
        listen=listen,
    )


def environment(config: StudyConfig, domains: Mapping[str, str], crew: Crew) -> dict[str, str]:
    """Returns what the figures of a study depend on beside its configuration.

    Processor or GPU, precision, meters, and the number of processes where there are several.
    """
    from greensv.speaker.device import processor_name, resolve_precision

    return {
        "device": processor_name(crew.device),
        "precision": resolve_precision(config.recipe.precision, crew.device),
        **({"processes": str(crew.team.size)} if crew.team.size > 1 else {}),
        **{f"meter of {domain}": meter for domain, meter in domains.items()},
    }


def dataset_problems(raw: Any, plugins: Plugins) -> list[Problem]:
    """Returns every mistake in the `[dataset]` table that only the installed datasets know."""
    name = raw.get("name") if isinstance(raw, dict) else None
    if not isinstance(name, str):
        return []
    if name not in plugins.components["dataset"]:
        return [Problem(where="dataset.name", what=plugins.unknown("dataset", name))]
    dataset: Dataset = plugins.get("dataset", name)
    problems = []
    if dataset.needs_root and not raw.get("root"):
        problems.append(
            Problem(where="dataset.root", what=f"dataset {name!r} needs a folder; give it with --data-root")
        )
    return problems + validate(dataset.options_type, raw.get("options", {}), where="dataset.options")[1]


def dataset_arguments(config: StudyConfig, plugins: Plugins) -> tuple[Dataset, Path | None, Any]:
    """Returns the study's dataset, its root and its validated options.

    Raises:
        ConfigError: the options are not the dataset's, or its root is missing.
    """
    dataset: Dataset = plugins.get("dataset", config.dataset.name)
    options, problems = validate(dataset.options_type, config.dataset.options, where="dataset.options")
    if problems:
        raise ConfigError("\n".join(str(problem) for problem in problems))
    root = Path(config.dataset.root) if config.dataset.root else None
    if dataset.needs_root and root is None:
        raise ConfigError(f"dataset {dataset.name!r} needs a folder; give it with --data-root")
    return dataset, root, options


def cache_folder() -> Path:
    """Returns the folder for what is worth keeping between runs: `$XDG_CACHE_HOME/greensv` or `~/.cache/greensv`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "greensv"


def watched_progress(listen: Listener, stop: StopRequest, metering: Metering) -> Progress:
    """Returns a callback that shows progress, and stops the job on Ctrl-C or when the budget is used up."""
    told_at_s = 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal told_at_s
        stop.check()
        metering.check()
        if time.monotonic() - told_at_s > 1.0:
            told_at_s = time.monotonic()
            metering.tell(listen)
        listen(Progressed(what=what, done=done, total=total))

    return report
