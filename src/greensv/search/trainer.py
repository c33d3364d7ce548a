"""Makes a study's trainings, the same in every process of a team, as the leader orders."""

import zlib
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from greensv.config import StudyConfig
from greensv.errors import DataError
from greensv.plugins import Plugins
from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.orders import LoadCorpus, RunTraining, TrainingOrder
from greensv.search.workbench import cache_folder, dataset_arguments
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.augmentation import Augmenter
from greensv.speaker.checkpoint import load_training_state
from greensv.speaker.corpora.corpus import join
from greensv.speaker.dataset import Corpus, Progress, Utterances
from greensv.speaker.distributed import Team
from greensv.speaker.training.loop import StepReport, Training


class Trainer:
    """What a study's trainings share in each process: their data, what disturbs it, the device, the team.

    Attributes:
        corpus: the data.
    """

    def __init__(
        self,
        config: StudyConfig,
        corpus: Corpus,
        *,
        space: SearchSpace,
        team: Team,
        device: torch.device,
        progress: Progress,
        is_full: bool = False,
    ) -> None:
        """Decodes the training audio where it fits in memory, of a search or of the full recipe, and lists the noise.

        Raises:
            DataError: there is no noise where the recipe says.
        """
        self.corpus = corpus
        self._config, self._space, self._team, self._device, self._progress = config, space, team, device, progress
        self._decoded_data: dict[bool, tuple[Utterances, AudioStore]] = {}
        self._data(is_full=is_full)
        augmentation, rate = config.recipe.augmentation, config.features.sample_rate_hz
        self._augmenter: Augmenter | None = None
        if any(way.probability for way in augmentation.disturbances):
            self._augmenter = Augmenter(
                augmentation, sample_rate_hz=rate, cache_dir=cache_folder() / "noise", progress=progress
            )

    def build(self, candidate: Candidate, *, seed: int) -> nn.Module:
        """Returns the candidate's network, its weights drawn from `seed`."""
        torch.manual_seed(seed)
        return self._space.backbones[candidate.backbone].build(candidate.params, features=self._config.features)

    def begin(self, order: TrainingOrder) -> Training:
        """Returns a training that is ready to run; the other processes of a team are ordered to do the same.

        Raises:
            DataError, ConfigError: as `Training` does.
            CheckpointError: the saved training is of another network, data or recipe.
        """
        if self._team.is_leader:
            self._team.broadcast(order)
        with self._team.failing_together():
            utterances, audio = self._data(is_full=order.is_full)
            training = _TeamTraining(
                network=self.build(order.candidate, seed=order.seed),
                utterances=utterances,
                audio=audio,
                recipe=self._config.recipe,
                phases=order.phases,
                features=self._config.features,
                seed=order.seed,
                device=self._device,
                augmenter=self._augmenter,
                team=self._team,
            )
        with self._team.failing_together():
            if order.state_path is not None:
                training.load_state_dict(load_training_state(order.state_path)[0])
            self._team.agree()
        return training

    def _data(self, *, is_full: bool) -> tuple[Utterances, AudioStore]:
        """Returns the training data, its audio decoded at the first use."""
        with_dev = is_full and self.corpus.dev_rejoins_training
        if with_dev not in self._decoded_data:
            utterances = join(self.corpus.train, self.corpus.dev.utterances) if with_dev else self.corpus.train
            self._decoded_data[with_dev] = utterances, _decoded(utterances, self._progress)
        return self._decoded_data[with_dev]


class _TeamTraining(Training):
    """A training whose runs the leader orders the other processes to run with it."""

    def run(self, *, until_step: int | None = None, on_step: Callable[[StepReport], None] | None = None) -> None:
        if self._team.is_leader:
            self._team.broadcast(RunTraining(until_step=until_step))
        super().run(until_step=until_step, on_step=on_step)


def load_corpus(config: StudyConfig, plugins: Plugins, progress: Progress) -> Corpus:
    """Returns the study's training data and development pairs.

    Raises:
        DataError: they cannot be used.
    """
    dataset, root, options = dataset_arguments(config, plugins)
    return dataset.load(root, options, cache_dir=cache_folder() / dataset.name, progress=progress)


def share_corpus(team: Team, corpus: Corpus, *, is_full: bool, progress: Progress) -> None:
    """Has the other processes load what the leader has loaded. What `progress` raises meanwhile stops all of them.

    Raises:
        DataError: they cannot, or it has changed in between.
    """
    team.broadcast(LoadCorpus(is_full=is_full))
    team.wait_for_all(lambda: True, partial(_tell_ready, progress, team.size))
    compare_corpus(team, corpus)


def _tell_ready(progress: Progress, size: int, num_ready: int) -> None:
    progress("processes that have loaded the corpus", num_ready, size)


def compare_corpus(team: Team, corpus: Corpus) -> None:
    """Waits until all processes have their data; raises DataError unless it is the same."""
    if len(set(team.agree(news=[(len(corpus.train), corpus_fingerprint(corpus))]))) > 1:
        raise DataError(
            "the processes have loaded different training data, so it changed in between; run the same command again"
        )


def _decoded(utterances: Utterances, progress: Progress) -> AudioStore:
    """What cannot be decoded is left to the training, which puts others in its place and counts them."""
    audio = AudioStore(utterances)
    audio.fill(progress, on_unreadable=lambda index, error: None)
    return audio


def corpus_fingerprint(corpus: Corpus) -> int:
    """Returns a checksum of the utterances' names, speakers and lengths; where they lie does not matter."""
    code = 0
    for utterances in (corpus.train, corpus.dev.utterances):
        for column in (utterances.num_samples, utterances.speakers):
            code = zlib.crc32(column.tobytes(), code)
        code = zlib.crc32("\n".join(utterances.ids).encode(errors="surrogateescape"), code)
    return code
