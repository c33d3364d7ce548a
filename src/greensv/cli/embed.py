"""`greensv embed`: a saved network's embeddings of audio files."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from greensv import __version__
from greensv.cli.checkpoints import DEVICES, check_writable, load_network, progress_bars
from greensv.cli.console import console, echo_json
from greensv.cli.options import json_option
from greensv.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from greensv.config import FeatureConfig
    from greensv.speaker.corpora.audio_list import AudioList
    from greensv.speaker.dataset import Progress, Skipped, Utterances
    from greensv.speaker.device import Precision

NUM_NAMED = 10
"""Skipped files that are shown; --json names all."""


@click.command(epilog="Example: greensv embed runs/NAME/trial-0003 recordings/*.wav --out recordings.safetensors")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--list",
    "lists",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A Kaldi wav.scp, or a text file with an audio file per line. May be repeated.",
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="What relative paths in lists are relative to, instead of the current folder.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("embeddings.safetensors"),
    show_default=True,
    help="Where to: .safetensors, or .ark for Kaldi's archive with its .scp.",
)
@click.option("--resample", is_flag=True, help="Resample files of other sample rates than the network's.")
@click.option("--skip-bad", is_flag=True, help="Leave out files that cannot be used, and list them.")
@click.option("--device", type=DEVICES, default="auto", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Half precision is quicker on GPUs and differs in the third digit.",
)
@json_option
@click.pass_context
def embed(  # noqa: PLR0913 - one per option
    ctx: click.Context,
    *,
    checkpoint: Path,
    files: tuple[Path, ...],
    lists: tuple[Path, ...],
    data_root: Path,
    out: Path,
    resample: bool,
    skip_bad: bool,
    device: Literal["auto", "cpu", "cuda"],
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    as_json: bool,
) -> None:
    """Write the speaker embeddings of audio files.

    CHECKPOINT is the folder of a saved network. FILES are audio files, or Kaldi data directories. Whole utterances are
    embedded, up to their first two minutes. An utterance is called as its file is typed, or as the wav.scp names it.
    """
    from greensv.speaker.corpora.audio_list import read_audio_list
    from greensv.speaker.device import device_name, resolve_device, resolve_precision
    from greensv.speaker.embedding_files import writer_for

    write = writer_for(out)
    check_writable(out, what="embeddings")
    chosen_device = resolve_device(device)
    chosen_precision = resolve_precision(precision, chosen_device)
    listed = read_audio_list(files, lists, root=data_root)
    info, network = load_network(ctx, checkpoint)
    bad = _BadFiles(are_skipped=skip_bad)
    started_s = time.monotonic()
    with progress_bars() as progress:
        utterances = _measure(listed, bad, features=info.features, is_resampled=resample, progress=progress)
        utterances, embeddings = _embed(
            network,
            utterances,
            bad,
            features=info.features,
            device=chosen_device,
            precision=chosen_precision,
            progress=progress,
        )
    provenance = {
        "checkpoint": str(checkpoint.absolute()),
        "backbone": info.backbone,
        "backbone_version": info.backbone_version,
        "greensv_version": __version__,
        "device": device_name(chosen_device),
        "precision": chosen_precision,
    }
    record = {
        "checkpoint": str(checkpoint),
        "num_utterances": len(utterances),
        "num_repeated": listed.num_repeated,
        "num_skipped": len(bad.skipped),
        "embedding_dim": embeddings.shape[1],
        "speech_s": round(utterances.duration_s, 3),
        "duration_s": round(time.monotonic() - started_s, 3),
        "files": [str(path) for path in write(out, utterances.ids, embeddings, provenance)],
        "skipped": [asdict(file) for file in bad.skipped],
    }
    if as_json:
        echo_json(record)
    else:
        _print(record, bad.skipped)


def _measure(
    listed: "AudioList", bad: "_BadFiles", *, features: "FeatureConfig", is_resampled: bool, progress: "Progress"
) -> "Utterances":
    from greensv.search.workbench import cache_folder
    from greensv.speaker.corpora.audio_list import measure_audio_list

    utterances, unusable = measure_audio_list(
        listed,
        sample_rate_hz=features.sample_rate_hz,
        cache_dir=cache_folder(),
        is_resampled=is_resampled,
        progress=progress,
    )
    bad.add(unusable, num_files=len(listed.ids))
    bad.check_some_left(len(utterances))
    return utterances


def _embed(
    network: "nn.Module",
    utterances: "Utterances",
    bad: "_BadFiles",
    *,
    features: "FeatureConfig",
    device: "torch.device",
    precision: "Precision",
    progress: "Progress",
) -> "tuple[Utterances, NDArray[np.float32]]":
    """Returns the utterances that could be embedded, and their embeddings."""
    from greensv.speaker.audio.store import AudioStore
    from greensv.speaker.embedding import embed as embed_utterances

    embeddings = embed_utterances(
        network,
        utterances,
        # Each file is read once: nothing is worth keeping in memory.
        AudioStore(utterances, cache_bytes=0),
        features=features,
        device=device,
        precision=precision,
        on_batch=lambda num_done, num: progress("embedding", num_done, num),
        on_unreadable=lambda index, error: bad.add_utterance(utterances, index, error),
    )
    usable, embeddings = bad.without(utterances, embeddings)
    bad.check_some_left(len(usable))
    return usable, embeddings


class _BadFiles:
    """What cannot be embedded: refused, or left out and remembered."""

    def __init__(self, *, are_skipped: bool) -> None:
        self.skipped: list[Skipped] = []
        self._are_skipped = are_skipped
        self._rows: list[int] = []

    def add(self, files: "Sequence[Skipped]", *, num_files: int) -> None:
        if files and not self._are_skipped:
            raise DataError(
                f"{len(files)} of {num_files} files cannot be used; the first: {files[0].path} {files[0].reason}; mend "
                "them, or leave them out with --skip-bad (--resample resamples other sample rates)"
            )
        self.skipped.extend(files)

    def add_utterance(self, utterances: "Utterances", index: int, error: DataError) -> None:
        from greensv.speaker.audio.store import AudioError
        from greensv.speaker.dataset import Skipped

        if not self._are_skipped:
            raise error
        reason = error.reason if isinstance(error, AudioError) else str(error)
        self.skipped.append(Skipped(path=utterances.paths[index], reason=reason))
        self._rows.append(index)

    def without(
        self, utterances: "Utterances", embeddings: "NDArray[np.float32]"
    ) -> "tuple[Utterances, NDArray[np.float32]]":
        """Returns the utterances and rows that are not bad."""
        import numpy as np

        from greensv.speaker.corpora.corpus import select

        if not self._rows:
            return utterances, embeddings
        kept = np.delete(np.arange(len(utterances)), self._rows)
        return select(utterances, kept), embeddings[kept]

    def check_some_left(self, num_left: int) -> None:
        if not num_left:
            first = self.skipped[0]
            raise DataError(f"none of {len(self.skipped)} files can be used; {first.path} {first.reason}")


def _print(record: dict[str, Any], skipped: "Sequence[Skipped]") -> None:
    screen = console()
    speed = record["speech_s"] / record["duration_s"] if record["duration_s"] else float("inf")
    screen.print(
        f"{record['num_utterances']:,} embeddings of {record['embedding_dim']} values, of {record['speech_s']:,.0f} s "
        f"of speech in {record['duration_s']:.1f} s ({speed:,.3g} × real time)",
        markup=False,
        soft_wrap=True,
    )
    if record["num_repeated"]:
        screen.print(f"{record['num_repeated']:,} files were given once more, and left out", markup=False)
    if skipped:
        screen.print(f"{len(skipped):,} files could not be used:", markup=False)
        for file in skipped[:NUM_NAMED]:
            screen.print(f"  {file.path} {file.reason}", markup=False, soft_wrap=True)
        if len(skipped) > NUM_NAMED:
            screen.print(f"  and {len(skipped) - NUM_NAMED:,} more; --json lists them all", markup=False)
    screen.print(f"Written to {' and '.join(record['files'])}", markup=False, soft_wrap=True)
