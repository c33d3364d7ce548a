"""DET curves as files: a figure on normal-deviate axes, or the points as CSV or JSON."""

import csv
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from greensv.errors import ConfigError

if TYPE_CHECKING:
    from greensv.speaker.scoring.det import DetCurve

FIGURES = (".png", ".svg", ".pdf")
SUFFIXES = (*FIGURES, ".csv", ".json")
_TICKS = (0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9)


def check_det_path(path: Path) -> None:
    """Refuses a file that `write_det` could not write, before the work.

    Raises:
        ConfigError: its ending is unknown or its folder missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"a DET curve is written as {', '.join(SUFFIXES)}; found {path.name!r}")
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"the folder {path.parent} is missing"
        raise ConfigError(f"the DET curve cannot be written to {path}: {reason}")


def write_det(path: Path, curve: "DetCurve", *, eer: float, title: str) -> None:
    """Writes a DET curve in the form that the file's ending asks for.

    Raises:
        ConfigError: the file cannot be written.
    """
    match path.suffix.lower():
        case ".csv":
            content = _csv(curve)
        case ".json":
            content = _json(curve, eer=eer)
        case suffix:
            content = _figure(curve, eer=eer, title=title, form=suffix[1:])
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"the DET curve cannot be written to {path}: {error.strerror}") from error


def _csv(curve: "DetCurve") -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["threshold", "miss", "false_accept"])
    writer.writerows(zip(curve.thresholds.tolist(), curve.miss.tolist(), curve.false_accept.tolist(), strict=True))
    return text.getvalue().encode()


def _json(curve: "DetCurve", *, eer: float) -> bytes:
    # JSON has no infinity: the threshold that rejects all is null.
    thresholds = [None if math.isinf(value) else value for value in curve.thresholds.tolist()]
    record = {
        "eer": eer,
        "thresholds": thresholds,
        "miss": curve.miss.tolist(),
        "false_accept": curve.false_accept.tolist(),
    }
    return (json.dumps(record, allow_nan=False) + "\n").encode()


def _figure(curve: "DetCurve", *, eer: float, title: str, form: str) -> bytes:
    import numpy as np
    from matplotlib.figure import Figure

    from greensv.speaker.scoring.det import normal_deviates

    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    inner = (curve.miss > 0) & (curve.miss < 1) & (curve.false_accept > 0) & (curve.false_accept < 1)
    axes.plot(normal_deviates(curve.false_accept[inner]), normal_deviates(curve.miss[inner]), color="tab:blue")
    if 0 < eer < 1:
        at = normal_deviates(np.array([eer]))
        axes.plot(at, at, "o", color="tab:orange", label=f"EER {eer:.2%}")
        axes.legend()
    # What is of interest lies around the EER; beyond one in ten thousand hardly any list has pairs enough.
    rates = np.concatenate([curve.miss[inner], curve.false_accept[inner], [0.005]])
    low, high = normal_deviates(np.array([max(rates.min(), 1e-4) / 1.5, min(max(0.5, 1.3 * eer), 0.95)]))
    ticks = normal_deviates(np.array(_TICKS))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{100 * rate:g}" for rate in _TICKS])
    axes.set(xlim=(low, high), ylim=(low, high), title=title, xlabel="false accept, %", ylabel="miss, %")
    axes.set_aspect("equal")
    axes.grid(visible=True, linewidth=0.4)
    content = io.BytesIO()
    figure.savefig(content, format=form, dpi=150)
    return content.getvalue()
