"""Real speech, laid out by links in the form of each corpus: every dataset must find what `kaldi` finds."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from greensv.builtin.datasets.cnceleb import CnCelebDataset, CnCelebOptions
from greensv.builtin.datasets.commonbench import CommonBenchDataset, CommonBenchOptions
from greensv.builtin.datasets.folder import FolderDataset, FolderOptions
from greensv.builtin.datasets.kaldi import KaldiDataset, KaldiOptions
from greensv.builtin.datasets.kiwano import KiwanoDataset, KiwanoOptions
from greensv.builtin.datasets.voxceleb import VoxCelebDataset, VoxCelebOptions
from greensv.speaker.dataset import Corpus, Dataset, Protocol, ignore_progress

NUM_TRAIN_SPEAKERS = 12
NUM_DEV_SPEAKERS = 4

Table = list[tuple[str, str, Path]]
"""Speaker, utterance, file."""
Pair = tuple[str, str, str]
"""Label, utterance, utterance."""


@pytest.fixture(scope="module")
def train(speechocean762: Path) -> Table:
    table = read(speechocean762, "train")
    speakers = sorted({speaker for speaker, _, _ in table})[:NUM_TRAIN_SPEAKERS]
    return [row for row in table if row[0] in speakers]


@pytest.fixture(scope="module")
def evaluation(speechocean762: Path) -> Table:
    return read(speechocean762, "eval")


@pytest.fixture(scope="module")
def pairs(speechocean762: Path) -> list[Pair]:
    lines = (speechocean762 / "eval/trials_o.txt").read_text().splitlines()[:400]
    return [(label, Path(first).stem, Path(second).stem) for label, first, second in map(str.split, lines)]


def read(root: Path, part: str) -> Table:
    paths = dict(line.split() for line in (root / part / "wav.scp").read_text().splitlines())
    speakers = dict(line.split() for line in (root / part / "utt2spk").read_text().splitlines())
    return [(speakers[utterance], utterance, root / path) for utterance, path in paths.items()]


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def lay_out_kaldi(root: Path, train: Table, evaluation: Table, pairs: list[Pair]) -> tuple[Dataset, object]:
    for part, table in (("train", train), ("eval", evaluation)):
        (root / part).mkdir(parents=True)
        (root / part / "wav.scp").write_text("".join(f"{name} {path}\n" for _, name, path in table))
        (root / part / "utt2spk").write_text("".join(f"{name} {speaker}\n" for speaker, name, _ in table))
    (root / "trials.txt").write_text("".join(f"{' '.join(pair)}\n" for pair in pairs))
    return KaldiDataset(), KaldiOptions(num_dev_speakers=NUM_DEV_SPEAKERS, tests=("trials.txt",))


def lay_out_folder(root: Path, train: Table, evaluation: Table, pairs: list[Pair]) -> tuple[Dataset, object]:
    path_of = {}
    for part, table in (("train", train), ("test", evaluation)):
        for speaker, name, path in table:
            path_of[name] = f"{part}/{speaker}/{name}{path.suffix}"
            link(root / path_of[name], path)
    (root / "o.txt").write_text("".join(f"{path_of[a]} {path_of[b]} {label}\n" for label, a, b in pairs))
    return FolderDataset(), FolderOptions(num_dev_speakers=NUM_DEV_SPEAKERS, tests=("o.txt",))


def lay_out_kiwano(root: Path, train: Table, evaluation: Table, pairs: list[Pair]) -> tuple[Dataset, object]:
    for part, table in (("train", train), ("eval", evaluation)):
        (root / part).mkdir(parents=True)
        (root / part / "liste").write_text("".join(f"{name} {speaker} 0.01 {path}\n" for speaker, name, path in table))
    words = {"1": "target", "0": "nontarget"}
    (root / "eval/o.trials").write_text("".join(f"{a} {b} {words[label]}\n" for label, a, b in pairs))
    options = KiwanoOptions(train="train", test=("eval",), tests=("eval/o.trials",), num_dev_speakers=NUM_DEV_SPEAKERS)
    return KiwanoDataset(), options


def lay_out_voxceleb(root: Path, train: Table, evaluation: Table, pairs: list[Pair]) -> tuple[Dataset, object]:
    name_of = {}
    for folder, first, table in (("voxceleb2/dev/aac", "id0", train), ("voxceleb1/wav", "id1", evaluation)):
        for speaker, name, path in table:
            link(root / folder / f"{first}{speaker}" / "video" / f"{name}{path.suffix}", path)
            name_of[name] = f"{first}{speaker}/video/{name}.wav"  # as the published lists have it
    (root / "veri_test2.txt").write_text("".join(f"{label} {name_of[a]} {name_of[b]}\n" for label, a, b in pairs))
    options = VoxCelebOptions(tests=("O",), check_lists=False, num_dev_speakers=NUM_DEV_SPEAKERS)
    return VoxCelebDataset(), options


def lay_out_cnceleb(root: Path, train: Table, evaluation: Table, pairs: list[Pair]) -> tuple[Dataset, object]:
    folder = root / "CN-Celeb_flac"
    for speaker, name, path in train:
        link(folder / f"data/id0{speaker}/speech-01-{name}{path.suffix}", path)
    speaker_of = {}
    for speaker, name, path in evaluation:
        speaker_of[name] = speaker
        link(folder / f"eval/enroll/id0{speaker}-{name}-enroll{path.suffix}", path)
        link(folder / f"eval/test/id0{speaker}-speech-01-{name}{path.suffix}", path)
    (folder / "dev").mkdir()
    (folder / "dev/dev.lst").write_text("".join(f"id0{speaker}\n" for speaker in {row[0] for row in train}))
    (folder / "eval/lists").mkdir()
    enrolled = {name: f"id0{speaker_of[name]}-{name}-enroll" for _, name, _ in pairs}
    (folder / "eval/lists/enroll.lst").write_text("".join(f"{e} enroll/{e}.wav\n" for e in enrolled.values()))
    (folder / "eval/lists/trials.lst").write_text(
        "".join(f"{enrolled[a]} test/id0{speaker_of[b]}-speech-01-{b}.wav {label}\n" for label, a, b in pairs)
    )
    options = CnCelebOptions(train=("cnceleb1",), tests=("concat",), num_dev_speakers=NUM_DEV_SPEAKERS)
    return CnCelebDataset(), options


def lay_out_commonbench(root: Path, train: Table, evaluation: Table, pairs: list[Pair]) -> tuple[Dataset, object]:
    for language, table in (("en", train), ("zz", evaluation)):
        rows = []
        for speaker, name, path in table:
            link(root / language / f"clips/common_voice_{language}_{name}{path.suffix}", path)
            rows.append(f"{speaker}\tcommon_voice_{language}_{name}.mp3\n")
        (root / language / "validated.tsv").write_text("client_id\tpath\n" + "".join(rows))
    clips = [(f"common_voice_zz_{a}.mp3", f"common_voice_zz_{b}.mp3", label) for label, a, b in pairs]
    (root / "pairs.csv").write_text("".join(f"{','.join(clip)}\n" for clip in clips))
    options = CommonBenchOptions(pairs="pairs.csv", num_dev_speakers=NUM_DEV_SPEAKERS)
    return CommonBenchDataset(), options


LAYOUTS = {
    "folder": lay_out_folder,
    "kiwano": lay_out_kiwano,
    "voxceleb": lay_out_voxceleb,
    "cnceleb": lay_out_cnceleb,
    "commonbench": lay_out_commonbench,
}


def loaded(laid_out: tuple[Dataset, object], root: Path) -> tuple[Corpus, Protocol]:
    dataset, options = laid_out
    cache = root.parent / "cache"
    corpus = dataset.load(root, options, cache_dir=cache, progress=ignore_progress)
    (protocol,) = dataset.load_tests(root, options, cache_dir=cache, progress=ignore_progress)
    return corpus, protocol


@pytest.fixture(scope="module")
def expected(
    tmp_path_factory: pytest.TempPathFactory, train: Table, evaluation: Table, pairs: list[Pair]
) -> tuple[Corpus, Protocol]:
    root = tmp_path_factory.mktemp("as-kaldi") / "data"
    return loaded(lay_out_kaldi(root, train, evaluation, pairs), root)


def lengths(corpus: Corpus) -> Mapping[str, int]:
    """Returns the length of each training or development file."""
    parts = (corpus.train, corpus.dev.utterances)
    return {
        os.path.realpath(path): length
        for part in parts
        for path, length in zip(part.paths, part.num_samples.tolist(), strict=True)
    }


def compared_files(protocol: Protocol) -> list[tuple[str, str, bool]]:
    paths = [os.path.realpath(path) for path in protocol.utterances.paths]
    pairs = protocol.pairs
    columns = zip(pairs.enrolment.tolist(), pairs.test.tolist(), pairs.is_target.tolist(), strict=True)
    return [(paths[first], paths[second], is_target) for first, second, is_target in columns]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_what_kaldi_s_holds(
    tmp_path: Path,
    expected: tuple[Corpus, Protocol],
    train: Table,
    evaluation: Table,
    pairs: list[Pair],
    layout: str,
) -> None:
    root = tmp_path / "data"
    corpus, protocol = loaded(LAYOUTS[layout](root, train, evaluation, pairs), root)
    assert lengths(corpus) == lengths(expected[0])
    assert corpus.train.num_speakers == expected[0].train.num_speakers == NUM_TRAIN_SPEAKERS - NUM_DEV_SPEAKERS
    assert corpus.skipped == ()
    assert compared_files(protocol) == compared_files(expected[1])
    assert protocol.utterances.num_speakers == expected[1].utterances.num_speakers
