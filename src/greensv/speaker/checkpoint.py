"""Checkpoints: `model.safetensors` holds the weights, `model.json` what they are; and the state to resume a training.

`model.json` is written last and holds the weights' SHA-256, so that weights and description of two savings are never
taken for one.
"""

import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from greensv import __version__
from greensv.config import FeatureConfig
from greensv.config.load import validate
from greensv.errors import CheckpointError
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import Value

if TYPE_CHECKING:
    from greensv.speaker.training.loop import Training

FORMAT = "greensv-checkpoint"
FORMAT_VERSION = 1
TRAINING_FORMAT = "greensv-training-1"
WEIGHTS_FILE = "model.safetensors"
INFO_FILE = "model.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DevResult:
    """How the network does on development pairs, of speakers it was not trained on."""

    eer: float
    """As a fraction."""
    eer_threshold: float
    """The cosine at which both error rates are `eer`: what `greensv verify` decides with where nothing better is."""
    num_target: int
    num_nontarget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """What builds the network again, and where its weights come from."""

    backbone: str
    backbone_version: int
    params: Mapping[str, Value]
    features: FeatureConfig
    embedding_dim: int
    greensv_version: str = __version__
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Free: study, trial, data, energy, results. JSON values only."""
    dev: DevResult | None = None
    """None where it is not known, as where the development speakers were trained on."""


def save_checkpoint(folder: Path, network: nn.Module, info: CheckpointInfo) -> None:
    """Writes both files of a checkpoint, creating the folder; each file is there whole or not at all.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    weights = save_safetensors({name: _plain(tensor) for name, tensor in network.state_dict().items()})
    write_whole(folder / WEIGHTS_FILE, lambda file: file.write(weights))
    _write_info(folder, info, sha256=hashlib.sha256(weights).hexdigest())


def annotate_checkpoint(path: Path, *, dev: DevResult) -> None:
    """Adds to a saved checkpoint how its network does on development pairs; the weights stay as they are.

    Development pairs only: a threshold chosen on test pairs would make their error rates mean nothing.

    Args:
        path: the folder, or either of its two files.
        dev: what is added, in place of what may be there.

    Raises:
        CheckpointError: as for `read_checkpoint`, or the folder cannot be written.
    """
    info, _ = read_checkpoint(path)
    folder = checkpoint_folder(path)
    _write_info(folder, replace(info, dev=dev), sha256=_description(folder)["sha256"])


def checkpoint_folder(path: Path) -> Path:
    """Returns the folder of a checkpoint given as that folder or as one of its files."""
    return path if path.is_dir() else path.parent


def read_checkpoint(path: Path) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    """Returns what a checkpoint is and its weights, on the CPU.

    Args:
        path: the folder, or either of its two files.

    Raises:
        CheckpointError: it is not there, not one of ours, damaged, or of a newer format.
    """
    folder = checkpoint_folder(path)
    if not path.is_dir() and path.name not in (WEIGHTS_FILE, INFO_FILE):
        what = "is no greensv checkpoint" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {what}; give a folder with {WEIGHTS_FILE} and {INFO_FILE}")
    description = _description(folder)
    info, problems = validate(CheckpointInfo, {k: v for k, v in description.items() if k not in _HEAD_KEYS})
    if problems or info is None:
        lines = "; ".join(str(problem) for problem in problems)
        raise CheckpointError(f"{folder / INFO_FILE} is damaged ({lines}); save the network again")
    weights = _read(folder / WEIGHTS_FILE)
    if hashlib.sha256(weights).hexdigest() != description["sha256"]:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE} is damaged, or not the file that {INFO_FILE} describes: its SHA-256 differs; "
            "copy both files again from where they were saved"
        )
    try:
        return info, load_safetensors(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE} holds no safetensors ({error}); save the network again"
        ) from error


def restore(network: nn.Module, state: Mapping[str, Tensor], info: CheckpointInfo) -> None:
    """Loads the weights of a checkpoint into its network.

    Raises:
        CheckpointError: the weights do not fit.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint's weights do not fit backbone {info.backbone!r} with its own parameters, though saved for "
            f"version {info.backbone_version} of it; {_first_lines(str(error))}"
        ) from error


def build_network(backbone: Backbone, info: CheckpointInfo, state: Mapping[str, Tensor]) -> nn.Module:
    """Returns the network of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: the installed backbone is of another version, or the weights do not fit.
        ConfigError: the backbone no longer knows the parameters.
    """
    if backbone.version != info.backbone_version:
        raise CheckpointError(
            f"the checkpoint was saved with version {info.backbone_version} of backbone {info.backbone!r} "
            f"(greensv {info.greensv_version}), installed is version {backbone.version}; "
            "install the version it was saved with, or train again"
        )
    network = backbone.build(info.params, features=info.features)
    restore(network, state, info)
    return network.eval()


def save_training_state(path: Path, training: "Training", extra: Mapping[str, Any]) -> None:
    """Writes what resumes a training; the file is there whole or as it was before.

    Args:
        path: the file.
        training: between two steps.
        extra: anything of the caller's own made of numbers, strings, lists, dicts and tensors.

    Raises:
        TrainingError: the training is not worth resuming; see `Training.state_dict`.
        CheckpointError: the file cannot be written.
    """
    state = {"format": TRAINING_FORMAT, "training": training.state_dict(), "extra": dict(extra)}
    write_whole(path, lambda file: torch.save(state, file))


def load_training_state(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the state for `Training.load_state_dict`, on the CPU, and the caller's own `extra`.

    Raises:
        CheckpointError: the file is not there, not one of ours, or damaged.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise CheckpointError(f"no training state {path}; start the training anew") from None
    except OSError as error:
        raise CheckpointError(f"training state {path} cannot be read: {error.strerror or error}") from error
    try:
        with file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"training state {path} is damaged ({reason}); delete it and start anew") from error
    if not isinstance(state, dict) or state.get("format") != TRAINING_FORMAT:
        raise CheckpointError(f"{path} is no training state of this version of greensv; delete it and start anew")
    return state["training"], state["extra"]


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file so that it is there whole or as it was before, creating its folder.

    Raises:
        CheckpointError: it cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer makes a full disk a RuntimeError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CheckpointError(f"{path} cannot be written: {reason}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


_UNREADABLE = (OSError, RuntimeError, EOFError, KeyError, ValueError, AttributeError, pickle.UnpicklingError)
"""What torch.load raises for files that are cut off or are no torch files."""

_HEAD_KEYS = ("format", "format_version", "sha256")


def _plain(tensor: Tensor) -> Tensor:
    """A copy that safetensors can write: on the CPU, contiguous, sharing memory with no other."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _write_info(folder: Path, info: CheckpointInfo, *, sha256: str) -> None:
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "sha256": sha256}
    text = json.dumps({**head, **asdict(info)}, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_whole(folder / INFO_FILE, lambda file: file.write(text.encode()))


def _description(folder: Path) -> dict[str, Any]:
    path = folder / INFO_FILE
    try:
        description = json.loads(_read(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: no JSON ({error}); save the network again") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(f'{path} is not one of greensv\'s: it does not say "format": "{FORMAT}"')
    if description.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} is of checkpoint format {description.get('format_version')}, greensv {__version__} reads "
            f"{FORMAT_VERSION}; use the greensv it was saved with ({description.get('greensv_version', 'unknown')})"
        )
    if not isinstance(description.get("sha256"), str):
        raise CheckpointError(f"{path} is damaged: no SHA-256 of the weights; save the network again")
    return description


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise CheckpointError(f"no checkpoint folder {path.parent}; give the folder of a saved network") from None
        raise CheckpointError(
            f"{path.parent} is no greensv checkpoint: it has no {path.name}; give a folder with {WEIGHTS_FILE} and "
            f"{INFO_FILE}"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def _first_lines(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " ".join(lines[1:4]) + (f" (and {len(lines) - 4} more)" if len(lines) > 4 else "")
