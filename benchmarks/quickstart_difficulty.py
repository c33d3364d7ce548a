"""Does capacity matter in the quickstart? EER of its narrowest and widest network, briefly and fully trained.

    uv run python benchmarks/quickstart_difficulty.py

Trains on the synthesised corpus as the quickstart does and scores its development pairs; prints the machine, and each
EER with its 95 % bootstrap interval over the 40 unseen voices. About seven minutes on two cores.
"""

import dataclasses
import platform
import time
from importlib.resources import files

import torch

from greensv.config import Phase, StudyConfig
from greensv.config.load import parse_study, read_toml
from greensv.plugins import load_plugins
from greensv.search.candidate import build_space, format_params
from greensv.search.workbench import cache_folder, dataset_arguments
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.dataset import Corpus, ignore_progress
from greensv.speaker.device import resolve_precision
from greensv.speaker.embedding import embed
from greensv.speaker.scoring.bootstrap import bootstrap_eer
from greensv.speaker.scoring.metrics import eer
from greensv.speaker.scoring.pairs import score_pairs
from greensv.speaker.training.loop import Training

CPU = torch.device("cpu")
SEED = 0


def main() -> None:
    """Trains and scores, a line each."""
    plugins = load_plugins()
    config = parse_study(read_toml(files("greensv.search") / "quickstart.toml"), source="quickstart")  # type: ignore[arg-type]
    space = build_space(config.backbones, plugins)
    dataset, root, options = dataset_arguments(config, plugins)
    corpus = dataset.load(root, options, cache_dir=cache_folder() / dataset.name, progress=ignore_progress)
    precision = resolve_precision(config.recipe.precision, CPU)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads, {precision}, torch {torch.__version__}")
    full = config.recipe.phases[0]
    short = dataclasses.replace(full, num_epochs=config.search.num_epochs)
    narrowest, widest = space.ends()
    for candidate, phase in ((narrowest, short), (widest, short), (narrowest, full), (widest, full)):
        backbone = space.backbones[candidate.backbone]
        torch.manual_seed(SEED)
        network = backbone.build(candidate.params, features=config.features)
        name = format_params(candidate.params, backbone.summary(candidate.params))
        print(f"{name}, {phase.num_epochs} epochs: {result(config, corpus, network, phase)}", flush=True)


def result(config: StudyConfig, corpus: Corpus, network: torch.nn.Module, phase: Phase) -> str:
    """Trains a network and returns its EER on the development pairs in words."""
    started_s = time.monotonic()
    training = Training(
        network=network,
        utterances=corpus.train,
        audio=AudioStore(corpus.train),
        recipe=config.recipe,
        phases=(phase,),
        features=config.features,
        seed=SEED,
        device=CPU,
    )
    training.run()
    duration_s = time.monotonic() - started_s
    dev = corpus.dev
    embeddings = embed(network, dev.utterances, AudioStore(dev.utterances), features=config.features, device=CPU)
    scores = score_pairs(embeddings, dev.pairs)
    low, high = bootstrap_eer(scores, dev.pairs, dev.utterances.speakers, num_resamples=300)
    rate = eer(scores, dev.pairs.is_target)
    return f"EER {100 * rate:.2f} % [{100 * low:.2f}, {100 * high:.2f}], {duration_s:.0f} s"


if __name__ == "__main__":
    main()
