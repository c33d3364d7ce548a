"""`greensv export`: a saved network as an ONNX model, checked against the network."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from greensv.cli.checkpoints import check_writable, load_network
from greensv.cli.console import console, echo_json
from greensv.cli.options import json_option
from greensv.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPSETS = click.IntRange(18, 25)
"""What torch's exporter writes and onnxruntime runs."""


@click.command(epilog="Example: greensv export runs/NAME/trial-0003 --onnx voice.onnx --input waveform")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--onnx", "out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option(
    "--input",
    "takes",
    type=click.Choice(["features", "waveform"]),
    default="features",
    show_default=True,
    help="What the model takes: filterbanks, or waveforms, of which it then computes them.",
)
@click.option("--opset", type=OPSETS, help="Version of ONNX's operators; torch chooses.")
@click.option(
    "--audio",
    "recordings",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A recording to compare on too. May be repeated.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, min_open=True),
    default=1e-3,
    show_default=True,
    help="Largest difference, as a share of the largest value, that is no error.",
)
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    *,
    checkpoint: Path,
    out: Path,
    takes: Literal["features", "waveform"],
    opset: int | None,
    recordings: tuple[Path, ...],
    tolerance: float,
    as_json: bool,
) -> None:
    """Write a saved network as an ONNX model, and show how far its embeddings are from the network's.

    CHECKPOINT is the folder of a saved network. The model takes batches of any size of utterances of one length, any
    length: `features` (batch, frames, features) or `waveform` (batch, samples), and returns `embedding`. Nothing is
    written where the two differ by more than --tolerance. Needs `pip install 'greensv[onnx]'`.
    """
    from greensv.speaker.audio.store import read_audio
    from greensv.speaker.checkpoint import write_whole
    from greensv.speaker.onnx_export import check_onnx_installed, compare, export_onnx

    check_onnx_installed()
    check_writable(out, what="the model")
    info, network = load_network(ctx, checkpoint)
    rate = info.features.sample_rate_hz
    waveforms: list[NDArray[np.float32]] = [read_audio(path, sample_rate_hz=rate) for path in recordings]
    model = export_onnx(network, info, takes=takes, opset=opset)
    parity = compare(model, network, info, takes=takes, recordings=waveforms)
    if not parity.relative_difference <= tolerance:
        raise CheckpointError(
            f"the ONNX model's embeddings differ from the network's by {parity.max_difference:.2g}, "
            f"{parity.relative_difference:.2g} of the largest value (cosine {parity.min_cosine:.6f}), more than "
            f"--tolerance {tolerance:g}; nothing was written"
        )
    write_whole(out, lambda file: file.write(model))
    record = {
        "checkpoint": str(checkpoint),
        "onnx": str(out),
        "input": takes,
        "num_bytes": len(model),
        **asdict(parity),
        "relative_difference": parity.relative_difference,
        "tolerance": tolerance,
    }
    if as_json:
        echo_json(record)
    else:
        _print(record)


def _print(record: dict[str, Any]) -> None:
    screen = console()
    screen.print(
        f"Parity   {record['num_utterances']} utterances in onnxruntime and torch: largest difference "
        f"{record['max_difference']:.2g} ({record['relative_difference']:.2g} of the largest value), smallest cosine "
        f"{record['min_cosine']:.8f}",
        markup=False,
        soft_wrap=True,
    )
    screen.print(
        f"Written  {record['onnx']} ({record['num_bytes'] / 1e6:.1f} MB, takes {record['input']})",
        markup=False,
        soft_wrap=True,
    )
