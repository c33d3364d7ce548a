"""The dataset `espeak`: three splits of random voices, rendered when first asked for and kept in the cache."""

from pathlib import Path

from greensv.speaker.dataset import Corpus, Dataset, Progress, Protocol
from greensv_espeak.options import EspeakOptions, Split, check_ranges


class EspeakDataset(Dataset):
    """Speech of many random voices reading random text over noise, in rooms, through channels; no data to fetch.

    The same options give the same audio on the same machine. Test voices are rendered by `load_tests` only.
    """

    name = "espeak"
    options_type = EspeakOptions
    needs_root = False

    def load(self, root: Path | None, options: EspeakOptions, *, cache_dir: Path, progress: Progress) -> Corpus:
        """Returns the training voices and the development pairs; see `Dataset.load`. `root` is not used.

        Raises:
            ConfigError: a range of the options ends before it begins.
            PluginError: espeak-ng cannot be loaded.
            DataError: espeak-ng failed, or the cache cannot be written.
        """
        from greensv_espeak.cache import rendered

        check_ranges(options)
        train = rendered("train", options, cache_dir=cache_dir, progress=progress)
        return Corpus(train=train, dev=_protocol("dev", options, cache_dir=cache_dir, progress=progress))

    def load_tests(
        self, root: Path | None, options: EspeakOptions, *, cache_dir: Path, progress: Progress
    ) -> tuple[Protocol, ...]:
        """Returns the protocol `test`. Arguments and errors as for `load`."""
        check_ranges(options)
        return (_protocol("test", options, cache_dir=cache_dir, progress=progress),)


def _protocol(split: Split, options: EspeakOptions, *, cache_dir: Path, progress: Progress) -> Protocol:
    from greensv.speaker.corpora.corpus import make_pairs
    from greensv_espeak.cache import rendered

    utterances = rendered(split, options, cache_dir=cache_dir, progress=progress)
    per_speaker = options.num_utterances(split)
    num_target = options.num_speakers(split) * per_speaker * (per_speaker - 1) // 2
    num_nontarget = num_target * options.num_nontarget_per_target
    pairs = make_pairs(utterances, num_target=num_target, num_nontarget=num_nontarget, seed=options.seed)
    return Protocol(name=split, utterances=utterances, pairs=pairs)
